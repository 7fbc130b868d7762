"""A photo that somebody has given: its file, and all that is found of it once."""

import shutil
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from photostyle.data import PhotoOptions, load_visible
from photostyle.data.image_io import check_holds
from photostyle.data.paths import suffix_like, written
from photostyle.data.photo import to_pixels
from photostyle.ops.errors import ArgumentError
from photostyle.ops.features import VGGFeatures
from photostyle.ops.regions import Described, describe


@dataclass(frozen=True, eq=False)
class Upload:
    """A photo at working size.

    Attributes:
        path: the file that was given.
        image: (1, 3, H, W), values in [0, 1].
        opacity: (H, W) in [0, 1], ``None``: opaque.
    """

    path: Path
    image: Tensor
    opacity: Tensor | None

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return to_pixels(self.image)

    @cached_property
    def described(self) -> Described:
        """What its regions are found by: the other photo may change."""
        return describe(self.image, self.opacity, encoder=_encoder)


_encoder = cache(VGGFeatures)  # the same for all photos


def uploaded(argument: str, path: Path, folder: Path, options: PhotoOptions) -> Upload:
    """Read a photo and copy its file.

    Args:
        argument: ``content`` or ``style``.
        path: the file.
        folder: where it is copied to; what is there is deleted.
        options: how it is read.

    Raises:
        ArgumentError: it is no photo, too large, or cannot be copied; then all stays as it is.
    """
    try:
        photo = load_visible(path, argument=argument, max_pixels=options.max_pixels)
        check_holds(f"result{suffix_like(path.name)}", options.size_of(photo), argument)
    except ArgumentError as error:
        raise ArgumentError(error.argument, path.name, error.expected) from error
    with written(argument, path.name, "cannot be kept"):
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            shutil.copyfile(path, new / path.name)
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return Upload(folder / path.name, photo.tensor(options.size), photo.opacity(options.size))
