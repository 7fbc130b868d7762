"""What can be told of a training run while it runs: a progress bar and TensorBoard."""

import logging
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import image, scalar
from tqdm import tqdm

from photostyle.data.event_file import EventFile
from photostyle.ops.console import standard_error

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
        self._console = standard_error()
        self._bar = tqdm(initial=step, total=steps, unit="step", disable=silent, file=self._console)
        self._events = None if silent else EventFile(folder, step + 1)
        self._warned = False
        self._add(step)

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
            self._add(step, *(scalar(f"{group}/{name}", value) for name, value in values.items()))

    def pictures(self, picture: Tensor, step: int) -> None:
        """Show a picture, (3, H, W) in [0, 1]."""
        if self._events is not None:
            self._add(step, image("content, raw, result", picture, dataformats="CHW"))

    def message(self, text: str) -> None:
        """A line above the bar."""
        if self._events is not None:
            self._bar.write(text, file=self._console)

    def _add(self, step: int, *summaries: Summary) -> None:
        if self._events is None:
            return
        try:
            self._events.add(step, *summaries)
        except OSError as error:
            if not self._warned:
                message = "%s: no curves can be written there (%s); training goes on without"
                logger.warning(message, self._events.path.parent, error.strerror)
            self._warned = True
