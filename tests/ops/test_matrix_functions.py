"""Functions of symmetric matrices, by eigenvalues and by products, against SciPy."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from photostyle.ops import matrix_functions
from photostyle.ops.matrix_functions import (
    eigh,
    inverse_root,
    limit_eigenvalues,
    positive_part,
    root,
)
from photostyle.ops.transport import Moments, map_to_root, moments, principal_axes
from photostyle.ops.transport import root as root_of_covariance


@pytest.fixture(params=["eigenvalues", "products"])
def way(request, monkeypatch):
    """As on the CPU, and as on a GPU."""
    by_products = request.param == "products"
    monkeypatch.setattr(matrix_functions, "_by_products", lambda *_: by_products)
    return request.param


def with_eigenvalues(*values):
    """Of random directions, one matrix for each list of values."""
    generator = np.random.default_rng(0)
    matrices = []
    for diagonal in values:
        q = np.linalg.qr(generator.standard_normal((len(diagonal),) * 2))[0]
        matrices.append(q @ np.diag(diagonal) @ q.T)
    return torch.from_numpy(np.stack(matrices))


def spread(least, count=40):
    """From 1 to a least eigenvalue, evenly in their logarithms."""
    return np.logspace(0, math.log10(least), count)


@pytest.mark.parametrize(("least", "error"), [(0.5, 1e-13), (1e-5, 1e-10), (1e-10, 1e-6)])
def test_roots(way, least, error):
    """The condition is the inverse of the least eigenvalue; the trace is not 1."""
    matrices = with_eigenvalues(spread(least), 700 * spread(least))
    bound = least / spread(least).sum()
    for i, matrix in enumerate(matrices):
        expected = torch.from_numpy(scipy.linalg.sqrtm(matrix.numpy()).real)
        inverse = torch.linalg.inv(expected)
        found = root(matrices, bound)[i], inverse_root(matrices, bound)[i]
        assert torch.dist(found[0], expected) <= error * expected.norm()
        assert torch.dist(found[1], inverse) <= error * inverse.norm()


def test_a_multiple_of_the_identity(way):
    matrix = 9e-20 * torch.eye(40, dtype=torch.float64)
    torch.testing.assert_close(root(matrix, 1 / 40), 3e-10 * torch.eye(40).double())
    torch.testing.assert_close(inverse_root(matrix, 1e-6), torch.eye(40).double() / 3e-10)


@pytest.mark.parametrize(
    ("least", "greatest"), [(0.9, 2.5), (-math.inf, 2.5), (0.5, math.inf), (-math.inf, math.inf)]
)
def test_limits_of_eigenvalues(way, least, greatest):
    values = np.array([-3, -1e-9, 0, 1e-12, 0.5, 0.9, 0.9 + 1e-12, 1, 2.4, 2.5, 2.6, 40])
    matrix = with_eigenvalues(values, values[::-1])
    expected = with_eigenvalues(values.clip(least, greatest), values[::-1].clip(least, greatest))
    torch.testing.assert_close(
        limit_eigenvalues(matrix, least, greatest), expected, rtol=0, atol=1e-6
    )


def test_positive_part(way):
    values = np.concatenate([-spread(1e-12), spread(1e-12), [0, 0]])
    expected = with_eigenvalues(values.clip(0))
    torch.testing.assert_close(positive_part(with_eigenvalues(values)), expected, rtol=0, atol=1e-7)
    assert (positive_part(torch.zeros(2, 5, 5).double()) == 0).all()


def test_what_is_not_finite_stays_so(way):
    """For itself: the others of the batch are as without it."""
    good = with_eigenvalues(spread(0.1))
    matrices = torch.cat([good, torch.full_like(good, torch.nan), good])
    matrices[2, 3, 4] = torch.inf
    for function in (lambda a: root(a, 1e-3), lambda a: inverse_root(a, 1e-3), positive_part):
        found = function(matrices)
        torch.testing.assert_close(found[:1], function(good))
        assert found[1:].isnan().all(-1).all(-1).all()


def test_eigenvalues_and_vectors():
    matrix = with_eigenvalues(spread(1e-3), -spread(1e-6))
    values, vectors = eigh(matrix)
    torch.testing.assert_close(matrix @ vectors, vectors * values[:, None])


def features(pixels, channels, seed):
    """Of photos: a few directions have most of the variance."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    scale = torch.logspace(1, -3, channels, dtype=torch.float64)
    x = torch.randn(2, pixels, channels, generator=generator, dtype=torch.float64)
    return (x * scale) @ basis


@pytest.mark.parametrize("pixels", [400, 20], ids=["enough", "singular"])
@pytest.mark.parametrize("lifted", [False, True])
def test_transport_is_the_same_both_ways(monkeypatch, pixels, lifted):
    source, target = (moments(features(pixels, 64, seed)) for seed in (0, 1))
    axes = principal_axes(source, 0.2) if lifted else None
    maps = []
    for by_products in (False, True):
        monkeypatch.setattr(matrix_functions, "_by_products", lambda *_, way=by_products: way)
        known = root_of_covariance(target, 1e-2)
        maps.append(map_to_root(source, target.mean, known, (0.85, 2.5), 1e-2, axes))
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-7, atol=1e-7)


def test_features_without_variance(way):
    """As of a plain photo: neither a division by zero nor a change of what is equal."""
    plain = Moments(torch.zeros(1, 1, 64).double(), torch.zeros(1, 1, 64, 64).double())
    known = root_of_covariance(plain, 1e-2)
    maps = map_to_root(plain, plain.mean, known, (0.85, 2.5), 1e-2)
    torch.testing.assert_close(maps.matrix[0, 0], torch.eye(64).double())


def test_all_is_on_the_device_of_the_moments(way):
    """Without values: whatever met a tensor of another device would raise."""
    source = Moments(*(part.to("meta") for part in moments(features(40, 64, 0))))
    axes = torch.empty(64, 13, dtype=torch.float64, device="meta")
    known = root_of_covariance(source, 1e-2)
    for gains, limited in (((0.85, 2.5), axes), ((0.0, 2.0), None)):
        maps = map_to_root(source, source.mean, known, gains, 1e-2, limited)
        assert {part.device.type for part in maps} == {"meta"}


@pytest.mark.gpu
@pytest.mark.parametrize("size", [3, 32, 33, 256])
def test_on_a_gpu(size):
    """As on the CPU, and always to the same bit; with a bound that forbids products, too."""
    matrices = with_eigenvalues(spread(1e-4, size), spread(1e-6, size))

    def results(device):
        a = matrices.to(device)
        functions = root(a, 1e-8), root(a, 1e-12), inverse_root(a, 1e-8), positive_part(a - 0.1)
        return [result.cpu() for result in (*functions, limit_eigenvalues(a, 0.01, 0.5))]

    found = results("cuda")
    torch.testing.assert_close(found, results("cpu"), rtol=0, atol=1e-6)
    torch.testing.assert_close(results("cuda"), found, rtol=0, atol=0)
