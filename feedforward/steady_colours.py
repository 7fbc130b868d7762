"""What a style does to the colours of a film, without flicker.

The network's result depends on the frame's statistics, and those change from frame to frame. So of
each result only its map of colours is kept, see `ops.colour_map`, and averaged over time: pixels
move, a table of colours stays where it is.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from photostyle.data.film_frame import FilmFrame
from photostyle.ops.colour_map import SIZE, colour_table

INTERVAL = 0.5
"""Seconds from one result of the network to the next: what an average over seconds needs."""
MEMORY = 3.0
"""Seconds after which a result counts for a third."""
CUT = 0.03
"""How far levels move at a cut, 1 being from black to white. When a camera crosses a whole scene
within a second it is 0.02 at most; of two of the example photos from 0.033 to 0.15."""
NOISE = 0.01
"""Standard deviation of luma, in [0, 1]: below it a frame shows no colours to judge by."""


class SteadyColours:
    """From the frames of a film, in order, to what is to be added to their colours.

    A cut is a frame whose levels, sorted, are on average `CUT` away from those of the frame before:
    one that leaves the colours as they were needs no other map. From a cut on the result is the
    weighted mean of the maps so far, older ones counting less. A frame's weight is its contrast:
    one that is black says nothing.

    Args:
        stylize: (1, 3, h, w) to (1, 3, h, w), in [0, 1]; the network.
        size: long side in pixels of what it is shown.

    Attributes:
        cuts: how many there have been.
    """

    def __init__(self, stylize: Callable[[Tensor], Tensor], size: int):
        self.stylize = stylize
        self.size = size
        self.cuts = 0
        self._levels: np.ndarray | None = None
        self._time = 0.0
        self._forget()

    def __call__(self, frame: FilmFrame) -> np.ndarray:
        """(9, 9, 9, 3), float32: what is to be added to RGB, see `FilmFrame.change`."""
        levels = frame.sorted_levels()
        if self._levels is not None and np.abs(levels - self._levels).mean() > CUT:
            self.cuts += 1
            self._forget()
        self._levels = levels
        if self._found is None or not 0 <= frame.time - self._found < INTERVAL:
            self._find(frame)
        passed, self._time = max(frame.time - self._time, 0.0), frame.time
        self._weight = self._weight * math.exp(-passed / MEMORY) + self._contrast
        if self._weight > 0:
            self._mean += self._contrast / self._weight * (self._newest - self._mean)
        return self._mean

    def _forget(self) -> None:
        self._found = None
        self._weight = 0.0
        self._mean = np.zeros((SIZE, SIZE, SIZE, 3), np.float32)

    def _find(self, frame: FilmFrame) -> None:
        image = frame.tensor(self.size)
        table = colour_table(image, self.stylize(image)).cpu()
        variance = image.mean(1).var(correction=0).item()
        self._found = frame.time
        self._contrast = variance
        added = (table - _identity()).movedim(0, -1) * (variance / (variance + NOISE**2))
        self._newest = added.to(torch.float32).numpy()


def _identity() -> Tensor:
    axis = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
