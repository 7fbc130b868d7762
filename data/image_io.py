"""Photos between file and array: nothing a camera or an editor stored is lost on the way.

Pillow decodes and encodes; what this module adds is upright RGB whatever the file's colour mode,
errors that say what is right, little memory, and files that are complete or not there.
"""

import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms
from torch import Tensor

from photostyle.data.paths import FORMATS, atomic_file, format_of
from photostyle.data.photo import MIN_SIDE, Photo, to_pixels
from photostyle.ops.errors import ArgumentError, check_number

logger = logging.getLogger(__name__)

LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383, "AVIF": 65_536}
"""Where the format's own header ends; the others reach further than memory does."""

MAX_PIXELS = 200_000_000
"""Of the largest cameras' files (150 megapixels) none is refused; decoded, it takes 1.4 GB."""

_READABLE = tuple(dict.fromkeys(FORMATS.values()))
_READABLE_NAMES = "a JPEG, PNG, WebP, AVIF, TIFF or BMP file"
# What Pillow's decoders raise on bytes that are not what the header promised.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error,
)  # fmt: skip
_GREY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_WIDE_GREY_MODES = _GREY_MODES - {"1", "L", "LA"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr", "CMYK"}
_STRIP_PIXELS = 1 << 20
# Pillow's limit is a module variable: two threads at once could restore the wrong one for good.
_PILLOW_STATE = threading.Lock()

# Facts about the photo. All other tags are about how one file stored its pixels (in TIFF, EXIF
# stands among offsets and strip sizes), and the thumbnail would show the photo before the transfer.
_KEPT_TAGS = {
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model,
    ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
    ExifTags.Base.Rating, ExifTags.Base.RatingPercent,
    ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject,
}  # fmt: skip
_DROPPED_EXIF_TAGS = {
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.IFD.Interop,
}
_MAX_JPEG_EXIF = 65_533

# EXIF orientation -> the view of an upright (H, W, ...) array whose rows are the file's rows.
_STORED_VIEW: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


# ---------------------------------------------------------------------------------------- reading


def load_photo(
    path: str | os.PathLike, *, argument: str = "content", max_pixels: int = MAX_PIXELS
) -> Photo:
    """Read a photo: JPEG, PNG, WebP, AVIF, TIFF or BMP, of any colour mode, as upright 8-bit RGB.

    Grey becomes three equal channels, 16 bits are scaled to 8, a palette is looked up. CMYK and
    grey go to sRGB through the file's ICC profile where it has one; an RGB profile is kept. Of
    several frames the first is read.

    Args:
        path: the file.
        argument: the caller's name for it, for error messages.
        max_pixels: refuse more than this, by the header, before anything is decoded.

    Raises:
        ArgumentError: no such file, a folder, not permitted, empty, not a picture, truncated or
            damaged, less than 16 pixels on a side, more than ``max_pixels``, or with numbers that
            are no colours (Lab, integers beyond 16 bits, floats outside [0, 1]).
    """
    with open_image(path, argument=argument, max_pixels=max_pixels) as image:
        transform, icc_profile = _colour_management(image, path)
        orientation, exif = read_exif(image, path)
        pixels, alpha = decode(image, path, argument, orientation, transform=transform)
    return Photo(pixels, alpha, icc_profile, exif)


def load_image(
    path: str | os.PathLike, size: int | None = None, *, argument: str = "content"
) -> Tensor:
    """Read a photo as float32 (1, 3, H, W) in [0, 1], the long side at most ``size`` pixels.

    Raises:
        ArgumentError: as `load_photo`.
    """
    return load_photo(path, argument=argument).tensor(size)


@contextmanager
def open_image(
    path: str | os.PathLike, *, argument: str, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open and decode an image file as Pillow has it: neither turned upright nor made RGB.

    Raises:
        ArgumentError: as `load_photo`, for the file and its size.
    """
    with _open_file(path, argument) as file:
        try:
            with _pillow_on_our_terms():
                image = Image.open(file, formats=_READABLE)
        except _DECODER_ERRORS as error:
            raise ArgumentError(
                argument, path, f"not a picture that can be read; give {_READABLE_NAMES}"
            ) from error
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            expected = f"{width} x {height} pixels are too few; give at least {MIN_SIDE} a side"
            raise ArgumentError(argument, path, expected)
        if width * height > max_pixels:
            expected = f"{width} x {height} pixels are too many; give at most {max_pixels:,} in all"
            raise ArgumentError(argument, path, expected)
        try:
            # Of our formats only TIFF reads its header again while it decodes.
            with _pillow_on_our_terms() if image.format == "TIFF" else nullcontext():
                image.load()
        except _DECODER_ERRORS as error:
            raise ArgumentError(
                argument, path, f"truncated or damaged ({error}); give a complete file"
            ) from error
        yield image


def _open_file(path: str | os.PathLike, argument: str) -> BinaryIO:
    path = Path(path)
    try:
        if path.is_dir():
            raise ArgumentError(argument, path, f"is a folder; give {_READABLE_NAMES}")
        # A named pipe would block for ever.
        if path.exists() and not path.is_file():
            raise ArgumentError(argument, path, f"is no regular file; give {_READABLE_NAMES}")
        if path.is_file() and path.stat().st_size == 0:
            raise ArgumentError(argument, path, f"the file is empty; give {_READABLE_NAMES}")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ArgumentError(argument, path, f"no such file; give {_READABLE_NAMES}") from error
    except PermissionError as error:
        raise ArgumentError(argument, path, "no permission to read it") from error
    except OSError as error:
        raise ArgumentError(argument, path, f"cannot be opened: {error.strerror}") from error


@contextmanager
def _pillow_on_our_terms() -> Iterator[None]:
    """Let Pillow decode without its opinions, one thread at a time.

    It warns of large images and refuses larger ones, where ``max_pixels`` decides, and it warns of
    damaged metadata before it goes on without, or raises.
    """
    with _PILLOW_STATE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def decode(
    image: Image.Image,
    path: str | os.PathLike,
    argument: str,
    orientation: int,
    *,
    transform: ImageCms.ImageCmsTransform | None = None,
    white: int = 65_535,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The upright pixels (H, W, 3) uint8 and alpha (H, W) uint8 or None of an opened image.

    ``transform`` replaces Pillow's own conversion to RGB; ``white`` is the level of an integer
    grey image of more than 8 bits that becomes 255.

    Raises:
        ArgumentError: the image's numbers are no colours.
    """
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise ArgumentError(argument, path, f"colours are {image.mode}; save it as RGB")
    wide_grey = image.mode in _WIDE_GREY_MODES
    if wide_grey:
        white = 1 if image.mode == "F" else white
        low, high = _extrema(image)
        if not (low >= 0 and high <= white):  # a NaN is neither
            expected = f"grey levels from {low:g} to {high:g}; save it with 0 (black) to {white}"
            raise ArgumentError(argument, path, expected)
    has_alpha = image.has_transparency_data and not wide_grey

    width, height = image.size
    shape = (width, height) if orientation >= 5 else (height, width)
    pixels = np.empty((*shape, 3), np.uint8)
    alpha = np.empty(shape, np.uint8) if has_alpha else None
    stored_pixels = _STORED_VIEW[orientation](pixels)
    stored_alpha = _STORED_VIEW[orientation](alpha) if has_alpha else None

    # In strips, straight into place: no second whole copy for conversion or orientation.
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        if wide_grey:
            levels = np.asarray(strip).astype(np.float64) * (255 / white)
            strip = Image.fromarray(np.rint(levels).astype(np.uint8))
        if has_alpha:
            strip = strip.convert("RGBA")
            stored_alpha[top:bottom] = np.asarray(strip)[..., 3]
        if transform is not None:
            strip = ImageCms.applyTransform(strip.convert(transform.input_mode), transform)
        stored_pixels[top:bottom] = np.asarray(
            strip if strip.mode == "RGB" else strip.convert("RGB")
        )
    return pixels, alpha


def _extrema(image: Image.Image) -> tuple[float, float]:
    # Not image.getextrema(), which passes over NaN.
    levels = np.asarray(image)
    return levels.min(), levels.max()


def _colour_management(
    image: Image.Image, path: str | os.PathLike
) -> tuple[ImageCms.ImageCmsTransform | None, bytes | None]:
    """The transform to sRGB that the file's profile asks for, and the profile to keep."""
    icc_profile = image.info.get("icc_profile")
    if not icc_profile:
        return None, None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        space = profile.profile.xcolor_space.strip()
        if space == "RGB" and image.mode != "CMYK":
            return None, icc_profile
        if space == "CMYK" and image.mode == "CMYK":
            return _to_srgb(profile, "CMYK"), None
        if space == "GRAY" and image.mode in _GREY_MODES:
            return _to_srgb(profile, "L"), None
    except (OSError, ImageCms.PyCMSError) as error:
        logger.warning("%s: its ICC profile is damaged and is not used (%s)", path, error)
        return None, None
    logger.warning("%s: its ICC profile is for %s, not for its pixels; not used", path, space)
    return None, None


def _to_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")


def read_exif(image: Image.Image, path: str | os.PathLike) -> tuple[int, bytes | None]:
    """The orientation, 1 to 8, of a decoded image and the EXIF block to keep."""
    orientation = 1
    try:
        with _pillow_on_our_terms():
            exif = image.getexif()
            stored = exif.get(ExifTags.Base.Orientation, 1)
            orientation = stored if stored in _STORED_VIEW else 1
            kept = Image.Exif()
            kept.update({tag: value for tag, value in exif.items() if tag in _KEPT_TAGS})
            for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                tags = exif.get_ifd(ifd).items()
                if values := {tag: value for tag, value in tags if tag not in _DROPPED_EXIF_TAGS}:
                    kept[ifd] = values
            return orientation, kept.tobytes() if len(kept) else None
    except _DECODER_ERRORS as error:
        logger.warning("%s: its EXIF data are damaged and are not kept (%s)", path, error)
        return orientation, None


# ---------------------------------------------------------------------------------------- writing


def save_photo(
    path: str | os.PathLike, photo: Photo, *, quality: int = 95, argument: str = "output"
) -> None:
    """Write a photo in the format of the suffix, see `data.paths.FORMATS`.

    ICC profile and EXIF are kept in all but BMP. TIFF is not compressed, since Pillow keeps EXIF in
    no other. Alpha is kept in PNG, WebP, AVIF and TIFF; JPEG and BMP
    hold none, and the pixels are written as they are, over no background. JPEG is written without
    chroma subsampling. An existing file is replaced, and only by a complete one.

    Args:
        path: the file; its folder exists.
        photo: what to write.
        quality: 1 to 100, for JPEG, WebP and AVIF.
        argument: the caller's name for ``path``, for error messages.

    Raises:
        ArgumentError: no format has this suffix, the format cannot hold so large a picture, or
            ``quality`` is out of range.
        OSError: the file cannot be written.
    """
    path = Path(path)
    file_format = format_of(path, argument)
    check_number("quality", quality, 1, 100)
    height, width = photo.pixels.shape[:2]
    longest = LONGEST_SIDE.get(file_format, max(height, width))
    if max(height, width) > longest:
        expected = f"{file_format} holds at most {longest} pixels a side, not {width} x {height}"
        raise ArgumentError(argument, path, f"{expected}; use .png or .tif")

    image = Image.fromarray(photo.pixels)
    if photo.alpha is not None and file_format in ("PNG", "WEBP", "AVIF", "TIFF"):
        image.putalpha(Image.fromarray(photo.alpha))
    with atomic_file(path) as file:
        image.save(file, format=file_format, **_encoder_options(file_format, photo, quality))


def save_image(tensor: Tensor, path: str | os.PathLike, *, quality: int = 95) -> None:
    """Write an image (1, 3, H, W), clamped to [0, 1], in the format of the suffix.

    Raises:
        ValueError: another shape or dtype, or values that are not finite.
        ArgumentError, OSError: as `save_photo`.
    """
    save_photo(path, Photo(to_pixels(tensor)), quality=quality)


def _encoder_options(file_format: str, photo: Photo, quality: int) -> dict:
    options: dict = {}
    if file_format in ("JPEG", "AVIF"):
        options = {"quality": quality, "subsampling": "4:4:4"}
    elif file_format == "WEBP":
        # exact: the colours under full transparency belong to the photo as well.
        options = {"quality": quality, "exact": True}
    if file_format == "BMP":
        return options
    if photo.icc_profile is not None:
        options["icc_profile"] = photo.icc_profile
    if photo.exif is not None:
        if file_format == "JPEG" and len(photo.exif) > _MAX_JPEG_EXIF:
            logger.warning("EXIF data of %d bytes do not fit into a JPEG file", len(photo.exif))
        else:
            options["exif"] = photo.exif
    return options
