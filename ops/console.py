"""Console output that never fails the work: pipes close, disks fill, some have no console."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class Console:
    """A text stream that loses what it cannot write, instead of raising.

    Args:
        stream: ``None``, as `sys.stderr` is where there is no console, takes everything.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, what has no code in the stream's encoding with backslashes."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # of a closed stream the latter
                try:
                    self._stream.write(text)
                except UnicodeEncodeError as error:
                    coded = text.encode(error.encoding, "backslashreplace")
                    self._stream.write(coded.decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def safe_console() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` a `Console` each, until the block ends.

    Output that is lost for another reason than a reader who has gone is told of on stderr.
    """
    _open_standard_descriptors()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Console, streams)
    try:
        yield
    finally:
        error = _end(streams[0])
        if error is not None and not isinstance(error, BrokenPipeError):
            print(f"warning: what was printed is lost ({error.strerror})", file=sys.stderr)
        _end(streams[1])
        sys.stdout, sys.stderr = streams


def _open_standard_descriptors() -> None:
    """Put the null device where 0, 1 or 2 is closed.

    The next file would get the number, and with it what C libraries and child processes print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _end(stream: TextIO | None) -> OSError | None:
    """Flush, and drop what cannot be written: Python would try again when it ends, and fail."""
    if stream is None or stream.closed:
        return None
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        return error
    return None
