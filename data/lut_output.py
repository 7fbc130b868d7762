"""The LUT of a result, as a file beside it."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from photostyle.data.cube_file import save_cube
from photostyle.data.paths import written
from photostyle.ops.errors import printable


@dataclass(frozen=True)
class SavedLut:
    """A LUT that was written, and how far the result is from the photo by it.

    Attributes:
        path: the file.
        residual: see `ops.lut_fit.lut_residual`.
    """

    path: Path
    residual: float

    def __str__(self) -> str:
        return f"{printable(self.path)}: LUT, residual {self.residual:.2f} ΔE*ab"


def save_lut_of(
    path: str | os.PathLike,
    photo: Tensor,
    image: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    overwrite: bool = False,
) -> SavedLut:
    """Write the LUT that comes nearest to turning a photo into a result.

    Args:
        path: the file, see `cube_file.check_cube`.
        photo, image: (1, 3, H, W) in sRGB, values in [0, 1].
        pixel_weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all alike.
        overwrite: whether the file may be there already.

    Raises:
        ArgumentError: it cannot be written.
    """
    # Not before: it takes a while to import, and most runs write none.
    from photostyle.ops.lut_fit import fit_lut, lut_residual

    lut = fit_lut(photo, image, pixel_weights)
    with written("lut", path):
        save_cube(path, lut, overwrite=overwrite)
    return SavedLut(Path(path), lut_residual(lut, photo, image, pixel_weights))
