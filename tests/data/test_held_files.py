"""What belongs to a process that runs is left alone; what a killed one left is not."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager

import pytest

from photostyle.data.held_files import locked, remove_leftovers, temporary_file, temporary_folder
from photostyle.data.paths import atomic_file
from photostyle.ops import ArgumentError

pytestmark = pytest.mark.reliability

HOLDS = """
import signal, sys
from pathlib import Path
from photostyle.data.held_files import locked, temporary_file, temporary_folder

with {held}(*map(Path, sys.argv[1:2]), *sys.argv[2:]):
    print("holds", flush=True)
    signal.pause()
"""


@contextmanager
def holder(held, *arguments):
    """Another process that holds something; killed in the end, if not before."""
    command = [sys.executable, "-c", HOLDS.format(held=held), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


def left_behind(folder):
    """A file as a killed process leaves it."""
    with temporary_file(folder) as path:
        pass
    path.write_bytes(b"half")
    return path


# ------------------------------------------------------------------------------------- leftovers


def test_its_name_says_whose_it_is(tmp_path):
    with temporary_file(tmp_path) as path:
        found = re.fullmatch(r"\.photostyle_(.+)_(\d+)_[0-9a-f]{16}\.tmp", path.name)
        assert found[2] == str(os.getpid())
        assert found[1] == re.sub(r"[^\w.-]", "-", socket.gethostname())
        assert os.listdir(tmp_path) == [path.name]
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="no umask")
def test_others_may_read_it_as_any_file(tmp_path):
    earlier = os.umask(0o027)
    try:
        with temporary_file(tmp_path) as path:
            assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(earlier)


def test_what_a_killed_process_left_is_removed_by_the_next_file(tmp_path):
    with holder("temporary_file", tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(os.listdir(tmp_path)) == 1
    with atomic_file(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_running_process_holds_stays(tmp_path):
    with holder("temporary_file", tmp_path):
        (held,) = os.listdir(tmp_path)
        left_behind(tmp_path)
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == [held]


def test_its_own_stay(tmp_path):
    with temporary_file(tmp_path) as path:
        left_behind(tmp_path)
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "name",
    [
        ".0123456789abcdef.tmp",
        "photostyle.tmp",
        ".photostyle_another-host_1_0123456789abcdef.tmp",
        f".photostyle_{socket.gethostname()}_1_mine.tmp",
        "a.png",
    ],
)
def test_files_of_others_stay(tmp_path, name):
    """Those of another machine, too: whether its processes run is not to be seen from here."""
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_cannot_be_read(tmp_path):
    remove_leftovers(tmp_path / "none")


# --------------------------------------------------------------------------------------- folders


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary ones, here and in other processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_until_the_block_ends(temporary):
    with temporary_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
        assert os.listdir(temporary) == [folder.name]
    assert not os.listdir(temporary)


def test_the_folder_of_a_killed_process_is_removed_by_the_next(temporary):
    (temporary / "photostyle_mine").mkdir()
    with holder("temporary_folder") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(os.listdir(temporary)) == 2
    with temporary_folder() as folder:
        assert sorted(os.listdir(temporary)) == sorted([folder.name, "photostyle_mine"])


def test_the_folder_of_a_running_process_stays(temporary):
    with holder("temporary_folder"):
        before = os.listdir(temporary)
        with temporary_folder() as folder:
            assert sorted(os.listdir(temporary)) == sorted([folder.name, *before])


# ------------------------------------------------------------------------------------------ locks


def test_a_second_process_is_told_of_the_first(tmp_path):
    with holder("locked", tmp_path / "run", "output") as process:
        with pytest.raises(ArgumentError) as error, locked(tmp_path / "run", "output"):
            pass
        host = re.sub(r"[^\w.-]", "-", socket.gethostname())
        expected = f"process {process.pid} on {host} is at work there; wait for it"
        expected += ", or give another folder"
        assert str(error.value) == f"output={tmp_path / 'run'}: {expected}"


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with holder("locked", tmp_path / "run", "output") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.listdir(tmp_path / "run") == [".lock"]
    with locked(tmp_path / "run", "output"):
        text = (tmp_path / "run/.lock").read_text()
        assert text.startswith(f"process {os.getpid()} on ")
    assert not os.listdir(tmp_path / "run")


@pytest.mark.parametrize("there", ["", "a", "a/b"])
def test_nothing_is_left_of_folders_it_made(tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with locked(tmp_path / "a/b", "output"):
        assert (tmp_path / "a/b").is_dir()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_in_them_stays(tmp_path):
    with locked(tmp_path / "a/b", "output"):
        (tmp_path / "a/b/file").touch()
    assert os.listdir(tmp_path / "a/b") == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError) as error, locked(tmp_path / "file", "output"):
        pass
    assert str(error.value) == f"output={tmp_path / 'file'}: cannot be written: File exists"


# ----------------------------------------------------------------------------------- two at once


@pytest.mark.parametrize("links", [True, False])
def test_of_two_writers_the_first_one_counts(tmp_path, monkeypatch, links):
    """Also on a drive where a file has one name only."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    path = tmp_path / "a.txt"
    with ExitStack() as writers:
        second = writers.enter_context(atomic_file(path, overwrite=False))
        second.write(b"second")
        with atomic_file(path, overwrite=False) as first:
            first.write(b"first")
        with pytest.raises(FileExistsError):
            writers.close()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.txt"]
    with atomic_file(path) as third:
        third.write(b"third")
    assert path.read_bytes() == b"third"
