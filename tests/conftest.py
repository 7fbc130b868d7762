"""Skips tests marked ``gpu`` where the CUDA path cannot run; with REQUIRE_CUDA=1 they fail.

And what several test files share.
"""

import os

# Several processes share the cores (pytest-xdist): threads that spin while they wait for each other
# would take them from the rest. Read when PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import errno
import io
import logging
import signal
import sys
import tarfile
from collections import namedtuple
from fractions import Fraction
from pathlib import Path
from urllib.error import URLError

import pytest

from photostyle.ops.matting import cuda as _cuda

Outcome = namedtuple("Outcome", "code out err")


def pytest_collection_modifyitems(items):
    """What takes long first: at the end of a run one process would wait for another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None:
        return
    reason = _cuda.availability()
    if reason is None:
        return
    if os.environ.get("REQUIRE_CUDA") == "1":
        pytest.fail(f"REQUIRE_CUDA=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach the network fails at once, and its message says so."""

    def refuse(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


@pytest.fixture(autouse=True)
def as_talkative_as_before():
    """An entry point, called in this process, has everything logged that is worth a note."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def command(monkeypatch, capsys):
    """Call an entry point as the command line does: ``command(main, *words)`` -> code, out, err."""
    from hydra.core.global_hydra import GlobalHydra  # the tests of a GPU do without

    root = logging.getLogger()
    handlers = root.handlers[:]
    ends = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # it sets this itself; now it is put back, too

    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["command", *words])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        return Outcome(code, *capsys.readouterr())

    yield call
    GlobalHydra.instance().clear()
    for number, handler in ends.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers


@pytest.fixture
def by_ffmpeg():
    """FFmpeg's lut3d: ``by_ffmpeg(pixels, cube)``, (H, W, 3) uint16, its own reader of the file."""
    av = pytest.importorskip("av", reason="PyAV, and with it FFmpeg, is not installed")

    def apply(pixels, cube):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format="rgb48le", time_base=frame.time_base
        )
        lut3d = graph.add("lut3d", f"file={cube}:interp=trilinear")
        sink = graph.add("buffersink")
        source.link_to(lut3d)
        lut3d.link_to(sink)
        graph.configure()
        source.push(frame)
        return sink.pull().to_ndarray(format="rgb48le")

    return apply


class Disk:
    """Files below some folders can be written to so many times, and then the disk is full."""

    def __init__(self, open_file):
        self.open_file = open_file
        self.folders = ()
        self.writes = 0

    def fills(self, *folders, writes):
        self.folders = [Path(folder).resolve() for folder in folders]
        self.writes = writes

    def open(self, path, mode="r", *arguments, **options):
        file = self.open_file(path, mode, *arguments, **options)
        if isinstance(path, int) or not set(mode) & set("wxa+"):
            return file
        inside = any(folder in Path(os.fsdecode(path)).resolve().parents for folder in self.folders)
        return _OnDisk(file, self) if inside else file

    def take(self):
        if self.writes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.writes -= 1


class _OnDisk:
    def __init__(self, file, disk):
        self._file = file
        self._disk = disk

    def write(self, content):
        self._disk.take()
        return self._file.write(content)

    def fileno(self):  # or else Pillow would write past us
        raise io.UnsupportedOperation

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be told when to be full: ``disk.fills(*folders, writes=N)``."""
    disk = Disk(io.open)
    monkeypatch.setattr("io.open", disk.open)
    return disk


@pytest.fixture
def sparse_header():
    """The header of an empty file of so many bytes: ``sparse_header(name, size)``, GNU's format."""

    def make(name, size):
        header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
        header[156:157] = tarfile.GNUTYPE_SPARSE
        header[386:410] = b"%011o\0%011o\0" % (size, 0)  # where its last piece ends
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header)

    return make
