"""Skips tests marked ``gpu`` where the CUDA path cannot run; with REQUIRE_CUDA=1 they fail.

And what several test files share.
"""

import os

# Several processes share the cores (pytest-xdist): threads that spin while they wait for each other
# would take them from the rest. Read when PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import logging
import signal
import sys
from collections import namedtuple
from urllib.error import URLError

import pytest
from hydra.core.global_hydra import GlobalHydra

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


@pytest.fixture
def command(monkeypatch, capsys):
    """Call an entry point as the command line does: ``command(main, *words)`` -> code, out, err."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    terminate = signal.getsignal(signal.SIGTERM)
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
    signal.signal(signal.SIGTERM, terminate)
    root.handlers[:] = handlers
    root.setLevel(level)
