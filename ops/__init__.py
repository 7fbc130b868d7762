"""The matting Laplacian, VGG features and the style transfer objective."""

from ops.colour_transfer import colour_transfer
from ops.errors import ArgumentError
from ops.features import VGGFeatures
from ops.losses import LossTerms
from ops.matting_laplacian import MattingLaplacian
from ops.objective import GRAM, MEAN_STD, StyleObjective, Targets, Transport
from ops.projection import Projection

__all__ = [
    "GRAM",
    "MEAN_STD",
    "ArgumentError",
    "LossTerms",
    "MattingLaplacian",
    "Projection",
    "StyleObjective",
    "Targets",
    "Transport",
    "VGGFeatures",
    "colour_transfer",
]
