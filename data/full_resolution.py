"""A result found at working size, applied to the photo at its own size."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor


def apply_coefficients(coefficients: Tensor, pixels: np.ndarray) -> np.ndarray:
    """Apply the affine colour map ``y = A·I + b`` of every pixel to a photo of any size.

    The coefficients are upsampled bilinearly to the photo's size (half-pixel centres, clamped at
    the edges: ``align_corners=False``) pixel by pixel as they are used, by as many threads as
    PyTorch uses, so that memory beyond input and output does not grow with the photo.

    Args:
        coefficients: (1, 3, 4, h, w), float32 or float64. Per output channel the three slopes over
            the guide's RGB in [0, 1], then the offset.
        pixels: (H, W, 3) uint8, the guide at its own size.

    Returns:
        (H, W, 3) uint8: y clamped to [0, 1], times 255, rounded to nearest.

    Raises:
        ValueError: a shape or dtype is not as above.
    """
    _check(coefficients, pixels)
    height, width = pixels.shape[:2]
    maps = coefficients.detach()[0].cpu().numpy()
    rows = _interpolation(maps.shape[2], height, maps.dtype)
    columns = _interpolation(maps.shape[3], width, maps.dtype)
    result = np.empty_like(pixels, order="C")

    bands = min(torch.get_num_threads(), height)
    edges = [height * band // bands for band in range(bands + 1)]
    with ThreadPoolExecutor(bands) as executor:
        done = [
            executor.submit(_apply_band, *band, maps, rows, columns, pixels, result)
            for band in itertools.pairwise(edges)
        ]
    for band in done:
        band.result()
    return result


def _interpolation(source: int, target: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, for each target sample, the source sample before it and how far beyond."""
    # In float64: a float32 position is off by 1e-4 of a sample on a wide photo.
    centres = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
    low = centres.astype(np.uintp)  # unsigned: no check for an index from the end
    return low, (centres - low).astype(dtype)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _apply_band(first, last, maps, rows, columns, pixels, result):
    """Rows first to last of the result."""
    height, width = maps.shape[2:]
    number = maps.dtype.type
    white = number(255)
    # The coefficients of one row of the result, all that one pixel needs side by side.
    line = np.empty((width + 1, 4, 3), maps.dtype)
    levels = np.empty((pixels.shape[1], 3), maps.dtype)
    for y in range(first, last):
        low, fraction = rows[0][y], rows[1][y]
        for c in range(3):
            for k in range(4):
                above, below = maps[c, k, low], maps[c, k, min(low + 1, height - 1)]
                for x in range(width):
                    line[x, k, c] = above[x] + fraction * (below[x] - above[x])
        line[width] = line[width - 1]
        for x in range(pixels.shape[1]):
            # Two colours and one step between them are cheaper than a step for each coefficient.
            low, fraction = columns[0][x], columns[1][x]
            a, b = line[low], line[low + 1]
            red, green, blue = (
                number(pixels[y, x, 0]),
                number(pixels[y, x, 1]),
                number(pixels[y, x, 2]),
            )
            for c in range(3):
                left = a[0, c] * red + a[1, c] * green + a[2, c] * blue + a[3, c] * white
                right = b[0, c] * red + b[1, c] * green + b[2, c] * blue + b[3, c] * white
                levels[x, c] = left + fraction * (right - left)
        _round_to_bytes(levels.reshape(-1), result[y].reshape(-1))


@njit(nogil=True, cache=True, error_model="numpy")
def _round_to_bytes(levels, result):
    for i in range(levels.size):
        level = min(max(levels[i], levels.dtype.type(0)), levels.dtype.type(255))
        result[i] = np.uint8(np.int32(level + levels.dtype.type(0.5)))


def _check(coefficients: Tensor, pixels: np.ndarray) -> None:
    if coefficients.ndim != 5 or tuple(coefficients.shape[:3]) != (1, 3, 4):
        raise ValueError(f"coefficients must be (1, 3, 4, h, w), not {tuple(coefficients.shape)}")
    if coefficients.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"coefficients must be float32 or float64, not {coefficients.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
