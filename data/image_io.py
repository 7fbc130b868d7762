"""Photos between file and array: nothing a camera or an editor stored is lost on the way.

libvips decodes, and Pillow what libvips has no decoder for (HEIC, JPEG 2000, BMP). What this module
adds is upright RGB whatever the file's colour mode, and errors that say what is right.
"""

import logging
import mmap
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageCms
from torch import Tensor

from photostyle.data import encoders
from photostyle.data.colour_space import adobe_rgb_profile, colour_space
from photostyle.data.metadata import Metadata, of_picture, of_tiff
from photostyle.data.paths import EXISTS, atomic_file, file_status, format_of, reason_of
from photostyle.data.photo import MIN_SIDE, Photo, to_pixels
from photostyle.data.vips import attach_profile, libvips, to_vips
from photostyle.ops.errors import ArgumentError, check_number

if TYPE_CHECKING:
    import pyvips

logger = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000
"""Of the largest cameras' files (150 megapixels) none is refused; decoded, it takes 1.2 GB."""

_READABLE = "a JPEG, PNG, WebP, AVIF, HEIC, TIFF, JPEG 2000 or BMP file"
_HEIF = rb".{4}ftyp(?:.{4})*?"
_SIGNATURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("AVIF", _HEIF + rb"avi[fs]"),
    ("HEIC", _HEIF + rb"(?:hei[cxms]|hev[cx]|mif1|msf1)"),
    ("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("BMP", rb"BM"),
)
_LOADERS = {
    "JPEG": "jpegload_source", "PNG": "pngload_source", "WEBP": "webpload_source",
    "AVIF": "heifload_source", "TIFF": "tiffload_source",
}  # fmt: skip
"""Of libvips. The others are left to Pillow."""
_PILLOW_NAMES = {"JPEG": ("JPEG", "MPO"), "PNG": ("PNG",), "WEBP": ("WEBP",), "AVIF": ("AVIF",)}
# What Pillow's decoders raise on bytes that are not what the header promised.
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip
# Pillow's limit is a module variable: two threads at once could restore the wrong one for good.
_PILLOW_STATE = threading.Lock()

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
    path: str | os.PathLike, *, argument: str = "content", max_pixels: int = MAX_PIXELS
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

    Raises:
        ArgumentError: no such file, a folder, not permitted, empty, not a picture, truncated or
            damaged, less than 16 pixels on a side, more than ``max_pixels``, or with numbers that
            are no colours (integers beyond 16 bits, floats outside [0, 1]).
    """
    with _opened(path, argument, max_pixels) as picture:
        return _decoded(picture, path, argument)


def load_visible(
    path: str | os.PathLike, *, argument: str = "content", max_pixels: int = MAX_PIXELS
) -> Photo:
    """As `load_photo`, and refuses a photo of which nothing can be seen.

    Raises:
        ArgumentError: as `load_photo`, and for alpha that is 0 everywhere.
    """
    photo = load_photo(path, argument=argument, max_pixels=max_pixels)
    if photo.alpha is not None and not photo.alpha.any():
        expected = "is transparent everywhere; give a photo of which something can be seen"
        raise ArgumentError(argument, path, expected)
    return photo


def load_image(
    path: str | os.PathLike, size: int | None = None, *, argument: str = "content"
) -> Tensor:
    """Read a photo in sRGB as float32 (1, 3, H, W), the long side at most ``size`` pixels.

    Raises:
        ArgumentError: as `load_photo`.
    """
    return load_photo(path, argument=argument).tensor(size)


def load_numbers(path: str | os.PathLike, *, argument: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a picture as `load_photo` does, but with its numbers as they are, whatever its profile.

    Returns:
        (H, W, 3) and, where it has alpha, (H, W), uint8 or uint16.

    Raises:
        ArgumentError: as `load_photo`.
    """
    with _opened(path, argument, MAX_PIXELS) as picture:
        photo = _decoded(replace(picture, profile=None, metadata=Metadata()), path, argument)
        return photo.pixels, photo.alpha


@dataclass(frozen=True, eq=False)
class _Picture:
    """An open file. Its image is decoded when its pixels are asked for."""

    image: "pyvips.Image"
    orientation: int
    profile: bytes | None
    metadata: Metadata


@contextmanager
def _opened(path: str | os.PathLike, argument: str, max_pixels: int) -> Iterator[_Picture]:
    with _open_file(path, argument) as file:
        kind = _kind(file.read(64))
        if kind is None:
            expected = f"not a picture that can be read; give {_READABLE}"
            raise ArgumentError(argument, path, expected)
        try:
            read = _by_vips if kind in _LOADERS else _by_pillow
            check_size = _size_check(path, argument, max_pixels)
            yield read(file, kind, path, argument, check_size)
        except ArgumentError:
            raise
        except (libvips().Error, *_PILLOW_ERRORS) as error:
            raise ArgumentError(
                argument, path, f"truncated or damaged ({_reason(error)}); give a complete file"
            ) from error


def _open_file(path: str | os.PathLike, argument: str) -> BinaryIO:
    status = file_status(path, argument)
    if status is not None:
        if stat.S_ISDIR(status.st_mode):
            raise ArgumentError(argument, path, f"is a folder; give {_READABLE}")
        if not stat.S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise ArgumentError(argument, path, f"is no regular file; give {_READABLE}")
        if status.st_size == 0:
            raise ArgumentError(argument, path, f"the file is empty; give {_READABLE}")
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise ArgumentError(argument, path, f"no such file; give {_READABLE}") from error
    except PermissionError as error:
        raise ArgumentError(argument, path, "no permission to read it") from error
    except OSError as error:
        expected = f"cannot be opened: {reason_of(error)}"
        raise ArgumentError(argument, path, expected) from error


def _kind(head: bytes) -> str | None:
    """The format of a file by its first bytes."""
    for kind, signature in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            return kind
    return None


def _size_check(
    path: str | os.PathLike, argument: str, max_pixels: int
) -> Callable[[int, int], None]:
    def check(width: int, height: int) -> None:
        if min(width, height) < MIN_SIDE:
            expected = f"{width} x {height} pixels are too few; give at least {MIN_SIDE} a side"
            raise ArgumentError(argument, path, expected)
        if width * height > max_pixels:
            expected = f"{width} x {height} pixels are too many; give at most {max_pixels:,} in all"
            raise ArgumentError(argument, path, expected)

    return check


def _by_vips(file: BinaryIO, kind: str, path, argument: str, check_size: Callable) -> _Picture:
    options = {}
    if kind == "TIFF":
        options["page"], metadata = _of_tiff(file, path)
    else:
        with _pillow_on_our_terms(), Image.open(file, formats=_PILLOW_NAMES[kind]) as header:
            metadata = of_picture(header)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    source = libvips().Source.new_from_descriptor(file.fileno())
    load = getattr(libvips().Image, _LOADERS[kind])
    try:
        image = load(source, access="sequential", fail_on="error", **options)
    except libvips().Error as error:
        expected = f"damaged, or a {kind} file of a kind that cannot be read ({_reason(error)})"
        raise ArgumentError(argument, path, f"{expected}; save it anew") from error
    check_size(image.width, image.height)
    fields = image.get_fields()
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else None
    orientation, metadata = _orientation(metadata, path)
    if kind == "AVIF":  # its decoder has turned the photo as the container says
        orientation = 1
    elif kind == "TIFF" and "orientation" in fields:  # that of BigTIFF, too
        orientation = image.get("orientation")
    return _Picture(image, orientation, profile, metadata)


def _by_pillow(file: BinaryIO, kind: str, path, argument: str, check_size: Callable) -> _Picture:
    if kind == "HEIC":
        import pillow_heif

        image = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        check_size(*image.size)
        array, metadata = np.asarray(image), of_picture(image)
    else:
        with _pillow_on_our_terms():
            image = Image.open(file, formats=(kind,))
        check_size(*image.size)
        metadata = of_picture(image)
        image.load()
        if image.mode not in ("L", "LA", "I;16", "RGB", "RGBA"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        array = np.asarray(image)
    _, metadata = _orientation(metadata, path)
    array = array.reshape(*array.shape[:2], -1)
    return _Picture(to_vips(array), 1, image.info.get("icc_profile"), metadata)


def _of_tiff(file: BinaryIO, path: str | os.PathLike) -> tuple[int, Metadata]:
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return of_tiff(content)
    except ValueError as error:
        logger.warning("%s: its metadata cannot be read and are not kept (%s)", path, error)
        return 0, Metadata()


def _orientation(metadata: Metadata, path: str | os.PathLike) -> tuple[int, Metadata]:
    try:
        return metadata.orientation, metadata
    except ValueError as error:
        logger.warning("%s: its EXIF data are damaged and are not kept (%s)", path, error)
        return 1, replace(metadata, exif=None)


@contextmanager
def _pillow_on_our_terms() -> Iterator[None]:
    """Let Pillow read a header without its opinions, one thread at a time.

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


def _reason(error: Exception) -> str:
    """What a decoder complains of, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


# ----------------------------------------------------------------------------------------- colours


def _decoded(picture: _Picture, path: str | os.PathLike, argument: str) -> Photo:
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
    colours: "pyvips.Image", picture: _Picture, path: str | os.PathLike
) -> tuple["pyvips.Image", bytes | None]:
    """Colours as RGB, and their profile where it is not that of sRGB or has to be kept."""
    profile, space = _usable(picture.profile, colours.bands, path)
    if profile is None and colours.bands == 3 and picture.metadata.is_adobe_rgb:
        return colours, adobe_rgb_profile()
    if space == "RGB" and _has_curves(profile):
        return _three(colours), profile
    if profile is None and colours.bands != 4:
        return _three(colours), None
    if profile is not None:
        colours = attach_profile(colours, profile)
    depth = 8 * (2 if colours.format == "ushort" else 1)
    source = {"embedded": True} if profile is not None else {"input_profile": "cmyk"}
    return colours.icc_transform("srgb", depth=depth, **source), None


def _usable(
    profile: bytes | None, bands: int, path: str | os.PathLike
) -> tuple[bytes | None, str | None]:
    """A profile that is for pixels of so many channels, and the colours that it is of."""
    if not profile:
        return None, None
    try:
        space = ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError) as error:
        logger.warning("%s: its ICC profile is damaged and is not used (%s)", path, error)
        return None, None
    if space not in {1: ("GRAY", "RGB"), 3: ("RGB",), 4: ("CMYK",)}[bands]:
        logger.warning("%s: its ICC profile is for %s, not for its pixels; not used", path, space)
        return None, None
    return profile, space


def _has_curves(profile: bytes) -> bool:
    try:
        colour_space(profile)
    except ValueError:
        return False
    return True


def _three(colours: "pyvips.Image") -> "pyvips.Image":
    return colours if colours.bands == 3 else colours.bandjoin([colours, colours])


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
    height, width = photo.pixels.shape[:2]
    check_holds(path, (height, width), argument)
    if not photo.is_opaque and file_format in encoders.OPAQUE:
        logger.warning("%s holds no transparency: the photo is put on white", path)
    metadata = photo.metadata.of_upright(width, height)
    try:
        with atomic_file(path, overwrite=overwrite) as file:
            encoders.encode(file, file_format, replace(photo, metadata=metadata), quality)
    except FileExistsError as error:
        raise ArgumentError(argument, path, EXISTS) from error


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
    height, width = size
    file_format = format_of(Path(path), argument)
    longest = encoders.LONGEST_SIDE.get(file_format, max(height, width))
    if max(height, width) > longest:
        expected = f"{file_format} holds at most {longest} pixels a side, not {width} x {height}"
        raise ArgumentError(argument, path, f"{expected}; use .png or .tif")
