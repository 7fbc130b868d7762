"""Processes with a time limit."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
SECONDS_TO_END = 10
"""After SIGTERM, before SIGKILL."""


def run_limited(
    words: list[str], seconds: float, output: BinaryIO, **environment: str
) -> int | None:
    """Run a command in the checkout; what it has started ends with it.

    Args:
        words: the command line.
        seconds: after which it is stopped.
        output: file for what it prints.
        environment: variables beside those of this process.

    Returns:
        The exit code; ``None`` where it was stopped.
    """
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_of(output: BinaryIO, count: int) -> str:
    """The last ``count`` bytes of a file, of a progress bar its last state."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - count))
    lines = output.read().decode(errors="replace").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines).strip()
