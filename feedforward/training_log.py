"""What can be told of a training run while it runs: a progress bar and TensorBoard."""

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from photostyle.feedforward.checkpoint import reported


class TrainingLog:
    """A progress bar with losses, photos per second and time left, and TensorBoard's files.

    A context manager. On the processes that are not the main one it is silent.

    Args:
        folder: for TensorBoard.
        step, steps: where the run starts and how many steps it has.
        every: steps between two points in TensorBoard.
        silent: write nothing.
    """

    def __init__(self, folder: Path, step: int, steps: int, every: int, *, silent: bool = False):
        self.folder = folder
        self.every = every
        self._bar = tqdm(initial=step, total=steps, unit="step", disable=silent)
        # A resumed run takes back what was written after its checkpoint.
        with reported(folder, "the log"):
            self._writer = None if silent else SummaryWriter(folder, purge_step=step + 1)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        if self._writer is not None:
            with reported(self.folder, "the log"):
                self._writer.close()

    def step(self, step: int, losses: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Tell of one step: the weighted losses, and other figures such as the learning rate."""
        if self._writer is None:
            return
        shown = [f"{name} {value:.3g}" for name, value in losses.items()]
        self._bar.set_postfix_str(f"{'  '.join(shown)}  {values['photos_per_second']:.1f} photos/s")
        self._bar.update()
        if step % self.every == 0:
            self.scalars("loss", losses, step)
            self.scalars("training", values, step)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve of a group."""
        if self._writer is not None:
            with reported(self.folder, "the log"):
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, image: Tensor, step: int) -> None:
        """Show a picture, (3, H, W) in [0, 1]."""
        if self._writer is not None:
            with reported(self.folder, "the log"):
                self._writer.add_image("content, raw, result", image, step)

    def flush(self) -> None:
        """Put everything so far on the disk."""
        if self._writer is not None:
            with reported(self.folder, "the log"):
                self._writer.flush()

    def message(self, text: str) -> None:
        """A line above the bar."""
        if self._writer is not None:
            self._bar.write(text, file=sys.stderr)
