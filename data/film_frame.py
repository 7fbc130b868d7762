"""A picture of a film as its file has it: luma and chroma, and what these numbers mean."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from photostyle.data.full_resolution import in_bands
from photostyle.data.photo import MIN_SIDE, resize
from photostyle.ops.jit import kernel
from photostyle.ops.lut import interpolated

BT601 = (0.299, 0.114)
BT709 = (0.2126, 0.0722)
BT2020 = (0.2627, 0.0593)
"""Red's and blue's share of luma."""
PROBE = 96
"""Samples along each side that `FilmFrame.sorted_levels` takes."""

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]

# Contract: a product and a sum may become one operation.
_kernel = kernel(fastmath={"contract"})


@dataclass(frozen=True, eq=False)
class FilmFrame:
    """Luma and chroma of one picture.

    Attributes:
        planes: Y (H, W), Cb and Cr (h, w), uint8 or, of more than 8 bits, uint16; H is h or 2 h,
            or one less where it is odd, and W likewise.
        bits: of their levels.
        luma: the share of red and blue in Y, such as `BT709`.
        full_range: whether black is 0 and white the greatest level, or 16 and 235 (times a power of
            two).
        time: when it is shown, in seconds.
    """

    planes: Planes
    bits: int
    luma: tuple[float, float]
    full_range: bool
    time: float

    @cached_property
    def _scale(self) -> tuple[float, float, float, float]:
        """Black, levels from there to white; no colour, levels from one end of chroma to the
        other.
        """
        unit = 2 ** (self.bits - 8)
        if self.full_range:
            white = float(2**self.bits - 1)
            return 0.0, white, 128.0 * unit, white
        return 16.0 * unit, 219.0 * unit, 128.0 * unit, 224.0 * unit

    def tensor(self, size: int) -> Tensor:
        """The picture in RGB as float32 (1, 3, h, w) in [0, 1], its long side at most ``size``."""
        height, width = self.planes[0].shape
        scale = min(1, size / max(height, width))
        shape = [max(MIN_SIDE, round(scale * side)) for side in (width, height)]
        y, cb, cr = (resize(plane, tuple(shape)).astype(np.float32) for plane in self.planes)
        black, white, grey, span = self._scale
        y, cb, cr = (y - black) / white, (cb - grey) / span, (cr - grey) / span
        kr, kb = self.luma
        red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        green = (y - kr * red - kb * blue) / (1 - kr - kb)
        return torch.from_numpy(np.stack([red, green, blue])[None]).clamp_(0, 1)

    def sorted_levels(self) -> np.ndarray:
        """A sample of each plane's levels in order, (3, n), float32, white being 1 above black.

        Only their differences from one frame to the next mean anything: black is not 0.
        """
        _, white, _, span = self._scale
        samples = []
        for plane, levels in zip(self.planes, (white, span, span), strict=True):
            rows, columns = (np.linspace(0, side - 1, PROBE).astype(int) for side in plane.shape)
            samples.append(np.sort(plane[np.ix_(rows, columns)], axis=None) / np.float32(levels))
        return np.stack(samples)

    def change(self, table: np.ndarray, out: Planes) -> None:
        """Write the picture with colours changed by a table, interpolated trilinearly.

        What is added to the levels is what the table adds to their colour, so that where it adds
        nothing they stay as they are. Chroma gets the mean of what its pixels get.

        Args:
            table: (n, n, n, 3), float32: what to add to RGB in [0, 1], by red, green and blue from
                0 to 1. The sum is clamped to [0, 1].
            out: planes of the same shapes and dtype.
        """
        scale = np.array(self._scale, np.float32)
        luma = np.array(self.luma, np.float32)
        most = 2**self.bits - 1

        def change_band(first: int, last: int) -> None:
            _change(*self.planes, *out, first, last, table, scale, luma, most)

        in_bands(change_band, self.planes[1].shape[0])


@_kernel
def _change(y, cb, cr, new_y, new_cb, new_cr, first, last, table, scale, luma, most):
    """Rows from first to last of chroma, and those of luma that belong to them."""
    black, white, grey, span = scale
    kr, kb = luma
    one, steps = np.float32(1), np.float32(table.shape[0] - 1)
    kg = one - kr - kb
    of_red, of_blue = 2 * (one - kr), 2 * (one - kb)
    down = (y.shape[0] + cb.shape[0] - 1) // cb.shape[0]
    across = (y.shape[1] + cb.shape[1] - 1) // cb.shape[1]
    for row in range(first, last):
        for column in range(cb.shape[1]):
            blue_less_y = of_blue * (np.float32(cb[row, column]) - grey) / span
            red_less_y = of_red * (np.float32(cr[row, column]) - grey) / span
            green_less_y = -(kr * red_less_y + kb * blue_less_y) / kg
            more_cb, more_cr, count = np.float32(0), np.float32(0), np.float32(0)
            for i in range(row * down, min(row * down + down, y.shape[0])):
                for j in range(column * across, min(column * across + across, y.shape[1])):
                    level = (np.float32(y[i, j]) - black) / white
                    red = _clamped(level + red_less_y)
                    green = _clamped(level + green_less_y)
                    blue = _clamped(level + blue_less_y)
                    add = interpolated(table, steps * red, steps * green, steps * blue)
                    more_red = _clamped(red + add[0]) - red
                    more_green = _clamped(green + add[1]) - green
                    more_blue = _clamped(blue + add[2]) - blue
                    more = kr * more_red + kg * more_green + kb * more_blue
                    new_y[i, j] = _rounded(np.float32(y[i, j]) + white * more, most)
                    more_cb += more_blue - more
                    more_cr += more_red - more
                    count += one
            more_cb *= span / (count * of_blue)
            more_cr *= span / (count * of_red)
            new_cb[row, column] = _rounded(np.float32(cb[row, column]) + more_cb, most)
            new_cr[row, column] = _rounded(np.float32(cr[row, column]) + more_cr, most)


@_kernel
def _clamped(value):
    return min(max(value, np.float32(0)), np.float32(1))


@_kernel
def _rounded(level, most):
    return np.int32(min(max(level, np.float32(0)), np.float32(most)) + np.float32(0.5))
