"""What is shown of the optimiser's steps: written while it can be, and never worth the result."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from photostyle.ops import LossTerms
from photostyle.optimize.callbacks import (
    Expendable,
    IntermediatePictures,
    ProgressBar,
    TensorBoardLog,
)
from photostyle.optimize.image_optimizer import Step

STEPS = 6


def step(number):
    image = torch.full((1, 3, 20, 30), number / 255)
    return Step(number, STEPS, 30, LossTerms({"style": torch.tensor(float(number))}), image)


def show(callback):
    expendable = Expendable(callback, "folder", "log")
    for number in range(1, STEPS + 1):
        expendable(step(number))


def test_pictures(tmp_path):
    show(IntermediatePictures(tmp_path / "log", 2))
    assert sorted(os.listdir(tmp_path / "log")) == [f"step_000{number}.png" for number in (2, 4, 6)]
    with Image.open(tmp_path / "log/step_0004.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.full((20, 30, 3), 4))


def test_pictures_of_an_earlier_run(tmp_path):
    """They go, and nothing else that lies there."""
    for name in ("step_0008.png", "step_12345.png", "step_1 of us.png", "step_0008.png.txt"):
        (tmp_path / name).touch()
    show(IntermediatePictures(tmp_path, 4, overwrite=True))
    expected = ["step_0004.png", "step_0008.png.txt", "step_1 of us.png"]
    assert sorted(os.listdir(tmp_path)) == expected


def test_tensorboard(tmp_path):
    show(TensorBoardLog(tmp_path / "log", 2))
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.value for event in log.Scalars("loss/style")] == list(range(1, STEPS + 1))
    assert [event.step for event in log.Images("result")] == [2, 4, 6]


CALLBACKS = {"pictures": IntermediatePictures, "TensorBoard": TensorBoardLog}


@pytest.mark.reliability
@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_disk_that_fills_at_any_moment(tmp_path, disk, caplog, capsys, kind):
    """One warning, no traceback, and the steps go on."""
    writes, failed = 0, True
    while failed:
        caplog.clear()
        disk.fills(tmp_path / str(writes), writes=writes)
        show(CALLBACKS[kind](tmp_path / str(writes), 2))
        messages = [record.getMessage() for record in caplog.records]
        failed = bool(messages)
        reason = os.strerror(errno.ENOSPC)
        expected = f"folder=log: nothing more can be written there ({reason}); going on without"
        assert messages == [expected] * failed
        for picture in Path(tmp_path / str(writes)).glob("*.png"):
            with Image.open(picture) as image:
                image.load()
        writes += 1
    assert writes > 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_folder_that_cannot_be_made(tmp_path, caplog, kind):
    (tmp_path / "file").touch()
    show(CALLBACKS[kind](tmp_path / "file/log", 1))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_another_error_is_not_swallowed():
    def breaks(_):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        show(breaks)


class Full(io.StringIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stream", [None, Full()], ids=["none", "full"])
def test_a_bar_that_cannot_be_shown(monkeypatch, stream):
    """There is no stream in a program with windows."""
    monkeypatch.setattr("sys.stderr", stream)
    with ProgressBar() as bar:
        bar(step(1))
