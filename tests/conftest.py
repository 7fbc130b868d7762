"""Skips tests marked ``gpu`` where the CUDA path cannot run; with REQUIRE_CUDA=1 they fail."""

import os

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
