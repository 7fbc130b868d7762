"""Runs that take a second or two, each in a process of its own that can be killed."""

import os
import signal
import sys
import tarfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from photostyle.data import Files, PhotoOptions
from photostyle.data.training import TrainingPhotos
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    TransformNet,
    train_network,
)
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops import ArgumentError, GuidedFilter, StyleObjective
from photostyle.optimize import Descent
from photostyle.optimize.stylize_photo import stylize_photo

STEPS = 12
PHOTOS = 24


def make_files(folder: Path) -> None:
    """A style and a folder of photos, and the same photos in shards."""
    for name in ("photos", "shards"):
        (folder / name).mkdir()
    y, x = np.mgrid[0:72, 0:80]
    for number in range(PHOTOS):
        planes = [(2 + number % 3) * x, 3 * y, 120 + 90 * np.sin((x + number) / 7)]
        pixels = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number:02d}.png")
    Image.fromarray(pixels[:, :, ::-1] // 2).save(folder / "light.png")
    for first in range(0, PHOTOS, PHOTOS // 3):
        with tarfile.open(folder / f"shards/{first:02d}.tar", "w") as shard:
            for number in range(first, first + PHOTOS // 3):
                shard.add(folder / f"photos/{number:02d}.png", f"{number:02d}.png")


def _objective() -> StyleObjective:
    return StyleObjective(
        style_layers=("relu1_1",), layer_weights=None, content_layers=("relu1_2",),
        content_weight=1.0, matting_weight=0.0, edges_weight=0.0, backend="cpu",
    )  # fmt: skip


def train(output: str, resume: bool = True):
    """A checkpoint at each step, and a network at every second one."""
    return train_network(
        "light.png",
        output,
        photos=partial(TrainingPhotos, "photos", crop=64, batch_size=1, workers=0, held_out=1),
        network=partial(TransformNet, width=4, blocks=1),
        objective=_objective(),
        guided_filter=GuidedFilter(2, 1e-4, "cpu"),
        schedule=Schedule(STEPS, warmup=2),
        intervals=Intervals(log=1, pictures=100, validation=2, checkpoint=1, keep=2),
        options=RunOptions(size=64, device="cpu", resume=resume),
    )


def stylize(content: str, output: str):
    """Photos, or shards, by a network."""
    options = PhotoOptions(size=32)
    return stylize_photos(content, "autumn", output, options=options, workers=2, device="cpu")


def optimize(output: str):
    """One photo by the optimiser."""
    return stylize_photo(
        Files("photos/00.png", "light.png", f"{output}.png", masks="none"),
        objective=_objective(),
        guided_filter=GuidedFilter(2, 1e-4, "cpu"),
        optimizer=Descent(steps=[3]),
        device="cpu",
    )


@dataclass
class Process:
    """A call in a process of its own."""

    pid: int
    log: Path

    def kill(self) -> None:
        """With SIGKILL, unless it has ended."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code: 0, 2 for an `ArgumentError`, 1 for a defect, negative if killed."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def said(self) -> str:
        """What it has written."""
        return self.log.read_text()


def start(call: Callable, *arguments, log: str = "log.txt") -> Process:
    """Begin a call at once: what it needs has been imported."""
    pid = os.fork()
    if pid:
        return Process(pid, Path(log))
    code = 1
    with open(log, "w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            code = call(*arguments).exit_code
        except ArgumentError as error:
            print("error:", error)
            code = 2
        except BaseException:
            traceback.print_exc()
        file.flush()
        os._exit(code)


def completed(call: Callable, *arguments) -> float:
    """Wait for a call to succeed; returns the seconds that it took."""
    began = time.monotonic()
    process = start(call, *arguments)
    if process.wait() != 0:
        sys.exit(process.said)
    return time.monotonic() - began


def contents(folder: Path | str, pattern: str) -> dict[str, object]:
    """Files by their name: bytes, or tensors as lists, whose order in a file is not fixed."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(Path(folder).rglob(pattern))
    }


def _content(path: Path) -> object:
    if path.suffix != ".safetensors":
        return path.read_bytes()
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


def temporary_files(folder: Path | str) -> int:
    """How many there are."""
    return len([*Path(folder).rglob(".*.tmp")])
