"""Console output that cannot be written fails nothing."""

import errno
import logging
import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from tqdm import tqdm

from photostyle.ops.console import Console, LogHandler, safe_console, standard_error

pytestmark = pytest.mark.reliability

ROOT = Path(__file__).parents[2]


class Broken(StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


ERRORS = {
    "pipe": BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)),
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "closed": ValueError("I/O operation on closed file"),
}


def test_what_can_be_written_is():
    stream = StringIO()
    print("a line", file=Console(stream), flush=True)
    assert stream.getvalue() == "a line\n"
    assert not Console(stream).isatty()


@pytest.mark.parametrize("error", ERRORS)
def test_what_cannot_be_written_is_lost(error):
    console = Console(Broken(ERRORS[error]))
    print("a line", file=console, flush=True)
    assert console.error is ERRORS[error]


def test_no_stream():
    print("a line", file=Console(None), flush=True)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("latin-1", b"light \\udcff \\u65e5 \xcb\n"),
        ("cp437", b"light \\udcff \\u65e5 \\xcb\n"),
        ("cp1252", b"light \\udcff \\u65e5 \xcb\n"),
        ("ascii", b"light \\udcff \\u65e5 \\xcb\n"),
        ("utf-8", "light \\udcff 日 Ë\n".encode()),
        ("gb18030", "light \\udcff 日 Ë\n".encode("gb18030")),
    ],
)
def test_what_has_no_code(encoding, written):
    content = BytesIO()
    stream = TextIOWrapper(content, encoding)
    print("light \udcff 日 Ë", file=Console(stream), flush=True)
    assert content.getvalue() == written


def test_the_streams_are_put_back(capsys):
    streams = sys.stdout, sys.stderr
    with suppress(KeyError), safe_console():
        print("a line")
        assert sys.stdout is not streams[0]
        raise KeyError
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr().out == "a line\n"


def shown(text):
    """The lines that a terminal shows of a text."""
    lines = []
    for line in text.split("\n"):
        columns = []
        for part in line.split("\r"):
            columns[: len(part)] = part
        lines.append("".join(columns).rstrip())
    return lines


def test_a_line_of_the_log_stands_above_the_bar(monkeypatch):
    stream = StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with safe_console(), tqdm(total=4, file=standard_error(), bar_format="{n} of 4") as bar:
        handler = LogHandler(sys.stderr)
        handler.emit(logging.makeLogRecord({"msg": "a"}))
        bar.update(4)
        handler.emit(logging.makeLogRecord({"msg": "b"}))
    assert shown(stream.getvalue()) == ["a", "b", "4 of 4", ""]


PROGRAM = """
import os, sys
from photostyle.ops.console import safe_console

with safe_console():
    print("figures\\n" * int(sys.argv[1]))
    print("progress", file=sys.stderr)
    with open(os.devnull) as file:
        assert file.fileno() > 2
sys.exit(7)
"""


def run(redirection, lines=1):
    """A process whose exit code is 7 unless its output fails it; what it says on stderr."""
    command = f'"$0" -c "$1" {lines} {redirection}'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 7
    return process.stderr


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk(lines):
    """Which is told where that is possible."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    lost = f"warning: what was printed is lost ({os.strerror(errno.ENOSPC)})\n"
    assert run(">/dev/full", lines) == f"progress\n{lost}"
    assert run(">/dev/full 2>/dev/full", lines) == ""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_console(redirection):
    """Nor is another file opened in its place, for whatever prints without Python to write to."""
    assert run(redirection) in ("", "progress\n")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_who_goes(lines):
    """As head -1 does; that is no fault of anyone."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == "progress\n"
        assert process.wait(60) == 7
