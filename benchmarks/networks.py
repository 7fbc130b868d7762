"""Networks to train, their losses and their schedules, as conf/train.yaml sets them.

Written out, so that a machine without Hydra trains the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from photostyle.feedforward.training_objective import (
    AnyStyle,
    OneStyle,
    RawMattingLoss,
    TrainingObjective,
)
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.ops import GuidedFilter, StyleObjective, Transport
from photostyle.ops.colour_transfer import colour_moments

LAYERS = ["colours", "relu1_1", "relu2_1", "relu3_1"]
EMA_DECAY = 0.99
REGION_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Setup:
    """What is trained, and how.

    Attributes:
        net: with random weights.
        guided_filter: of its output.
        losses: what it minimises.
        learning_rate: the highest.
    """

    net: TransformNet | UniversalNet
    guided_filter: GuidedFilter
    losses: TrainingObjective
    learning_rate: float


def one_style(style: Tensor) -> Setup:
    """A network of the style of one photo, (1, 3, H, W), on whose device all is."""
    gains = {"colour_gains": (0.85, 1.5), "feature_gains": (0.0, 2.0)}
    objective = StyleObjective(
        style_loss=Transport(**gains),
        style_layers=LAYERS,
        layer_weights=[4, 2, 1, 1],
        style_weight=300.0,
        edges_weight=20.0,
        matting_weight=0.0,
    )
    moments = colour_moments(style, style.new_ones(1, *style.shape[2:]))
    net = TransformNet(
        style_mean=moments.mean[0, 0],
        style_covariance=moments.covariance[0, 0],
        gains=gains["colour_gains"],
    )
    losses = OneStyle(objective.to(style.device), RawMattingLoss(), style)
    return Setup(net.to(style.device), GuidedFilter(radius=4, ridge=1e-4), losses, 1e-3)


def any_style(device: str | torch.device) -> Setup:
    """A network of any style."""
    objective = StyleObjective(
        style_loss=Transport(gram_weight=0.3),
        style_layers=LAYERS,
        layer_weights=[8, 2, 1, 1],
        edges_weight=10.0,
    )
    net = UniversalNet().to(device)
    losses = AnyStyle(objective.to(device), RawMattingLoss(weight=0.0), net, REGION_SHARE)
    return Setup(net, GuidedFilter(), losses, 2e-3)
