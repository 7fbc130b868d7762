"""A scale of tones without ends, on which colours are moved.

On the scale of pixel values an affine map moves what is nearly black or white beyond it, where
texture is cut off, or leaves a veil over blacks that are lifted. Film does neither: its
characteristic curve, Hurter and Driffield (1890), has a toe and a shoulder. So values x are moved
as

    z = artanh(κ (2x − 1)) / 2κ,    x = ½ + tanh(2κ z) / 2κ,

the log-odds of x but for κ: steps near black and white count for more than those of greys, and
what is moved there takes smaller ones. In the limit of κ = 0 both are linear.
"""

import torch
from torch import Tensor

from photostyle.ops.errors import check_number

CURVATURE = 0.6
"""κ: the slope at black and white is 1/(1 − κ²), half as much again as that of mid-grey."""
LARGEST_CURVATURE = 0.99


def check_curvature(argument: str, value: object) -> None:
    """Raise `ArgumentError` unless ``value`` is a κ in [0, 0.99]: at 1 black and white are lost."""
    check_number(argument, value, 0, LARGEST_CURVATURE)


def to_tones(image: Tensor, curvature: float = CURVATURE) -> Tensor:
    """z of values x, of the same shape; 0 at mid-grey, where its slope is 1.

    Args:
        image: of any shape and floating dtype, which stays; what is outside [0, 1] counts as black
            or white.
        curvature: κ, in [0, 1).
    """
    centred = image.clamp(0, 1) - 0.5
    return centred if curvature == 0 else torch.atanh(2 * curvature * centred) / (2 * curvature)


def from_tones(tones: Tensor, curvature: float = CURVATURE) -> Tensor:
    """x of tones z, of the same shape and dtype, not clamped: in ½ ± 1/2κ."""
    if curvature == 0:
        return tones + 0.5
    return torch.tanh(2 * curvature * tones) / (2 * curvature) + 0.5


def tone_slope(image: Tensor, curvature: float = CURVATURE) -> Tensor:
    """dz/dx at values x, of their shape and dtype, at least 1; beyond [0, 1] that of its ends."""
    return 1 / (1 - (curvature * (2 * image.clamp(0, 1) - 1)) ** 2)
