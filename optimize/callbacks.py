"""What can be told of each step of an optimisation: a progress bar, TensorBoard, pictures.

None of it is worth the result: see `Expendable`.
"""

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

from photostyle.data import save_image
from photostyle.data.paths import reason_of
from photostyle.optimize.image_optimizer import Step

logger = logging.getLogger(__name__)


class Expendable:
    """A callback that may fail to write, on a full disk, say: it is told once and left out then.

    A context manager, as the callback is.

    Args:
        callback: told of each step.
        what: its name in the warning.
    """

    def __init__(self, callback: AbstractContextManager[Callable[[Step], None]], what: str):
        self._callback = callback
        self._what = what
        self._failed = False

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if not self._failed:
            self._try(self._callback, step)

    def __enter__(self) -> "Expendable":
        self._try(self._callback.__enter__)
        return self

    def __exit__(self, *details) -> None:
        self._try(self._callback.__exit__, *details)

    def _try(self, function: Callable, *arguments) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if not self._failed:
                message = "%s: cannot be written, and is left out from here on (%s)"
                logger.warning(message, self._what, reason_of(error))
            self._failed = True


class ProgressBar:
    """A bar with the current losses and the time left; a context manager.

    It appears at the first step.
    """

    def __init__(self):
        self._bar: tqdm | None = None

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._bar is None:
            self._bar = tqdm(total=step.total, unit="step", disable=sys.stderr is None)
        self._bar.total = max(step.number, step.total)
        self._bar.set_postfix_str(f"{step.size} px  {step.terms}", refresh=False)
        self._bar.update()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()


class TensorBoardLog:
    """Every loss at each step, the image every ``image_every`` steps; a context manager.

    The folder is made at the first step.
    """

    def __init__(self, folder: str | Path, image_every: int):
        self._folder = folder
        self._writer = None
        self._image_every = image_every

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._writer is None:
            # TensorBoard takes a second to import, and few ask for it.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder)
        for name, value in {**step.terms, "total": step.terms.total}.items():
            self._writer.add_scalar(f"loss/{name}", float(value), step.number)
        self._writer.add_scalar("size", step.size, step.number)
        if step.number % self._image_every == 0:
            self._writer.add_image("result", step.image[0].clamp(0, 1), step.number)

    def __enter__(self) -> "TensorBoardLog":
        self._hook, threading.excepthook = threading.excepthook, self._pass_over
        return self

    def __exit__(self, *_) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _pass_over(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread fails with a traceback, and its writer again at the next step."""
        if not issubclass(failure.exc_type, OSError):
            self._hook(failure)


class IntermediatePictures:
    """``step_0010.png``, ... every ``every`` steps, at the size of the current scale.

    A context manager like the others.
    """

    def __init__(self, folder: str | Path, every: int):
        self._folder = Path(folder)
        self._every = every

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if step.number % self._every == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_image(step.image.clamp(0, 1), self._folder / f"step_{step.number:04d}.png")

    def __enter__(self) -> "IntermediatePictures":
        return self

    def __exit__(self, *_) -> None:
        pass
