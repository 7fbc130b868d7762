"""The structure of TIFF files, and of EXIF data, which have the same.

A chain of directories, one per page, each with entries: a tag, a type, and values (TIFF 6.0,
sections 2 and 8; for files beyond 4 GB, BigTIFF; for EXIF data, EXIF 2.32, section 4.5).
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
SUBDIRECTORIES = (EXIF_IFD, GPS_IFD, INTEROP_IFD)
SHORT, LONG = 3, 4
DAMAGED = (struct.error, LookupError, ValueError, RecursionError)
"""What reading a block raises that is damaged."""

_TYPE_SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
_LARGEST_CLASSIC_TYPE = 13
_INTEGERS = {1: "B", SHORT: "H", LONG: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}
_WIDTH, _LENGTH, _COMPRESSION, _SAMPLES, _PLANES = 256, 257, 259, 277, 284
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_JPEG_TABLES = 347
_JPEG, _SEPARATE = 7, 2
"""Of `_COMPRESSION`, of `_PLANES`."""


class Entry(NamedTuple):
    """One entry of a directory: its type, the number of its values, their bytes, and where these
    stand in the block."""

    kind: int
    count: int
    value: bytes
    position: int


Directory = dict[int, "Entry | Directory"]
"""Entries by tag; those of `SUBDIRECTORIES` are directories again."""


class _Layout(NamedTuple):
    """The letter of `struct` for a directory's number of entries, and for offsets and counts."""

    entries: str
    offset: str

    @property
    def entry(self) -> int:
        """Bytes of an entry: tag and type, count, and the offset of its values or these."""
        return 4 + 2 * struct.calcsize(self.offset)


_CLASSIC, _BIG = _Layout("H", "I"), _Layout("Q", "Q")


class _Room:
    """How much of a block directories and their values may take.

    Writers let two entries share a value; a damaged block may refer to the same bytes without end.
    """

    def __init__(self, block: bytes):
        self.left = 4 * len(block)

    def take(self, length: int) -> None:
        self.left -= length
        if self.left < 0:
            raise ValueError("its entries refer to the same bytes again and again")


def byte_order(block: bytes) -> str:
    """``"<"`` or ``">"``, as `struct` has it; ValueError where a block begins with neither."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        raise ValueError("no byte order")
    return order


def unpacked(block: bytes, layout: str, offset: int) -> tuple:
    """Numbers of a block in its own byte order."""
    return struct.unpack_from(byte_order(block) + layout, block, offset)


def first_offset(block: bytes) -> int:
    """Where the first directory of EXIF data, or of a TIFF file that is no BigTIFF, stands."""
    magic, offset = unpacked(block, "HI", 2)
    if magic != 42:
        raise ValueError("no TIFF structure")
    return offset


def directory_at(
    block: bytes, offset: int, room: _Room | None = None, layout: _Layout = _CLASSIC
) -> tuple[Directory, int]:
    """The directory at an offset, with those below it, and where the offset of the next stands.

    Raises:
        DAMAGED: something of it is not there.
    """
    room = room or _Room(block)
    directory: Directory = {}
    entries, link = _entries(block, offset, layout)
    for tag, kind, count, place in entries:
        length = _TYPE_SIZES.get(kind, 0) * count
        room.take(layout.entry + length)
        position = _position(block, place, length, layout)
        value = bytes(block[position : position + length])
        if len(value) < length:
            raise ValueError(f"the value of tag {tag} is missing")
        if tag in SUBDIRECTORIES:
            (below,) = unpacked(block, _INTEGERS.get(kind, layout.offset), place)
            directory[tag] = directory_at(block, below, room, layout)[0]
        elif length:
            directory[tag] = Entry(kind, count, value, position)
    return directory, link


def _entries(
    block: bytes, offset: int, layout: _Layout
) -> tuple[list[tuple[int, int, int, int]], int]:
    """Tag, type and count of each entry and the place of its value, and that of the next offset."""
    (number,) = unpacked(block, layout.entries, offset)
    first = offset + struct.calcsize(layout.entries)
    link = first + number * layout.entry
    if link > len(block):
        raise ValueError("a directory is cut short")
    head = "HH" + layout.offset
    place = struct.calcsize(f"={head}")
    starts = range(first, link, layout.entry)
    return [(*unpacked(block, head, start), start + place) for start in starts], link


def _position(block: bytes, place: int, length: int, layout: _Layout) -> int:
    """Of values that stand in their entry where they are short enough, or where it says."""
    if length <= struct.calcsize(layout.offset):
        return place
    return unpacked(block, layout.offset, place)[0]


def number_in(block: bytes, entry: Entry) -> int:
    """The first value of an entry; 0 where it is no integer as sizes are."""
    if entry.kind not in (SHORT, LONG):
        return 0
    return unpacked(block[:2] + entry.value, _INTEGERS[entry.kind], 2)[0]


def pages(content: bytes) -> Iterator[Directory]:
    """The directories of a TIFF file, one after the other; raises what `directory_at` does."""
    room = _Room(content)
    for offset, layout in _page_offsets(content):
        yield directory_at(content, offset, room, layout)[0]


def _page_offsets(content: bytes) -> Iterator[tuple[int, _Layout]]:
    (magic,) = unpacked(content, "H", 2)
    layout = _BIG if magic == 43 else _CLASSIC
    offset = unpacked(content, "Q", 8)[0] if magic == 43 else first_offset(content)
    seen = set()
    while offset and offset not in seen:
        seen.add(offset)
        yield offset, layout
        (offset,) = unpacked(content, layout.offset, _entries(content, offset, layout)[1])


def packed(directory: Directory, order: str, offset: int) -> bytes:
    """A directory and its values as they stand in a block from an offset on; the last in a chain.

    Args:
        directory: entries by tag; those of types that only BigTIFF has are left out.
        order: ``"<"`` or ``">"``, also that of the entries' values.
        offset: even.
    """
    directory = {
        tag: entry
        for tag, entry in directory.items()
        if isinstance(entry, dict) or entry.kind <= _LARGEST_CLASSIC_TYPE
    }
    entries = b""
    values = b""
    start = offset + 2 + 12 * len(directory) + 4
    for tag, entry in sorted(directory.items()):
        if isinstance(entry, dict):
            values += bytes(len(values) % 2)
            entries += struct.pack(f"{order}HHII", tag, LONG, 1, start + len(values))
            values += packed(entry, order, start + len(values))
            continue
        entries += struct.pack(f"{order}HHI", tag, entry.kind, entry.count)
        if len(entry.value) <= 4:
            entries += entry.value.ljust(4, b"\0")
        else:
            values += bytes(len(values) % 2)
            entries += struct.pack(f"{order}I", start + len(values))
            values += entry.value
    count = struct.pack(f"{order}H", len(directory))
    return count + entries + bytes(4) + values + bytes(len(values) % 2)


# ------------------------------------------------------------------------------------------ pixels


class JpegSegment(NamedTuple):
    """A strip or a tile that is a JPEG file: its bytes, and the least size that it must have."""

    content: bytes
    width: int
    height: int


def checked_segments(content: bytes, number: int) -> Iterator[JpegSegment]:
    """Make sure that strips or tiles cover a page; libtiff puts black for tiles that are missing.

    Args:
        content: a TIFF file.
        number: of the page, from 0.

    Returns:
        those that are JPEG files: whether they are whole only their decoder can say.

    Raises:
        DAMAGED: some are not there, or what says where they are is not.
    """
    page = _Storage(content, number)
    page.check()
    return page.jpeg_segments()


class _Storage:
    """Where the pixels of a page are: in strips, or in tiles (TIFF 6.0, sections 8 and 15)."""

    def __init__(self, content: bytes, number: int):
        offset, self._layout = next(islice(_page_offsets(content), number, None))
        self._content = content
        self._entries = {tag: rest for tag, *rest in _entries(content, offset, self._layout)[0]}
        (self._width,), (self._length,) = self._values(_WIDTH), self._values(_LENGTH)
        self._is_tiled = _TILE_WIDTH in self._entries
        (self._across,) = self._values(_TILE_WIDTH, (self._width,))
        (down,) = self._values(_TILE_LENGTH if self._is_tiled else _ROWS_PER_STRIP, (self._length,))
        self._down = down if self._is_tiled else min(down, self._length)
        if not self._across or not self._down:
            raise ValueError("strips or tiles without pixels")
        is_separate = self._values(_PLANES) == (_SEPARATE,)
        self._planes = self._values(_SAMPLES, (1,))[0] if is_separate else 1
        self._columns = -(-self._width // self._across)
        self._count = self._columns * -(-self._length // self._down) * self._planes
        self._offsets = self._values(_TILE_OFFSETS) or self._values(_STRIP_OFFSETS)
        self._sizes = self._values(_TILE_BYTES) or self._values(_STRIP_BYTES)

    def _values(self, tag: int, default: tuple = ()) -> tuple:
        if tag not in self._entries:
            return default
        kind, count, place = self._entries[tag]
        position = _position(self._content, place, _TYPE_SIZES[kind] * count, self._layout)
        return unpacked(self._content, f"{count}{_INTEGERS[kind]}", position)

    def check(self) -> None:
        # Of strips libtiff refuses what is empty, and finds out how long a single one is.
        sizes = self._sizes if self._is_tiled else self._offsets
        pairs = zip(self._offsets, sizes, strict=False)
        found = sum(map(all, islice(pairs, self._count)))
        if found < self._count:
            kind = "tiles" if self._is_tiled else "strips"
            raise ValueError(f"{found} of {self._count} {kind} are there")

    def jpeg_segments(self) -> Iterator[JpegSegment]:
        if self._values(_COMPRESSION) != (_JPEG,) or self._planes > 1:  # of smaller chroma, say
            return
        tables = bytes(self._values(_JPEG_TABLES))
        for index, (offset, size) in enumerate(zip(self._offsets, self._sizes, strict=True)):
            content = self._content[offset : offset + size]
            if tables:  # a JPEG file without pixels: from its start to before its end
                content = tables[:-2] + content[2:]
            top = index // self._columns * self._down
            down = self._down if self._is_tiled else min(self._down, self._length - top)
            yield JpegSegment(content, self._across, down)
