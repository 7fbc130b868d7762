"""What can be told of each step of an optimisation: a progress bar, TensorBoard, pictures."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from photostyle.data import save_image
from photostyle.data.paths import reason_of
from photostyle.ops.console import standard_error
from photostyle.ops.errors import ArgumentError
from photostyle.optimize.image_optimizer import Step

logger = logging.getLogger(__name__)


class ProgressBar:
    """A bar with the current losses and the time left; a context manager.

    It appears at the first step.
    """

    def __init__(self):
        self._bar: tqdm | None = None

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._bar is None:
            self._bar = tqdm(total=step.total, unit="step", file=standard_error())
        self._bar.total = max(step.number, step.total)
        self._bar.set_postfix_str(f"{step.size} px  {step.terms}", refresh=False)
        self._bar.update()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()


class Expendable:
    """A callback that no result is lost for: when it cannot write, on a full disk, say, a warning
    tells so, and it is left out from there on.

    Args:
        callback: told of each step.
        argument: the caller's name for where it writes.
        folder: where that is.
    """

    def __init__(self, callback: Callable[[Step], None], argument: str, folder: str | Path):
        self._callback: Callable[[Step], None] | None = callback
        self._where = f"{argument}={folder}"

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._callback is None:
            return
        try:
            self._callback(step)
        except OSError as error:
            message = "%s: nothing more can be written there (%s); going on without"
            logger.warning(message, self._where, reason_of(error))
            self._callback = None


class TensorBoardLog:
    """Every loss at each step, the image every ``image_every`` steps.

    The folder is made at the first step.
    """

    def __init__(self, folder: str | Path, image_every: int):
        self._folder = folder
        self._image_every = image_every
        self._events = None

    def __call__(self, step: Step) -> None:
        """Show one step; raises OSError when it cannot be written."""
        # TensorBoard takes a second to import, and few ask for it.
        from torch.utils.tensorboard.summary import image, scalar

        from photostyle.data.event_file import EventFile

        if self._events is None:
            self._events = EventFile(self._folder)
        values = {f"loss/{name}": float(value) for name, value in step.terms.items()}
        values |= {"loss/total": float(step.terms.total), "size": step.size}
        summaries = [scalar(name, value) for name, value in values.items()]
        if step.number % self._image_every == 0:
            summaries.append(image("result", step.image.clamp(0, 1)))
        self._events.add(step.number, *summaries)


_OWN_FILE = re.compile(r"step_\d{4,}\.png")


class IntermediatePictures:
    """``step_0010.png``, ... every ``every`` steps, at the size of the current scale.

    Those of an earlier run go with the first of these, or they would look like its end.

    Raises:
        ArgumentError: there are some, and ``overwrite`` is false.
    """

    def __init__(self, folder: str | Path, every: int, *, overwrite: bool = False):
        self._folder = Path(folder)
        self._every = every
        found = self._folder.glob("step_*.png")
        self._earlier = sorted(path for path in found if _OWN_FILE.fullmatch(path.name))
        if self._earlier and not overwrite:
            expected = "holds another run's pictures; give another folder or overwrite=true"
            raise ArgumentError("intermediate_dir", folder, expected)

    def __call__(self, step: Step) -> None:
        """Show one step; raises OSError when it cannot be written."""
        if step.number % self._every == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            while self._earlier:
                self._earlier.pop().unlink(missing_ok=True)
            save_image(step.image.clamp(0, 1), self._folder / f"step_{step.number:04d}.png")
