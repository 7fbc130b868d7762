"""3D lookup tables: changes of colours that go from program to program."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from photostyle.ops.errors import ArgumentError
from photostyle.ops.jit import kernel


@dataclass(frozen=True, eq=False)
class Lut:
    """A lookup table over RGB, interpolated linearly between its entries.

    Attributes:
        table: float32, (N, N, N, 3), by red, green and blue from the least to the greatest of the
            domain; or (N, 3), a curve of each channel.
        low, high: (3,), the ends of the domain. Beyond them colours map as at the nearest end.

    Raises:
        ArgumentError: for a table of another shape or dtype.
    """

    table: np.ndarray
    low: tuple[float, float, float] = (0.0, 0.0, 0.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        sides = self.table.shape[:-1]
        whole = len(sides) in (1, 3) and self.table.shape[-1] == 3
        if not whole or min(sides) < 2 or len(set(sides)) > 1:
            raise ArgumentError("table", self.table.shape, "give (N, N, N, 3) or (N, 3), N from 2")
        if self.table.dtype != np.float32:
            raise ArgumentError("table", self.table.dtype, "give float32")

    def __call__(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) by the table, in their dtype and on their device.

        Raises:
            ArgumentError: for another number of channels, or whole numbers.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise ArgumentError("image", tuple(image.shape), "give (B, 3, H, W)")
        if not image.is_floating_point():
            raise ArgumentError("image", image.dtype, "give floating-point values in [0, 1]")
        colours = image.detach().movedim(1, -1).float().cpu().numpy()
        return torch.from_numpy(self.look_up(colours)).movedim(-1, 1).to(image)

    def look_up(self, colours: np.ndarray) -> np.ndarray:
        """Colours (..., 3), float32, by the table; lets go of the GIL."""
        if self.table.ndim == 2:
            curves = zip(self.table.T, self.low, self.high, strict=True)
            channels = [
                np.interp(colours[..., c], np.linspace(low, high, len(curve)), curve)
                for c, (curve, low, high) in enumerate(curves)
            ]
            return np.stack(channels, -1).astype(np.float32)
        flat = np.ascontiguousarray(colours, np.float32).reshape(-1, 3)
        low = np.array(self.low, np.float32)
        scale = (len(self.table) - 1) / (np.array(self.high) - self.low)
        result = np.empty_like(flat)
        _trilinear(np.ascontiguousarray(self.table), low, scale.astype(np.float32), flat, result)
        return result.reshape(colours.shape)


@kernel(fastmath={"contract"})
def _trilinear(table, low, scale, colours, result):
    for i in range(colours.shape[0]):
        red = (colours[i, 0] - low[0]) * scale[0]
        green = (colours[i, 1] - low[1]) * scale[1]
        blue = (colours[i, 2] - low[2]) * scale[2]
        result[i, 0], result[i, 1], result[i, 2] = interpolated(table, red, green, blue)


@kernel(fastmath={"contract"})
def interpolated(table, red, green, blue):
    """Three values of a table (N, N, N, 3) between its entries, trilinearly; compiled.

    ``red``, ``green`` and ``blue`` are numbers of steps, float32; beyond the ends they are cut.
    """
    r, red = _split(red, table.shape[0] - 1)
    g, green = _split(green, table.shape[1] - 1)
    b, blue = _split(blue, table.shape[2] - 1)
    return (
        _in_cell(table, r, g, b, 0, red, green, blue),
        _in_cell(table, r, g, b, 1, red, green, blue),
        _in_cell(table, r, g, b, 2, red, green, blue),
    )


@kernel(fastmath={"contract"})
def _split(position, last):
    """The step before a position, and how far behind it that is."""
    position = min(max(position, np.float32(0)), np.float32(last))
    step = min(np.int64(position), last - 1)
    return step, position - np.float32(step)


@kernel(fastmath={"contract"})
def _in_cell(table, r, g, b, c, red, green, blue):
    near = _between(
        _between(table[r, g, b, c], table[r, g, b + 1, c], blue),
        _between(table[r, g + 1, b, c], table[r, g + 1, b + 1, c], blue),
        green,
    )
    far = _between(
        _between(table[r + 1, g, b, c], table[r + 1, g, b + 1, c], blue),
        _between(table[r + 1, g + 1, b, c], table[r + 1, g + 1, b + 1, c], blue),
        green,
    )
    return _between(near, far, red)


@kernel(fastmath={"contract"})
def _between(first, second, fraction):
    return first + fraction * (second - first)
