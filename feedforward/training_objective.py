"""What a style network minimises."""

from torch import Tensor

from photostyle.ops import LossTerms, MattingLaplacian, StyleObjective


class TrainingObjective:
    """objective(P x) + weight · xᵀLx: the losses of the result, and the energy of the output x.

    The projection P hides from the other losses what is not locally affine in x; without the
    energy of x itself the network is free to ring there, and P to smear it into halos. Windows
    wider than P's see the halos, too: a glow that fades over ten pixels is affine in each three.

    Args:
        objective: content, style and photorealism losses.
        style: (1, 3, H, W), values in [0, 1], on the device of the objective.
        raw_energy_weight: of xᵀLx per channel, pixel and pixel of its windows, which is the mean
            square of what an affine fit leaves in them; 0 leaves it out.
        raw_energy_radius, raw_energy_epsilon: of its matting Laplacian.
    """

    def __init__(
        self,
        objective: StyleObjective,
        style: Tensor,
        raw_energy_weight: float,
        raw_energy_radius: int = 8,
        raw_energy_epsilon: float = 3e-3,
    ):
        self.objective = objective
        self.statistics = objective.style_statistics(style, style.new_ones(1, *style.shape[2:]))
        self.raw_energy_weight = raw_energy_weight
        self.raw_energy_radius = raw_energy_radius
        self.raw_energy_epsilon = raw_energy_epsilon

    def __call__(self, photo: Tensor, raw: Tensor, result: Tensor) -> LossTerms:
        """The weighted losses; (B, 3, H, W) each."""
        mask = photo.new_ones(1, *photo.shape[2:])
        targets = self.objective.content_targets(photo, mask, self.statistics)
        terms = self.objective(result, targets)
        if not self.raw_energy_weight:
            return terms
        radius, backend = self.raw_energy_radius, self.objective.backend
        laplacian = MattingLaplacian(photo, radius, self.raw_energy_epsilon, backend)
        energy = laplacian.energy(raw).mean() / (2 * radius + 1) ** 2
        return terms + LossTerms({"raw_energy": self.raw_energy_weight * energy})
