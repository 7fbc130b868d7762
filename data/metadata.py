"""What a file says about its photo, copied from file to file without being decoded.

EXIF data have a directory of entries for the photo, below it those of the camera's settings and of
the place, and behind it one for the thumbnail (EXIF 2.32, section 4.5). Libraries that read the
values and write them again lose what they do not understand: text in other alphabets, the rational
0/0, a maker's own notes. Here a block is patched where it is, or its entries move to another block
byte by byte.
"""

import re
import struct
from dataclasses import dataclass, replace
from typing import Self

from photostyle.data.tiff import (
    DAMAGED,
    EXIF_IFD,
    INTEROP_IFD,
    LONG,
    SHORT,
    SUBDIRECTORIES,
    Directory,
    Entry,
    byte_order,
    directory_at,
    first_offset,
    number_in,
    packed,
    pages,
    unpacked,
)

ORIENTATION = 274
NEW_SUBFILE_TYPE = 254
XMP, IPTC, IMAGE_RESOURCES, ICC_PROFILE = 700, 33723, 34377, 34675

_INTEROP_INDEX, _COLOUR_SPACE = 1, 0xA001
_ADOBE_RGB = 2
_SIZES = {256: 0, 257: 1, 0xA002: 0, 0xA003: 1}
"""Tags that hold the photo's width (0) or height (1)."""
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")
"""The same once more, as an attribute or an element: some readers go by it."""
_THUMBNAIL, _THUMBNAIL_LENGTH = 513, 514
_REDUCED = 1
"""Bit of `NEW_SUBFILE_TYPE`: a smaller version of another page."""
# How a TIFF file stores its pixels, and pictures beside the photo, which show it before the change:
# the thumbnail and Photoshop's layers.
_ABOUT_STORAGE = {
    *range(254, 267), *range(273, 274), *range(277, 282), *range(284, 293), 297, 301, 317, 318,
    319, *range(320, 348), 400, *range(512, 522), *range(529, 533), XMP, IPTC, IMAGE_RESOURCES,
    ICC_PROFILE, ORIENTATION, 37724, 50706, *range(50707, 50709),
}  # fmt: skip


@dataclass(frozen=True)
class Metadata:
    """What a file says about its photo.

    Attributes:
        exif: a block of EXIF data, from its byte order on, or None.
        xmp: a packet of XMP, or None.
        image_resources: Photoshop's image resource blocks, IPTC among them, or None.
        comments: keywords and texts.
        resolution: horizontal and vertical pixels per inch, or None.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    image_resources: bytes | None = None
    comments: tuple[tuple[str, str], ...] = ()
    resolution: tuple[float, float] | None = None

    @property
    def orientation(self) -> int:
        """1 to 8, see tag 274 of EXIF; 1 where the block says none or nonsense.

        Raises:
            ValueError: the block is damaged.
        """
        if self.exif is None:
            return 1
        entry = _top(self.exif).get(ORIENTATION)
        value = number_in(self.exif, entry) if entry else 1
        return value if 1 <= value <= 8 else 1

    @property
    def is_adobe_rgb(self) -> bool:
        """Whether the camera wrote Adobe RGB and said so by EXIF alone (DCF 2.0, R03)."""
        if self.exif is None:
            return False
        details = _top(self.exif).get(EXIF_IFD, {})
        interop = details.get(INTEROP_IFD, {}).get(_INTEROP_INDEX)
        space = details.get(_COLOUR_SPACE)
        if space is not None and number_in(self.exif, space) == _ADOBE_RGB:
            return True
        return interop is not None and interop.value.startswith(b"R03")

    def of_upright(self, width: int, height: int) -> Self:
        """The same for upright pixels of this size: without the thumbnail, too."""
        exif = None if self.exif is None else _of_upright(self.exif, width, height)
        xmp = None if self.xmp is None else _XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        return replace(self, exif=exif, xmp=xmp)


def of_picture(picture) -> Metadata:
    """What a picture that Pillow or pillow-heif has opened says about itself."""
    info = picture.info
    segments = getattr(picture, "applist", [])
    resources = b"".join(
        data.removeprefix(_PHOTOSHOP)
        for name, data in segments
        if name == "APP13" and data.startswith(_PHOTOSHOP)
    )
    is_png = getattr(picture, "format", None) == "PNG"  # a HEIC file says none
    comments = [("Comment", _text(data)) for name, data in segments if name == "COM"]
    comments += [
        (key, str(value))
        for key, value in info.items()
        if isinstance(value, str) and key not in _TEXTS_OF_OTHER_USE and is_png
    ]
    exif = info.get("exif") or _hexadecimal(info.get(_OLD_EXIF))
    xmp = info.get("xmp")
    return Metadata(
        exif=exif.removeprefix(b"Exif\0\0") if exif else None,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        image_resources=_without_pictures(resources) or None,
        comments=tuple(comments),
        resolution=_resolution(info.get("dpi")),
    )


_PHOTOSHOP = b"Photoshop 3.0\0"
_OLD_EXIF = "Raw profile type exif"
_TEXTS_OF_OTHER_USE = {"XML:com.adobe.xmp", _OLD_EXIF}
_RESOURCE_PICTURES = (1033, 1036)
"""Thumbnails, which show the photo before the change."""


def _resolution(dots: tuple[float, float] | None) -> tuple[float, float] | None:
    """What every format can say; a file may hold zero, or infinitely many."""
    return dots if dots is not None and all(1 <= number <= 65_535 for number in dots) else None


def _hexadecimal(text: str | None) -> bytes | None:
    """What ImageMagick wrote before PNG had a chunk for EXIF."""
    if text is None:
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return text.encode()  # no EXIF data, as will be found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _without_pictures(resources: bytes) -> bytes:
    """Image resource blocks: signature, number, name, length and data, each padded to two bytes."""
    kept, start = b"", 0
    while len(resources) >= start + 12 and resources[start : start + 4] == b"8BIM":
        number, name = struct.unpack_from(">HB", resources, start + 4)
        begin = start + 6 + (1 + name) + (1 + name) % 2
        if len(resources) < begin + 4:
            break
        (length,) = struct.unpack_from(">I", resources, begin)
        end = begin + 4 + length + length % 2
        if number not in _RESOURCE_PICTURES:
            kept += resources[start:end]
        start = end
    return kept


# ------------------------------------------------------------------------------------------- EXIF


def _top(block: bytes) -> Directory:
    try:
        return directory_at(block, first_offset(block))[0]
    except DAMAGED as error:
        raise ValueError(str(error)) from error


def _of_upright(exif: bytes, width: int, height: int) -> bytes:
    top = _top(exif)
    block = bytearray(exif)
    order = byte_order(exif)
    for tag, entry in (*top.items(), *top.get(EXIF_IFD, {}).items()):
        if tag in SUBDIRECTORIES:
            continue
        value = 1 if tag == ORIENTATION else None
        value = (width, height)[_SIZES[tag]] if tag in _SIZES else value
        if value is None or entry.kind not in (SHORT, LONG) or entry.count != 1:
            continue
        layout = "H" if entry.kind == SHORT and value <= 0xFFFF else "I"
        if layout == "I" and entry.kind == SHORT:
            struct.pack_into(f"{order}H", block, entry.position - 6, LONG)
        struct.pack_into(order + layout, block, entry.position, value)
    result = _without_thumbnail(block)
    _top(result)  # a damaged thumbnail may have been said to be all of it
    return result


def _without_thumbnail(block: bytearray) -> bytes:
    _, link = directory_at(block, first_offset(block))
    if len(block) < link + 4:  # some writers leave the last link out
        return bytes(block)
    (offset,) = unpacked(block, "I", link)
    if not offset:
        return bytes(block)
    struct.pack_into("4x", block, link)
    try:
        thumbnail, _ = directory_at(block, offset)
        start, length = (
            number_in(block, thumbnail[tag]) for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH)
        )
    except DAMAGED:
        return bytes(block)
    if start + length == len(block):
        return bytes(block[:start])
    block[start : start + length] = bytes(len(block[start : start + length]))
    return bytes(block)


def without_orientation(exif: bytes) -> bytes:
    """A block whose first directory has no entry for the orientation; all else is as it was."""
    if ORIENTATION not in _top(exif):
        return exif
    block = bytearray(exif)
    start = first_offset(exif)
    (count,) = unpacked(exif, "H", start)
    first, link = start + 2, start + 2 + 12 * count
    entries = [exif[i : i + 12] for i in range(first, link, 12)]
    kept = [entry for entry in entries if unpacked(exif[:8] + entry, "H", 8) != (ORIENTATION,)]
    behind = exif[link : link + 4].ljust(4, b"\0")
    rest = b"".join(kept) + behind
    block[first : first + len(rest)] = rest
    struct.pack_into(byte_order(exif) + "H", block, start, len(kept))
    return bytes(block)


def of_tiff(content: bytes) -> tuple[int, Metadata]:
    """The page of a TIFF file that holds the photo, counted from 0, and what is said about it.

    The photo is the first page that is not a smaller version of another one.

    Args:
        content: the file.

    Raises:
        ValueError: the file has no pages, or is damaged.
    """
    try:
        found = list(pages(content))
        page = next((n for n, page in enumerate(found) if not _is_reduced(content, page)), 0)
        return page, _metadata_of_page(content, found[page])
    except DAMAGED as error:
        raise ValueError(str(error)) from error


def _is_reduced(content: bytes, page: Directory) -> bool:
    return NEW_SUBFILE_TYPE in page and bool(number_in(content, page[NEW_SUBFILE_TYPE]) & _REDUCED)


def _metadata_of_page(content: bytes, page: Directory) -> Metadata:
    kept = described(page)
    if ORIENTATION in page:
        kept[ORIENTATION] = page[ORIENTATION]
    resources = _without_pictures(_value(page, IMAGE_RESOURCES) or b"") or None
    if resources is None and IPTC in page:
        resources = _as_image_resource(page[IPTC].value)
    order = byte_order(content)
    exif = content[:2] + struct.pack(f"{order}HI", 42, 8) + packed(kept, order, 8)
    return Metadata(exif if kept else None, _value(page, XMP), resources)


def described(page: Directory) -> Directory:
    """The entries of a page that are about the photo, not about how a file stores it."""
    return {tag: entry for tag, entry in page.items() if tag not in _ABOUT_STORAGE}


def exif_directory(exif: bytes) -> tuple[str, Directory]:
    """The byte order of a block of EXIF data, ``"<"`` or ``">"``, and its first directory.

    Raises:
        ValueError: the block is damaged.
    """
    return byte_order(exif), _top(exif)


def _value(directory: Directory, tag: int) -> bytes | None:
    entry = directory.get(tag)
    return entry.value if isinstance(entry, Entry) else None


def _as_image_resource(iptc: bytes) -> bytes:
    padding = b"\0" if len(iptc) % 2 else b""
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + padding
