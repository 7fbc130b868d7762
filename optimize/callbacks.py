"""What can be told of each step of an optimisation: a progress bar, TensorBoard, pictures."""

from pathlib import Path

from tqdm import tqdm

from photostyle.data import save_image
from photostyle.optimize.image_optimizer import Step


class ProgressBar:
    """A bar with the current losses and the time left; a context manager.

    It appears at the first step.
    """

    def __init__(self):
        self._bar: tqdm | None = None

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._bar is None:
            self._bar = tqdm(total=step.total, unit="step")
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
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.close()


class IntermediatePictures:
    """``step_0010.png``, ... every ``every`` steps, at the size of the current scale."""

    def __init__(self, folder: str | Path, every: int):
        self._folder = Path(folder)
        self._every = every

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if step.number % self._every == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_image(step.image.clamp(0, 1), self._folder / f"step_{step.number:04d}.png")
