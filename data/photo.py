"""A decoded photo, and its way to a tensor and back."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from photostyle.data.colour_space import ColourSpace, colour_space
from photostyle.data.metadata import Metadata
from photostyle.ops.errors import check_whole

MIN_SIDE = 16
"""Below this the coarsest features have no pixel left."""
FAINT = 1 / 32
"""Of the opacity: below it a pixel's colour is rather rounding than colour."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo and what its file says about it.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16, upright RGB as coded in the file (``icc_profile`` says
            what the numbers mean; sRGB if it is None).
        alpha: (H, W) of the same dtype, its greatest value is opaque; None for a photo without
            transparency.
        icc_profile: an RGB profile, or None.
        metadata: of the file, which may have held the photo turned.

    Raises:
        ValueError: ``pixels`` or ``alpha`` has another shape or dtype.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self):
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be (H, W, 3) uint8 or uint16, not {shape} {dtype}")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != dtype):
            raise ValueError(
                f"alpha must be {shape[:2]} {dtype}, not {self.alpha.shape} {self.alpha.dtype}"
            )

    @property
    def white(self) -> int:
        """The greatest level: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    @cached_property
    def is_opaque(self) -> bool:
        """Whether no pixel is transparent."""
        return self.alpha is None or self.alpha.min() == self.white

    @property
    def space(self) -> ColourSpace | None:
        """What the pixels' numbers mean; ``None``: sRGB."""
        return colour_space(self.icc_profile)

    def tensor(self, size: int | None = None) -> Tensor:
        """The photo in sRGB, as float32 (1, 3, h, w) in [0, 1].

        A larger photo is resized with antialiasing (Lanczos) to a long side of ``size`` pixels, the
        short one at least 16; a smaller photo is never enlarged. Colours that sRGB lacks are moved
        to its border. What is transparent has the colour of the nearest pixel that is not: nothing
        depends on what lies there.

        Raises:
            ArgumentError: for a ``size`` that is no whole number of at least 16.
        """
        height, width = self.size_within(size)
        if self.is_opaque:
            pixels = resize(self.pixels, (width, height))
        else:
            pixels = self._visible(height, width)
        if self.space is not None:
            pixels, white = self.space.to_srgb(pixels).clip(0, 1), 1
        else:
            white = self.white
        # One copy that torch may own, then one in float.
        planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return planes[None].to(torch.float32).div_(white)

    def in_srgb(self) -> Self:
        """The same in the numbers of sRGB, 8 bits each; colours that it lacks are at its border."""
        if self.space is None and self.white == 255:
            return replace(self, icc_profile=None)
        if self.space is None:
            values = self.pixels.astype(np.float32) / self.white
        else:
            values = self.space.to_srgb(self.pixels).clip(0, 1)
        pixels = np.rint(255 * values).astype(np.uint8)
        return replace(self.with_pixels(pixels), icc_profile=None)

    def opacity(self, size: int | None = None) -> Tensor | None:
        """How much each pixel of `tensor` counts, (h, w) in [0, 1]; ``None``: all of them 1."""
        if self.is_opaque:
            return None
        return torch.from_numpy(self._seen(*self.size_within(size)))

    def with_pixels(self, pixels: np.ndarray) -> Self:
        """The same photo with other pixels, (h, w, 3); alpha takes on their size and depth."""
        alpha = self.alpha
        if alpha is not None and (alpha.shape, alpha.dtype) != (pixels.shape[:2], pixels.dtype):
            white = np.iinfo(pixels.dtype).max
            alpha = np.rint(white * self._opacity(*pixels.shape[:2])).astype(pixels.dtype)
        return replace(self, pixels=pixels, alpha=alpha)

    def with_image(self, image: Tensor) -> Self:
        """The same photo with an image (1, 3, h, w) in sRGB, in its own numbers and depth."""
        levels = image.detach()[0].permute(1, 2, 0).cpu().numpy().astype(np.float32)
        if self.space is None:
            levels = levels.clip(0, 1) * self.white
        else:
            levels = self.space.levels(levels) * (self.white / 65535)
        return self.with_pixels(np.rint(levels).astype(self.pixels.dtype))

    def size_within(self, size: int | None) -> tuple[int, int]:
        """(height, width) of `tensor`."""
        if size is not None:
            check_whole("size", size, MIN_SIDE)
        sides = self.pixels.shape[:2]
        scale = 1 if size is None else min(1, size / max(sides))
        return tuple(sides if scale == 1 else (max(MIN_SIDE, round(s * scale)) for s in sides))

    def _opacity(self, height: int, width: int) -> np.ndarray:
        return resize(self.alpha.astype(np.float32) / self.white, (width, height)).clip(0, 1)

    def _seen(self, height: int, width: int) -> np.ndarray:
        opacity = self._opacity(height, width)
        return np.where(opacity < FAINT, 0, opacity)

    def _visible(self, height: int, width: int) -> np.ndarray:
        """(height, width, 3) of the pixels' dtype."""
        opacity = self._seen(height, width)
        if not opacity.any():
            return np.full((height, width, 3), self.white // 2, self.pixels.dtype)
        # Resized with their weight: no colour comes from where nothing is seen.
        weighted = self.pixels * (self.alpha[..., None] / np.float32(self.white))
        pixels = resize(weighted, (width, height)) / np.maximum(opacity, FAINT)[..., None]
        pixels = np.rint(pixels.clip(0, self.white)).astype(self.pixels.dtype)
        nearest = distance_transform_edt(opacity == 0, return_distances=False, return_indices=True)
        return pixels[tuple(nearest)]


def resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) or (H, W) to ``size``, width and height, by an antialiasing Lanczos.

    PyTorch's is Pillow's to a rounding, and eight times as fast, but for bytes alone.
    """
    width, height = size
    if array.shape[:2] == (height, width):
        return array
    if array.ndim == 2:
        if array.dtype == np.uint16:
            levels = resize(array.astype(np.float32), size).clip(0, 65535)
            return np.rint(levels).astype(np.uint16)
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))
    if array.dtype != np.uint8 or torch.__version__ < (2, 12):
        planes = (np.ascontiguousarray(array[..., channel]) for channel in range(array.shape[2]))
        return np.stack([resize(plane, size) for plane in planes], -1)
    planes = torch.from_numpy(np.require(array, requirements="CW")).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (height, width), mode="lanczos", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def to_pixels(tensor: Tensor) -> np.ndarray:
    """An image (1, 3, H, W) as (H, W, 3) uint8: clamped to [0, 1], rounded to nearest.

    Raises:
        ValueError: another shape or dtype, or values that are not finite.
    """
    if tensor.ndim != 4 or tuple(tensor.shape[:2]) != (1, 3) or not tensor.is_floating_point():
        shape = tuple(tensor.shape)
        raise ValueError(f"an image must be (1, 3, H, W) of floats, not {shape} {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise ValueError("an image must be finite, this one holds NaN or infinity")
    levels = tensor.detach()[0].clamp(0, 1).mul(255).round_().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()
