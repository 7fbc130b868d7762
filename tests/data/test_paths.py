"""Paths: what cannot be reached or written is one line before the work, and links stay links."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photostyle.data import Photo, check_output, find_photos, load_photo, save_photo
from photostyle.data.paths import FORMATS, check_apart, check_folder, expected_size
from photostyle.ops import ArgumentError

Usage = namedtuple("Usage", "total used free")


def photo(level=0):
    return Photo(np.full((20, 30, 3), level, np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------------- out of reach

CHECKS = {
    "output": check_output,
    "folder": lambda path: check_folder("output", path),
}
UNREACHABLE = {
    "long name": ("n" * 300 + ".png", "File name too long"),
    "circle of links": ("circle.png", "Too many levels of symbolic links"),
    "below a circle": ("circle.png/out.png", "Too many levels of symbolic links"),
    "null byte": ("a\0b.png", "embedded null byte"),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", UNREACHABLE)
def test_out_of_reach(folder, check, case):
    Path("circle.png").symlink_to("circle.png")
    path, reason = UNREACHABLE[case]
    with pytest.raises(ArgumentError) as error:
        CHECKS[check](path)
    shown = path.replace("\0", "\\x00")
    assert str(error.value) == f"output={shown}: cannot be reached: {reason}"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_the_system_refuses(folder, monkeypatch, check, number):
    """An administrator may enter any folder, and no drive is stale here: its answer is replaced."""
    system = os.stat

    def refuses(path, **options):
        if Path(path).parent.name == "drive":
            raise OSError(number, os.strerror(number), path)
        return system(path, **options)

    monkeypatch.setattr(os, "stat", refuses)
    with pytest.raises(ArgumentError) as error:
        CHECKS[check]("drive/out.png")
    reason = os.strerror(number)
    assert str(error.value) == f"output=drive/out.png: cannot be reached: {reason}"


def test_long_name_in_a_folder_to_be_made(folder):
    check_folder("log_dir", "new/short/name")
    with pytest.raises(ArgumentError, match="cannot be reached: File name too long"):
        check_folder("log_dir", f"new/{'n' * 300}/name")


@pytest.mark.parametrize("below", ["", "/a/b"])
def test_link_to_nothing_as_a_folder(folder, below):
    Path("link").symlink_to("nowhere")
    with pytest.raises(ArgumentError, match="link is a file, or a link to nothing; give a folder"):
        check_folder("log_dir", f"link{below}")


# ---------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("there", [True, False])
def test_link_as_output(folder, there):
    """The file appears where it points, and it stays a link."""
    Path("elsewhere").mkdir()
    Path("out.png").symlink_to("elsewhere/result.png")
    if there:
        save_photo("elsewhere/result.png", photo(1))
        with pytest.raises(ArgumentError, match=r"output=out\.png: exists; give another name"):
            check_output("out.png")
    check_output("out.png", overwrite=there)
    save_photo("out.png", photo(2))
    assert os.readlink("out.png") == "elsewhere/result.png"
    assert (load_photo("elsewhere/result.png").pixels == 2).all()
    assert os.listdir("elsewhere") == ["result.png"]


def test_link_into_no_folder(folder):
    Path("out.png").symlink_to("nowhere/result.png")
    expected = f"output=out.png: there is no folder {folder.resolve()}/nowhere; create it first"
    with pytest.raises(ArgumentError) as error:
        check_output("out.png")
    assert str(error.value) == expected


def test_link_into_a_folder_that_must_not_be_written_to(folder, monkeypatch):
    Path("protected").mkdir()
    Path("out.png").symlink_to("protected/result.png")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "protected")
    with pytest.raises(ArgumentError, match=r"no permission to write to the folder .*/protected"):
        check_output("out.png")


# ----------------------------------------------------------------------------------- disk space


@pytest.mark.parametrize("check", CHECKS)
def test_full_disk(folder, monkeypatch, check):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 0))
    with pytest.raises(ArgumentError) as error:
        CHECKS[check]("out.png")
    expected = "0.0 MB are free there, at least 0.1 MB are needed"
    assert str(error.value) == f"output=out.png: {expected}"


def test_less_room_than_needed(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 2_500_000))
    check_output("out.png", needed=2_500_000)
    with pytest.raises(ArgumentError, match=r"2\.5 MB are free there, at least 2\.6 MB are needed"):
        check_output("out.png", needed=2_600_000)


@pytest.mark.parametrize("answer", ["nothing", "an error"])
def test_file_system_that_does_not_tell(folder, monkeypatch, answer):
    def usage(_):
        if answer == "nothing":
            return Usage(0, 0, 0)
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_output("out.png", needed=10**15)


def test_expected_size(folder):
    """Of a result in the photo's own format; nothing is known of others."""
    Path("a.JPG").write_bytes(bytes(1234))
    assert expected_size("a.JPG", "b.jpeg") == 1234
    assert expected_size("a.JPG", "b.png") == 0
    assert expected_size("nowhere.jpg", "b.jpg") == 0


# -------------------------------------------------------------------------------------- listing


@pytest.fixture
def closed(monkeypatch):
    """Folders of this name cannot be read, not even by an administrator."""
    system = os.scandir

    def scandir(path="."):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return system(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_below_that_cannot_be_read(folder, closed, caplog):
    for name in ("a/closed", "b"):
        Path(name).mkdir(parents=True)
        save_photo(f"{name}/photo.png", photo())
    assert find_photos(".") == ["b/photo.png"]
    expected = "./a/closed cannot be read and is passed over: Permission denied"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_the_folder_itself_cannot_be_read(folder, closed):
    Path("closed").mkdir()
    with pytest.raises(ArgumentError) as error:
        find_photos("closed")
    assert str(error.value) == "folder=closed: cannot be read: Permission denied"


# ----------------------------------------------------------------------------------- whole files


@pytest.mark.reliability
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_disk_that_fills_at_any_moment(folder, disk, suffix):
    """Whatever was there stays, or the new file is there, whole."""
    noise = np.random.default_rng(0).integers(0, 255, (100, 150, 3), dtype=np.uint8)
    name = f"out{suffix}"
    save_photo(name, photo(1))
    before = Path(name).read_bytes()
    writes = 0
    while fails_to_save(name, Photo(noise), disk, writes):
        assert Path(name).read_bytes() == before
        assert os.listdir() == [name]
        writes += 1
    assert writes >= 3  # the head, what is said of the photo, and its pixels
    assert load_photo(name).pixels.shape == noise.shape


def fails_to_save(path, result, disk, writes):
    disk.fills(".", writes=writes)
    try:
        save_photo(path, result)
    except OSError:
        return True
    return False


WRITES_FOR_EVER = """
import numpy as np
from photostyle.data import Photo, save_photo
pixels = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
print("begins", flush=True)
while True:
    save_photo("out.png", Photo(pixels))
"""


@pytest.mark.reliability
@pytest.mark.slow
def test_a_process_that_is_killed(folder):
    for delay in (0.01, 0.04, 0.17, 0.3):
        process = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER], stdout=subprocess.PIPE)
        with process:
            assert process.stdout.readline() == b"begins\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        if Path("out.png").exists():
            with Image.open("out.png") as image:
                image.load()
    assert Path("out.png").exists()


class TestCheckOutput:
    def check(self, path, message, **options):
        with pytest.raises(ArgumentError, match=message) as caught:
            check_output(path, **options)
        assert str(caught.value).startswith(f"output={path}: ")

    @pytest.mark.parametrize("suffix", [*FORMATS, ".JPG", ".Png"])
    def test_accepts(self, tmp_path, suffix):
        check_output(tmp_path / f"a{suffix}")

    def test_suffix(self, tmp_path):
        self.check(tmp_path / "a.gif", r"one of \.jpg \.jpeg \.png \.webp \.tif \.tiff \.bmp")
        self.check(tmp_path / "a", "end its name")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "is a folder")

    def test_no_such_folder(self, tmp_path):
        self.check(tmp_path / "b" / "a.png", "there is no folder .*; create it first")

    def test_not_permitted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        self.check(tmp_path / "a.png", "no permission to write to the folder")

    def test_exists(self, tmp_path):
        (tmp_path / "a.png").touch()
        self.check(tmp_path / "a.png", "exists; give another name or overwrite=true")
        check_output(tmp_path / "a.png", overwrite=True)


@pytest.mark.parametrize("output", ["photo.png", "./photo.png", "link.png", "hard.png"])
def test_an_output_that_is_an_input(folder, output):
    """Under whatever name; and what is not there is none."""
    Path("photo.png").write_bytes(b"x")
    Path("link.png").symlink_to("photo.png")
    os.link("photo.png", "hard.png")
    with pytest.raises(ArgumentError, match=f"^output={output}: is the file of style; give"):
        check_apart("output", output, content="other.png", mask=None, style="photo.png")
    check_apart("output", None, content="photo.png")
    check_apart("output", "new.png", content="photo.png")
