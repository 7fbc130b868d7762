"""Two runs with one output: what the first has written stays, and the second is told."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from photostyle import evaluate, stylize
from photostyle.data import Files, Photo, PhotoOptions, load_photo
from photostyle.data.held_files import locked, temporary_file
from photostyle.data.lut_output import save_lut_of
from photostyle.data.paths import EXISTS
from photostyle.data.photo_run import plan
from photostyle.data.rescue import save_or_rescue
from photostyle.data.run_log import COLUMNS, RunLog
from photostyle.feedforward import load_network
from photostyle.feedforward.style_source import StyleSource
from photostyle.ops import ArgumentError
from tests.fuzz.small_runs import make_files, train

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_network", "folder")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    return tmp_path


def written_by_another(path):
    Path(path).write_bytes(b"another's")


def is_anothers(path):
    return Path(path).read_bytes() == b"another's"


# ---------------------------------------------------------------------------- one file after all


def test_a_photo(monkeypatch):
    """It appears after the last look, while the file is written: that of the other run stays."""
    link = os.link

    def late(source, target):
        written_by_another(target)
        return link(source, target)

    monkeypatch.setattr(os, "link", late)
    report = plan("photos", "dusk", "out", PhotoOptions(overwrite=False))
    photo = Photo(np.zeros((20, 30, 3), np.uint8))

    def work(jobs):
        failures = []
        for _, target in jobs:
            try:
                report.save(target, photo)
            except ArgumentError as error:
                failures.append(error)
        return failures

    done = report.run(work, log="log.csv")
    assert (done.done, done.skipped, done.failures, done.exit_code) == (0, 24, (), 0)
    assert all(is_anothers(path) for path in Path("out").iterdir())
    assert not Path("log.csv").exists()  # of what is skipped it says nothing


def test_a_single_photo_is_kept_elsewhere():
    written_by_another("out.png")
    with pytest.raises(ArgumentError) as error:
        save_or_rescue("out.png", Photo(np.ones((20, 30, 3), np.uint8)), overwrite=False)
    assert str(error.value) == f"output=out.png: {EXISTS}; the result is in out_rescued.png"
    assert is_anothers("out.png")
    assert (load_photo("out_rescued.png").pixels == 1).all()


def test_two_rescued_results_have_two_names(monkeypatch):
    """Both processes choose a name before either has written."""
    written_by_another("out.png")
    link = os.link

    def late(source, target):
        if Path(target).name == "out_rescued.png":
            written_by_another(target)
        return link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ArgumentError, match=r"the result is in out_rescued2\.png"):
        save_or_rescue("out.png", Photo(np.ones((20, 30, 3), np.uint8)), overwrite=False)
    assert is_anothers("out_rescued.png")
    assert (load_photo("out_rescued2.png").pixels == 1).all()


def test_a_lut():
    written_by_another("a.cube")
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ArgumentError) as error:
        save_lut_of("a.cube", image, image)
    assert str(error.value) == f"lut=a.cube: {EXISTS}"
    assert is_anothers("a.cube")
    save_lut_of("a.cube", image, image, overwrite=True)
    assert not is_anothers("a.cube")


def test_a_style():
    style = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    statistics = load_network("universal").net.statistics(style, None)
    source = StyleSource("light.png", save_style="a.safetensors")
    written_by_another("a.safetensors")
    with pytest.raises(ArgumentError) as error:
        source.save(statistics, overwrite=False)
    assert str(error.value) == f"save_style=a.safetensors: {EXISTS}"
    assert is_anothers("a.safetensors")
    source.save(statistics, overwrite=True)
    assert not is_anothers("a.safetensors")


def test_masks():
    """Which the other run has written since the first look."""
    files = Files("photos/00.png", "light.png", "out.png", masks_dir="masks")
    Path("masks").mkdir()
    written_by_another("masks/content_mask.png")
    with pytest.raises(ArgumentError) as error:
        files.load()
    assert str(error.value) == f"masks_dir=masks: {EXISTS}"
    assert os.listdir("masks") == ["content_mask.png"]
    assert is_anothers("masks/content_mask.png")


def test_a_film():
    av = pytest.importorskip("av", reason="PyAV, and with it FFmpeg, is not installed")
    from photostyle.data.video import open_film

    with av.open("a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    written_by_another("b.mp4")
    with open_film("a.mp4") as film, pytest.raises(ArgumentError) as error:
        film.rewrite("b.mp4", lambda *_: None, quality=90, overwrite=False)
    assert str(error.value) == f"output=b.mp4: {EXISTS}"
    assert is_anothers("b.mp4")


def test_a_log_has_one_head():
    """Of several that begin it at the same time."""
    code = (
        "from photostyle.data.run_log import RunLog; RunLog('log.csv').add([('a', 'b')], [], 1.0)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    RunLog("log.csv").add([("a", "b")], [], 1.0)
    with open("log.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [list(COLUMNS)] + 5 * [["a", "b", "done", "1.00", ""]]


# ------------------------------------------------------------------------------------- leftovers


@pytest.mark.parametrize("content", ["photos", "shards"])
def test_what_a_killed_run_left_is_removed_by_one_that_has_nothing_to_do(command, content):
    words = ["method=feedforward", "network=autumn", "size=32", "device=cpu"]
    Path("out").mkdir()
    for source in Path(content).iterdir():
        Path("out", source.name).touch()
    with temporary_file(Path("out")) as path:
        name = path
    name.write_bytes(b"half")
    before = len(os.listdir("out"))
    code, out, _ = command(stylize.main, *words, f"content={content}", "output=out")
    assert code == 0
    assert "skipped: " in out
    assert not name.exists()
    assert len(os.listdir("out")) == before - 1


# ------------------------------------------------------------------------- training, evaluation


@pytest.mark.parametrize("words", [[], ["blind=results"]], ids=["scores", "sheets"])
def test_an_evaluation_in_the_output_of_another_run(command, words):
    """Sheets and their key must be those of one run."""
    words = ["results=results", "pairs=pairs", "output=scores", "overwrite=true", *words]
    with locked("scores", "output"):
        code, out, err = command(evaluate.main, *words)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: output=scores: process {os.getpid()} on ")
        assert os.listdir("scores") == [".lock"]


def test_training_in_the_output_of_another_run():
    """Whether it would go on with it or begin: it says whose it is, and touches nothing."""
    with locked("run", "output"):
        before = os.listdir("run")
        for resume in (True, False):
            with pytest.raises(ArgumentError) as error:
                train("run", resume)
            assert str(error.value).startswith(f"output=run: process {os.getpid()} on ")
        assert os.listdir("run") == before


def test_training_leaves_no_lock():
    assert train("run").exit_code == 0
    assert sorted(os.listdir("run")) == ["checkpoints", "logs", "network.safetensors"]


def test_training_that_is_refused_leaves_nothing():
    Path("photos").rename("elsewhere")
    with pytest.raises(ArgumentError):
        train("runs/run")
    assert not Path("runs").exists()
