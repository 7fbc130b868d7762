"""A result found at working size, applied to the photo at its own size."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from photostyle.data.photo import Photo
from photostyle.ops.jit import kernel
from photostyle.ops.lut import Lut

STRIP_PIXELS = 1 << 18
"""So many are brought to sRGB at once, in floats."""

DITHER = 0.96
"""How far apart, in levels of 8 bits, the thresholds are by which a level is rounded up or down.

A smooth sky of 8 bits whose contrast grows by a half has steps that differ by one level; rounded to
nearest they show as bands, twice as strong as with thresholds that vary (docs/quality.md). Below 1,
so that whole levels are kept in spite of rounding.
"""

# Contract: a product and a sum may become one operation.
_kernel = kernel(fastmath={"contract"})


def apply_to_photo(coefficients: Tensor, photo: Photo, *, in_place: bool = False) -> Photo:
    """A result found in sRGB at working size, as a photo of its own size, depth and colour space.

    Args:
        coefficients: (1, 3, 4, h, w), see `apply_coefficients`.
        photo: the guide.
        in_place: write over the photo's own pixels: two large photos may be too many.
    """
    out = photo.pixels if in_place else None
    if photo.space is None:
        return photo.with_pixels(apply_coefficients(coefficients, photo.pixels, out))
    return photo.with_pixels(_applied_in_srgb(coefficients, photo, out))


def apply_coefficients(
    coefficients: Tensor, pixels: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Apply the affine colour map ``y = A·I + b`` of every pixel to a photo of any size.

    The coefficients are upsampled bilinearly to the photo's size (half-pixel centres, clamped at
    the edges: ``align_corners=False``) pixel by pixel as they are used, by as many threads as
    PyTorch uses, so that memory beyond input and output does not grow with the photo.

    Args:
        coefficients: (1, 3, 4, h, w), float32 or float64. Per output channel the three slopes over
            the guide's RGB in [0, 1], then the offset.
        pixels: (H, W, 3) uint8 or uint16, the guide at its own size.
        out: where to write the result, in C order; may be ``pixels``. ``None``: a new array.

    Returns:
        (H, W, 3) of the pixels' dtype: y clamped to [0, 1], times 255 or 65535, and rounded: of 16
        bits to nearest, of 8 up or down so that neighbours make up for each other, see `DITHER`.

    Raises:
        ValueError: a shape or dtype is not as above.
    """
    _check(coefficients, pixels, out)
    maps = _Maps(coefficients, pixels.shape[:2])
    result = np.empty_like(pixels, order="C") if out is None else out

    def apply_band(first: int, last: int) -> None:
        maps.apply(first, pixels[first:last], np.iinfo(pixels.dtype).max, result[first:last])

    in_bands(apply_band, len(pixels))
    return result


def _applied_in_srgb(coefficients: Tensor, photo: Photo, out: np.ndarray | None) -> np.ndarray:
    """As `apply_coefficients`, for a photo whose numbers are not those of sRGB."""
    _check(coefficients, photo.pixels, out)
    maps = _Maps(coefficients, photo.pixels.shape[:2])

    def applied(before: np.ndarray, top: int) -> np.ndarray:
        after = np.empty_like(before)
        maps.apply(top, before, 1, after)
        return after

    return _changed_in_srgb(applied, photo, out)


def apply_lut(lut: Lut, photo: Photo, *, strength: float = 1.0, in_place: bool = False) -> Photo:
    """A photo of any depth and colour space by a LUT of sRGB.

    Colours that sRGB lacks move as the nearest that it has.

    Args:
        lut: of sRGB.
        photo: of any size; memory beyond it and the result does not grow with it.
        strength: 0: the photo itself, to the bit, 1: as the LUT has it.
        in_place: write over the photo's own pixels.
    """

    def applied(before: np.ndarray, _: int) -> np.ndarray:
        inside = before.clip(0, 1)
        change = lut.look_up(inside)
        change -= inside
        return before + np.float32(strength) * change

    out = photo.pixels if in_place else None
    return photo.with_pixels(_changed_in_srgb(applied, photo, out))


def _changed_in_srgb(
    change: Callable[[np.ndarray, int], np.ndarray], photo: Photo, out: np.ndarray | None
) -> np.ndarray:
    """The pixels of a photo changed by a function of some rows in sRGB and the first one's number.

    The way to sRGB and back rounds: what is added to the pixels is the difference between the way
    with and without the change, which is 0 where nothing changes.
    """
    pixels, space, white = photo.pixels, photo.space, photo.white
    result = np.empty_like(pixels, order="C") if out is None else out
    rows = max(1, STRIP_PIXELS // pixels.shape[1])

    def apply_band(first: int, last: int) -> None:
        for top in range(first, last, rows):
            strip = slice(top, min(top + rows, last))
            if space is None:
                before = pixels[strip].astype(np.float32) / white
                levels = change(before, top) - before
                levels *= white
            else:
                before = space.to_srgb(pixels[strip])
                levels = space.levels(change(before, top))
                levels -= space.levels(before)
                levels *= white / 65535
            levels += pixels[strip]
            _round_rows(levels, top, white, result[strip])

    in_bands(apply_band, len(pixels))
    return result


def in_bands(apply_band: Callable[[int, int], None], height: int) -> None:
    """Call it with the first row of each of some bands and the row after its last, in parallel."""
    bands = min(torch.get_num_threads(), height)
    edges = [height * band // bands for band in range(bands + 1)]
    if bands == 1:
        apply_band(0, height)
        return
    with ThreadPoolExecutor(bands) as executor:
        list(executor.map(apply_band, edges, edges[1:]))


class _Maps:
    """Coefficients (1, 3, 4, h, w) at any row of a photo of a given height and width."""

    def __init__(self, coefficients: Tensor, size: tuple[int, int]):
        self.maps = coefficients.detach()[0].cpu().numpy()
        self.rows = _interpolation(self.maps.shape[2], size[0], self.maps.dtype)
        columns = _interpolation(self.maps.shape[3], size[1], self.maps.dtype)
        self.fractions = columns[1]
        self.starts = np.searchsorted(columns[0], np.arange(self.maps.shape[3] + 1))
        self.starts = self.starts.astype(np.uintp)

    def apply(self, first: int, pixels: np.ndarray, white: int, result: np.ndarray) -> None:
        """Write A·I + b of some rows, the first of which is row ``first`` of the photo."""
        last = first + len(pixels)
        rows = self.rows[0][first:last], self.rows[1][first:last]
        _apply(self.maps, rows, self.fractions, self.starts, first, pixels, white, result)


def _interpolation(source: int, target: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, for each target sample, the source sample before it and how far beyond."""
    # In float64: a float32 position is off by 1e-4 of a sample on a wide photo.
    centres = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
    low = centres.astype(np.uintp)  # unsigned: no check for an index from the end
    return low, (centres - low).astype(dtype)


@_kernel
def _apply(maps, rows, fractions, starts, first, pixels, white, result):
    """``fractions`` are the columns' positions between two columns of ``maps``, and ``starts`` the
    first column of the photo that follows each of ``maps``: what lies between two columns of
    ``maps`` shares the same coefficients and steps, which then stay in registers.
    """
    height, width = maps.shape[2:]
    number = maps.dtype.type
    line = np.empty((3, 4, width + 1), maps.dtype)  # the coefficients of one row of the result
    levels = np.empty((pixels.shape[1], 3), maps.dtype)
    for y in range(pixels.shape[0]):
        low, fraction = rows[0][y], rows[1][y]
        for c in range(3):
            for k in range(4):
                above, below = maps[c, k, low], maps[c, k, min(low + 1, height - 1)]
                unit = number(white if k == 3 else 1)
                for x in range(width):
                    line[c, k, x] = (above[x] + fraction * (below[x] - above[x])) * unit
        line[:, :, width] = line[:, :, width - 1]
        for left in range(width):
            to_red, to_green, to_blue = (
                _step(line[0], left),
                _step(line[1], left),
                _step(line[2], left),
            )
            for x in range(starts[left], starts[left + 1]):
                colour = number(pixels[y, x, 0]), number(pixels[y, x, 1]), number(pixels[y, x, 2])
                levels[x, 0] = _level(to_red, fractions[x], colour)
                levels[x, 1] = _level(to_green, fractions[x], colour)
                levels[x, 2] = _level(to_blue, fractions[x], colour)
        if white == 1:  # floats, which go on
            result[y] = levels
        else:
            _round(levels, first + y, white, result[y])


@_kernel
def _step(line, left):
    """The coefficients of one output channel at a column, and what they gain by the next."""
    a0, a1, a2, b = line[0, left], line[1, left], line[2, left], line[3, left]
    right = left + 1
    gain = line[0, right] - a0, line[1, right] - a1, line[2, right] - a2, line[3, right] - b
    return (a0, a1, a2, b), gain


@_kernel
def _level(step, t, colour):
    (a0, a1, a2, b), (gain0, gain1, gain2, gain) = step
    red, green, blue = colour
    return (
        (a0 + t * gain0) * red + (a1 + t * gain1) * green + (a2 + t * gain2) * blue + b + t * gain
    )


@_kernel
def _round_rows(levels, first, white, result):
    for y in range(levels.shape[0]):
        _round(levels[y], first + y, white, result[y])


@_kernel
def _round(levels, y, white, result):
    """Levels (W, 3) of row y of the photo; whole ones stay what they are."""
    number = levels.dtype.type
    if white > 255:
        for x in range(levels.shape[0]):
            for c in range(3):
                level = min(max(levels[x, c], number(0)), number(white))
                result[x, c] = np.int32(level + number(0.5))
        return
    # Interleaved gradient noise, Jimenez (2014): of any 3 x 3 neighbours it takes nine values
    # spread evenly over [0, 1). The channels have it at places far from each other.
    for c in range(3):
        start = np.float32(0.00583715) * np.float32(y + 5.6 * c) + np.float32(0.06711056 * 5.6 * c)
        for x in range(levels.shape[0]):
            ramp = np.float32(0.06711056) * np.float32(x) + start
            noise = np.float32(52.9829189) * (ramp - np.floor(ramp))
            noise -= np.floor(noise)
            offset = number(0.5) + number(DITHER) * (noise - number(0.5))
            level = min(max(levels[x, c], number(0)), number(white))
            result[x, c] = np.int32(level + offset)


def _check(coefficients: Tensor, pixels: np.ndarray, out: np.ndarray | None) -> None:
    if coefficients.ndim != 5 or tuple(coefficients.shape[:3]) != (1, 3, 4):
        raise ValueError(f"coefficients must be (1, 3, 4, h, w), not {tuple(coefficients.shape)}")
    if coefficients.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"coefficients must be float32 or float64, not {coefficients.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
        found = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(f"pixels must be (H, W, 3) uint8 or uint16, not {found}")
    if out is None:
        return
    if out.shape != pixels.shape or out.dtype != pixels.dtype or not out.flags.c_contiguous:
        found = f"{out.shape} {out.dtype} with strides {out.strides}"
        raise ValueError(f"out must be {pixels.shape} {pixels.dtype} in C order, not {found}")
