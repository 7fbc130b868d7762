"""What a network minimises."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from photostyle.data import automatic_masks
from photostyle.data.masks import WHOLE_SHARE, Masks
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.ops import LossTerms, StyleObjective, Targets
from photostyle.ops.errors import check_number
from photostyle.ops.features import VGGFeatures
from photostyle.ops.gram import whole_mask


@dataclass(frozen=True, eq=False)
class Example:
    """A batch of photos, ready for a network.

    Attributes:
        photo: (B, 3, H, W), values in [0, 1].
        inputs: what the network is called with.
        targets: of the whole batch, or one of each photo.
        base: what the network adds to, (B, 3, H, W).
    """

    photo: Tensor
    inputs: tuple
    targets: list[Targets]
    base: Tensor


class TrainingObjective:
    """The losses of a network's results, and what it is called with.

    Args:
        objective: content, style and photorealism losses.
        net: of which only what is not trained is used.
    """

    def __init__(self, objective: StyleObjective, net: TransformNet | UniversalNet):
        self.objective = objective
        self.net = net

    def example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """A batch made ready: photos and, where they are not known already, their styles.

        Args:
            photo: (B, 3, H, W), values in [0, 1], on the device of the objective.
            style: (B, 3, H', W'), one for each.
        """
        raise NotImplementedError

    def training_example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """The same for a step of training."""
        return self.example(photo, style)

    def __call__(self, example: Example, result: Tensor) -> LossTerms:
        """The weighted losses of results (B, 3, H, W)."""
        parts = result.split(len(result) // len(example.targets))
        terms = [
            self.objective(part, targets)
            for part, targets in zip(parts, example.targets, strict=True)
        ]
        return LossTerms({name: sum(t[name] for t in terms) / len(terms) for name in terms[0]})


class OneStyle(TrainingObjective):
    """Of a network of one style.

    Args:
        objective, net: see `TrainingObjective`.
        style: (1, 3, H, W), values in [0, 1], on the device of the objective.
    """

    def __init__(self, objective: StyleObjective, net: TransformNet, style: Tensor):
        super().__init__(objective, net)
        self.statistics = objective.style_statistics(style, whole_mask(style))

    def example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`; the style is the network's own."""
        targets = self.objective.content_targets(photo, whole_mask(photo), self.statistics)
        start = self.net.start(photo)
        return Example(photo, start.inputs, [targets], start.base)


class AnyStyle(TrainingObjective):
    """Of a network of any style.

    Args:
        objective, net: see `TrainingObjective`.
        region_share: of the batches, whose styles go from region to region, see
            `data.automatic_masks`.

    Raises:
        ArgumentError: for a share outside [0, 1].
    """

    def __init__(self, objective: StyleObjective, net: UniversalNet, region_share: float = 0.0):
        check_number("region_share", region_share, 0, 1)
        super().__init__(objective, net)
        self.region_share = region_share
        self.encoder = cache(VGGFeatures)  # of regions: read once, not for each photo

    def example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`."""
        return self._example(photo, style, Masks(whole_mask(photo), whole_mask(style), ("all",)))

    def training_example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`; some with regions, by PyTorch's random numbers."""
        if float(torch.rand(())) >= self.region_share:
            return self.example(photo, style)
        parts = []
        for content, one_style in zip(photo.split(1), style.split(1), strict=True):
            masks = automatic_masks(content, one_style, encoder=self.encoder)
            masks = masks.with_whole(WHOLE_SHARE["automatic"])
            parts.append(self._example(content, one_style, masks))
        photos, bases, targets = zip(*(part.inputs for part in parts), strict=True)
        merged = {layer: torch.cat([target[layer] for target in targets]) for layer in targets[0]}
        inputs = torch.cat(photos), torch.cat(bases), merged
        return Example(photo, inputs, [part.targets[0] for part in parts], inputs[1])

    def _example(self, photo: Tensor, style: Tensor, masks: Masks) -> Example:
        statistics = self.net.statistics(style, masks.style)
        start = self.net.start(photo, statistics, masks.content)
        targets = self.objective.targets(photo, style, masks.content, masks.style)
        return Example(photo, start.inputs, [targets], start.base)
