"""Standard output and error that cannot fail the work: closed, full, or unable to print a name."""

import contextlib
import os
import sys
from typing import TextIO


def secure_streams() -> None:
    """Let whatever cannot be printed pass; call it once, before anything is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed: the next file opened would take its number, and stray messages.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, SecureStream):
            setattr(sys, name, SecureStream(stream or open(os.devnull, "w")))  # noqa: SIM115


class SecureStream:
    """A text stream whose failures are passed over; what it cannot encode it escapes."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """As of any text stream."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # full or gone, or closed
            return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
