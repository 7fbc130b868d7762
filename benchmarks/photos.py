"""Photos read by Pillow alone, where there is no other decoder; their colours count as sRGB."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from photostyle.data import Photo
from photostyle.ops.errors import ArgumentError

EXAMPLES = Path(__file__).parents[1] / "examples"


def read_photo(path: str | os.PathLike, least: int = 0) -> Photo:
    """An upright photo; a smaller one is enlarged to ``least`` pixels of its long side.

    Raises:
        OSError: it cannot be read.
    """
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    scale = least / max(image.size)
    if scale > 1:
        image = image.resize([round(scale * side) for side in image.size], Image.Resampling.BICUBIC)
    return Photo(np.asarray(image))


def load(path: str | os.PathLike, size: int | None = None, *, argument: str = "content") -> Tensor:
    """In the place of `data.load_image`, see there.

    Raises:
        ArgumentError: it cannot be read.
    """
    try:
        return read_photo(path).tensor(size)
    except OSError as error:
        raise ArgumentError(argument, path, f"cannot be read: {error}") from error
