"""Shards: tar files of photos and of what belongs to them, the WebDataset format."""

import glob
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from photostyle.data.image_io import MAX_PIXELS
from photostyle.data.paths import is_file, is_folder, reason_of, walk_photos
from photostyle.ops.errors import ArgumentError

EXPECTED = (
    "give a folder of photos, a folder of .tar shards, one shard, or a pattern of shards such as "
    "train-{0000..0099}.tar"
)

MAX_BYTES = 8 * MAX_PIXELS
"""Of a file in a shard: four channels of 16 bits at the most pixels that a photo may have, without
compression. A header may claim more, and a sparse file even have it, in a shard of a few bytes."""

DAMAGED = (
    tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""What reading a damaged shard raises."""


def find_shards(root: str | os.PathLike, *, argument: str) -> list[Path]:
    """The shards that ``root`` stands for, sorted; none for a folder of photos.

    Args:
        root: a folder, a shard, or a pattern of shards, with braces or stars.
        argument: the caller's name for it, for error messages.

    Raises:
        ArgumentError: there is nothing of that name or one of the shards is no tar file.
    """
    if not isinstance(root, str | os.PathLike) or not os.fspath(root):
        raise ArgumentError(argument, root, EXPECTED)
    root = os.fspath(root)
    find = _in_folder if os.path.isdir(root) else _of_pattern
    shards = sorted(find(root, argument))
    missing = [shard for shard in shards if not os.path.exists(shard)]  # never raises
    if missing:
        which = "" if len(shards) == 1 else f" as {missing[0]} ({len(missing)} are missing)"
        raise ArgumentError(argument, root, f"no such file or folder{which}; {EXPECTED}")
    for shard in shards:
        _check_shard(root, shard, argument)
    return shards


def shards_of(content: str | os.PathLike | None) -> list[Path]:
    """The shards that ``content`` stands for; none where it is photos or a film.

    Raises:
        ArgumentError: as `find_shards`.
    """
    if content is None:
        return []
    is_shard = os.fspath(content).endswith(".tar") or is_folder(content, "content")
    return find_shards(content, argument="content") if is_shard else []


def _in_folder(folder: str, argument: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        expected = f"cannot be read: {error.strerror}"
        raise ArgumentError(argument, folder, expected) from error
    names = [name for name in names if name.endswith(".tar") and not name.startswith(".")]
    # The archive often stays beside what was unpacked from it.
    if not names or next(walk_photos(folder, argument=argument), None) is not None:
        return []
    return [Path(folder, name) for name in names]


def _of_pattern(pattern: str, argument: str) -> list[Path]:
    if os.path.exists(pattern):
        return [Path(pattern)]
    if "{" in pattern:
        import webdataset  # takes a second

        try:
            return [Path(shard) for shard in webdataset.SimpleShardList(pattern).urls]
        except (AssertionError, ValueError) as error:
            raise ArgumentError(argument, pattern, f"no such pattern; {EXPECTED}") from error
    return list(map(Path, glob.glob(pattern, recursive=True))) or [Path(pattern)]


def _check_shard(root: str, shard: Path, argument: str) -> None:
    if not is_file(shard, argument):  # a named pipe would block for ever
        raise ArgumentError(argument, root, f"{shard.name} is no file; {EXPECTED}")
    try:
        # Never a compressed one: what its bytes are would show on the way only.
        tarfile.open(shard, "r:").close()
    except OSError as error:
        expected = f"{shard.name} cannot be read: {reason_of(error)}"
        raise ArgumentError(argument, root, expected) from error
    except DAMAGED as error:
        expected = f"{shard.name} is no tar file without compression; {EXPECTED}"
        raise ArgumentError(argument, root, expected) from error


def headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What an open shard holds, in its order; none of it is kept in memory.

    Raises:
        tarfile.TarError, OSError, EOFError, ValueError, RecursionError: at the place where it is
            damaged or cut off.
    """
    while (info := archive.next()) is not None:
        if info.size < 0:  # it would be read again and again
            raise tarfile.ReadError("a size below 0")
        archive.members = []
        yield info
    # For tarfile a damaged header, or none, is the end as well.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end")


def check_size(info: tarfile.TarInfo, name: str, *, argument: str) -> None:
    """Refuse a file that is larger than photos are, by its header; call it before it is read.

    Args:
        info: its header.
        name: of the file, with the shard's.
        argument: the caller's name for the shards.

    Raises:
        ArgumentError: it is larger than `MAX_BYTES`.
    """
    if info.size > MAX_BYTES:
        expected = f"{info.size:,} bytes by its header are too many; give at most {MAX_BYTES:,}"
        raise ArgumentError(argument, name, expected)
