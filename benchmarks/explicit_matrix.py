"""The matting Laplacian as a matrix, from its definition: what cuSPARSE is given."""

from itertools import product

import torch
from torch import Tensor

from photostyle.ops.matting.reference import shifted_views, window_moments

STRIP_PIXELS = 2**21
"""The matrix is made for so many pixels at once."""


def laplacian_csr(
    guide: Tensor, epsilon: float, strip_pixels: int = STRIP_PIXELS
) -> tuple[Tensor, Tensor, Tensor]:
    """L at r = 1, Levin et al. (2006): row pointers, columns (int32) and values (float32) of CSR.

    A window adds δ_ij − (1 + (I_i − μ)ᵀ (Σ + ε/9 Id)⁻¹ (I_j − μ)) / 9 for each two of its nine
    pixels. Sums are in float64.

    Args:
        guide: (1, C, H, W), values in [0, 1], at least 3 pixels a side.
        epsilon: see `ops.MattingLaplacian`.
        strip_pixels: see `STRIP_PIXELS`.
    """
    height, width = guide.shape[2:]
    rows = max(1, strip_pixels // width)
    strips = [
        _strip(guide, epsilon, first, min(first + rows, height)) for first in range(0, height, rows)
    ]
    counts, columns, values = (torch.cat(parts) for parts in zip(*strips, strict=True))
    pointers = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
    return pointers, columns, values


def _strip(guide: Tensor, epsilon: float, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Entries per row, columns and values of the pixels in rows ``first`` to ``last`` - 1."""
    height, width = guide.shape[2:]
    top, bottom = max(0, first - 2), min(height, last + 2)
    entries = _entries(guide[..., top:bottom, :].double(), epsilon)[first - top : last - top]
    offsets = torch.arange(-2, 3, device=guide.device)
    y = torch.arange(first, last, device=guide.device)[:, None, None, None] + offsets[:, None]
    x = torch.arange(width, device=guide.device)[:, None, None] + offsets
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    columns = (y * width + x)[inside].int()
    return inside.sum((2, 3)).flatten(), columns, entries[inside].float()


def _entries(guide: Tensor, epsilon: float) -> Tensor:
    """For each pixel its entries for those up to two rows and columns away, (H, W, 5, 5)."""
    mean, inverse = window_moments(guide, 1, epsilon)
    centred = [view - mean for view in shifted_views(guide, 1)]
    weighted = [torch.einsum("bcdhw,bdhw->bchw", inverse, view) for view in centred]
    height, width = mean.shape[2:]
    entries = guide.new_zeros(5, 5, *guide.shape[2:])
    for i, j in product(range(9), repeat=2):
        (yi, xi), (yj, xj) = divmod(i, 3), divmod(j, 3)
        added = float(i == j) - (1 + (weighted[i] * centred[j]).sum(1)[0]) / 9
        entries[yj - yi + 2, xj - xi + 2, yi : yi + height, xi : xi + width] += added
    return entries.permute(2, 3, 0, 1)
