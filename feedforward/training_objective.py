"""What a network minimises."""

from dataclasses import dataclass

from torch import Tensor

from photostyle.ops import LossTerms, MattingLaplacian, StyleObjective
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


class TrainingObjective:
    """objective(P x) + weight · xᵀLx: the losses of the result, and of the raw output x.

    The guided filter P hides from the other losses what is not locally affine in x; without a loss
    of x itself the network is free to ring there, and P to smear it into halos. Windows larger than
    P's see the halos, too: a glow that fades over ten pixels is affine in each three.

    Args:
        objective: content, style and photorealism losses.
        style: (1, 3, H, W), values in [0, 1], on the device of the objective.
        raw_matting: of the raw output.
    """

    def __init__(self, objective: StyleObjective, style: Tensor, raw_matting: RawMattingLoss):
        self.objective = objective
        self.statistics = objective.style_statistics(style, style.new_ones(1, *style.shape[2:]))
        self.raw_matting = raw_matting

    def __call__(self, photo: Tensor, raw: Tensor, result: Tensor) -> LossTerms:
        """The weighted losses; (B, 3, H, W) each."""
        mask = photo.new_ones(1, *photo.shape[2:])
        targets = self.objective.content_targets(photo, mask, self.statistics)
        terms = self.objective(result, targets)
        if not self.raw_matting.weight:
            return terms
        return terms + LossTerms({"raw_matting": self.raw_matting(photo, raw)})
