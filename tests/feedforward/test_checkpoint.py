"""Checkpoints: complete or not there, whatever happens while they are written."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from photostyle.data.held_files import temporary_file
from photostyle.feedforward.checkpoint import Checkpoint, Checkpoints, check_same_settings
from photostyle.ops import ArgumentError

SETTINGS = {"seed": 3, "network": {"width": 16, "base": None}, "layers": ["relu1_1"], "rate": 1e-3}
VALUES = {
    "skipped": 2,
    "metrics": {"loss": 0.1, "style_distance": float("inf")},
    "processes": 1,
    "contents": {"data.root": "0123456789abcdef"},
}


def checkpoint(step, seed=0):
    """Numbers of all kinds, a scalar, an empty tensor and one that is not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "net.weight": torch.randn(4, 3, 3, 3, generator=generator).contiguous(
            memory_format=torch.channels_last
        ),
        "half": torch.randn(5, generator=generator).half(),
        "adam.step": torch.tensor(float(step)),
        "special": torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45]),
        "random": torch.get_rng_state(),
        "empty": torch.empty(0),
        "transposed": torch.randn(3, 7, generator=generator).T,
    }
    return Checkpoint(step, tensors, VALUES, SETTINGS)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(ours, theirs):
    assert (ours.step, ours.values, ours.settings) == (theirs.step, theirs.values, theirs.settings)
    assert set(ours.tensors) == set(theirs.tensors)
    for name, tensor in theirs.tensors.items():
        assert ours.tensors[name].dtype == tensor.dtype, name
        assert ours.tensors[name].shape == tensor.shape, name
        assert bits(ours.tensors[name]) == bits(tensor), name


def test_there_and_back(tmp_path):
    """Bit for bit."""
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 3)
    assert checkpoints.newest() is None
    saved = checkpoint(120)
    checkpoints.save(saved)
    assert names(checkpoints.folder) == ["step_00000120.safetensors"]
    assert_same(Checkpoints(checkpoints.folder, 1).newest(), saved)


def test_the_last_ones_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("mine")
    for step in (0, 5, 10, 99, 100):
        checkpoints.save(checkpoint(step))
        assert checkpoints.newest().step == step
    expected = ["notes.txt", "step_00000099.safetensors", "step_00000100.safetensors"]
    assert names(tmp_path) == expected


def test_the_same_step_again(tmp_path):
    """A resumed run writes the one that it started from once more."""
    checkpoints = Checkpoints(tmp_path, 2)
    for seed in (0, 1):
        checkpoints.save(checkpoint(7, seed))
    assert_same(checkpoints.newest(), checkpoint(7, 1))
    assert len(names(tmp_path)) == 1


DAMAGES = {
    "empty": lambda content: b"",
    "a few bytes": lambda content: content[:5],
    "without its end": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "another file": lambda content: b"This is not a checkpoint.\n" * 20,
    "another step": lambda content: content.replace(b'"step":"20"', b'"step":"x0"'),
    "another header": lambda content: content.replace(b'"values"', b'"valued"'),
    "an absurd step": lambda content: content.replace(b'"step":"20"', b'"step":"99"'),
    "fewer than no skipped steps": lambda content: content.replace(
        b'skipped\\": 2', b'skipped\\":-2'
    ),
    "fewer than no processes": lambda content: content.replace(b'es\\": 1', b'es\\":-1'),
    "metrics that are no numbers": lambda content: content.replace(b"0.1", b"nul"),
    "broken values": lambda content: content.replace(b'"{\\"skipped', b'"[\\"skipped'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path, 3)
    for step in (10, 20):
        checkpoints.save(checkpoint(step))
    newest = tmp_path / "step_00000020.safetensors"
    content = newest.read_bytes()
    assert DAMAGES[damage](content) != content
    newest.write_bytes(DAMAGES[damage](content))
    with caplog.at_level(logging.WARNING):
        assert_same(checkpoints.newest(), checkpoint(10))
    (record,) = caplog.records
    assert f"{newest} is damaged and passed over" in record.message
    assert "\n" not in record.message
    assert newest.exists()


def test_one_that_does_not_fit_is_passed_over(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, 3)
    for step in (10, 20):
        checkpoints.save(checkpoint(step))
    assert_same(checkpoints.newest(lambda found: found.step < 20), checkpoint(10))
    (record,) = caplog.records
    assert record.message.startswith(f"{tmp_path / 'step_00000020.safetensors'} is damaged")


def test_all_are_damaged(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, 3)
    for step in (10, 20):
        checkpoints.save(checkpoint(step))
        (tmp_path / f"step_{step:08d}.safetensors").write_bytes(b"")
    assert checkpoints.newest() is None
    assert len(caplog.records) == 2


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_one_does_not_count_as_kept(tmp_path, keep):
    """A run that went on from before it must not lose what it has written."""
    checkpoints = Checkpoints(tmp_path, keep)
    for name in ("step_00000030.safetensors", "step_00000040.safetensors"):
        (tmp_path / name).write_bytes(b"damaged")
    for step in (10, 20, 25):
        checkpoints.save(checkpoint(step))
        assert checkpoints.newest().step == step
    checkpoints.save(checkpoint(50))
    assert checkpoints.newest().step == 50
    assert len(names(tmp_path)) == keep


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    with temporary_file(tmp_path) as path:
        half_written = path
    half_written.write_bytes(b"half a checkpoint")
    (tmp_path / ".hidden").write_bytes(b"mine")
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(checkpoint(1))
    assert names(tmp_path) == [".hidden", "step_00000001.safetensors"]


# ------------------------------------------------------------------------------------ cannot write


@pytest.mark.reliability
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_cannot_be_written(tmp_path, monkeypatch, number, function):
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(checkpoint(10))

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        checkpoints.save(checkpoint(20))
    assert names(tmp_path) == ["step_00000010.safetensors"]
    assert_same(checkpoints.newest(), checkpoint(10))


def test_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Checkpoints(tmp_path / "file" / "checkpoints", 1).save(checkpoint(1))


def test_interrupted_while_writing(tmp_path, monkeypatch):
    """A second Ctrl-C is not waited for, but leaves no half file."""
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(checkpoint(10))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(checkpoint(20))
    assert names(tmp_path) == ["step_00000010.safetensors"]


@pytest.mark.reliability
@pytest.mark.slow
def test_no_more_space(tmp_path):
    """For real: a process that the system lets write 64 KiB per file, and one that is larger."""
    program = """
import resource, signal, sys
import torch
from photostyle.feedforward.checkpoint import Checkpoint, Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
checkpoints = Checkpoints(sys.argv[1], 1)
values = {"skipped": 0, "metrics": {}, "processes": 1, "contents": {}}
checkpoints.save(Checkpoint(1, {"small": torch.ones(1000)}, values, {}))
try:
    checkpoints.save(Checkpoint(2, {"large": torch.ones(100_000)}, {}, {}))
except OSError as error:
    print(error.strerror)
print(checkpoints.newest().step)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    message, step = result.stdout.splitlines()
    assert message == "File too large"
    assert step == "1"
    assert names(tmp_path) == ["step_00000001.safetensors"]


def test_old_ones_that_cannot_be_deleted(tmp_path, monkeypatch):
    """The new one is written all the same."""
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(checkpoint(10))

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", fail)
    checkpoints.save(checkpoint(20))
    assert_same(checkpoints.newest(), checkpoint(20))


# --------------------------------------------------------------------------------- the settings


def test_same_settings():
    check_same_settings(SETTINGS, SETTINGS)
    check_same_settings({}, {})


FREE = {"seed", "network.width", "network.base", "layers", "rate", "more.key"}


@pytest.mark.parametrize(
    ("new", "named"),
    [
        ({"seed": 4}, ["seed is 4, was 3"]),
        ({"network": {"width": 8, "base": None}}, ["network.width is 8, was 16"]),
        ({"network": {"width": 8, "base": 1}}, ["network.base is 1, was None", "network.width is"]),
        ({"layers": ["relu1_1", "relu2_1"]}, ["layers is ['relu1_1', 'relu2_1'], was ['relu1_1']"]),
        ({"rate": None}, ["rate is None, was 0.001"]),
        ({"more": {"key": 5}}, ["more.key is 5, was None"]),
        ({"seed": 9, "rate": 9}, ["rate is 9, was 0.001", "seed is 9, was 3"]),
    ],
    ids=str,
)
def test_other_settings(new, named):
    with pytest.raises(ArgumentError) as caught:
        check_same_settings(SETTINGS | new, SETTINGS)
    message = str(caught.value)
    assert message.startswith("resume=true: the run has another configuration: ")
    assert message.endswith("; give the same, or another output")
    for name in named:
        assert name in message
    assert message.count(", was ") == len(named)
    # But for those that may differ.
    check_same_settings(SETTINGS | new, SETTINGS, free=FREE)
    # What is only in the earlier one counts as well.
    with pytest.raises(ArgumentError, match=r"was"):
        check_same_settings(SETTINGS, SETTINGS | new)
