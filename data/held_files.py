"""Files that belong to a process for as long as it runs, however it ends.

Their names or contents tell people whose they are. Whether it still runs is for a lock of the
system's to tell, which ends with its process: a process's number may be another's by then, or that
of one in another container.
"""

import fcntl
import functools
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from photostyle.ops.errors import ArgumentError

LOCK_FILE = ".lock"
_HOST = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
_FOLDER = f"photostyle_{_HOST}_"
_TEMPORARY = re.compile(rf"\.photostyle_{re.escape(_HOST)}_\d+_[0-9a-f]{{16}}\.tmp")


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A new, empty file in a folder; gone when the block ends, unless it has another name by then.

    Raises:
        OSError: it cannot be made.
    """
    path, descriptor = _new_file(folder)
    try:
        yield path
    finally:
        with suppress(OSError):  # on a drive that is gone, say: the first error is the one to tell
            path.unlink()
        with suppress(OSError):
            os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove what killed processes of this machine left of `temporary_file` in a folder.

    Once for each folder: to look through large ones takes a while.
    """
    _remove_leftovers(Path(folder).absolute())


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    with suppress(OSError):
        for name in os.listdir(folder):
            if _TEMPORARY.fullmatch(name):
                _remove_unless_held(folder / name)


def _remove_unless_held(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _new_file(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f".photostyle_{_HOST}_{os.getpid()}_{secrets.token_hex(8)}.tmp"
        # Not tempfile: it opens for the owner only, whatever the umask says.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # some network drives have no locks; there, nothing is removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(path):  # not removed by another process before it was locked
            return path, descriptor
        os.close(descriptor)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, for this user alone, until the block ends; what killed processes left of theirs
    is removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError), _held_folder(left):
            shutil.rmtree(left)
    with ExitStack() as stack:
        yield _new_folder(stack)


def _new_folder(stack: ExitStack) -> Path:
    while True:
        new = tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(new))
        # Another process may have taken it for one that was left, and may remove it still.
        with suppress(FileNotFoundError, BlockingIOError):
            stack.enter_context(_held_folder(folder))
            if folder.is_dir():
                return folder


@contextmanager
def _held_folder(folder: str | os.PathLike) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: str | os.PathLike, argument: str) -> Iterator[None]:
    """A folder, made if need be, that no other process can lock until the block ends.

    Where there are no locks, on some network drives, nothing keeps others away.

    Args:
        folder: where to.
        argument: the caller's name for it.

    Raises:
        ArgumentError: another process has locked it, says which; or it cannot be written to.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked_file(path)
    except BlockingIOError as error:
        expected = f"{_holder(path)} is at work there; wait for it, or give another folder"
        raise ArgumentError(argument, folder, expected) from error
    except OSError as error:
        raise ArgumentError(argument, folder, f"cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):  # something is in them
            for made in missing:
                made.rmdir()


def _locked_file(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            return descriptor
        if os.fstat(descriptor).st_nlink:  # not removed by its holder before it was locked
            with suppress(OSError):  # on a full disk
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {_HOST}".encode())
            return descriptor
        os.close(descriptor)


def _holder(path: Path) -> str:
    with suppress(OSError):  # it has ended since
        return path.read_text(errors="replace") or "another process"
    return "another process"
