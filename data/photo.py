"""A decoded photo, and its way to a tensor and back."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MIN_SIDE = 16
"""Below this the coarsest features have no pixel left."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo and what its file says about it.

    Attributes:
        pixels: (H, W, 3) uint8, upright RGB as coded in the file (``icc_profile`` says what the
            numbers mean; sRGB if it is None).
        alpha: (H, W) uint8, 255 is opaque; None for a photo without transparency.
        icc_profile: an RGB profile, or None.
        exif: an EXIF block without orientation (it is applied), pixel size and thumbnail, or None.

    Raises:
        ValueError: ``pixels`` or ``alpha`` has another shape or dtype.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None

    def __post_init__(self):
        shape = self.pixels.shape
        if len(shape) != 3 or shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be (H, W, 3) uint8, not {shape} {self.pixels.dtype}")
        if self.alpha is not None and (
            self.alpha.shape != shape[:2] or self.alpha.dtype != np.uint8
        ):
            raise ValueError(
                f"alpha must be {shape[:2]} uint8, not {self.alpha.shape} {self.alpha.dtype}"
            )

    def tensor(self, size: int | None = None) -> Tensor:
        """The photo as float32 (1, 3, h, w) in [0, 1].

        A larger photo is resized with antialiasing (Lanczos) to a long side of ``size`` pixels, the
        short one at least 16; a smaller photo is never enlarged.
        """
        height, width = self.pixels.shape[:2]
        scale = 1 if size is None else min(1, size / max(height, width))
        pixels = self.pixels
        if scale < 1:
            smaller = [max(MIN_SIDE, round(side * scale)) for side in (width, height)]
            pixels = resize(pixels, smaller)
        # One copy that torch may own, then one in float.
        planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return planes[None].to(torch.float32).div_(255)

    def with_pixels(self, pixels: np.ndarray) -> Self:
        """The same photo with other pixels (h, w, 3) uint8; alpha is resized to their size."""
        alpha = self.alpha
        if alpha is not None and alpha.shape != pixels.shape[:2]:
            alpha = resize(alpha, (pixels.shape[1], pixels.shape[0]))
        return replace(self, pixels=pixels, alpha=alpha)


def resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) or (H, W) uint8 to ``size``, width and height, by an antialiasing Lanczos.

    PyTorch's is Pillow's to a rounding, and eight times as fast.
    """
    if array.ndim == 2 or torch.__version__ < (2, 12):
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))
    planes = torch.from_numpy(np.require(array, requirements="CW")).permute(2, 0, 1)[None]
    width, height = size
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
