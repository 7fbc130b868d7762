"""Functions of symmetric matrices: roots, and limits of their eigenvalues.

On the CPU by eigenvalues. Those of a batch cuSOLVER finds one after the other, so on a GPU by
Newton-Schulz iterations, which are products of matrices alone: Higham (2008), "Functions of
Matrices", chapters 5 and 6, with the scale of Chen and Chow (2014), "A stable scaling of
Newton-Schulz for improving the sign function computation of a Hermitian matrix".
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

SMALL = 32
"""Up to this size cuSOLVER does take all matrices of a batch at once."""
WELL_CONDITIONED = 1e-10
"""The least over the greatest eigenvalue for which roots by products are good to six digits."""
NEAR_ZERO = 1e-8
"""Eigenvalues that the sign function by products need not tell from 0, the norm being 1."""


def root(matrix: Tensor, least: float) -> Tensor:
    """A^(1/2) of positive definite matrices.

    Args:
        matrix: A, (..., C, C), symmetric but for rounding.
        least: what the least eigenvalue is at least, the trace being 1.
    """
    return _roots(matrix, least)[0] if _by_products(matrix, least) else power(matrix, 0.5)


def inverse_root(matrix: Tensor, least: float) -> Tensor:
    """A^(-1/2), as `root`."""
    return _roots(matrix, least)[1] if _by_products(matrix, least) else power(matrix, -0.5)


def power(matrix: Tensor, exponent: float) -> Tensor:
    """A^x of positive definite matrices (..., C, C); rounding below zero is cut."""
    values, vectors = eigh(matrix)
    values = values.clamp(min=torch.finfo(values.dtype).tiny) ** exponent
    return _with_eigenvalues(values, vectors)


def limit_eigenvalues(matrix: Tensor, least: float, greatest: float) -> Tensor:
    """Symmetric matrices (..., C, C) with all eigenvalues in a range, which may be infinite."""
    if not _by_products(matrix):
        values, vectors = eigh(matrix)
        return _with_eigenvalues(values.clamp(least, greatest), vectors)
    identity = identity_like(matrix)
    if greatest < math.inf:
        matrix = greatest * identity - positive_part(greatest * identity - matrix)
    if least > -math.inf:
        matrix = least * identity + positive_part(matrix - least * identity)
    return matrix


def positive_part(matrix: Tensor) -> Tensor:
    """Symmetric matrices (..., C, C) with 0 in the place of negative eigenvalues."""
    if _by_products(matrix):
        return (matrix + matrix @ _sign(matrix)) / 2
    values, vectors = eigh(matrix)
    return _with_eigenvalues(values.clamp(min=0), vectors)


def identity_like(matrix: Tensor) -> Tensor:
    """Id, (C, C), for matrices (..., C, C), in their dtype and on their device."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., C) and eigenvectors (..., C, C) of symmetric matrices but for rounding.

    The eigenvalues of one that is not finite are NaN, where LAPACK may raise.
    """
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    matrix = torch.nan_to_num((matrix + matrix.mT) / 2, 0.0, 0.0, 0.0)
    values, vectors = torch.linalg.eigh(matrix)
    return values.where(finite, torch.nan), vectors


def _with_eigenvalues(values: Tensor, vectors: Tensor) -> Tensor:
    return vectors @ (values[..., None] * vectors.mT)


def _by_products(matrix: Tensor, least: float = 1.0) -> bool:
    return matrix.is_cuda and matrix.shape[-1] > SMALL and least >= WELL_CONDITIONED


def _roots(matrix: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """A^(1/2) and A^(-1/2): Y -> Y W, Z -> W Z with W = α (3 Id − α² Z Y) / 2, from A and Id."""
    identity = identity_like(matrix)
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    y, z = matrix / trace, identity
    for scale in _scales(math.sqrt(least)):
        w = scale / 2 * (3 * identity - scale**2 * (z @ y))
        y, z = y @ w, w @ z
    return trace.sqrt() * y, z / trace.sqrt()


def _sign(matrix: Tensor) -> Tensor:
    """1 in the place of positive and −1 of negative eigenvalues: X -> α X (3 Id − α² X²) / 2."""
    x = matrix / torch.linalg.matrix_norm(matrix)[..., None, None].clamp(min=1e-300)
    for scale in _scales(NEAR_ZERO):
        x = scale / 2 * (3 * x - scale**2 * (x @ x @ x))
    return x


def _scales(least: float) -> Iterator[float]:
    """α of each step, for numbers in [least, 1]: the step takes both ends to the new least."""
    while least < 1 - 1e-8:
        scale = math.sqrt(3 / (1 + least + least**2))
        yield scale
        least = scale / 2 * least * (3 - scale**2 * least**2)
    yield 1.0
