"""Training on a GPU: photos per second, and how much better the network of any style becomes.

python -m benchmarks.gpu_training [--seconds 300] [--photos FOLDER] [--network FILE]

Photos are read once and kept on the device. The network of any style begins as the one that comes
with the program, is trained for the given time, and is then measured as it was before, on photos
and styles held out, each for the other.
"""

import logging
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.findings import Findings, parser, report
from benchmarks.gpu_operator import DEVICE
from benchmarks.networks import EMA_DECAY, Setup, any_style, one_style
from benchmarks.photos import EXAMPLES, load
from photostyle.data import find_photos
from photostyle.data.training.crops import Crops
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    StyleNetwork,
    TrainingReport,
    load_network,
)
from photostyle.feedforward.checkpoint import Checkpoints
from photostyle.feedforward.interrupt import Interrupt
from photostyle.feedforward.style_network import UNIVERSAL
from photostyle.feedforward.training_run import TrainingRun
from photostyle.feedforward.validation import Validation
from photostyle.ops import GuidedFilter
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)

KEPT_SIDE = 512
"""Pixels of the long side of the photos in memory."""
MOST_PHOTOS = 800
HELD_OUT = 8
BATCHES = (4, 16)
CROP = 256
SPEED_STEPS = 40
SPEED_SECONDS = 7.0
"""Of which no speed takes more."""
WARM_STEPS = 10
SAFETY = 0.9
"""Of the steps that the time seems to be enough for."""
ONCE = 10**9
NEVER = Intervals(log=ONCE, pictures=ONCE, validation=ONCE, checkpoint=ONCE, keep=1)


class PhotosInMemory:
    """In the place of `data.TrainingPhotos`: batches of random crops of photos on the device.

    Args:
        photos: (3, H, W) each, uint8.
        crop: side of the crops in pixels.
        batch_size: crops in a batch.
        seed: of the order and the crops.

    Attributes:
        drawn: the times at which batches were asked for.
        unreadable: none.
    """

    def __init__(self, photos: list[Tensor], crop: int, batch_size: int, seed: int):
        options = {"min_scale": 0.5, "seed": seed, "process_index": 0, "process_count": 1}
        self.photos = photos
        self.batch_size = batch_size
        self.augment = Crops(0, crop=crop, batch_size=batch_size, **options).augment
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: list[float] = []
        self.unreadable: dict[str, str] = {}

    def batches(self, start: int = 0) -> Iterator[Tensor]:
        """Batches without end, uint8 (batch_size, 3, crop, crop)."""
        while True:
            self.drawn.append(time.monotonic())
            indices = torch.randint(
                len(self.photos), (self.batch_size,), generator=self.generator
            ).tolist()
            yield torch.stack([self.augment(self.photos[index]) for index in indices])


def read_photos(folder: Path, most: int) -> tuple[list[Tensor], list[Path]]:
    """Photos to train with, (3, H, W) uint8 on the device, and the files of those held out."""
    names = sorted(find_photos(folder))
    names = names[:: -(-len(names) // most)]
    apart = set(names[:: max(3, -(-len(names) // HELD_OUT))])
    photos = []
    for name in names:
        try:
            photo = None if name in apart else load(folder / name, KEPT_SIDE)
        except ArgumentError as error:
            logger.warning("%s", error)
            continue
        if photo is not None:
            photos.append((255 * photo[0]).round().byte().to(DEVICE))
    return photos, [folder / name for name in sorted(apart)]


def run(setup: Setup, precision: str, steps: int, streams: list, folder: Path) -> TrainingReport:
    """Train a network for so many steps; the report names the exported file."""
    accelerator = RunOptions(device="cpu" if DEVICE == "cpu" else "auto", precision=precision)
    training = TrainingRun(
        accelerator.accelerator(),
        StyleNetwork(setup.net, setup.guided_filter, UNIVERSAL),
        setup.losses,
        Schedule(steps=steps, learning_rate=setup.learning_rate, ema_decay=EMA_DECAY),
        None,
        folder,
        Checkpoints(folder / "checkpoints", 1),
        {},
        {},
    )
    return training.train(streams, NEVER)


def photos_per_second(
    kind: str, photos: list[Tensor], batch: int, crop: int, precision: str, steps: int
) -> float:
    """By the median step, after some to warm up."""
    torch.manual_seed(0)
    style = photos[0][None].float() / 255
    setup = one_style(style) if kind == "one style" else any_style(DEVICE)
    streams = [PhotosInMemory(photos, crop, batch, 0)]
    if kind == UNIVERSAL:
        streams.append(PhotosInMemory(photos, crop, batch, 1))
    with tempfile.TemporaryDirectory() as folder, ends_after(SPEED_SECONDS):
        run(setup, precision, steps, streams, Path(folder))
    times = [end - start for start, end in pairwise(streams[0].drawn)]
    return batch / statistics.median(times[min(WARM_STEPS, len(times) // 2) :])


def train(
    photos: list[Tensor], batch: int, crop: int, steps: int, seconds: float
) -> tuple[StyleNetwork, int]:
    """The network that comes with the program, trained further, as its file has it; and the steps
    that were taken."""
    torch.manual_seed(0)
    setup = any_style(DEVICE)
    setup.net.load_state_dict(load_network(UNIVERSAL, DEVICE).net.state_dict())
    streams = [PhotosInMemory(photos, crop, batch, seed) for seed in (0, 1)]
    with tempfile.TemporaryDirectory() as folder, ends_after(seconds):
        report = run(setup, "auto", steps, streams, Path(folder))
        return load_network(report.network, DEVICE), report.steps


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Has a run that is not done by then end as a polite kill ends it: with its network."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    with Interrupt():  # before and after the run's own
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def measure(findings: Findings, options) -> None:
    batches, crop, steps = ((2,), 64, 3) if options.small else (BATCHES, CROP, SPEED_STEPS)
    size = 64 if options.small else RunOptions().size
    photos, held_out = read_photos(options.photos, 6 if options.small else MOST_PHOTOS)
    add = findings.table("Photos", ["folder", "to train with", "held out"])
    add(options.photos.name, len(photos), len(held_out))

    add = findings.table("Training", ["network", "batch", "crop", "precision", "photos per second"])
    speed = 0.0
    black = torch.zeros(1, 3, crop, crop, device=DEVICE)
    GuidedFilter().laplacian(black).guided_filter(black)  # compiles
    for kind in ("one style", UNIVERSAL):
        for batch in batches:
            for precision in ("float32", "bfloat16"):
                speed = photos_per_second(kind, photos, batch, crop, precision, steps)
                add(kind, batch, crop, precision, f"{speed:.1f}")

    styles = [load(path, size).to(DEVICE) for path in [*held_out[-1:], *held_out[:-1]]]
    validation = Validation(held_out, styles, size, any_style(DEVICE).losses, load)
    before = validation.measure(load_network(UNIVERSAL, DEVICE))
    header = ["network", "steps", "seconds", *before]
    add = findings.table("The network of any style, on photos held out", header)
    add("as it comes", 0, 0, *(f"{value:.4f}" for value in before.values()))
    count = max(1, int(SAFETY * options.seconds * speed / batches[-1]))
    start = time.monotonic()
    trained, taken = train(photos, batches[-1], crop, count, options.seconds)
    seconds = f"{time.monotonic() - start:.0f}"
    after = validation.measure(trained)
    if options.network is not None:
        replace(trained, metrics=after).save(options.network)
    add("trained further", taken, seconds, *(f"{value:.4f}" for value in after.values()))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=300.0, help="for training")
    arguments.add_argument("--photos", type=Path, default=EXAMPLES)
    arguments.add_argument("--network", type=Path, help="file for the trained network")
    report(measure, arguments.parse_args())


if __name__ == "__main__":
    main()
