"""Networks to train, their losses and their schedules, as conf/train.yaml sets them.

Written out, so that a machine without Hydra trains the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from photostyle.feedforward.training_objective import AnyStyle, OneStyle, TrainingObjective
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.ops import GuidedFilter, StyleObjective, Transport

LAYERS = ["colours", "relu1_1", "relu2_1", "relu3_1"]
GUIDED_FILTER = GuidedFilter(radius=4)
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
    net = TransformNet(style=style).to(style.device)
    return Setup(net, GUIDED_FILTER, OneStyle(_objective().to(style.device), net, style), 1e-3)


def any_style(device: str | torch.device) -> Setup:
    """A network of any style."""
    net = UniversalNet().to(device)
    losses = AnyStyle(_objective(gram_weight=0.3).to(device), net, REGION_SHARE)
    return Setup(net, GUIDED_FILTER, losses, 2e-3)


def _objective(**transport) -> StyleObjective:
    return StyleObjective(
        style_loss=Transport(**transport),
        style_layers=LAYERS,
        layer_weights=[8, 2, 1, 1],
        edges_weight=10.0,
    )
