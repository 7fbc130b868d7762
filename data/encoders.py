"""Photos into the bytes of a file, each format with all that it has a place for."""

import logging
import struct
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from photostyle.data import metadata as tags
from photostyle.data.metadata import Metadata, described, exif_directory
from photostyle.data.photo import Photo
from photostyle.data.tiff import Directory, Entry, packed
from photostyle.data.vips import attach_profile, libvips, to_vips
from photostyle.ops.interrupts import interrupts_held

logger = logging.getLogger(__name__)

LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383, "AVIF": 65_536, "HEIC": 16_384}
"""Where the format's own header or its usual encoder ends; the others reach further than memory."""

OPAQUE = ("JPEG", "BMP")
"""Formats without transparency."""

USUAL_RESOLUTION = (72, 72)
"""Pixels per inch of a photo that says none, where a format must say some."""

_JPEG_START, _PNG_HEADER = 2, 33
"""Bytes at the start of a file, behind which metadata may stand."""
_WITHOUT_PROFILE = ("BMP", "JPEG2000")
"""Formats for which no writer here keeps a profile."""
_SIXTEEN_BITS = ("PNG", "TIFF")
_MAX_SEGMENT = 65_533
_STRIP_BYTES = 1 << 22


def encode(file: BinaryIO, file_format: str, photo: Photo, quality: int) -> None:
    """Write a photo.

    Args:
        file: to write to, from its start.
        file_format: of `data.paths.FORMATS`.
        photo: with metadata of upright pixels of its size.
        quality: 1 to 100, where the format has one.

    Raises:
        OSError: it cannot be written.
    """
    if photo.alpha is not None and file_format in OPAQUE:
        photo = _on_white(photo)
    if file_format in _WITHOUT_PROFILE:
        photo = photo.in_srgb()
    if photo.white > 255 and file_format not in _SIXTEEN_BITS:
        photo = _of_eight_bits(photo)
    if file_format == "JPEG":
        options = {"Q": quality, "subsample_mode": "off"}
        inserted = b"".join(_jpeg_segments(photo.metadata))
        _write_by_vips(file, photo, "jpegsave_target", options, _JPEG_START, inserted)
    elif file_format == "PNG":
        _write_by_vips(file, photo, "pngsave_target", {}, _PNG_HEADER, _png_chunks(photo.metadata))
    elif file_format == "TIFF":
        _write_tiff(file, photo)
    else:
        _write_by_pillow(file, file_format, photo, quality)


def _on_white(photo: Photo) -> Photo:
    opacity = photo.alpha[..., None] / np.float32(photo.white)
    pixels = np.rint(photo.white + opacity * (photo.pixels - np.float32(photo.white)))
    return replace(photo, pixels=pixels.astype(photo.pixels.dtype), alpha=None)


def _of_eight_bits(photo: Photo) -> Photo:
    pixels, alpha = (
        array if array is None else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
        for array in (photo.pixels, photo.alpha)
    )
    return replace(photo, pixels=pixels, alpha=alpha)


# ------------------------------------------------------------------------------- JPEG and PNG


def _write_by_vips(file, photo, saver, options, place, inserted) -> None:
    """Have libvips write, and put what it would not leave as it is at its place in the header."""
    pixels = photo.pixels
    if photo.alpha is not None:
        pixels = np.dstack([pixels, photo.alpha])
    horizontal, vertical = (
        float(dots) / 25.4 for dots in photo.metadata.resolution or USUAL_RESOLUTION
    )
    image = to_vips(pixels).copy(xres=horizontal, yres=vertical)
    if photo.icc_profile is not None:
        image = attach_profile(image, photo.icc_profile)
    writer = _Inserting(file, place, inserted)
    target = libvips().TargetCustom()
    target.on_write(writer.write)
    try:
        with interrupts_held():
            getattr(image, saver)(target, keep="icc", **options)
    except libvips().Error as error:
        raise writer.failure or OSError(str(error).strip()) from error
    writer.finish()


class _Inserting:
    """A stream that gets something inserted behind its first bytes."""

    def __init__(self, file: BinaryIO, place: int, inserted: bytes):
        self._file = file
        self._place = place
        self._inserted = inserted
        self._head: bytes | None = b""
        self.failure: BaseException | None = None

    def write(self, data) -> int:
        try:
            if self._head is None:
                self._file.write(data)
            else:
                self._head += bytes(data)
                self._pass_head_on()
        except BaseException as error:  # it must not be raised through libvips
            self.failure = error
            return -1
        return len(data)

    def _pass_head_on(self) -> None:
        if len(self._head) < self._place:
            return
        for part in (self._head[: self._place], self._inserted, self._head[self._place :]):
            self._file.write(part)
        self._head = None

    def finish(self) -> None:
        """Whatever went wrong is raised now, an interrupt, too."""
        if self.failure is not None:
            raise self.failure


def _jpeg_segments(metadata: Metadata) -> list[bytes]:
    horizontal, vertical = map(round, metadata.resolution or USUAL_RESOLUTION)
    jfif = b"JFIF\0" + struct.pack(">HBHHxx", 0x0102, 1, horizontal, vertical)
    parts = [(0xE0, "JFIF data", jfif)]
    if metadata.exif is not None:
        parts.append((0xE1, "EXIF data", b"Exif\0\0" + metadata.exif))
    if metadata.xmp is not None:
        parts.append((0xE1, "XMP data", b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp))
    if metadata.image_resources is not None:
        resources = b"Photoshop 3.0\0" + metadata.image_resources
        parts.append((0xED, "IPTC data", resources))
    for key, text in metadata.comments:
        text = text if key == "Comment" else f"{key}: {text}"
        parts.append((0xFE, "a comment", text.encode("utf-8", "surrogateescape")))
    segments = []
    for marker, name, data in parts:
        if len(data) > _MAX_SEGMENT:
            logger.warning("%s of %d bytes do not fit into a JPEG file", name, len(data))
        else:
            segments.append(struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data)
    return segments


def _png_chunks(metadata: Metadata) -> bytes:
    info = PngInfo()
    if metadata.exif is not None:
        info.add(b"eXIf", metadata.exif)
    if metadata.xmp is not None:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    for key, text in metadata.comments:
        info.add_text(key, text.encode("utf-8", "replace").decode())
    stream = BytesIO()
    for kind, data, *_ in info.chunks:
        putchunk(stream, kind, data)
    return stream.getvalue()


# ----------------------------------------------------------------------------------------- TIFF


def _write_tiff(file: BinaryIO, photo: Photo) -> None:
    """TIFF 6.0, in one strip and without compression; the metadata's entries as they are."""
    metadata = photo.metadata
    order, directory = "<", {}
    if metadata.exif is not None:
        order, directory = exif_directory(metadata.exif)
    directory = described(directory) | _blocks(photo) | _resolution(order, directory, metadata)
    channels = 3 if photo.alpha is None else 4
    height, width = photo.pixels.shape[:2]
    itemsize = photo.pixels.dtype.itemsize
    short, long = (_numbers(order, kind) for kind in (3, 4))
    storage = {
        256: long(width), 257: long(height), 258: short(*[8 * itemsize] * channels),
        259: short(1), 262: short(2), 273: long(0), 277: short(channels), 278: long(height),
        279: long(height * width * channels * itemsize), 284: short(1),
    }  # fmt: skip
    if photo.alpha is not None:
        storage[338] = short(2)  # not multiplied into the colours
    directory |= storage
    # The offset takes as many bytes whatever it is.
    directory[273] = long(8 + len(packed(directory, order, 8)))
    file.write((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8))
    file.write(packed(directory, order, 8))
    rows = max(1, _STRIP_BYTES // (width * channels * itemsize))
    for top in range(0, height, rows):
        strip = photo.pixels[top : top + rows]
        if photo.alpha is not None:
            strip = np.dstack([strip, photo.alpha[top : top + rows]])
        file.write(np.ascontiguousarray(strip, strip.dtype.newbyteorder(order)))


def _numbers(order: str, kind: int):
    layout = {3: "H", 4: "I", 5: "II"}[kind]

    def entry(*values: int) -> Entry:
        count = len(values) // len(layout)
        return Entry(kind, count, struct.pack(order + layout * count, *values), 0)

    return entry


def _blocks(photo: Photo) -> Directory:
    blocks = {
        tags.ICC_PROFILE: (7, photo.icc_profile),
        tags.XMP: (1, photo.metadata.xmp),
        tags.IMAGE_RESOURCES: (1, photo.metadata.image_resources),
    }
    return {
        tag: Entry(kind, len(block), block, 0)
        for tag, (kind, block) in blocks.items()
        if block is not None
    }


def _resolution(order: str, directory: Directory, metadata: Metadata) -> Directory:
    if metadata.resolution is None or 282 in directory:
        return {}
    rational = _numbers(order, 5)
    horizontal, vertical = (round(100 * float(dots)) for dots in metadata.resolution)
    inch = _numbers(order, 3)(2)
    return {282: rational(horizontal, 100), 283: rational(vertical, 100), 296: inch}


# ------------------------------------------------------------------------------------ the others


def _write_by_pillow(file: BinaryIO, file_format: str, photo: Photo, quality: int) -> None:
    options = {}
    if file_format in ("AVIF", "HEIC"):
        options = {"quality": quality, "subsampling": "4:4:4"}
    elif file_format == "WEBP":
        # exact: the colours under full transparency belong to the photo as well.
        options = {"quality": quality, "exact": True}
    if file_format not in _WITHOUT_PROFILE:
        exif = photo.metadata.exif
        if exif is not None and file_format == "AVIF":
            # Pillow would move it to the container, and for that write the block anew.
            exif = tags.without_orientation(exif)
        blocks = {
            "exif": exif and b"Exif\0\0" + exif,
            "icc_profile": photo.icc_profile,
            "xmp": photo.metadata.xmp,
        }
        options |= {name: block for name, block in blocks.items() if block is not None}
    image = Image.fromarray(photo.pixels)
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    if file_format == "HEIC":
        import pillow_heif

        pillow_heif.from_pillow(image).save(file, **options)
    else:
        image.save(file, format=file_format, **options)
