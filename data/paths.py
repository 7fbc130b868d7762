"""Files and folders: which are photos, whether they can be written, and writing them whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

from photostyle.ops.errors import ArgumentError

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


def check_output(
    path: str | os.PathLike, *, overwrite: bool = False, argument: str = "output"
) -> None:
    """Check that a picture can be written to ``path``; call it before any work.

    Raises:
        ArgumentError: the suffix belongs to no format, the folder does not exist or must not be
            written to, ``path`` is a folder, or it exists and ``overwrite`` is false.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(argument, path, "is a folder; give the name of a file")
    format_of(path, argument)
    if not path.parent.is_dir():
        raise ArgumentError(argument, path, f"there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArgumentError(argument, path, f"no permission to write to the folder {path.parent}")
    if path.exists() and not overwrite:
        raise ArgumentError(argument, path, "exists; give another name or overwrite=true")


def check_folder(argument: str, folder: str | os.PathLike | None) -> None:
    """Check that files can be written to a folder, which need not exist yet.

    Raises:
        ArgumentError: it is a file or below one, or must not be written to.
    """
    if folder is None:
        return
    absolute = Path(folder).absolute()
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not existing.is_dir():
        raise ArgumentError(argument, folder, f"{existing} is a file; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArgumentError(argument, folder, f"no permission to write to the folder {existing}")


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
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to that appears as ``path`` when the block ends, and never otherwise.

    It is written beside ``path``, since only within one file system a rename is a single step.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Not tempfile: it opens for the owner only, whatever the umask says.
        with temporary.open("x+b") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def find_photos(folder: str | os.PathLike, *, argument: str = "folder") -> list[str]:
    """The photos below a folder: sorted paths, relative to it.

    Links to folders are followed, each folder is read once, and what is hidden is passed over.
    Files are told by their suffix; none is opened.

    Args:
        folder: where to look, with all below.
        argument: the caller's name for it, for error messages.

    Raises:
        ArgumentError: there are none, or a folder cannot be read.
    """
    photos = sorted(walk_photos(folder, argument=argument))
    if not photos:
        expected = f"holds no photos ({' '.join(FORMATS)}); give a folder of photos"
        raise ArgumentError(argument, folder, expected)
    return photos


def walk_photos(top: str | os.PathLike, *, argument: str) -> Iterator[str]:
    """As `find_photos`, in the order in which they are found, which may be none."""

    def refuse(error: OSError):
        expected = f"cannot be read: {error.strerror}"
        raise ArgumentError(argument, error.filename, expected) from error

    seen = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Which of two ways to a folder is taken must not depend on the file system's order.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = os.path.relpath(folder, top)
        yield from (os.path.normpath(os.path.join(below, name)) for name in files if is_photo(name))


def is_photo(name: str | os.PathLike) -> bool:
    """Whether a file is a photo that is not hidden, by its name."""
    path = PurePath(name)
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")
