"""How good a network is on photos that it was not trained on."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop
from torchvision.utils import make_grid

from photostyle.data import load_image
from photostyle.feedforward.style_network import StyleNetwork
from photostyle.feedforward.training_objective import TrainingObjective
from photostyle.ops import ArgumentError
from photostyle.ops.gram import whole_mask
from photostyle.ops.metrics import StyleDistance, edge_ssim

logger = logging.getLogger(__name__)

MIN_SIDE = 32
"""Pixels; below it the losses' windows and the deeper features do not fit."""

PICTURES = 4
"""Photos in the grid of pictures."""


class Validation:
    """Mean figures of a network on fixed photos, and a grid of pictures to look at.

    Of its results as they are when it is applied: what is trained lacks their last steps.

    Args:
        photos: files; those that cannot be read, from the beginning or later on, or are very narrow
            are passed over, with a warning.
        styles: (1, 3, H', W') each, values in [0, 1], on the device to work on; photo i is given
            style i, and from the first again where there are fewer.
        size: long side of the photos in pixels; they are never enlarged.
        objective: what is trained.
        load: reads a photo as `data.load_image` does.

    Raises:
        ArgumentError: none of the photos can be read.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        styles: Sequence[Tensor],
        size: int,
        objective: TrainingObjective,
        load: Callable[..., Tensor] = load_image,
    ):
        self.size = size
        self.load = load
        self.photos = [*enumerate(photos)]
        for numbered in [*self.photos]:
            self._load(numbered)
        if not self.photos:
            expected = f"none of {len(photos)} validation photos can be read"
            raise ArgumentError("validation", photos[0].parent, expected)
        self.styles = styles
        self.objective = objective
        self.style_distance = StyleDistance().to(styles[0].device)
        self.starts: dict[int, float] = {}

    @torch.no_grad()
    def measure(self, network: StyleNetwork) -> dict[str, float]:
        """``loss``, ``style_distance`` and ``edge_ssim``, means over the photos.

        Of a network that starts from a colour transfer also ``colour_transfer_loss``, its loss.
        Nothing, if no photo can be read any more.
        """
        figures, starts = [], []
        for number, example, style, result in self._results(network, self.photos):
            loss = float(self.objective(example, result).total)
            if network.net.base == "colour_transfer":
                if number not in self.starts:  # it does not change
                    self.starts[number] = float(self.objective(example, example.base).total)
                starts.append(self.starts[number])
            image = result.clamp(0, 1)
            masks = (whole_mask(photo) for photo in (image, style))
            distance = self.style_distance(image, style, *masks)
            figures.append((loss, distance, edge_ssim(example.photo.cpu(), image.cpu())))
        if not figures:
            return {}
        means = torch.tensor(figures, dtype=torch.float64).mean(0).tolist()
        metrics = dict(zip(("loss", "style_distance", "edge_ssim"), means, strict=True))
        if starts:
            metrics["colour_transfer_loss"] = sum(starts) / len(starts)
        return metrics

    @torch.no_grad()
    def pictures(self, network: StyleNetwork) -> Tensor | None:
        """A row of content, raw output and result for each of some photos, (3, H, W) in [0, 1].

        ``None``, if none of them can be read any more.
        """
        rows = []
        side = self.size * 3 // 4
        for _, example, _, result in self._results(network, self.photos[:PICTURES]):
            images = example.photo, network.net(*example.inputs), result
            shown = (image[0].clamp(0, 1).cpu() for image in images)
            rows += [center_crop(image, [side, side]) for image in shown]
        return make_grid(rows, nrow=3) if rows else None

    def _results(self, network: StyleNetwork, photos: Sequence[tuple[int, Path]]):
        for number, path in [*photos]:
            if (photo := self._load((number, path))) is None:
                continue
            style = self.styles[number % len(self.styles)]
            example = self.objective.example(photo.to(style.device), style)
            if network.is_universal:
                network = network.with_style(network.net.statistics(style))
            yield number, example, style, network(example.photo)

    def _load(self, numbered: tuple[int, Path]) -> Tensor | None:
        """A photo; ``None``, and it is one of them no more, if that cannot be had."""
        _, path = numbered
        try:
            photo = self.load(path, self.size, argument="validation")
            if min(photo.shape[2:]) < MIN_SIDE:
                expected = (
                    f"too narrow; {MIN_SIDE} pixels are needed where the long side has {self.size}"
                )
                raise ArgumentError("validation", path, expected)
        except ArgumentError as error:  # an hour of training must not end for a photo
            logger.warning("no validation photo: %s", error)
            self.photos.remove(numbered)
            return None
        return photo
