"""The linear Monge-Kantorovich map between two Gaussians, for colours and for features.

Of all maps that turn the mean and the covariance of one set of vectors into those of another, it
moves them least: Pitié and Kokaram (2007) for colours, Lu et al. (2019) and Mroueh (2019) for the
features of a network.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from photostyle.ops import matrix_functions
from photostyle.ops.errors import ArgumentError, check_number
from photostyle.ops.matrix_functions import (
    eigh,
    identity_like,
    inverse_root,
    limit_eigenvalues,
    positive_part,
)

EXACT = (0.0, float("inf"))
"""Gains without limits: the map itself."""
GREY_AXIS = torch.full((3, 1), 3**-0.5, dtype=torch.float64)
"""Of RGB, from black to white: (3, 1)."""


class Moments(NamedTuple):
    """Means (..., C) and covariances (..., C, C) of vectors, float64."""

    mean: Tensor
    covariance: Tensor


class AffineMaps(NamedTuple):
    """F -> T F + b: matrices (..., C, C) and offsets (..., C), float64."""

    matrix: Tensor
    offset: Tensor


def check_gains(argument: str, gains) -> tuple[float, float]:
    """``gains`` as two numbers, the least and the greatest; each may be infinite.

    Raises:
        ArgumentError: they are not two numbers, or 1 is not between them.
    """
    expected = "give two numbers, [least, greatest], with 1 between them"
    if not isinstance(gains, list | tuple) or len(gains) != 2:
        raise ArgumentError(argument, gains, expected)
    for gain in gains:
        if gain != float("inf"):
            check_number(argument, gain, 0)
    if not gains[0] <= 1 <= gains[1]:
        raise ArgumentError(argument, list(gains), expected)
    return tuple(gains)


def moments(vectors: Tensor, weights: Tensor | None = None) -> Moments:
    """Mean and covariance of vectors under each of some weights.

    Args:
        vectors: (B, N, C), of any floating dtype.
        weights: (M, N), at least 0, none of them all 0; ``None``: one, the same for all.

    Returns:
        (B, M, C) and (B, M, C, C), float64. The mean is subtracted first.
    """
    # What has been rounded to half precision loses nothing in sums of single precision.
    dtype = torch.float32 if vectors.dtype.itemsize < 4 else torch.float64
    if weights is None:
        vectors = vectors.to(dtype)
        mean = vectors.mean(1, keepdim=True)
        covariance = (vectors - mean).mT @ (vectors - mean) / vectors.shape[1]
        return Moments(mean.double(), covariance[:, None].double())
    means, covariances = [], []
    for weight in weights.to(dtype):
        part, weight = _supported(vectors, weight)
        part, share = part.to(dtype), weight / weight.sum()
        mean = share @ part
        scaled = (part - mean[:, None]).mul_(share.sqrt()[:, None])
        means.append(mean.double())
        covariances.append((scaled.mT @ scaled).double())
    return Moments(torch.stack(means, 1), torch.stack(covariances, 1))


def monge_kantorovich(
    source: Moments,
    target: Moments,
    *,
    gains: tuple[float, float] = EXACT,
    shrinkage: float = 0.0,
    axes: Tensor | None = None,
) -> AffineMaps:
    """T = Σt^(1/2) (Σt^(1/2) Σs Σt^(1/2))^(-1/2) Σt^(1/2), and b = μt − T μs.

    Args:
        source, target: moments of the same C; the rest is broadcast.
        gains: the range of T's eigenvalues. They are gains of contrast: what has much of it turns
            to haze where the target has none, and noise to patterns where it has more.
        shrinkage: see `shrunk`.
        axes: U, (..., C, K), orthonormal columns: the least gain limits the eigenvalues of UᵀTU
            alone. For colours, black to white: a grey style takes all saturation.
    """
    return map_to_root(source, target.mean, root(target, shrinkage), gains, shrinkage, axes)


def principal_axes(source: Moments, share: float) -> Tensor:
    """The directions of most variance, a share of all C, at least one: (..., C, K), float64."""
    count = max(1, round(share * source.covariance.shape[-1]))
    return eigh(source.covariance)[1][..., -count:]


def shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    """Covariances (..., C, C) with ε tr Σ / C added to their diagonal, ε being the shrinkage.

    Those of C channels from fewer than C pixels are singular.
    """
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # A set of equal vectors has no variance at all.
    floor = shrinkage * variance + torch.finfo(variance.dtype).eps
    return covariance + floor * identity_like(covariance)


def root(target: Moments, shrinkage: float) -> Tensor:
    """Σ^(1/2), (..., C, C), float64, of covariances (..., C, C) once they are `shrunk`."""
    covariance = shrunk(target.covariance, shrinkage)
    return matrix_functions.root(covariance, _least(covariance, shrinkage))


def map_to_root(
    source: Moments,
    mean: Tensor,
    root: Tensor,
    gains: tuple[float, float],
    shrinkage: float,
    axes: Tensor | None = None,
) -> AffineMaps:
    """As `monge_kantorovich`, with a target of which μt and Σt^(1/2) are known."""
    inner = root @ shrunk(source.covariance, shrinkage) @ root
    # The trace of a product of two is at most the product of their traces.
    matrix = root @ inverse_root(inner, _least(inner, shrinkage) ** 2) @ root
    if gains != EXACT:
        least, greatest = gains
        if axes is not None:
            matrix, least = _lift(matrix, axes.to(matrix), least), 0.0
        # None is below 0.
        matrix = limit_eigenvalues(matrix, least or -math.inf, greatest)
    return AffineMaps(matrix, mean - (matrix @ source.mean[..., None])[..., 0])


def shares(weights: Tensor) -> Tensor:
    """Weights (M, ...) as shares of their sum over M; equal ones where it is 0."""
    weights = weights.clamp(min=0)
    total = weights.sum(0)
    return torch.where(total > 1e-4, weights / total.clamp(min=1e-4), 1 / len(weights))


def blend(vectors: Tensor, weights: Tensor, maps: AffineMaps) -> Tensor:
    """Σ_m w_m (T_m F + b_m).

    Args:
        vectors: (B, N, C).
        weights: (M, N), sum 1 over M.
        maps: (B, M, C, C) and (B, M, C).

    Returns:
        (B, N, C), in the vectors' dtype; of half precision in float32.
    """
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    matrices, offsets = (part.to(dtype).unbind(1) for part in maps)
    if len(weights) == 1:
        return torch.baddbmm(offsets[0][:, None], vectors.to(dtype), matrices[0].mT)
    result = vectors.new_zeros(vectors.shape, dtype=dtype)
    for weight, matrix, offset in zip(weights.to(dtype), matrices, offsets, strict=True):
        part, share = _supported(vectors, weight)
        moved = torch.baddbmm(offset[:, None], part.to(dtype), matrix.mT).mul_(share[:, None])
        if len(share) == len(weight):
            result += moved
        else:
            result[:, weight.nonzero()[:, 0]] += moved
    return result


def _supported(vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (B, N, C) and weights (N,) without those of weight 0."""
    support = weights.nonzero()[:, 0]
    if len(support) == len(weights):
        return vectors, weights
    return vectors[:, support], weights[support]


def _lift(matrix: Tensor, axes: Tensor, least: float) -> Tensor:
    """T + U V max(least − λ, 0) Vᵀ Uᵀ, where UᵀTU = V λ Vᵀ."""
    gains = axes.mT @ matrix @ axes
    lacking = positive_part(least * identity_like(gains) - gains)
    return matrix + axes @ lacking @ axes.mT


def _least(covariance: Tensor, shrinkage: float) -> float:
    """Of a shrunk covariance's eigenvalues, their sum being 1."""
    return shrinkage / (1 + shrinkage) / covariance.shape[-1]
