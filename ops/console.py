"""Console output that never fails the work: pipes close, disks fill, some have no console."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from tqdm import tqdm


class Console:
    """A text stream that loses what it cannot write, instead of raising.

    Args:
        stream: ``None``, as `sys.stderr` is where there is no console, takes everything.

    Attributes:
        error: why something was lost, or ``None``.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write a text, what has no code in the stream's encoding with backslashes."""
        with self._lost():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                # Not the error's encoding: of all code pages that is "charmap".
                encoding = self._stream.encoding
                coded = text.encode(encoding, "backslashreplace")
                self._stream.write(coded.decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        with self._lost():
            self._stream.flush()

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        # Of a closed stream the second, of none the third.
        except (OSError, ValueError, AttributeError) as error:
            self.error = error

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def standard_error() -> Console:
    """`sys.stderr`, which within `safe_console` is a `Console` already."""
    return sys.stderr if isinstance(sys.stderr, Console) else Console(sys.stderr)


class LogHandler(logging.StreamHandler):
    """Writes lines above the progress bars of its stream, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


@contextmanager
def safe_console() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` a `Console` each, until the block ends.

    Output that is lost for another reason than a reader who has gone is told of on stderr.
    """
    _open_standard_descriptors()
    streams = sys.stdout, sys.stderr
    out, err = sys.stdout, sys.stderr = tuple(map(Console, streams))
    try:
        yield
    finally:
        out.flush()
        if isinstance(out.error, OSError) and not isinstance(out.error, BrokenPipeError):
            print(f"warning: what was printed is lost ({out.error.strerror})", file=err)
        err.flush()
        sys.stdout, sys.stderr = streams
        for stream in streams:
            _drop_the_rest(stream)


def _open_standard_descriptors() -> None:
    """Put the null device where 0, 1 or 2 is closed.

    The next file would get the number, and with it what C libraries and child processes print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _drop_the_rest(stream: TextIO | None) -> None:
    """What cannot be written: Python would try again when it ends, and fail."""
    try:
        if stream is not None:
            stream.flush()
    except ValueError:
        pass  # closed
    except OSError:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
