"""Files that others wrote, read whole: whatever is wrong with one is one `ArgumentError`."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from photostyle.data.paths import file_status, reason_of
from photostyle.ops.errors import ArgumentError

LONGEST_REASON = 200


@contextmanager
def refused(argument: str, path: str | os.PathLike, expected: str) -> Iterator[None]:
    """Turn whatever reading a file raises into an `ArgumentError`.

    What damaged bytes make the libraries below us raise has no end, and none of it is a defect of
    ours: this is the one place that knows. Memory that runs out may mean either, and the error says
    so.

    Args:
        argument: the caller's name for the file; errors of this name pass as they are.
        path: the file.
        expected: what is wrong; ``{}`` in it stands for the reason.
    """
    try:
        yield
    except MemoryError as error:
        found = f"takes more memory than there is, or is damaged ({in_one_line(error)})"
        raise ArgumentError(argument, path, f"{found}; give a smaller one") from error
    except Exception as error:
        if isinstance(error, ArgumentError) and error.argument == argument:
            raise
        raise ArgumentError(argument, path, expected.format(in_one_line(error))) from error


def in_one_line(error: Exception) -> str:
    """What a library complains of: its last line, where it says so in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:LONGEST_REASON] if lines else type(error).__name__


def check_present(give: str, **inputs: str | os.PathLike | None) -> None:
    """Check that something is where files are to be read; call it before outputs are checked.

    Args:
        give: what each ought to be, such as "a network file".
        inputs: by the caller's names for them; ``None`` need not be there.

    Raises:
        ArgumentError: there is nothing, or it cannot be reached.
    """
    for argument, path in inputs.items():
        if path is not None and file_status(path, argument) is None:
            raise ArgumentError(argument, path, f"no such file; give {give}")


def open_file(path: str | os.PathLike, argument: str, give: str) -> BinaryIO:
    """Open a file to read it.

    Args:
        path: the file.
        argument: the caller's name for it.
        give: what it ought to be, such as "a network file".

    Raises:
        ArgumentError: no such file, a folder, no regular file, empty, not permitted.
    """
    status = file_status(path, argument)
    if status is not None:
        if stat.S_ISDIR(status.st_mode):
            raise ArgumentError(argument, path, f"is a folder; give {give}")
        if not stat.S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise ArgumentError(argument, path, f"is no regular file; give {give}")
        if status.st_size == 0:
            raise ArgumentError(argument, path, f"the file is empty; give {give}")
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise ArgumentError(argument, path, f"no such file; give {give}") from error
    except PermissionError as error:
        raise ArgumentError(argument, path, "no permission to read it") from error
    except OSError as error:
        expected = f"cannot be opened: {reason_of(error)}"
        raise ArgumentError(argument, path, expected) from error


def read_whole(file: BinaryIO, path: str | os.PathLike, argument: str, largest: int) -> bytes:
    """All of an open file, from its start.

    Into memory: a file that is mapped and then cut short ends the process.

    Args:
        file: what `open_file` returned.
        path, argument: see there.
        largest: bytes that it may have.

    Raises:
        ArgumentError: it is larger, changes while it is read, or cannot be read.
    """
    try:
        before = os.fstat(file.fileno())
        if before.st_size > largest:
            found = f"{before.st_size / 1e6:,.0f} MB are too many"
            raise ArgumentError(argument, path, f"{found}; give at most {largest / 1e6:,.0f} MB")
        file.seek(0)
        content = file.read(before.st_size)
        after = os.fstat(file.fileno())
    except OSError as error:
        raise ArgumentError(argument, path, f"cannot be read: {reason_of(error)}") from error
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or len(content) != before.st_size:
        raise ArgumentError(argument, path, "has changed while it was read; try again")
    return content


def content_of(
    path: str | os.PathLike, argument: str, *, give: str, largest: int = 1 << 30
) -> bytes:
    """All of a file; takes and raises what `open_file` and `read_whole` do."""
    with open_file(path, argument, give) as file:
        return read_whole(file, path, argument, largest)
