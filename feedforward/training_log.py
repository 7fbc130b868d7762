"""What can be told of a training run while it runs: a progress bar and TensorBoard."""

import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import image, scalar
from tqdm import tqdm

from photostyle.ops.console import Console

logger = logging.getLogger(__name__)


class TrainingLog:
    """A progress bar with losses, photos per second and time left, and TensorBoard's files.

    A context manager. On the processes that are not the main one it is silent. It never fails a
    run: what cannot be shown or written is left out, and of TensorBoard's files a warning tells.

    Args:
        folder: for TensorBoard.
        step, steps: where the run starts and how many steps it has.
        every: steps between two points in TensorBoard.
        silent: write nothing.
    """

    def __init__(self, folder: Path, step: int, steps: int, every: int, *, silent: bool = False):
        self.every = every
        self._console = Console(sys.stderr)
        self._bar = tqdm(initial=step, total=steps, unit="step", disable=silent, file=self._console)
        self._events = None if silent else _Events(folder, step)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def step(self, step: int, losses: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Tell of one step: the weighted losses, and other figures such as the learning rate."""
        if self._events is None:
            return
        shown = [f"{name} {value:.3g}" for name, value in losses.items()]
        self._bar.set_postfix_str(f"{'  '.join(shown)}  {values['photos_per_second']:.1f} photos/s")
        self._bar.update()
        if step % self.every == 0:
            self.scalars("loss", losses, step)
            self.scalars("training", values, step)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve of a group."""
        if self._events is not None:
            summaries = (scalar(f"{group}/{name}", value) for name, value in values.items())
            self._events.add(*(_event(step, summary=summary) for summary in summaries))

    def pictures(self, picture: Tensor, step: int) -> None:
        """Show a picture, (3, H, W) in [0, 1]."""
        if self._events is not None:
            summary = image("content, raw, result", picture, dataformats="CHW")
            self._events.add(_event(step, summary=summary))

    def message(self, text: str) -> None:
        """A line above the bar."""
        if self._events is not None:
            self._bar.write(text, file=self._console)


class _Events:
    """TensorBoard's file of a run from ``step`` on.

    TensorBoard's own writer works in a thread, which ends with the first error.
    """

    def __init__(self, folder: Path, step: int):
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self.size = 0
        self.warned = False
        # A resumed run takes back what was written after its checkpoint.
        start = SessionLog(status=SessionLog.START)
        self.head = (
            _event(step + 1, file_version="brain.Event:2"),
            _event(step + 1, session_log=start),
        )
        self.add()

    def add(self, *events: Event) -> None:
        """Write events, all of them or none."""
        content = BytesIO()
        records = RecordWriter(content)
        for event in events if self.size else (*self.head, *events):
            records.write(event.SerializeToString())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # Off with what the disk had no more room for.
                file.truncate(self.size)
                file.write(content.getvalue())
            self.size += len(content.getvalue())
        except OSError as error:
            if not self.warned:
                message = "%s: no curves can be written there (%s); training goes on without"
                logger.warning(message, self.path.parent, error.strerror)
            self.warned = True


def _event(step: int, **values) -> Event:
    return Event(wall_time=time.time(), step=step, **values)
