"""Damaged files of every kind: each read gives a result or one error, in little time and memory.

By the thousand: ``python -m tests.fuzz``.
"""

import os
import signal

import pytest

from photostyle.ops.errors import ArgumentError
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.watch import MEMORY, SECONDS, fuzz

pytestmark = pytest.mark.slow


COUNT = 100


def test_a_result_or_an_error():
    for name, found in zip(READERS, fuzz(list(READERS.values()), COUNT), strict=True):
        assert (name, found.faults) == (name, {})
        assert found.count == COUNT
        assert found.slowest < SECONDS
        assert found.memory < MEMORY


def whole(folder):
    return [b"0"]


def fails(path):
    """As the file says."""
    what = path.read_bytes()
    if what == b"1":
        raise ArgumentError("file", path, "damaged")
    if what == b"3":
        raise KeyError("profile")
    if what == b"4":
        os.kill(os.getpid(), signal.SIGBUS)
    if what == b"5":
        bytearray(2 * MEMORY)
    while what == b"6":
        pass


def numbered(whole, chance):
    return b"123456"[chance.randrange(6) :][:1]


def test_what_counts_as_a_fault(tmp_path):
    reader = Reader("faulty", ".txt", whole, fails, numbered)
    [found] = fuzz([reader], 7, seed=30, kept=tmp_path / "kept")  # each kind at least once
    kept = {path.read_bytes(): path for path in (tmp_path / "kept").glob("*.txt")}
    faults = {
        b"3": "KeyError: 'profile'",
        b"4": "ended by SIGBUS",
        b"5": "MemoryError",
        b"6": "ended by SIGPROF",
    }
    assert {what for what in kept if len(what) == 1} == set(faults)
    for what, fault in faults.items():
        assert fault in kept[what].with_name(f"{kept[what].name}.txt").read_text()
    assert found.count == 7
