"""Content, style and photorealism losses.

All losses are means or relative errors, so that a weight keeps its meaning when the size changes.
"""

from collections.abc import Mapping

from torch import Tensor

from photostyle.ops.filters import ssim
from photostyle.ops.gram import TINY, at_least_float32

DARKEST = 4e-4
"""Mean square: of colours two hundredths of white. Relative to black every error is infinite."""


def content_loss(features: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """‖F − F_target‖² / ‖F_target‖² of each image of (B, C, H, W), averaged, a scalar.

    ``weights``, (H, W), are those of the pixels in both sums; ``None``: all alike. A target of a
    lower mean square than `DARKEST` counts as one of that.
    """
    features, target = at_least_float32(features), at_least_float32(target)
    error, scale = (features - target).square(), target.square()
    count = target[0].numel()
    if weights is not None:
        error, scale = error * weights, scale * weights
        count = len(target[0]) * weights.sum()
    # Not flattened, for what an encoder gives lies channels_last and would be copied.
    error, scale = error.sum((1, 2, 3)), scale.sum((1, 2, 3))
    return (error / scale.clamp(min=DARKEST * count)).mean()


def style_loss(statistics: Tensor, target: Tensor, areas: Tensor) -> Tensor:
    """Σ_m area_m ‖S_m − T_m‖² / ‖T_m‖², averaged over the batch, a scalar.

    Args:
        statistics: (B, M, ...), what `gram_matrix` or `mean_std` return.
        target: (1, M, ...), the same of the style.
        areas: (M,), shares of the content's area, sum 1.
    """
    error = (statistics - target).flatten(2).square().sum(2)
    error = error / target.flatten(2).square().sum(2).clamp(min=TINY)
    return (error * areas).sum(1).mean()


def edge_loss(edges: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 − SSIM of edge magnitudes (B, 1, H, W), a scalar in [0, 2].

    What it compares is where edges are and how they stand out, whatever their colours: edges that
    the photo does not have, halos and steps in a sky, cost as much as those that are lost. The data
    range is twice that of `metrics.edge_ssim`, so that grain steers the optimiser less. ``weights``
    are those of the pixels, (H, W); ``None``: all alike.

    Raises:
        RuntimeError: for fewer than 11 pixels a side, the window's width.
    """
    return 1 - ssim(edges, target, data_range=2.0, weights=weights)


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of (B, C, H, W), a scalar."""
    return image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean()


class LossTerms(Mapping):
    """Weighted losses by name: a mapping that adds up, term by term, and prints."""

    def __init__(self, terms: Mapping[str, Tensor]):
        self._terms = dict(terms)

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self):
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __add__(self, other: "LossTerms") -> "LossTerms":
        names = dict.fromkeys((*self, *other))
        return LossTerms({name: self.get(name, 0.0) + other.get(name, 0.0) for name in names})

    @property
    def total(self) -> Tensor:
        """The sum of all terms, a scalar."""
        return sum(self._terms.values())

    def detach(self) -> "LossTerms":
        """The same terms without their graph."""
        return LossTerms({name: value.detach() for name, value in self.items()})

    def __str__(self) -> str:
        parts = [f"{name} {float(value):.4g}" for name, value in self.items()]
        return "  ".join([*parts, f"total {float(self.total):.4g}"])
