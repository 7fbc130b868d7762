"""Where to compute, and the memory there."""

import ctypes

import pytest

from photostyle.ops.devices import return_free_memory


@pytest.mark.parametrize("error", [None, OSError, AttributeError, TypeError])
def test_return_free_memory_raises_nothing(monkeypatch, error):
    """Its only claim here, with glibc and where there is none; figures are in docs/networks.md."""

    def refuse(name):
        raise error

    if error is not None:
        monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert return_free_memory() is None
