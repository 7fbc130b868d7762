"""One training run: its steps, validation, exported network and checkpoints."""

import copy
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from photostyle.data.training import TrainingPhotos
from photostyle.feedforward.checkpoint import Checkpoint, flat
from photostyle.feedforward.contents import FILES, check_same_contents
from photostyle.feedforward.interrupt import Interrupt
from photostyle.feedforward.schedule import Intervals
from photostyle.feedforward.training_log import TrainingLog
from photostyle.ops import ArgumentError, LossTerms
from photostyle.ops.errors import printable

logger = logging.getLogger(__name__)

NETWORK_FILE = "network.safetensors"
MAX_SKIPPED_IN_A_ROW = 10
"""Steps without a finite gradient; so many are no accident."""
ADAM_EPSILON = 1e-6
"""Below gradients, about 1e-4, and above their rounding, of which Adam would make steps."""
MAY_DIFFER = {"steps", "schedule.steps", "init"}.union(*FILES.values())
"""Settings that may be others in a resumed run: it may go on for longer, it has begun, and files
are compared by content."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did.

    Attributes:
        network: the exported file.
        metrics: of the validation photos, if there are any.
        steps: taken in all.
        skipped: how many of them had no finite gradient.
        stopped: why it ended early, or ``None``.
        exit_code: 0; 130 after SIGINT or SIGTERM, 1 after gradients that stayed non-finite.
        is_main_process: whether this process is the one that measures and writes.
    """

    network: Path
    metrics: dict[str, float]
    steps: int
    skipped: int
    stopped: str | None
    exit_code: int
    is_main_process: bool = True

    def __str__(self) -> str:
        text = f"{printable(self.network)}: {self.steps} steps"
        if self.skipped:
            text += f", {self.skipped} of them skipped (gradient not finite)"
        if self.metrics:
            text += f"; validation: {formatted(self.metrics)}"
        if self.stopped:
            text += f"\nended early: {self.stopped}"
        return text


def tensors_fit(net: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether a checkpoint's tensors are, by name, shape and numbers, those of a network's run."""
    shapes = {"random": torch.get_rng_state().shape}
    for name, parameter in net.named_parameters():
        for group in ("net", "ema", "best", "adam.exp_avg", "adam.exp_avg_sq"):
            shapes[f"{group}.{name}"] = parameter.shape
        shapes[f"adam.step.{name}"] = torch.Size()
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        return False
    try:
        torch.Generator().set_state(tensors["random"])
    except (RuntimeError, TypeError):
        return False
    return all(tensor.isfinite().all() for tensor in tensors.values())


class TrainingRun:
    """A network on its way, and everything that a checkpoint holds."""

    def __init__(
        self,
        accelerator,
        network,
        losses,
        schedule,
        validation,
        output,
        checkpoints,
        settings,
        contents,
    ):
        self.accelerator = accelerator
        self.schedule = schedule
        self.losses = losses
        self.validation = validation
        self.output = output
        self.checkpoints = checkpoints
        self.settings = settings
        self.contents = contents
        # What is exported: the moving average, and the best of it so far.
        self.ema = replace(network, net=copy.deepcopy(network.net).requires_grad_(False))
        self.ema.net.to(accelerator.device).eval()
        self.best = replace(self.ema, net=copy.deepcopy(self.ema.net))
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
        self.measured_on = None  # the photos that the best network's metrics are of
        self.skipped_in_a_row = 0

    # ------------------------------------------------------------------------------------ training

    def train(self, streams: Sequence[TrainingPhotos], intervals: Intervals) -> TrainingReport:
        """Take all steps that are left, unless something ends it early.

        Args:
            streams: of photos and, for a network of any style, of styles.
            intervals: see there.

        Raises:
            ArgumentError: the first checkpoint, the last one or the network cannot be written.
        """
        main = self.accelerator.is_main_process
        stopped, exit_code = None, 0
        with ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())
            taken = self.step * self.schedule.gradient_accumulation
            batches = zip(
                *(stack.enter_context(closing(stream.batches(taken))) for stream in streams),
                strict=True,
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
            unsaved = self._save_checkpoint()
            if unsaved:
                expected = f"{unsaved}; put that right and start again with resume=true"
                raise ArgumentError("output", self.output, expected)
            while self.step < self.schedule.steps and stopped is None:
                start = time.monotonic()
                rate = self.schedule.learning_rate_at(self.step)
                losses, norm, interrupted, count = self._step(batches, rate, interrupt)
                values = {
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    "photos_per_second": count / (time.monotonic() - start),
                    "skipped_steps": self.skipped,
                    "unreadable_photos": sum(len(stream.unreadable) for stream in streams),
                }
                log.step(self.step, losses, values)
                if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    stopped, exit_code = diagnosis(losses), 1
                elif interrupted:
                    stopped, exit_code = "interrupted; go on with resume=true", 130
                last = stopped is not None or self.step == self.schedule.steps
                if self.step % intervals.validation == 0 or self.step == self.schedule.steps:
                    self._validate(log)
                if self.step % intervals.pictures == 0 and self.validation and main:
                    self._show(log)
                if self.step % intervals.checkpoint == 0 or last:
                    unsaved = self._save_checkpoint()
                    if unsaved and not last:
                        logger.warning("%s: %s; training goes on", self.output, unsaved)
        network, missing = self._deliver() if main else (self.output / NETWORK_FILE, None)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if unsaved or missing:
            reasons = filter(None, (unsaved, missing or f"the network is {network}", stopped))
            raise ArgumentError("output", self.output, "; ".join(reasons))
        return TrainingReport(
            network,
            self.best.metrics,
            self.step,
            self.skipped,
            stopped,
            exit_code,
            main,
        )

    def _step(self, batches, rate: float, interrupt: "Interrupt"):
        """One step of the optimiser: its mean losses, gradient norm, an interrupt, its photos."""
        accelerator, accumulate = self.accelerator, self.schedule.gradient_accumulation
        self.optimizer.zero_grad(set_to_none=True)
        total: LossTerms | None = None
        count = 0
        for i in range(accumulate):
            photos = [
                batch.to(accelerator.device, non_blocking=True).float().div_(255)
                for batch in next(batches)
            ]
            # Processes exchange gradients once per step.
            with accelerator.no_sync(self.net) if i + 1 < accumulate else nullcontext():
                with accelerator.autocast():
                    example = self.losses.training_example(*photos)
                raw = self.net(*example.inputs)
                result = self.ema.filtered(raw, example.photo, example.base)
                with accelerator.autocast():
                    terms = self.losses(example, result)
                accelerator.backward(terms.total / accumulate)
            total = terms.detach() if total is None else total + terms.detach()
            count += len(raw) * accelerator.num_processes
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
        weight = 1 - self.schedule.ema_decay_at(self.step)
        for ema, parameter in zip(self.ema.net.parameters(), self.parameters.values(), strict=True):
            ema.lerp_(parameter, weight)

    def _validate(self, log: TrainingLog) -> None:
        if self.validation is None:
            self._keep({})
        elif self.accelerator.is_main_process:
            self._measure(log)
        self.accelerator.wait_for_everyone()

    def _measure(self, log: TrainingLog) -> None:
        metrics = self.validation.measure(self.ema)
        if not metrics:  # its photos are gone
            return
        photos = [*self.validation.photos]
        if self.best.metrics and self.measured_on != photos:  # or figures of others are compared
            self.best = replace(self.best, metrics=self.validation.measure(self.best))
        self.measured_on = photos
        log.scalars("validation", metrics, self.step)
        log.message(f"step {self.step}: " + formatted(metrics))
        if metrics["loss"] <= self.best.metrics.get("loss", math.inf):
            self._keep(metrics)
            try:
                self._export(self.output)
            except OSError as error:
                unwritten = _unwritten("the network", error)
                logger.warning("%s: %s; training goes on", self.output, unwritten)

    def _show(self, log: TrainingLog) -> None:
        pictures = self.validation.pictures(self.ema)
        if pictures is not None:
            log.pictures(pictures, self.step)

    def _keep(self, metrics: dict[str, float]) -> None:
        self.best.net.load_state_dict(self.ema.net.state_dict())
        self.best = replace(self.best, metrics=metrics)

    def _export(self, folder: Path) -> Path:
        best = self.best if self.best.metrics else self.ema
        best.save(folder / NETWORK_FILE)
        return folder / NETWORK_FILE

    def _deliver(self) -> tuple[Path | None, str | None]:
        """Export the network, elsewhere if need be: its file, and what the output misses."""
        try:
            return self._export(self.output), None
        except OSError as error:
            missing = _unwritten("the network", error)
        try:
            network = self._export(Path(tempfile.mkdtemp(prefix="photostyle_")))
        except OSError as error:
            again = "put that right and export it with resume=true"
            return None, f"{missing}, nor to the temporary folder ({error.strerror}); {again}"
        return network, f"{missing}; it is {network}"

    # --------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self) -> str | None:
        """Write everything that going on from here needs; what keeps it from that."""
        unsaved = None
        if self.accelerator.is_main_process:
            values = {
                "skipped": self.skipped,
                "metrics": self.best.metrics,
                "processes": self.accelerator.num_processes,
                "contents": self.contents,
            }
            tensors = {**self._tensors(), "random": torch.get_rng_state()}
            try:
                self.checkpoints.save(Checkpoint(self.step, tensors, values, self.settings))
            except OSError as error:
                unsaved = _unwritten(f"the checkpoint of step {self.step}", error)
        self.accelerator.wait_for_everyone()
        return unsaved

    def restore(self, checkpoint: Checkpoint, style: str | Path | None) -> None:
        """Go on from a checkpoint.

        Raises:
            ArgumentError: it is of another run, of more steps or of another number of processes.
        """
        self._check_same_run(checkpoint, style)
        self.step = checkpoint.step
        self.skipped = checkpoint.values["skipped"]
        self.best = replace(self.best, metrics=checkpoint.values["metrics"])
        for name, tensor in self._tensors().items():
            tensor.copy_(checkpoint.tensors[name])
        torch.set_rng_state(checkpoint.tensors["random"])
        logger.info("going on from step %d", self.step)

    def _check_same_run(self, checkpoint: Checkpoint, style: str | Path | None) -> None:
        given = {**flat(self.settings), "style": style}
        check_same_contents(self.contents, checkpoint.values["contents"], given)
        processes = checkpoint.values["processes"]
        if processes != self.accelerator.num_processes:
            expected = f"the run has {processes} processes, not {self.accelerator.num_processes}"
            raise ArgumentError("resume", "true", expected)
        if checkpoint.step > self.schedule.steps:
            expected = f"the run has taken {checkpoint.step} already; give as many, or more"
            raise ArgumentError("steps", self.schedule.steps, expected)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name; not copies."""
        tensors = {f"net.{name}": value.detach() for name, value in self.parameters.items()}
        for group, network in (("ema", self.ema), ("best", self.best)):
            for name, value in network.net.named_parameters():
                tensors[f"{group}.{name}"] = value
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors


def _unwritten(what: str, error: OSError) -> str:
    return f"{what} cannot be written there ({error.strerror or error})"


def formatted(metrics: dict[str, float]) -> str:
    """Names and values, as a person reads them."""
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def diagnosis(losses: dict[str, float]) -> str:
    """What to do about losses or gradients that are not finite."""
    names = [name for name, value in losses.items() if not math.isfinite(value)]
    culprit = f"the loss {names[0]} is" if names else "the gradient is"
    advice = {
        "matting": "a lower matting_weight or a larger matting_ridge",
        "style": "a lower style_weight or learning_rate",
    }.get(names[0] if names else "", "a lower learning_rate or precision=float32")
    return f"{culprit} not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row; try {advice}"
