"""A result found at working size, applied to the photo at its own size."""

import numpy as np
import torch
from torch import Tensor

TILE_PIXELS = 1 << 18
"""Pixels worked on at once: four coefficient maps of one tile stay in the processor's cache."""


def apply_coefficients(
    coefficients: Tensor, pixels: np.ndarray, *, tile_rows: int | None = None
) -> np.ndarray:
    """Apply the affine colour map ``y = A·I + b`` of every pixel to a photo of any size.

    The coefficients are upsampled bilinearly to the photo's size (half-pixel centres, clamped at
    the edges: ``align_corners=False``), a few rows at a time, so that memory beyond input and
    output does not grow with the photo.

    Args:
        coefficients: (1, 3, 4, h, w), float32 or float64. Per output channel the three slopes over
            the guide's RGB in [0, 1], then the offset.
        pixels: (H, W, 3) uint8, the guide at its own size.
        tile_rows: rows worked on at once; by default as many as make about 256 K pixels.

    Returns:
        (H, W, 3) uint8: y clamped to [0, 1], times 255, rounded to nearest.

    Raises:
        ValueError: a shape or dtype is not as above, or ``tile_rows`` is less than 1.
    """
    _check(coefficients, pixels, tile_rows)
    height, width = pixels.shape[:2]
    if tile_rows is None:
        tile_rows = max(1, TILE_PIXELS // width)

    grid = coefficients.detach()[0].cpu()
    # On pixels in [0, 255] the slopes stay as they are and only the offset is scaled.
    grid = torch.cat([grid[:, :3], grid[:, 3:] * 255], dim=1)
    columns = _Interpolation(grid.shape[3], width, grid.dtype)
    rows = _Interpolation(grid.shape[2], height, grid.dtype)

    result = np.empty_like(pixels, order="C")
    for top in range(0, height, tile_rows):
        bottom = min(top + tile_rows, height)
        first, weights = rows.matrix(top, bottom)
        source = grid[:, :, first : first + weights.shape[1]]
        wide = columns.along_last(source)
        # A copy of one tile: torch takes no read-only array.
        guide = torch.from_numpy(pixels[top:bottom].transpose(2, 0, 1).astype(grid.numpy().dtype))
        tile = torch.from_numpy(result[top:bottom])
        for channel in range(3):
            maps = weights @ wide[channel]
            value = maps[3]
            for slope, plane in zip(maps[:3], guide, strict=True):
                value.addcmul_(slope, plane)
            tile[..., channel] = value.clamp_(0, 255).round_()
    return result


class _Interpolation:
    """Bilinear interpolation along one axis, from ``source`` to ``target`` samples."""

    def __init__(self, source: int, target: int, dtype: torch.dtype):
        # In float64: a float32 position is off by 1e-4 of a sample on a wide photo.
        centres = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
        centres = centres.clamp(0, source - 1)
        self.low = centres.long()
        self.high = (self.low + 1).clamp(max=source - 1)
        self.fraction = (centres - self.low).to(dtype)

    def along_last(self, values: Tensor) -> Tensor:
        """(..., source) -> (..., target)."""
        low = values.index_select(-1, self.low)
        return low.lerp_(values.index_select(-1, self.high), self.fraction)

    def matrix(self, start: int, stop: int) -> tuple[int, Tensor]:
        """The first source index that targets ``start`` to ``stop`` need, and their weights.

        The weights are (stop - start, number of sources needed); a product with this small matrix
        is faster than gathering a low and a high row for every target row.
        """
        low, high = self.low[start:stop], self.high[start:stop]
        first = int(low[0])
        fraction = self.fraction[start:stop, None]
        weights = fraction.new_zeros(stop - start, int(high[-1]) - first + 1)
        weights.scatter_add_(1, low[:, None] - first, 1 - fraction)
        weights.scatter_add_(1, high[:, None] - first, fraction)
        return first, weights


def _check(coefficients: Tensor, pixels: np.ndarray, tile_rows: int | None) -> None:
    if coefficients.ndim != 5 or tuple(coefficients.shape[:3]) != (1, 3, 4):
        raise ValueError(f"coefficients must be (1, 3, 4, h, w), not {tuple(coefficients.shape)}")
    if coefficients.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"coefficients must be float32 or float64, not {coefficients.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    if tile_rows is not None and tile_rows < 1:
        raise ValueError(f"tile_rows must be at least 1, not {tile_rows}")
