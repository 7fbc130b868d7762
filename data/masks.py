"""Pairs of masks that say which part of the style photo goes to which part of the content photo."""

import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from photostyle.data.paths import atomic_file
from photostyle.data.photo import to_pixels
from photostyle.ops.errors import ArgumentError, check_choice, check_number
from photostyle.ops.features import VGGFeatures
from photostyle.ops.regions import Described, describe, segment_together

logger = logging.getLogger(__name__)

MASKS = ("auto", "none")
"""What to do without painted masks."""

COLOURS = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (255, 225, 25), (145, 30, 180), (70, 240, 240),
)  # fmt: skip
"""Of the labels, far enough apart to be told from each other in a file."""

WHOLE_SHARE = {"automatic": 0.65, "painted": 0.05}
"""How much the whole photos count beside their regions: what a person has painted is meant, and its
borders are a little wrong."""

LARGEST_MASK = 4096
"""Long side in pixels of the masks that are written for a larger photo, and of what is made of a
larger mask when it is read."""

MASK_FILES = {
    (photo, kind): f"{photo}_{kind}.png"
    for photo in ("content", "style")
    for kind in ("mask", "overlay")
}
"""What `save_masks` writes."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The labels of a content photo and, for each, what it takes its style from.

    Attributes:
        content: (M, H, W) float32 in [0, 1]; at each pixel the M values add up to its weight: 1,
            less where the photo is transparent.
        style: (M, H', W') float32 in [0, 1].
        labels: M names, the colours as "#rrggbb", by falling area in the content.
    """

    content: Tensor
    style: Tensor
    labels: tuple[str, ...]

    @classmethod
    def whole(cls, content_size: tuple[int, int], style_size: tuple[int, int]) -> Self:
        """One label for everything; sizes are (height, width)."""
        return cls(torch.ones(1, *content_size), torch.ones(1, *style_size), ("all",))

    def with_whole(self, share: float) -> Self:
        """The same and one more label, everywhere in both photos, with ``share`` of each pixel.

        It makes regions that do not belong together mild. A single label is everywhere already;
        at a share of 1 no other is left.
        """
        if share == 0 or len(self.labels) == 1:
            return self
        content = self.content.sum(0, keepdim=True)
        style = torch.ones_like(self.style[:1])
        if share == 1:
            return type(self)(content, style, ("whole photo",))
        return type(self)(
            torch.cat([(1 - share) * self.content, share * content]),
            torch.cat([self.style, style]),
            (*self.labels, "whole photo"),
        )

    def visible(self, content: Tensor | None, style: Tensor | None) -> Self:
        """The same of photos that are transparent in places.

        Args:
            content, style: opacities, (H, W) and (H', W') in [0, 1], not 0 everywhere; ``None``:
                opaque. Labels that are nowhere to be seen are left out.
        """
        if content is None and style is None:
            return self
        masks = self
        if content is not None:
            kept = (self.content * content).flatten(1).sum(1) > 0
            labels = tuple(itertools.compress(self.labels, kept.tolist()))
            masks = type(self)(self.content[kept] * content, self.style[kept], labels)
        if style is None:
            return masks
        seen = masks.style * style
        empty = seen.flatten(1).sum(1) == 0
        seen[empty] = style
        return replace(masks, style=seen)


def check_mask_choices(
    masks: str | None,
    whole_share: float | None,
    **painted: str | os.PathLike | None,
) -> None:
    """Check that what is said of masks has an effect together.

    Args:
        masks: one of `MASKS`, or ``None``.
        whole_share: see `Masks.with_whole`; ``None``: see `WHOLE_SHARE`.
        painted: files of masks, by their arguments; ``None``: not given.

    Raises:
        ArgumentError: it has not, or they are other values.
    """
    if masks is not None:
        check_choice("masks", masks, MASKS)
        for argument, file in painted.items():
            if file is not None:
                expected = f"says what to do without {argument}; leave one of them out"
                raise ArgumentError("masks", masks, expected)
    if whole_share is not None:
        check_number("whole_share", whole_share, 0, 1)
        if masks == "none":
            expected = "masks=none leaves no regions to weigh; leave one of them out"
            raise ArgumentError("whole_share", whole_share, expected)


def automatic_masks(
    content: Tensor,
    style: Tensor,
    *,
    opacities: tuple[Tensor | None, Tensor | None] = (None, None),
    seed: int = 0,
    encoder: Callable[[tuple[str, ...]], nn.Module] = VGGFeatures,
) -> Masks:
    """Masks of the regions that both photos have, see `ops.regions.segment_together`.

    Args:
        content: (1, 3, H, W), values in [0, 1].
        style: (1, 3, H', W'), values in [0, 1].
        opacities: of both, (H, W) and (H', W') in [0, 1]; ``None``: opaque. What is transparent
            belongs to some region, but decides on none; see `Masks.visible`.
        seed: of the first centres of k-means.
        encoder: see `ops.regions.describe`.
    """
    encoder = cache(encoder)  # its weights are read once
    photos = zip((content, style), opacities, strict=True)
    described = (describe(photo, opacity, encoder=encoder) for photo, opacity in photos)
    return masks_of_described(*described, seed=seed)


def masks_of_described(content: Described, style: Described, *, seed: int = 0) -> Masks:
    """As `automatic_masks`, of photos that `ops.regions.describe` has described."""
    content, style = segment_together(content, style, seed=seed)
    names = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in COLOURS]
    return Masks(content, style, tuple(names[: len(content)]))


def save_masks(
    masks: Masks,
    content: Tensor,
    style: Tensor,
    folder: str | os.PathLike,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    *,
    overwrite: bool = True,
) -> list[Path]:
    """Write masks to look at and to edit.

    ``content_mask.png`` and ``style_mask.png`` have one plain colour per label and can be given
    back; ``content_overlay.png`` and ``style_overlay.png`` show them over the photos.

    Args:
        masks: of which each pixel gets its largest.
        content, style: (1, 3, H, W) of the masks' sizes, values in [0, 1].
        folder: created where it is missing.
        sizes: of the photos themselves, (height, width): the masks are written at these, at most
            `LARGEST_MASK` pixels a side; ``None``: at their own size.
        overwrite: whether the files may be there already.

    Returns:
        The files.

    Raises:
        OSError: they cannot be written, or are there and ``overwrite`` is false.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.array([_colour(name) for name in masks.labels], np.uint8)
    files = []
    for index, (name, layers, photo) in enumerate(
        (("content", masks.content, content), ("style", masks.style, style))
    ):
        mask = colours[layers.argmax(0).cpu().numpy()]
        overlay = (mask.astype(np.uint16) + to_pixels(photo)) // 2
        size = layers.shape[1:] if sizes is None else sizes[index]
        pictures = {"mask": colours[_labels_at(layers, size)], "overlay": overlay.astype(np.uint8)}
        for kind, pixels in pictures.items():
            files.append(folder / MASK_FILES[name, kind])
            with atomic_file(files[-1], overwrite=overwrite) as file:
                Image.fromarray(pixels).save(file, format="PNG")
    return files


def _labels_at(layers: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The largest of layers (M, h, w) at each pixel of a larger size, (H, W)."""
    scale = min(1, LARGEST_MASK / max(size))
    size = [max(low, round(scale * side)) for low, side in zip(layers.shape[1:], size, strict=True)]
    best = labels = None
    for label, layer in enumerate(layers.cpu()):  # one by one: all would take a gigabyte
        layer = F.interpolate(layer[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        if best is None:
            best, labels = layer, torch.zeros(size, dtype=torch.uint8)
            continue
        larger = layer > best
        best[larger] = layer[larger]
        labels[larger] = label
    return labels.numpy()


def _colour(label: str) -> tuple[int, ...]:
    """The colour that a label is named after; that of the whole photo has none."""
    if not label.startswith("#"):
        return COLOURS[0]
    return tuple(int(label[i : i + 2], 16) for i in (1, 3, 5))
