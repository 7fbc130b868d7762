"""The matting Laplacian, VGG features and the style transfer objective."""

from ops.colour_transfer import colour_transfer
from ops.errors import ArgumentError
from ops.features import VGGFeatures
from ops.losses import LossTerms, StyleObjective, Targets
from ops.matting_laplacian import MattingLaplacian
from ops.projection import Projection

__all__ = [
    "ArgumentError",
    "LossTerms",
    "MattingLaplacian",
    "Projection",
    "StyleObjective",
    "Targets",
    "VGGFeatures",
    "colour_transfer",
]
