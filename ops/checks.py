"""Whether tensors are photos and masks."""

import torch
from torch import Tensor

from photostyle.ops.errors import ArgumentError

HALF = (torch.float16, torch.bfloat16)
ROUNDING = 1e-3
"""Beyond [0, 1]: less than a level of 8 bits."""


def check_image(argument: str, image: Tensor) -> None:
    """Raise `ArgumentError` unless ``image`` is (B, C, H, W), of any floating dtype."""
    if not isinstance(image, Tensor):
        raise ArgumentError(argument, type(image).__name__, "give a torch.Tensor (B, C, H, W)")
    if image.dim() != 4 or 0 in image.shape:
        raise ArgumentError(argument, tuple(image.shape), "give (B, C, H, W), none of them empty")
    if image.dtype not in (torch.float32, torch.float64, *HALF):
        raise ArgumentError(argument, image.dtype, "give float32, float64, float16 or bfloat16")


def check_photo(argument: str, photo: Tensor) -> None:
    """Raise `ArgumentError` unless ``photo`` is (1, 3, H, W), values in [0, 1]."""
    check_photos(argument, photo)
    if len(photo) != 1:
        raise ArgumentError(argument, tuple(photo.shape), "give one photo, (1, 3, H, W)")


def check_photos(argument: str, photos: Tensor) -> None:
    """Raise `ArgumentError` unless ``photos`` are (B, 3, H, W), values in [0, 1]."""
    check_image(argument, photos)
    if photos.shape[1] != 3:
        raise ArgumentError(argument, tuple(photos.shape), "give 3 channels, (B, 3, H, W)")
    check_range(argument, photos)


def check_range(argument: str, values: Tensor) -> None:
    """Raise `ArgumentError` unless all values are in [0, 1], but for rounding."""
    # What is not a number fails the comparison.
    inside = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
    if not inside.all():
        worst = f"{values[~inside][0].item():g}"
        raise ArgumentError(argument, worst, "give values in [0, 1], all of them finite")


def check_mask_shape(argument: str, masks: Tensor, photo: Tensor) -> None:
    """Raise `ArgumentError` unless masks are (M, H, W) where the photo is (B, C, H, W)."""
    height, width = photo.shape[2:]
    if not isinstance(masks, Tensor):
        raise ArgumentError(argument, type(masks).__name__, "give a torch.Tensor (M, H, W)")
    if masks.dim() != 3 or masks.shape[1:] != (height, width):
        expected = f"give (M, {height}, {width}), as the photo"
        raise ArgumentError(argument, tuple(masks.shape), expected)


def check_masks(
    content_masks: Tensor | None, style_masks: Tensor | None, content: Tensor, style: Tensor
) -> None:
    """Raise `ArgumentError` unless there are masks (M, H, W) of both photos or of neither.

    As many of both, with values in [0, 1], and the style's not 0 everywhere where the content's is
    not.
    """
    if (content_masks is None) != (style_masks is None):
        missing = "content_masks" if content_masks is None else "style_masks"
        raise ArgumentError(missing, None, "give masks of both photos or of neither")
    if content_masks is None:
        return
    pairs = {"content_masks": (content_masks, content), "style_masks": (style_masks, style)}
    for argument, (masks, photo) in pairs.items():
        check_mask_shape(argument, masks, photo)
        check_range(argument, masks)
    if len(content_masks) != len(style_masks):
        expected = f"give one for each of {len(content_masks)}"
        raise ArgumentError("style_masks", len(style_masks), expected)
    used, filled = (masks.bool().flatten(1).any(1) for masks in (content_masks, style_masks))
    if not used.any():
        raise ArgumentError("content_masks", "masks", "all of them are 0 everywhere")
    if not filled.to(used.device)[used].all():
        raise ArgumentError("style_masks", "masks", "one is 0 everywhere, the content's is not")
