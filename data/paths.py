"""Files and folders: which are photos, whether they can be written, and writing them whole."""

import logging
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import BinaryIO

from photostyle.data.held_files import remove_leftovers, temporary_file
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".jp2": "JPEG2000",
}
FILMS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
EXISTS = "exists; give another name or overwrite=true"

LEAST_ROOM = 1 << 16
"""Bytes that a disk must have free before work begins whose result it is to hold."""


def file_status(path: str | os.PathLike, argument: str) -> os.stat_result | None:
    """What the system says of a file or folder, links followed; None where nothing is.

    Not `Path.exists` and its like: which errors they swallow depends on Python's version.

    Raises:
        ArgumentError: it cannot be reached: no permission, a name too long, links in a circle, a
            drive that does not answer.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        expected = f"cannot be reached: {reason_of(error)}"
        raise ArgumentError(argument, path, expected) from error


def is_folder(path: str | os.PathLike, argument: str) -> bool:
    """Whether this is a folder, or a link to one; raises as `file_status`."""
    status = file_status(path, argument)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_file(path: str | os.PathLike, argument: str) -> bool:
    """Whether this is a regular file, or a link to one; raises as `file_status`."""
    status = file_status(path, argument)
    return status is not None and stat.S_ISREG(status.st_mode)


def reason_of(error: Exception) -> str:
    """What went wrong, in the system's words and without the path."""
    return getattr(error, "strerror", None) or str(error)


class AppearedError(FileExistsError):
    """A file was not written, since another one has appeared in its place."""


@contextmanager
def written(argument: str, path: str | os.PathLike, what: str = "cannot be written") -> Iterator:
    """Turn a failure to write, a full disk say, into an `ArgumentError`."""
    try:
        yield
    except AppearedError as error:
        raise ArgumentError(argument, path, EXISTS) from error
    except OSError as error:
        raise ArgumentError(argument, path, f"{what}: {reason_of(error)}") from error


def check_output(
    path: str | os.PathLike, *, overwrite: bool = False, argument: str = "output", needed: int = 0
) -> None:
    """Check that a picture can be written to ``path``; call it before any work.

    Raises:
        ArgumentError: as `check_file`, and for a suffix that belongs to no format.
    """
    check_file(path, overwrite=overwrite, argument=argument, needed=needed)
    format_of(Path(path), argument)


def check_file(path: str | os.PathLike, *, overwrite: bool, argument: str, needed: int = 0) -> None:
    """Check that a file can be written to ``path``, or to where it points if it is a link.

    Args:
        path: the file.
        overwrite: whether it may be there already.
        argument: the caller's name for it.
        needed: bytes that the file takes at least.

    Raises:
        ArgumentError: it cannot be reached, is a folder, or exists and ``overwrite`` is false; or
            its folder does not exist, must not be written to, or has no room.
    """
    path = Path(path)
    status = file_status(path, argument)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise ArgumentError(argument, path, "is a folder; give the name of a file")
    folder = link_target(path).parent
    if not is_folder(folder, argument):
        raise ArgumentError(argument, path, f"there is no folder {folder}; create it first")
    _check_writable(argument, path, folder)
    if status is not None and not overwrite:
        raise ArgumentError(argument, path, EXISTS)
    check_room(argument, path, folder, needed)


Paths = str | os.PathLike | Iterable[str | os.PathLike] | None


def check_apart(argument: str, outputs: Paths, **inputs: Paths) -> None:
    """Check that no file to be written is one of those to be read.

    Args:
        argument: the caller's name for what is written.
        outputs: a file or several, which need not be there; ``None``: none.
        inputs: the same of what is read, by the caller's names for them.

    Raises:
        ArgumentError: one is, under whatever name.
    """
    read = {file: name for name, paths in inputs.items() for _, file in _identified(paths)}
    for output, file in _identified(outputs):
        if file in read:
            expected = f"is the file of {read[file]}; give another name"
            raise ArgumentError(argument, output, expected)


def _identified(paths: Paths) -> Iterator[tuple[str | os.PathLike, tuple[int, int]]]:
    """Those of some files that are there, and what each is whatever its name."""
    if paths is None:
        return
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        with suppress(OSError, ValueError):
            status = os.stat(path)
            yield path, (status.st_dev, status.st_ino)


def check_folder(argument: str, folder: str | os.PathLike | None) -> None:
    """Check that files can be written to a folder, which need not exist yet.

    Raises:
        ArgumentError: it cannot be reached, is a file or below one, must not be written to, or has
            no room.
    """
    if folder is None:
        return
    file_status(folder, argument)
    absolute = Path(folder).absolute()
    existing = next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))
    if not is_folder(existing, argument):
        expected = f"{existing} is a file, or a link to nothing; give a folder"
        raise ArgumentError(argument, folder, expected)
    for name in absolute.relative_to(existing).parts:
        file_status(existing / name, argument)  # a name too long shows only in a folder that exists
    _check_writable(argument, folder, existing)
    check_room(argument, folder, existing)


def _check_writable(argument: str, value: str | os.PathLike, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        expected = f"no permission to write to the folder {folder}"
        raise ArgumentError(argument, value, expected)


def check_room(argument: str, value: str | os.PathLike, folder: Path, needed: int = 0) -> None:
    """Check that the disk of a folder, there or not, has room for ``needed`` bytes, or for some.

    Raises:
        ArgumentError: it has not.
    """
    free, needed = free_space(folder), max(needed, LEAST_ROOM)
    if free < needed:
        expected = f"{free / 1e6:.1f} MB are free there, at least {needed / 1e6:.1f} MB are needed"
        raise ArgumentError(argument, value, expected)


def free_space(folder: Path) -> float:
    """Bytes on the disk of a folder, there or not; infinite where it does not tell."""
    absolute = folder.absolute()
    existing = next(path for path in (absolute, *absolute.parents) if os.path.exists(path))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return math.inf
    return usage.free if usage.total else math.inf


def expected_size(photo: str | os.PathLike, result: str | os.PathLike) -> int:
    """Bytes that a result of a photo's own size takes at least: the photo's, in its format.

    0 for another format, and for a photo that cannot be looked at, which whoever reads it reports.
    """
    formats = {FORMATS.get(Path(path).suffix.lower()) for path in (photo, result)}
    try:
        return os.path.getsize(photo) if len(formats) == 1 else 0
    except (OSError, ValueError):
        return 0


def link_target(path: str | os.PathLike) -> Path:
    """Where a link points, be there something or not; anything else itself."""
    return Path(os.path.realpath(path) if os.path.islink(path) else path)


def format_of(path: Path, argument: str) -> str:
    """The name of the format that a file's suffix stands for."""
    file_format = FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise ArgumentError(argument, path, f"end its name in one of {' '.join(FORMATS)}")
    return file_format


def suffix_like(path: str | os.PathLike) -> str:
    """The suffix of a photo, ``.jpg`` where it stands for no format: results are as their photo."""
    suffix = PurePath(path).suffix
    return suffix if suffix.lower() in FORMATS else ".jpg"


@contextmanager
def atomic_file(path: str | os.PathLike, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A file to write to that appears as ``path`` when the block ends, and never otherwise.

    It is written beside ``path``, since only within one file system a rename is a single step. A
    link stays one: the file appears where it points. What killed processes left beside it is
    removed, see `held_files.remove_leftovers`.

    Raises:
        AppearedError: ``path`` exists when the block ends, and ``overwrite`` is false.
    """
    path = link_target(path)
    remove_leftovers(path.parent)
    with temporary_file(path.parent) as temporary:
        with temporary.open("r+b") as file:
            yield file
        if overwrite:
            os.replace(temporary, path)
        else:
            _name_if_free(temporary, path)


def _name_if_free(temporary: Path, path: Path) -> None:
    """Give a file a name that no other has; of two processes one succeeds."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file has one name only on some drives: cards of cameras, say
            path.open("x").close()
            os.replace(temporary, path)
    except FileExistsError as error:
        raise AppearedError(*error.args) from error


def find_photos(folder: str | os.PathLike, *, argument: str = "folder") -> list[str]:
    """The photos below a folder: sorted paths, relative to it.

    Links to folders are followed, each folder is read once, and what is hidden is passed over, as
    are, with a warning, folders below it that cannot be read. Files are told by their suffix; none
    is opened.

    Args:
        folder: where to look, with all below.
        argument: the caller's name for it, for error messages.

    Raises:
        ArgumentError: there are none, or the folder cannot be read.
    """
    photos = sorted(walk_photos(folder, argument=argument))
    if not photos:
        expected = f"holds no photos ({' '.join(FORMATS)}); give a folder of photos"
        raise ArgumentError(argument, folder, expected)
    return photos


def walk_photos(top: str | os.PathLike, *, argument: str) -> Iterator[str]:
    """As `find_photos`, in the order in which they are found, which may be none."""
    return filter(is_photo, walk_files(top, argument=argument, unreadable=_warn))


def walk_files(
    top: str | os.PathLike, *, argument: str, unreadable: Callable[[str, str], None]
) -> Iterator[str]:
    """All files below a folder and, not entered, hidden folders: paths relative to it.

    Args:
        top: where to look, with all below.
        argument: the caller's name for it.
        unreadable: told of each folder below that cannot be read, and why.

    Raises:
        ArgumentError: ``top`` itself cannot be read.
    """
    file_status(top, argument)
    top = os.fspath(top)

    def report(error: OSError):
        if error.filename == top:
            expected = f"cannot be read: {error.strerror}"
            raise ArgumentError(argument, top, expected) from error
        unreadable(error.filename, reason_of(error))

    seen = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=report):
        try:
            status = os.stat(folder)
        except OSError as error:
            report(error)
            subfolders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        hidden = [name for name in subfolders if name.startswith(".")]
        # Which of two ways to a folder is taken must not depend on the file system's order.
        subfolders[:] = sorted(set(subfolders).difference(hidden))
        below = os.path.relpath(folder, top)
        yield from (os.path.normpath(os.path.join(below, name)) for name in (*files, *hidden))


def _warn(folder: str, reason: str) -> None:
    logger.warning("%s cannot be read and is passed over: %s", folder, reason)


def is_photo(name: str | os.PathLike) -> bool:
    """Whether a file is a photo that is not hidden, by its name."""
    path = PurePath(name)
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")


def is_film(name: str | os.PathLike) -> bool:
    """Whether a file is a film, by its name."""
    return PurePath(name).suffix.lower() in FILMS
