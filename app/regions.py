"""The regions of a photo and a style photo: found, painted, merged."""

from pathlib import Path

import numpy as np
from PIL import Image

from photostyle.app.upload import Upload
from photostyle.data import Masks, load_masks
from photostyle.data.masks import COLOURS, MASK_FILES, WHOLE_SHARE, masks_of_described
from photostyle.ops.errors import check_choice

REGIONS = ("red", "green", "blue", "yellow", "purple", "cyan")
"""What people call `data.masks.COLOURS`."""


class Regions:
    """Which region each pixel of both photos belongs to.

    Args:
        content, style: the photos.
        folder: for the masks of regions that were painted or merged.
        seed: of the automatic regions.

    Attributes:
        painted: whether the regions are those that the person painted or merged.
    """

    def __init__(self, content: Upload, style: Upload, folder: Path, *, seed: int):
        self._photos = {"content": content, "style": style}
        self._automatic = masks_of_described(content.described, style.described, seed=seed)
        self._files = {name: folder / MASK_FILES[name, "mask"] for name in self._photos}
        self.reset()

    def reset(self) -> None:
        """Go back to the automatic regions."""
        self.painted = False
        masks = {"content": self._automatic.content, "style": self._automatic.style}
        # Indices of COLOURS, (H, W).
        self._labels = {name: mask.argmax(0).byte().numpy() for name, mask in masks.items()}

    @property
    def files(self) -> dict[str, Path]:
        """The painted masks, by the key of the command line that names each."""
        if not self.painted:
            return {}
        return {f"{name}_mask": file for name, file in self._files.items()}

    def masks(self) -> Masks:
        """What the command line makes of them, see `feedforward.StyleSource`."""
        photos = self._photos.values()
        masks = self._automatic
        if self.painted:
            masks = load_masks(*self.files.values(), *(photo.image.shape[2:] for photo in photos))
        share = WHOLE_SHARE["painted" if self.painted else "automatic"]
        return masks.with_whole(share).visible(*(photo.opacity for photo in photos))

    def overlays(self) -> dict[str, np.ndarray]:
        """Both photos under the colours of their regions, (H, W, 3) uint8 each."""
        palette = np.array(COLOURS, np.uint16)
        return {
            name: ((palette[self._labels[name]] + photo.pixels) // 2).astype(np.uint8)
            for name, photo in self._photos.items()
        }

    def unmatched(self) -> list[str]:
        """The regions of the photo that the style photo lacks; see `data.load_masks`."""
        content, style = (np.unique(labels) for labels in self._labels.values())
        return [REGIONS[index] for index in np.setdiff1d(content, style)]

    def paint(self, argument: str, strokes: np.ndarray) -> None:
        """Give the region of the nearest colour to what is painted.

        Args:
            argument: ``content`` or ``style``.
            strokes: (h, w, 4) uint8, transparent where nothing is painted.
        """
        labels = self._labels[argument]
        height, width = labels.shape
        image = Image.fromarray(strokes).resize((width, height), Image.Resampling.NEAREST)
        strokes = np.asarray(image).astype(np.int32)
        difference = strokes[:, :, None, :3] - np.array(COLOURS, np.int32)
        nearest = (difference**2).sum(-1).argmin(-1)
        painted = strokes[..., 3] > 127
        if painted.any():
            self._labels[argument] = np.where(painted, nearest, labels).astype(np.uint8)
            self._write()

    def merge(self, region: str, into: str) -> None:
        """Make two regions one, in both photos.

        Raises:
            ArgumentError: a region is none of `REGIONS`.
        """
        for argument, name in (("region", region), ("into", into)):
            check_choice(argument, name, REGIONS)
        parts = [labels == REGIONS.index(region) for labels in self._labels.values()]
        if region == into or not any(part.any() for part in parts):
            return
        for labels, part in zip(self._labels.values(), parts, strict=True):
            labels[part] = REGIONS.index(into)
        self._write()

    def _write(self) -> None:
        self.painted = True
        palette = np.array(COLOURS, np.uint8)
        for name, file in self._files.items():
            Image.fromarray(palette[self._labels[name]]).save(file)
