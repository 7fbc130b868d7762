"""Skips tests marked ``gpu`` where the CUDA path cannot run; with REQUIRE_CUDA=1 they fail."""

import os
from urllib.error import URLError

import pytest

from ops import _cuda


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
