"""Folders of results: which picture belongs to which pair, and where an evaluation may write."""

import os
import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from photostyle.data.image_io import load_photo
from photostyle.data.photo import Photo, resize
from photostyle.evaluation.pairs import Pair, find_image
from photostyle.ops.errors import ArgumentError

ASPECT_TOLERANCE = 0.02
"""A result's short side may differ by this share: other programs round or crop by some pixels."""


def find_results(
    folder: str | os.PathLike, pairs: list[Pair], *, argument: str = "results"
) -> dict[str, Path]:
    """The result of each pair that has one, by the pair's name."""
    found = {pair.name: find_image(folder, pair.name, argument=argument) for pair in pairs}
    if not any(found.values()):
        expected = f"holds no result; name them after their pairs, {pairs[0].name}.png and so on"
        raise ArgumentError(argument, folder, expected)
    return {name: path for name, path in found.items() if path is not None}


def prepare_output(
    folder: str | os.PathLike, own_file: re.Pattern, what: str, overwrite: bool
) -> Path:
    """Make the folder, unless it holds ``what`` in files of our own names."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ArgumentError("output", folder, "is a file; give a folder") from error
    except OSError as error:
        expected = f"cannot be created: {error.strerror}"
        raise ArgumentError("output", folder, expected) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ArgumentError("output", folder, "no permission to write to this folder")
    if own_files(folder, own_file) and not overwrite:
        expected = f"holds {what}; give another folder or overwrite=true"
        raise ArgumentError("output", folder, expected)
    return folder


def own_files(folder: Path, own_file: re.Pattern) -> list[Path]:
    """The files of a folder whose names match."""
    return [path for path in folder.iterdir() if own_file.fullmatch(path.name)]


def load_like(photo: Photo, content: Tensor, path: Path, argument: str) -> Tensor:
    """A picture resized, with antialiasing, to the content (1, 3, H, W) at working size."""
    picture = load_photo(path, argument=argument)
    pixels = picture.pixels
    if not _same_shape(pixels.shape[:2], photo.pixels.shape[:2]):
        expected = (
            f"is {pixels.shape[1]} x {pixels.shape[0]}, which is not the shape of its content "
            f"({photo.pixels.shape[1]} x {photo.pixels.shape[0]}); give the whole picture"
        )
        raise ArgumentError(argument, path, expected)
    height, width = content.shape[2:]
    return replace(picture, pixels=resize(pixels, (width, height)), alpha=None).tensor()


def _same_shape(size: tuple[int, int], content_size: tuple[int, int]) -> bool:
    """Whether two (height, width) have one aspect ratio, but for rounding or cropped pixels."""
    height, width = size
    content_height, content_width = content_size
    # The short side is where rounding shows.
    if content_height <= content_width:
        side, expected = height, width * content_height / content_width
    else:
        side, expected = width, height * content_width / content_height
    return abs(side - expected) <= max(1, ASPECT_TOLERANCE * expected)
