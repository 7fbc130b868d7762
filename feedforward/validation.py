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
from photostyle.ops import ArgumentError, LossTerms
from photostyle.ops.metrics import StyleDistance, edge_ssim

logger = logging.getLogger(__name__)

MIN_SIDE = 32
"""Pixels; below it the losses' windows and the deeper features do not fit."""

PICTURES = 4
"""Photos in the grid of pictures."""


class Validation:
    """Mean figures of a network on fixed photos, and a grid of pictures to look at.

    Args:
        photos: files; those that cannot be read or are very narrow are passed over, with a warning.
        style: (1, 3, H', W'), values in [0, 1], on the device to work on.
        size: long side of the photos in pixels; they are never enlarged.
        objective: what was trained, called with (photo, raw output, result).

    Raises:
        ArgumentError: none of the photos can be read.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        style: Tensor,
        size: int,
        objective: Callable[[Tensor, Tensor, Tensor], LossTerms],
    ):
        # Now: an hour of training must not end for a photo.
        self.photos = [path for path in photos if _is_readable(path, size)]
        if not self.photos:
            expected = f"none of {len(photos)} validation photos can be read"
            raise ArgumentError("validation", photos[0].parent, expected)
        self.style = style
        self.size = size
        self.objective = objective
        self.style_distance = StyleDistance().to(style.device)

    @torch.no_grad()
    def measure(self, network: StyleNetwork) -> dict[str, float]:
        """``loss``, ``style_distance`` and ``edge_ssim``, means over the photos."""
        figures = []
        style_mask = self.style.new_ones(1, *self.style.shape[2:])
        for photo, raw, result in self._results(network, self.photos):
            loss = float(self.objective(photo, raw, result).total)
            image = result.clamp(0, 1)
            mask = photo.new_ones(1, *photo.shape[2:])
            distance = self.style_distance(image, self.style, mask, style_mask)
            figures.append((loss, distance, edge_ssim(photo.cpu(), image.cpu())))
        means = torch.tensor(figures, dtype=torch.float64).mean(0).tolist()
        return dict(zip(("loss", "style_distance", "edge_ssim"), means, strict=True))

    @torch.no_grad()
    def pictures(self, network: StyleNetwork) -> Tensor:
        """A row of content, raw output and result for each of some photos, (3, H, W) in [0, 1]."""
        rows = []
        side = self.size * 3 // 4
        for images in self._results(network, self.photos[:PICTURES]):
            rows += [center_crop(image[0].clamp(0, 1).cpu(), [side, side]) for image in images]
        return make_grid(rows, nrow=3)

    def _results(self, network: StyleNetwork, photos: Sequence[Path]):
        for path in photos:
            photo = _load(path, self.size).to(self.style.device)
            raw = network.net(photo)
            yield photo, raw, network.filtered(raw, photo)


def _load(path: Path, size: int) -> Tensor:
    photo = load_image(path, size, argument="validation")
    if min(photo.shape[2:]) < MIN_SIDE:
        expected = f"too narrow; {MIN_SIDE} pixels are needed where the long side has {size}"
        raise ArgumentError("validation", path, expected)
    return photo


def _is_readable(path: Path, size: int) -> bool:
    try:
        _load(path, size)
    except ArgumentError as error:
        logger.warning("no validation photo: %s", error)
        return False
    return True
