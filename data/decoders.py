"""Files of pictures, told by their first bytes and opened by a library that knows them.

libvips decodes, and Pillow what libvips has no decoder for (HEIC, JPEG 2000, BMP). What this module
adds is one picture whatever the library, and errors that say what is right.
"""

import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from photostyle.data.metadata import Metadata, of_picture, of_tiff
from photostyle.data.photo import MIN_SIDE
from photostyle.data.reading import in_one_line, open_file, read_whole, refused
from photostyle.data.tiff import checked_segments
from photostyle.data.vips import libvips, to_vips
from photostyle.ops.errors import ArgumentError

if TYPE_CHECKING:
    import pyvips

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

READABLE = "a JPEG, PNG, WebP, AVIF, HEIC, TIFF, JPEG 2000 or BMP file"
_HEIF = rb".{4}ftyp(?:.{4})*?"
_SIGNATURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("AVIF", _HEIF + rb"avi[fs]"),
    ("HEIC", _HEIF + rb"(?:hei[cxms]|hev[cx]|mif1|msf1)"),
    ("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"),  # "BM" begins captions, too
)
HEAD = 64
"""Bytes at the start of a file that tell its format."""
_LOADERS = {
    "JPEG": "jpegload_source", "PNG": "pngload_source", "WEBP": "webpload_source",
    "AVIF": "heifload_source", "TIFF": "tiffload_source",
}  # fmt: skip
"""Of libvips. The others are left to Pillow."""
_HALF = "remature end"
"""How libjpeg warns that there is less than the header promised."""
_TOLD = re.compile("jpe?g|exif", re.IGNORECASE)
"""In what is told of a JPEG file. libvips keeps one text for the errors of all threads: it may be
another thread's, or gone."""
_ATTEMPTS = 10
_LARGEST_PIXEL, _LARGEST_REST = 16, 1 << 28
"""Bytes in a file: of a pixel, four floats; of all that editors keep beside the photo."""
LARGEST_TEXT = 64 << 20
"""Bytes of a profile or a text in a PNG file, unpacked; Pillow takes no more of all together."""
# Pillow's limit is a module variable: two threads at once could restore the wrong one for good.
_PILLOW_STATE = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A file's picture.

    Attributes:
        image: of libvips, decoded when its pixels are asked for; as the file stores it.
        orientation: 1 to 8, see `data.metadata.Metadata.orientation`.
        profile: an ICC profile, damaged or not, for these pixels or not; or None.
        metadata: without a block of EXIF data that is damaged.
    """

    image: "pyvips.Image"
    orientation: int
    profile: bytes | None
    metadata: Metadata


def decoded(
    path: str | os.PathLike,
    argument: str,
    max_pixels: int,
    use: Callable[[Picture], Result],
    content: bytes | None = None,
) -> Result:
    """What is made of a file's picture.

    Args:
        path: the file, of any format of `data.image_io.load_photo`.
        argument: the caller's name for it, for error messages.
        max_pixels: refuse more than this, by the header, before anything is decoded.
        use: called with the picture, whose pixels can be read until it returns. Of a JPEG file with
            small faults it is called more than once.
        content: of the file, if that is in memory; then ``path`` is its name and no more.

    Raises:
        ArgumentError: no such file, a folder, not permitted, empty, changed meanwhile, not a
            picture, less than 16 pixels on a side, more than ``max_pixels``, truncated or damaged.
    """
    if content is None:
        with open_file(path, argument, READABLE) as file:
            _checked_kind(file.read(HEAD), path, argument)
            content = read_whole(file, path, argument, _LARGEST_PIXEL * max_pixels + _LARGEST_REST)
    kind = _checked_kind(content[:HEAD], path, argument)
    check_size = _size_check(path, argument, max_pixels)
    with refused(argument, path, "truncated or damaged ({}); give a complete file"):
        if kind not in _LOADERS:
            return use(_by_pillow(content, kind, path, check_size))

        def by_vips(fail_on: str) -> Result:
            return use(_by_vips(content, kind, path, argument, check_size, fail_on))

        if kind == "JPEG":
            # Cameras leave bytes between segments, and worse; only half a photo is none.
            try:
                return _until_told(by_vips, "warning")
            except libvips().Error as error:
                if _HALF in str(error) or not _TOLD.search(str(error)):
                    raise
        return by_vips("error")


def _until_told(read: Callable[..., Result], *given) -> Result:
    """What a JPEG file is read to, or an error of libvips that tells of it, if one can be had."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return read(*given)
        except libvips().Error as error:
            if _TOLD.search(str(error)):
                raise
    return read(*given)


def _checked_kind(head: bytes, path: str | os.PathLike, argument: str) -> str:
    if not head:
        raise ArgumentError(argument, path, f"the file is empty; give {READABLE}")
    kind = kind_of(head)
    if kind is None:
        expected = f"not a picture that can be read; give {READABLE}"
        raise ArgumentError(argument, path, expected)
    return kind


def kind_of(head: bytes) -> str | None:
    """The format of a file, as `data.paths.FORMATS` has it, by its first `HEAD` bytes."""
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


def _by_vips(
    content: bytes, kind: str, path, argument: str, check_size: Callable, fail_on: str
) -> Picture:
    options = {}
    if kind == "TIFF":
        options["page"], metadata = _of_tiff(content, path)
    else:
        metadata = of_picture(_opened_by_pillow(content, kind))
    source = libvips().Source.new_from_memory(content)
    load = getattr(libvips().Image, _LOADERS[kind])
    try:
        image = load(source, access="sequential", fail_on=fail_on, **options)
    except libvips().Error as error:
        if fail_on == "warning":
            raise
        expected = f"damaged, or a {kind} file of a kind that cannot be read ({in_one_line(error)})"
        raise ArgumentError(argument, path, f"{expected}; save it anew") from error
    check_size(image.width, image.height)
    if kind == "TIFF":
        _check_segments(content, options["page"])
    fields = image.get_fields()
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else None
    orientation, metadata = _sound(metadata, path)
    if kind == "AVIF":  # its decoder has turned the photo as the container says
        orientation = 1
    elif kind == "TIFF" and "orientation" in fields:  # that of BigTIFF, too
        orientation = image.get("orientation")
    return Picture(image, orientation, profile, metadata)


def _by_pillow(content: bytes, kind: str, path, check_size: Callable) -> Picture:
    if kind == "HEIC":
        import pillow_heif

        image = pillow_heif.open_heif(BytesIO(content), convert_hdr_to_8bit=False)
        check_size(*image.size)
        array, metadata = np.asarray(image), of_picture(image)
    else:
        image = _opened_by_pillow(content, kind)
        check_size(*image.size)
        if kind == "JPEG2000":
            _check_tiles(content)
        metadata = of_picture(image)
        image.load()
        if image.mode not in ("L", "LA", "I;16", "RGB", "RGBA"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        array = np.asarray(image)
    _, metadata = _sound(metadata, path)
    array = array.reshape(*array.shape[:2], -1)
    return Picture(to_vips(array), 1, image.info.get("icc_profile"), metadata)


def _check_tiles(content: bytes) -> None:
    """Raise ValueError where tiles of a JPEG 2000 file are missing, for which OpenJPEG puts black.

    ISO 15444-1, A.4.2 and A.5.1.
    """
    start = content.index(b"\xff\x4f\xff\x51")
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", content, start + 8)
    expected = -(-(right - left) // width) * -(-(bottom - top) // height)
    found, place = set(), content.index(b"\xff\x90", start)
    while content[place : place + 2] == b"\xff\x90":
        tile, length = struct.unpack_from(">HI", content, place + 4)
        found.add(tile)
        place += length or len(content)  # the last one may leave it open
    if len(found) < expected:
        raise ValueError(f"{len(found)} of {expected} tiles are there")


def _check_segments(content: bytes, page: int) -> None:
    """Raise where strips or tiles of a TIFF file are missing, or are half of what they should be.

    libtiff decodes those that are JPEG files itself, and says nothing.
    """
    for segment in checked_segments(content, page):
        try:
            image = _until_told(_whole_jpeg, segment.content)
        except libvips().Error as error:
            if _HALF in str(error):
                raise ValueError("a JPEG strip or tile ends early") from error
            continue
        if image.width < segment.width or image.height < segment.height:
            found = f"{image.width} x {image.height} pixels"
            raise ValueError(f"{found} where there should be {segment.width} x {segment.height}")


def _whole_jpeg(content: bytes) -> "pyvips.Image":
    image = libvips().Image.jpegload_buffer(content, fail_on="warning")
    image.avg()
    return image


def _of_tiff(content: bytes, path: str | os.PathLike) -> tuple[int, Metadata]:
    try:
        return of_tiff(content)
    except ValueError as error:
        logger.warning("%s: its metadata cannot be read and are not kept (%s)", path, error)
        return 0, Metadata()


def _sound(metadata: Metadata, path: str | os.PathLike) -> tuple[int, Metadata]:
    """The orientation, and the metadata without EXIF data that could not be written again."""
    try:
        metadata.of_upright(1, 1)
        return metadata.orientation, metadata
    except ValueError as error:
        logger.warning("%s: its EXIF data are damaged and are not kept (%s)", path, error)
        return 1, replace(metadata, exif=None)


def _opened_by_pillow(content: bytes, kind: str) -> Image.Image:
    with _pillow_on_our_terms():
        try:
            return Image.open(BytesIO(content), formats=(kind,))
        except UnidentifiedImageError as error:  # which names an object of ours
            raise ValueError(f"no {kind} header that can be read") from error


@contextmanager
def _pillow_on_our_terms() -> Iterator[None]:
    """Let Pillow read a header without its opinions, one thread at a time.

    It warns of large images and refuses larger ones, where ``max_pixels`` decides, refuses profiles
    and texts of more than 1 MB in PNG files, and it warns of damaged metadata before it goes on
    without, or raises.
    """
    with _PILLOW_STATE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, LARGEST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits
