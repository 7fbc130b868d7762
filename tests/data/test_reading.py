"""Files read whole, and every fault as one error."""

import os

import numpy as np
import pytest

from photostyle.data.reading import content_of, open_file, read_whole, refused
from photostyle.ops.errors import ArgumentError

FAULTS = {
    "KeyError": lambda: {}["profile"],
    "IndexError": lambda: [][0],
    "AttributeError": lambda: None.shape,
    "ZeroDivisionError": lambda: 1 // 0,
    "UnicodeDecodeError": lambda: b"\xff".decode(),
    "RecursionError": lambda: _without_end(),
    "several lines": lambda: _raise(RuntimeError("first\n  last\n\n")),
    "no text": lambda: _raise(RuntimeError()),
    "of another argument": lambda: _raise(ArgumentError("width", 0, "give a number")),
}


def _raise(error):
    raise error


def _without_end():
    return _without_end()


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_raised_is_one_error(fault):
    with (
        pytest.raises(ArgumentError, match=r"^photo=a\.png: damaged \(.+\)$") as caught,
        refused("photo", "a.png", "damaged ({})"),
    ):
        FAULTS[fault]()
    assert caught.value.argument == "photo"
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_too_little_memory_need_not_be_damage():
    message = r"^photo=a\.png: takes more memory than there is, or is damaged \(.+\); give a small"
    with (
        pytest.raises(ArgumentError, match=message),
        refused("photo", "a.png", "damaged ({})"),
    ):
        np.empty(1 << 60, np.uint8)


def test_what_says_what_is_wrong_already_passes():
    with (
        pytest.raises(ArgumentError, match=r"^photo=a\.png: too small$"),
        refused("photo", "a.png", "damaged ({})"),
    ):
        raise ArgumentError("photo", "a.png", "too small")


def test_an_interrupt_is_no_fault_of_the_file():
    with pytest.raises(KeyboardInterrupt), refused("photo", "a.png", "damaged ({})"):
        raise KeyboardInterrupt


def test_all_of_a_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)))
    assert content_of(path, "network", give="a network file") == bytes(range(256))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "no such file; give a network file"),
        (lambda path: path.mkdir(), "is a folder; give a network file"),
        (lambda path: path.touch(), "the file is empty; give a network file"),
        (os.mkfifo, "is no regular file; give a network file"),
    ],
    ids=["missing", "folder", "empty", "pipe"],
)
def test_no_file(tmp_path, make, expected):
    path = tmp_path / "a.bin"
    make(path)
    with pytest.raises(ArgumentError) as caught:
        content_of(path, "network", give="a network file")
    assert str(caught.value) == f"network={path}: {expected}"


def test_a_file_beyond_all_sizes_is_not_read(tmp_path):
    """By what the system says: it takes no place on the disk."""
    path = tmp_path / "a.bin"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(ArgumentError, match="1,099,512 MB are too many; give at most 1 MB"):
        content_of(path, "network", give="a network file", largest=1_000_000)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 10),
        lambda path: path.write_bytes(bytes(2000)),
        lambda path: path.write_bytes(b"1" * 1000),
    ],
    ids=["shorter", "longer", "another"],
)
def test_a_file_that_changes_while_it_is_read(tmp_path, change):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1000))
    os.utime(path, ns=(0, 0))

    class Changing:
        def __init__(self, file):
            self.file = file

        def read(self, size):
            content = self.file.read(size)
            change(path)
            return content

        def __getattr__(self, name):
            return getattr(self.file, name)

    with (
        open_file(path, "network", "a network file") as file,
        pytest.raises(ArgumentError, match="has changed while it was read; try again"),
    ):
        read_whole(Changing(file), path, "network", 10_000)
