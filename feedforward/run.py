"""Train a style network: on one CPU, one GPU, or many on many machines, with one command."""

import copy
import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from photostyle.data.image_io import load_photo
from photostyle.data.paths import check_folder, find_photos
from photostyle.data.training.stream import TrainingPhotos
from photostyle.feedforward.checkpoint import (
    Checkpoint,
    Checkpoints,
    check_same_config,
    reported,
    without,
)
from photostyle.feedforward.schedule import Intervals, Schedule
from photostyle.feedforward.style_network import StyleNetwork, load_network
from photostyle.feedforward.training_log import TrainingLog
from photostyle.feedforward.training_objective import TrainingObjective
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.validation import Validation
from photostyle.ops import ArgumentError, LossTerms, Projection, StyleObjective
from photostyle.ops.colour_transfer import colour_moments
from photostyle.ops.devices import PRECISIONS
from photostyle.ops.errors import check_choice, check_flag, check_number, check_whole

logger = logging.getLogger(__name__)

NETWORK_FILE = "network.safetensors"
DEVICES = ("auto", "cpu")
LARGEST_SEED = 2**63 - 1
MAX_SKIPPED_IN_A_ROW = 10
"""Steps without a finite gradient; so many are no accident."""
ADAM_EPSILON = 1e-6
"""Below gradients, about 1e-4, and above their rounding, of which Adam would make steps."""

WORKERS = frozenset({"data.workers", "data.photos.workers"})

FREE_KEYS = WORKERS | frozenset({
    "output", "resume", "device", "backend", "photorealism.projection.backend",
    "objective.backend", "data.root", "data.photos.root", "data.validation", "intervals.log",
    "intervals.pictures", "intervals.checkpoint", "intervals.keep",
})  # fmt: skip
"""Keys that do not change what a run computes; a resumed run may have others."""

PRIVATE_KEYS = frozenset({"style", "init", "encoder.weights", "objective.encoder.weights"})
"""Of the others, those that name files of this machine: a network may be given away."""


@dataclass(frozen=True)
class TrainingReport:
    """What `train_network` did.

    Attributes:
        network: the exported file.
        quality: its figures on the held-out photos, if there are any.
        steps: taken in all.
        skipped: how many of them had no finite gradient.
        stopped: why it ended early, or ``None``.
        exit_code: 0; 130 after SIGINT or SIGTERM, 1 after gradients that stayed non-finite.
        is_main_process: whether this process is the one that measures and writes.
    """

    network: Path
    quality: dict[str, float]
    steps: int
    skipped: int
    stopped: str | None
    exit_code: int
    is_main_process: bool = True

    def __str__(self) -> str:
        text = f"{self.network}: {self.steps} steps"
        if self.skipped:
            text += f", {self.skipped} of them skipped (gradient not finite)"
        if self.quality:
            text += f"; on held-out photos: {_figures(self.quality)}"
        if self.stopped:
            text += f"\nended early: {self.stopped}"
        return text


def train_network(
    style: str | Path,
    output: str | Path | None = None,
    *,
    photos: Callable[..., TrainingPhotos],
    network: Callable[..., TransformNet] = TransformNet,
    objective: StyleObjective,
    projection: Projection | None,
    raw_energy_weight: float,
    raw_energy_radius: int = 8,
    raw_energy_epsilon: float = 3e-3,
    schedule: Schedule,
    intervals: Intervals,
    validation: str | Path | None = None,
    init: str | Path | None = None,
    size: int = 384,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    settings: dict | None = None,
) -> TrainingReport:
    """Train a network that gives photos the light of one style photo.

    Args:
        style: an image file.
        output: folder for ``network.safetensors``, ``checkpoints/`` and ``logs/`` (TensorBoard);
            ``None`` for ``outputs/<style>``.
        photos: `data.training.TrainingPhotos` with all but the processes and held-out photos.
        network: `feedforward.TransformNet` with all but the style's colour moments.
        objective, raw_energy_weight, raw_energy_radius, raw_energy_epsilon: see
            `TrainingObjective`.
        projection: ``None`` for a painterly network, Johnson et al. (2016).
        schedule, intervals: see there.
        validation: folder of photos to measure on; ``None``: those that ``photos`` holds out.
        init: a network, as `feedforward.load_network` takes it, whose weights are the first
            ones; its style may be another. ``None``: random weights.
        size: long side in pixels of the style and of the photos that are measured on.
        seed: of every random number.
        device: ``"auto"`` (the GPU of this process if there is one) or ``"cpu"``.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 on GPUs that
            have it.
        resume: go on from the newest checkpoint in ``output``; start if there is none.
        settings: nested dict of plain values that a resumed run must share but for
            `FREE_KEYS`; it goes into the network's file.

    Returns:
        A report. SIGINT, SIGTERM and gradients that stay non-finite end early, with a checkpoint.

    Raises:
        ArgumentError: for values other than these, an output that holds another run or cannot be
            written to, and a checkpoint of another configuration or another number of processes.
    """
    check_flag("resume", resume)
    check_whole("size", size, 64)
    check_whole("seed", seed, 0, LARGEST_SEED)
    check_number("raw_energy_weight", raw_energy_weight, 0)
    if not (raw_energy_weight or any(objective.weights.values())):
        expected = "give a weight above 0, to this or to another loss"
        raise ArgumentError("style_weight", objective.weights["style"], expected)
    check_choice("device", device, DEVICES)
    check_choice("precision", precision, PRECISIONS)
    if style is None:
        raise ArgumentError("style", style, "required; give an image file")
    style_image = load_photo(style, argument="style").tensor(size)
    output = Path(output or Path("outputs") / Path(style).stem)
    check_folder("output", output)
    checkpoints = Checkpoints(output / "checkpoints", intervals.keep)
    holds_run = checkpoints.folder.exists() or (output / NETWORK_FILE).exists()
    if holds_run and not resume:
        expected = "holds a run; go on with resume=true, or give another folder"
        raise ArgumentError("output", output, expected)

    bfloat16 = precision == "bfloat16" or (
        precision == "auto"
        and device != "cpu"
        and torch.cuda.is_available()
        and torch.cuda.is_bf16_supported()
    )
    # Else a run before this one in the same process would decide on the device and the precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16" if bfloat16 else "no")
    stream = photos(
        seed=seed,
        process_index=accelerator.process_index,
        process_count=accelerator.num_processes,
    )
    check_whole("data.workers", stream.workers, 1)
    held_out = stream.held_out if validation is None else _photos_in(validation)

    if not held_out:
        logger.info("no photos to measure on (data.validation): the last weights are exported")

    torch.manual_seed(seed)
    colours = colour_moments(style_image, style_image.new_ones(1, *style_image.shape[2:]))
    net = network(style_mean=colours.mean[0, 0], style_covariance=colours.covariance[0, 0])
    if init is not None:
        _begin_with(net, init)
    style_image = style_image.to(accelerator.device)
    with accelerator.autocast():
        losses = TrainingObjective(
            objective.to(accelerator.device),
            style_image,
            raw_energy_weight,
            raw_energy_radius,
            raw_energy_epsilon,
        )
    run = _Run(
        accelerator,
        StyleNetwork(net, projection, Path(style).stem, settings or {}),
        losses,
        schedule,
        Validation(held_out, style_image, size, losses) if held_out else None,
        output,
        checkpoints,
    )
    # What these refuse shows before anything is written.
    side = min(size, stream.crop)
    black = style_image.new_zeros(1, 3, side, side)
    with torch.no_grad():
        losses(black, black, run.average.project(black, black))
    if resume:
        # Of shards each worker reads its own.
        run.restore(FREE_KEYS if stream.size else FREE_KEYS - WORKERS)
    # Everyone has looked at the folder by now.
    accelerator.wait_for_everyone()
    return run.train(stream, intervals)


def _begin_with(net: TransformNet, init: str | Path) -> None:
    """Give a network the weights of another, but not its style's colour moments."""
    try:
        other = load_network(init).net
    except ArgumentError as error:
        raise ArgumentError("init", init, error.expected) from error
    for name in ("width", "blocks"):
        if getattr(other, name) != getattr(net, name):
            expected = f"has network.{name}={getattr(other, name)}; give the same"
            raise ArgumentError("init", init, expected)
    net.load_state_dict(dict(other.named_parameters()), strict=False)


def _photos_in(folder: str | Path) -> list[Path]:
    try:
        return [Path(folder) / name for name in find_photos(folder)]
    except ArgumentError as error:
        raise ArgumentError("data.validation", folder, "give a folder of photos") from error


class _Run:
    """A network on its way, and everything that a checkpoint holds."""

    def __init__(self, accelerator, network, losses, schedule, validation, output, checkpoints):
        self.accelerator = accelerator
        self.schedule = schedule
        self.losses = losses
        self.validation = validation
        self.output = output
        self.checkpoints = checkpoints
        # What is exported: the moving average, and the best of it so far.
        self.average = replace(network, net=copy.deepcopy(network.net).requires_grad_(False))
        self.average.net.to(accelerator.device).eval()
        self.best = replace(self.average, net=copy.deepcopy(self.average.net))
        self.net = accelerator.prepare(network.net)
        self.parameters = dict(accelerator.unwrap_model(self.net).named_parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), schedule.learning_rate, eps=ADAM_EPSILON
        )
        # As Adam itself begins, but now: every checkpoint has the same tensors.
        for parameter in self.parameters.values():
            self.optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    # ------------------------------------------------------------------------------------ training

    def train(self, stream: TrainingPhotos, intervals: Intervals) -> TrainingReport:
        main = self.accelerator.is_main_process
        stopped, exit_code = None, 0
        with ExitStack() as stack:
            interrupt = stack.enter_context(_Interrupt())
            batches = stack.enter_context(
                closing(stream.batches(self.step * self.schedule.accumulate))
            )
            log = stack.enter_context(
                TrainingLog(
                    self.output / "logs",
                    self.step,
                    self.schedule.steps,
                    intervals.log,
                    silent=not main,
                )
            )
            # At once, so that a run that is killed early can be resumed, too.
            self.save_checkpoint(log)
            while self.step < self.schedule.steps and stopped is None:
                start = time.monotonic()
                rate = self.schedule.rate(self.step)
                losses, norm, interrupted, count = self._step(batches, rate, interrupt)
                values = {
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    "photos_per_second": count / (time.monotonic() - start),
                    "skipped_steps": self.skipped,
                    "unreadable_photos": len(stream.unreadable),
                }
                log.step(self.step, losses, values)
                if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    stopped, exit_code = _diagnosis(losses), 1
                elif interrupted:
                    stopped, exit_code = "interrupted; go on with resume=true", 130
                last = stopped is not None or self.step == self.schedule.steps
                if self.step % intervals.validation == 0 or self.step == self.schedule.steps:
                    self._validate(log)
                if self.step % intervals.pictures == 0 and self.validation and main:
                    log.pictures(self.validation.pictures(self.average), self.step)
                if self.step % intervals.checkpoint == 0 or last:
                    self.save_checkpoint(log)
        self._export()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return TrainingReport(
            self.output / NETWORK_FILE,
            self.best.quality,
            self.step,
            self.skipped,
            stopped,
            exit_code,
            main,
        )

    def _step(self, batches, rate: float, interrupt: "_Interrupt"):
        """One step of the optimiser: its mean losses, gradient norm, an interrupt, its photos."""
        accelerator, accumulate = self.accelerator, self.schedule.accumulate
        self.optimizer.zero_grad(set_to_none=True)
        total: LossTerms | None = None
        count = 0
        for i in range(accumulate):
            photo = next(batches).to(accelerator.device, non_blocking=True).float().div_(255)
            # Processes exchange gradients once per step.
            with accelerator.no_sync(self.net) if i + 1 < accumulate else nullcontext():
                raw = self.net(photo)
                result = self.average.project(raw, photo)
                with accelerator.autocast():
                    terms = self.losses(photo, raw, result)
                accelerator.backward(terms.total / accumulate)
            total = terms.detach() if total is None else total + terms.detach()
            count += len(photo) * accelerator.num_processes
        norm = accelerator.clip_grad_norm_(
            self.parameters.values(), self.schedule.max_gradient_norm
        )
        # In one message, so that all processes come to the same decisions.
        message = torch.stack([*total.values(), norm.new_tensor(float(interrupt.received))])
        *losses, interrupted = accelerator.reduce(message, "mean").tolist()
        losses = {name: value / accumulate for name, value in zip(total, losses, strict=True)}
        norm = float(norm)
        if math.isfinite(norm) and all(map(math.isfinite, losses.values())):
            self._move(rate)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        self.step += 1
        return losses, norm, interrupted > 0, count

    @torch.no_grad()
    def _move(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        weight = 1 - self.schedule.decay(self.step)
        for average, parameter in zip(
            self.average.net.parameters(), self.parameters.values(), strict=True
        ):
            average.lerp_(parameter, weight)

    def _validate(self, log: TrainingLog) -> None:
        if self.validation is None:
            self._keep({})
        elif self.accelerator.is_main_process:
            quality = self.validation.measure(self.average)
            log.scalars("validation", quality, self.step)
            log.message(f"step {self.step}: " + _figures(quality))
            if quality["loss"] <= self.best.quality.get("loss", math.inf):
                self._keep(quality)
                self._export()
        self.accelerator.wait_for_everyone()

    def _keep(self, quality: dict[str, float]) -> None:
        self.best.net.load_state_dict(self.average.net.state_dict())
        self.best = replace(self.best, quality=quality)

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            best = self.best if self.best.quality else self.average
            best = replace(best, config=without(best.config, FREE_KEYS | PRIVATE_KEYS))
            with reported(self.output, "the network"):
                best.save(self.output / NETWORK_FILE)

    # --------------------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, log: TrainingLog) -> None:
        # A run that goes on from it adds to the curves, which must have come as far.
        log.flush()
        if self.accelerator.is_main_process:
            values = {
                "skipped": self.skipped,
                "quality": self.best.quality,
                "processes": self.accelerator.num_processes,
            }
            tensors = {**self._tensors(), "random": torch.get_rng_state()}
            self.checkpoints.save(Checkpoint(self.step, tensors, values, self.average.config))
        self.accelerator.wait_for_everyone()

    def restore(self, free_keys: frozenset[str]) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            logger.info("no checkpoint in %s yet; starting", self.output)
            return
        check_same_config(self.average.config, checkpoint.config, free_keys)
        processes = checkpoint.values["processes"]
        if processes != self.accelerator.num_processes:
            expected = f"the run has {processes} processes, not {self.accelerator.num_processes}"
            raise ArgumentError("resume", "true", expected)
        self.step = checkpoint.step
        self.skipped = checkpoint.values["skipped"]
        self.best = replace(self.best, quality=checkpoint.values["quality"])
        for name, tensor in self._tensors().items():
            tensor.copy_(checkpoint.tensors[name])
        torch.set_rng_state(checkpoint.tensors["random"])
        logger.info("going on from step %d", self.step)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name; not copies."""
        tensors = {f"net.{name}": value.detach() for name, value in self.parameters.items()}
        for group, network in (("average", self.average), ("best", self.best)):
            for name, value in network.net.named_parameters():
                tensors[f"{group}.{name}"] = value
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors


class _Interrupt:
    """Notes SIGINT and SIGTERM instead of dying; the second one is not waited for."""

    def __init__(self):
        self.received = False

    def __enter__(self) -> "_Interrupt":
        signals = (signal.SIGINT, signal.SIGTERM)
        self._handlers = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        logger.info("stopping after this step; once more to stop at once")


def _figures(quality: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in quality.items())


def _diagnosis(losses: dict[str, float]) -> str:
    """What to do about losses or gradients that are not finite."""
    names = [name for name, value in losses.items() if not math.isfinite(value)]
    culprit = f"the loss {names[0]} is" if names else "the gradient is"
    advice = {
        "energy": "a lower photorealism.energy_weight or a larger energy_epsilon",
        "raw_energy": "a lower photorealism.raw_energy_weight or a larger raw_energy_epsilon",
        "style": "a lower objective.style_weight or schedule.learning_rate",
    }.get(names[0] if names else "", "a lower schedule.learning_rate or precision=float32")
    return f"{culprit} not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row; try {advice}"
