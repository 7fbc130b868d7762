"""Tables over RGB by both of their implementations, against their definition."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from photostyle.ops import lattice as module
from photostyle.ops.lattice import (
    ENTRIES,
    RIDGE,
    SIZE,
    SMOOTHNESS,
    Corners,
    Hats,
    corners,
    lattice,
    roughness,
)

both = pytest.mark.parametrize("implementation", [Corners, Hats])


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def colours(dtype=torch.float64):
    """Of three photos: of all colours with some at the ends, of few, and of one."""
    photos = random(3, 3, 60, dtype=dtype)
    photos[0, :, :3] = torch.tensor([[0, 1, 0.125]] * 3)
    photos[1] = 0.3 + 0.1 * photos[1]
    photos[2] = 0.77
    return photos


def weights_by_hand(photo):
    """W, dense, by SciPy's interpolation of tables that are 1 at one entry."""
    axes = (np.linspace(0, 1, SIZE),) * 3
    table = np.eye(ENTRIES).reshape(SIZE, SIZE, SIZE, ENTRIES)
    return torch.from_numpy(RegularGridInterpolator(axes, table)(photo.mT.double().numpy()))


@both
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_interpolation_and_its_sums(implementation, dtype, atol):
    photos, values = colours(dtype), random(3, 2, 60, seed=1, dtype=dtype)
    tables = random(3, 4, ENTRIES, seed=2, dtype=dtype)
    of = implementation(photos)
    found, sums = of.interpolate(tables), of.sums(values)
    assert found.dtype == dtype
    assert sums.dtype == torch.float64
    for i in range(3):
        weights = weights_by_hand(photos[i])
        expected = tables[i].double() @ weights.mT
        torch.testing.assert_close(found[i].double(), expected, rtol=0, atol=atol)
        torch.testing.assert_close(sums[i], values[i].double() @ weights, rtol=0, atol=30 * atol)


@both
def test_factor(implementation):
    """L Lᵀ is the matrix of the definition, and L has nothing above its diagonal."""
    photos, counted = colours(), random(60, seed=3)
    counted[:5] = 0
    factor, total = implementation(photos).factor(counted), counted.sum()
    assert (factor.triu(1) == 0).all()
    rough = torch.from_numpy(roughness().toarray())
    for i in range(3):
        weights = weights_by_hand(photos[i])
        expected = weights.mT @ (counted[:, None] * weights)
        expected += total * (SMOOTHNESS / ENTRIES * rough + RIDGE * torch.eye(ENTRIES))
        torch.testing.assert_close(factor[i] @ factor[i].mT, expected, rtol=0, atol=1e-12)


def test_second_differences():
    table = random(SIZE, SIZE, SIZE)
    energy = sum(table.diff(n=2, dim=axis).square().sum() for axis in range(3))
    values = table.flatten().numpy()
    assert values @ (roughness() @ values) == pytest.approx(float(energy))


def test_some_pixels_at_a_time(monkeypatch):
    """Of large photos a GPU has not the memory for all of them at once."""
    photos, values, counted = colours(), random(3, 2, 60, seed=1), random(60, seed=3)
    whole = Hats(photos)
    sums, factor = whole.sums(values), whole.factor(counted)
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 3 * 13)
    torch.testing.assert_close(whole.sums(values), sums)
    torch.testing.assert_close(whole.factor(counted), factor)


@both
def test_mixed_precision_around_it_changes_nothing(implementation):
    photos, values = colours(torch.float32), random(3, 2, 60, seed=1, dtype=torch.float32)
    tables, of = random(3, 4, ENTRIES, dtype=torch.float32), implementation(photos)
    with torch.autocast("cpu", torch.bfloat16):
        found = of.interpolate(tables), of.sums(values), of.factor(torch.ones(60))
    expected = of.interpolate(tables), of.sums(values), of.factor(torch.ones(60))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.gpu
def test_on_a_gpu():
    """The other implementation, of the same values, and always to the same bit."""
    photos = random(3, 3, 50, 70, dtype=torch.float32)
    values, tables = random(3, 2, 3500, seed=1), random(3, 4, ENTRIES, seed=2)
    counted = random(3500, seed=3)
    of = lattice(photos.cuda())
    assert isinstance(lattice(photos), Corners)
    assert isinstance(of, Hats)

    def results(of, device):
        return (
            of.interpolate(tables.to(device)).cpu(),
            of.sums(values.to(device)).cpu(),
            of.factor(counted.to(device)).cpu(),
        )

    found = results(of, "cuda")
    torch.testing.assert_close(found, results(lattice(photos), "cpu"), rtol=0, atol=1e-9)
    torch.testing.assert_close(results(of, "cuda"), found, rtol=0, atol=0)


# --------------------------------------------------------------------------- corners of a cell


def test_shares_of_the_corners_of_a_cell():
    """Against SciPy's interpolation; colours beyond the table count as at its end."""
    points = np.random.default_rng(0).uniform(-0.2, 1.2, (200, 3))
    axis = np.linspace(0, 1, 5)
    table = np.random.default_rng(1).random((5, 5, 5))
    expected = RegularGridInterpolator((axis, axis, axis), table)(points.clip(0, 1))
    columns, shares = corners(points, 5)
    np.testing.assert_allclose((shares * table.ravel()[columns]).sum(1), expected, atol=1e-12)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-12)


def test_colours_that_are_no_numbers_stay_within_the_table():
    columns, shares = corners(np.array([[np.nan, 0.5, np.inf]]))
    assert ((columns >= 0) & (columns < ENTRIES)).all()
    assert np.isnan(shares).any()


@both
def test_colours_beyond_the_table_count_as_at_its_end(implementation):
    points = torch.tensor([[[-0.3, 1.7], [0.4, 0.6], [2.0, -1.0]]], dtype=torch.float64)
    tables, values = random(1, 2, ENTRIES), random(1, 2, 2, seed=1)
    inside, beyond = implementation(points.clamp(0, 1)), implementation(points)
    torch.testing.assert_close(beyond.interpolate(tables), inside.interpolate(tables))
    torch.testing.assert_close(beyond.sums(values), inside.sums(values))
