"""Photos between file and array: nothing a camera or an editor stored is lost on the way.

`data.decoders` opens files and `data.encoders` fills them; what this module adds is upright RGB
whatever the file's colour mode.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageCms
from torch import Tensor

from photostyle.data import encoders
from photostyle.data.colour_space import adobe_rgb_profile, colour_space
from photostyle.data.decoders import Picture, decoded
from photostyle.data.metadata import Metadata
from photostyle.data.paths import EXISTS, AppearedError, atomic_file, format_of
from photostyle.data.photo import Photo, to_pixels
from photostyle.data.reading import in_one_line
from photostyle.data.vips import attach_profile, to_vips
from photostyle.ops.errors import ArgumentError, check_number

if TYPE_CHECKING:
    import pyvips

logger = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000
"""Of the largest cameras' files (150 megapixels) none is refused; decoded, it takes 1.2 GB."""

# EXIF orientation -> the upright view of an (H, W, ...) array whose rows are the file's rows.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


# ---------------------------------------------------------------------------------------- reading


def load_photo(
    path: str | os.PathLike,
    *,
    argument: str = "content",
    max_pixels: int = MAX_PIXELS,
    content: bytes | None = None,
) -> Photo:
    """Read a photo, of any colour mode, as upright RGB of 8 or 16 bits.

    What is inside a file counts, not its suffix: JPEG, PNG, WebP, AVIF, HEIC, TIFF, JPEG 2000 or
    BMP. Grey becomes three equal channels, a palette is looked up, floats from 0 to 1 become 16
    bits. CMYK, Lab and grey go to sRGB, through the file's ICC profile where it has one; an RGB
    profile is kept. Of several frames the first is read; of a TIFF file the first page that is no
    thumbnail.

    Args:
        path: the file.
        argument: the caller's name for it, for error messages.
        max_pixels: refuse more than this, by the header, before anything is decoded.
        content: of the file, if that is in memory; then ``path`` is its name and no more.

    Raises:
        ArgumentError: no such file, a folder, not permitted, empty, not a picture, truncated or
            damaged, less than 16 pixels on a side, more than ``max_pixels``, or with numbers that
            are no colours (integers beyond 16 bits, floats outside [0, 1]).
    """
    return decoded(
        path, argument, max_pixels, lambda picture: _photo(picture, path, argument), content
    )


def load_visible(
    path: str | os.PathLike,
    *,
    argument: str = "content",
    max_pixels: int = MAX_PIXELS,
    content: bytes | None = None,
) -> Photo:
    """As `load_photo`, and refuses a photo of which nothing can be seen.

    Raises:
        ArgumentError: as `load_photo`, and for alpha that is 0 everywhere.
    """
    photo = load_photo(path, argument=argument, max_pixels=max_pixels, content=content)
    if photo.alpha is not None and not photo.alpha.any():
        expected = "is transparent everywhere; give a photo of which something can be seen"
        raise ArgumentError(argument, path, expected)
    return photo


def load_image(
    path: str | os.PathLike, size: int | None = None, *, argument: str = "content"
) -> Tensor:
    """Read a photo in sRGB as float32 (1, 3, H, W), the long side at most ``size`` pixels.

    Raises:
        ArgumentError: as `load_photo` and `Photo.tensor`.
    """
    return load_photo(path, argument=argument).tensor(size)


def load_numbers(
    path: str | os.PathLike, *, argument: str, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a picture as `load_photo` does, but with its numbers as they are, whatever its profile.

    Returns:
        (H, W, 3) and, where it has alpha, (H, W), uint8 or uint16.

    Raises:
        ArgumentError: as `load_photo`.
    """

    def numbers(picture: Picture) -> Photo:
        return _photo(replace(picture, profile=None, metadata=Metadata()), path, argument)

    photo = decoded(path, argument, max_pixels, numbers)
    return photo.pixels, photo.alpha


# ----------------------------------------------------------------------------------------- colours


def _photo(picture: Picture, path: str | os.PathLike, argument: str) -> Photo:
    colours, alpha = _colours_and_alpha(picture.image, path, argument)
    colours, profile = _in_rgb(colours, picture, path)
    pixels = _upright(colours, picture.orientation)
    if alpha is not None:
        alpha = _upright(alpha, picture.orientation)[..., 0]
    return Photo(pixels, alpha, profile, picture.metadata)


def _colours_and_alpha(
    image: "pyvips.Image", path: str | os.PathLike, argument: str
) -> tuple["pyvips.Image", "pyvips.Image | None"]:
    """Images of 8 or 16 bits: one of 1, 3 or 4 channels, and that of its alpha."""
    if image.coding != "none":
        raise ArgumentError(argument, path, "colours are Lab of 8 bits; save it as RGB")
    if image.interpretation in ("lab", "labs"):
        image = image.colourspace("rgb16")
    if image.format not in ("uchar", "ushort"):
        image = _sixteen_bits(image, path, argument)
    channels = 4 if image.interpretation == "cmyk" else 3 if image.bands >= 3 else 1
    if image.bands == channels:
        return image, None
    # Both parts are needed, and a file is decoded once.
    image = image.copy_memory()
    colours = image[0] if channels == 1 else image[:channels]
    # Further channels are what an editor has stored beside the photo.
    return colours, image[channels] if image.bands == channels + 1 else None


def _sixteen_bits(image: "pyvips.Image", path: str | os.PathLike, argument: str) -> "pyvips.Image":
    """Floats from 0 to 1 and integers from 0 to 65535."""
    levels = image.numpy()
    white = 1 if np.issubdtype(levels.dtype, np.floating) else 65_535
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= white):  # a NaN is neither
        expected = f"levels from {low:g} to {high:g}; save it with 0 (black) to {white}"
        raise ArgumentError(argument, path, expected)
    levels = np.rint(levels.astype(np.float64) * (65_535 / white)).astype(np.uint16)
    return to_vips(levels.reshape(*levels.shape[:2], -1))


def _in_rgb(
    colours: "pyvips.Image", picture: Picture, path: str | os.PathLike
) -> tuple["pyvips.Image", bytes | None]:
    """Colours as RGB, and their profile where it is not that of sRGB or has to be kept."""
    profile, space = _usable(picture.profile, colours.bands, path)
    if profile is None and colours.bands == 3 and picture.metadata.is_adobe_rgb:
        return colours, adobe_rgb_profile()
    if space == "RGB" and _has_curves(profile):
        return _three(colours), profile
    if profile is None and colours.bands != 4:
        return _three(colours), None
    return _to_srgb(_three(colours) if space == "RGB" else colours, profile), None


def _to_srgb(colours: "pyvips.Image", profile: bytes | None) -> "pyvips.Image":
    """Colours by a profile for them; CMYK may have none."""
    if profile is not None:
        colours = attach_profile(colours, profile)
    depth = 8 * (2 if colours.format == "ushort" else 1)
    source = {"embedded": True} if profile is not None else {"input_profile": "cmyk"}
    return colours.icc_transform("srgb", depth=depth, **source)


def _usable(
    profile: bytes | None, bands: int, path: str | os.PathLike
) -> tuple[bytes | None, str | None]:
    """A profile that is for pixels of so many channels, and the colours that it is of."""
    if not profile:
        return None, None
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if space not in {1: ("GRAY", "RGB"), 3: ("RGB",), 4: ("CMYK",)}[bands]:
            message = "%s: its ICC profile is for %s, not for its pixels; not used"
            logger.warning(message, path, space)
            return None, None
        if space != "RGB" or not _has_curves(profile):
            # libvips would take another profile instead, without a word.
            mode = {"GRAY": "L"}.get(space, space)
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
    except Exception as error:  # of three libraries, which trust what a profile says
        reason = in_one_line(error)
        logger.warning("%s: its ICC profile is damaged and is not used (%s)", path, reason)
        return None, None
    return profile, space


def _has_curves(profile: bytes) -> bool:
    try:
        colour_space(profile)
    except ValueError:
        return False
    return True


def _three(colours: "pyvips.Image") -> "pyvips.Image":
    if colours.bands == 3:
        return colours
    kind = "rgb16" if colours.format == "ushort" else "srgb"
    return colours.bandjoin([colours, colours]).copy(interpretation=kind)


def _upright(image: "pyvips.Image", orientation: int) -> np.ndarray:
    """The pixels (H, W, C) of a decoded image, in C order and free to be written to."""
    stored = image.numpy()
    upright = _UPRIGHT[orientation](stored.reshape(*stored.shape[:2], -1))
    return np.require(upright, requirements="CW")


# ---------------------------------------------------------------------------------------- writing


def save_photo(
    path: str | os.PathLike,
    photo: Photo,
    *,
    quality: int = 95,
    overwrite: bool = True,
    argument: str = "output",
) -> None:
    """Write a photo in the format of the suffix, see `data.paths.FORMATS`.

    ICC profile, EXIF, XMP and comments are kept where the format has a place for them. 16 bits are
    kept in PNG and TIFF. JPEG and BMP hold no transparency: there, the photo is put on white. JPEG
    is written without chroma subsampling, TIFF without compression. An existing file is replaced
    only by a complete one.

    Args:
        path: the file; its folder exists.
        photo: what to write.
        quality: 1 to 100, for JPEG, WebP, AVIF and HEIC.
        overwrite: replace an existing file.
        argument: the caller's name for ``path``, for error messages.

    Raises:
        ArgumentError: no format has this suffix, the format cannot hold so large a picture,
            ``quality`` is out of range, or the file exists and ``overwrite`` is false.
        OSError: the file cannot be written.
    """
    path = Path(path)
    file_format = format_of(path, argument)
    check_number("quality", quality, 1, 100)
    photo = _to_encode(photo, file_format, path, argument)
    try:
        with atomic_file(path, overwrite=overwrite) as file:
            encoders.encode(file, file_format, photo, quality)
    except AppearedError as error:
        raise ArgumentError(argument, path, EXISTS) from error


def encode_photo(
    photo: Photo, file_format: str, *, name: str, quality: int = 95, argument: str = "output"
) -> bytes:
    """The content of the file that `save_photo` would write.

    Args:
        photo: what to write.
        file_format: of `data.paths.FORMATS`.
        name: of the file, for error messages and warnings.
        quality: 1 to 100, for JPEG, WebP, AVIF and HEIC.
        argument: the caller's name for ``name``, for error messages.

    Raises:
        ArgumentError: the format cannot hold so large a picture, or ``quality`` is out of range.
    """
    check_number("quality", quality, 1, 100)
    file = BytesIO()
    encoders.encode(file, file_format, _to_encode(photo, file_format, name, argument), quality)
    return file.getvalue()


def _to_encode(photo: Photo, file_format: str, path: str | os.PathLike, argument: str) -> Photo:
    """The photo with the metadata of its upright pixels, if the format can hold it."""
    height, width = photo.pixels.shape[:2]
    _check_format_holds(file_format, (height, width), path, argument)
    if not photo.is_opaque and file_format in encoders.OPAQUE:
        logger.warning("%s holds no transparency: the photo is put on white", path)
    return replace(photo, metadata=photo.metadata.of_upright(width, height))


def save_image(tensor: Tensor, path: str | os.PathLike, *, quality: int = 95) -> None:
    """Write an image (1, 3, H, W), clamped to [0, 1], in the format of the suffix.

    Raises:
        ValueError: another shape or dtype, or values that are not finite.
        ArgumentError, OSError: as `save_photo`.
    """
    save_photo(path, Photo(to_pixels(tensor)), quality=quality)


def check_holds(path: str | os.PathLike, size: tuple[int, int], argument: str = "output") -> None:
    """Check that the format of a file's suffix can hold so many pixels; call it before any work.

    Args:
        path: of the file.
        size: (height, width).
        argument: the caller's name for ``path``.

    Raises:
        ArgumentError: it cannot.
    """
    _check_format_holds(format_of(Path(path), argument), size, path, argument)


def _check_format_holds(
    file_format: str, size: tuple[int, int], path: str | os.PathLike, argument: str
) -> None:
    height, width = size
    longest = encoders.LONGEST_SIDE.get(file_format, max(height, width))
    if max(height, width) > longest:
        expected = f"{file_format} holds at most {longest} pixels a side, not {width} x {height}"
        raise ArgumentError(argument, path, f"{expected}; use .png or .tif")
