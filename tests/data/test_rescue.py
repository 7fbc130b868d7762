"""A result that cannot be written to its place is somewhere else, and the error says where."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photostyle.data import Photo, load_photo
from photostyle.data.rescue import save_or_rescue
from photostyle.ops import ArgumentError

pytestmark = pytest.mark.reliability

PIXELS = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
FULL = os.strerror(errno.ENOSPC)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with one for temporary files in it and one for results."""
    monkeypatch.chdir(tmp_path)
    Path("temporary").mkdir()
    Path("results").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "temporary")
    return tmp_path


def message(path, photo=None, **options):
    with pytest.raises(ArgumentError) as error:
        save_or_rescue(path, photo or Photo(PIXELS), **options)
    return str(error.value)


def test_nothing_to_rescue(folder):
    save_or_rescue("results/out.png", Photo(PIXELS))
    np.testing.assert_array_equal(load_photo("results/out.png").pixels, PIXELS)
    assert (os.listdir("results"), os.listdir("temporary")) == (["out.png"], [])


def test_another_name_in_the_same_folder(folder):
    """Of several results each has a name of its own."""
    path = f"results/{'n' * 300}.jpg"
    for number in ("", 2, 3):
        rescued = f"results/{'n' * 40}_rescued{number}.png"
        reason = f"cannot be written: {os.strerror(errno.ENAMETOOLONG)}"
        assert message(path) == f"output={path}: {reason}; the result is in {rescued}"
        np.testing.assert_array_equal(load_photo(rescued).pixels, PIXELS)


def test_the_folder_for_temporary_files(folder, disk):
    rescued = "temporary/out_rescued.png"
    expected = f"output=results/out.png: cannot be written: {FULL}; the result is in {rescued}"
    for writes in range(4):  # at any moment: a PNG file of this size takes more
        disk.fills("results", writes=writes)
        assert message("results/out.png") == expected
        np.testing.assert_array_equal(load_photo(rescued).pixels, PIXELS)
        Path(rescued).unlink()
        assert os.listdir("results") == []


def test_nowhere(folder, disk):
    disk.fills(folder, writes=0)
    lost = "the result is lost, since nothing else could be written"
    reasons = f"(results: {FULL}; temporary: {FULL})"
    expected = f"output=results/out.jpg: cannot be written: {FULL}; {lost} {reasons}"
    assert message("results/out.jpg") == expected
    assert (os.listdir("results"), os.listdir("temporary")) == ([], [])


def test_a_format_that_cannot_hold_it(folder):
    wide = Photo(np.zeros((16, 16_384, 3), np.uint8))
    assert message("results/out.webp", wide) == (
        "output=results/out.webp: WEBP holds at most 16383 pixels a side, not 16384 x 16; use .png "
        "or .tif; the result is in results/out_rescued.png"
    )
    assert load_photo("results/out_rescued.png").pixels.shape == wide.pixels.shape


def test_a_defect_keeps_its_traceback(folder, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("a defect")

    Image.init()
    monkeypatch.setitem(Image.SAVE, "WEBP", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        save_or_rescue("results/out.webp", Photo(PIXELS))
    expected = "results/out.webp cannot be written; the result is in results/out_rescued.png"
    assert [record.getMessage() for record in caplog.records] == [expected]
    np.testing.assert_array_equal(load_photo("results/out_rescued.png").pixels, PIXELS)
