"""What a network minimises."""

from dataclasses import dataclass

import torch
from torch import Tensor

from photostyle.data import automatic_masks
from photostyle.data.masks import WHOLE_SHARE, Masks
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.ops import LossTerms, MattingLaplacian, StyleObjective, Targets
from photostyle.ops.errors import check_choice, check_number, check_positive, check_whole
from photostyle.ops.matting import BACKENDS


@dataclass(frozen=True)
class RawMattingLoss:
    """The matting loss xᵀLx of a network's raw output x, in large windows.

    Attributes:
        weight: of the loss per channel, pixel and pixel of its windows, which is the mean square of
            what an affine fit leaves in them; 0 leaves it out.
        radius: of its windows.
        ridge: ε/|w|, see `MattingLaplacian.with_ridge`.
        backend: of the matting Laplacian.

    Raises:
        ArgumentError: for values other than these.
    """

    weight: float = 2000.0
    radius: int = 8
    ridge: float = 3e-3 / 17**2
    backend: str = "auto"

    def __post_init__(self):
        check_number("weight", self.weight, 0)
        check_whole("radius", self.radius, 1)
        check_positive("ridge", self.ridge)
        check_choice("backend", self.backend, BACKENDS)

    def __call__(self, photo: Tensor, raw: Tensor) -> Tensor:
        """The weighted loss, a scalar, of outputs for photos; (B, 3, H, W) each."""
        laplacian = MattingLaplacian.with_ridge(photo, self.radius, self.ridge, self.backend)
        return self.weight * laplacian.matting_loss(raw).mean() / (2 * laplacian.radius + 1) ** 2


@dataclass(frozen=True, eq=False)
class Example:
    """A batch of photos, ready for a network.

    Attributes:
        photo: (B, 3, H, W), values in [0, 1].
        inputs: what the network is called with.
        targets: of the whole batch, or one of each photo.
        base: what a network of any style adds to, (B, 3, H, W).
    """

    photo: Tensor
    inputs: tuple
    targets: list[Targets]
    base: Tensor | None = None


class TrainingObjective:
    """objective(P x) + weight · xᵀLx: the losses of the result, and of the raw output x.

    The guided filter P hides from the other losses what is not locally affine in x; without a loss
    of x itself a network of one style rings there, and P smears it into halos. Windows larger than
    P's see the halos, too: a glow that fades over ten pixels is affine in each three.

    Args:
        objective: content, style and photorealism losses.
        raw_matting: of the raw output.
    """

    def __init__(self, objective: StyleObjective, raw_matting: RawMattingLoss):
        self.objective = objective
        self.raw_matting = raw_matting

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

    def __call__(self, example: Example, raw: Tensor, result: Tensor) -> LossTerms:
        """The weighted losses; (B, 3, H, W) each."""
        parts = result.split(len(result) // len(example.targets))
        terms = [
            self.objective(part, targets)
            for part, targets in zip(parts, example.targets, strict=True)
        ]
        mean = LossTerms({name: sum(t[name] for t in terms) / len(terms) for name in terms[0]})
        if not self.raw_matting.weight:
            return mean
        return mean + LossTerms({"raw_matting": self.raw_matting(example.photo, raw)})


class OneStyle(TrainingObjective):
    """Of a network of one style.

    Args:
        objective, raw_matting: see `TrainingObjective`.
        style: (1, 3, H, W), values in [0, 1], on the device of the objective.
    """

    def __init__(self, objective: StyleObjective, raw_matting: RawMattingLoss, style: Tensor):
        super().__init__(objective, raw_matting)
        self.statistics = objective.style_statistics(style, _whole(style))

    def example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`; the style is the network's own."""
        targets = self.objective.content_targets(photo, _whole(photo), self.statistics)
        return Example(photo, (photo,), [targets])


class AnyStyle(TrainingObjective):
    """Of a network of any style.

    Args:
        objective, raw_matting: see `TrainingObjective`.
        net: of which only what is not trained is used.
        region_share: of the batches, whose styles go from region to region, see
            `data.automatic_masks`.

    Raises:
        ArgumentError: for a share outside [0, 1].
    """

    def __init__(
        self,
        objective: StyleObjective,
        raw_matting: RawMattingLoss,
        net: UniversalNet,
        region_share: float = 0.0,
    ):
        check_number("region_share", region_share, 0, 1)
        super().__init__(objective, raw_matting)
        self.net = net
        self.region_share = region_share

    def example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`."""
        return self._example(photo, style, Masks(_whole(photo), _whole(style), ("all",)))

    def training_example(self, photo: Tensor, style: Tensor | None = None) -> Example:
        """See `TrainingObjective.example`; some with regions, by PyTorch's random numbers."""
        if float(torch.rand(())) >= self.region_share:
            return self.example(photo, style)
        parts = []
        for content, one_style in zip(photo.split(1), style.split(1), strict=True):
            masks = automatic_masks(content, one_style).with_whole(WHOLE_SHARE["automatic"])
            parts.append(self._example(content, one_style, masks))
        photos, bases, targets = zip(*(part.inputs for part in parts), strict=True)
        merged = {layer: torch.cat([target[layer] for target in targets]) for layer in targets[0]}
        inputs = torch.cat(photos), torch.cat(bases), merged
        return Example(photo, inputs, [part.targets[0] for part in parts], inputs[1])

    def _example(self, photo: Tensor, style: Tensor, masks: Masks) -> Example:
        statistics = self.net.statistics(style, masks.style)
        start = self.net.transported(photo, statistics, masks.content)
        targets = self.objective.targets(photo, style, masks.content, masks.style)
        return Example(photo, start.inputs, [targets], start.base)


def _whole(photo: Tensor) -> Tensor:
    return photo.new_ones(1, *photo.shape[2:])
