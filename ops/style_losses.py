"""How features take after those of a style: statistics that agree, or a target for every pixel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from photostyle.ops.colour_transfer import GAINS
from photostyle.ops.errors import check_number
from photostyle.ops.gram import gram_matrix, mean_std, pixel_vectors, pixel_weights
from photostyle.ops.losses import content_loss, style_loss
from photostyle.ops.tone_curve import ToneCurve, reachable_mean
from photostyle.ops.tones import from_tones, to_tones
from photostyle.ops.transport import (
    EXACT,
    GREY_AXIS,
    Moments,
    blend,
    check_gains,
    map_to_root,
    moments,
    principal_axes,
    root,
    shares,
)

COLOURS = "colours"
"""The layer that is the image itself."""

CONTRAST_AXES = 0.2
"""Of a layer's channels: as many directions, those of most variance, keep the least gain. With far
fewer a veil remains, with all the photo keeps what the style lacks, its saturation for one."""


@runtime_checkable
class StyleLoss(Protocol):
    """How the features of one layer take after those of a style."""

    def statistics(self, layer: str, features: Tensor, masks: Tensor) -> object:
        """What is kept of a style's features (1, C, H, W) under masks (M, H, W)."""

    def target(self, layer: str, features: Tensor, masks: Tensor, statistics: object) -> object:
        """What content features (B, C, H, W) under masks (M, H, W) are to become."""

    def __call__(self, features: Tensor, target: object) -> Tensor:
        """How far features (B, C, H, W) are from it, a scalar."""


@dataclass(frozen=True)
class Statistics:
    """Gram matrices, Gatys et al. (2016), or means and deviations, Li et al. (2017), under masks.

    Attributes:
        of: `ops.gram.gram_matrix` or `ops.gram.mean_std`.
    """

    of: Callable[[Tensor, Tensor], Tensor]

    def statistics(self, layer: str, features: Tensor, masks: Tensor) -> Tensor:
        """What ``of`` returns, (1, M, ...)."""
        return self.of(features, masks)

    def target(
        self, layer: str, features: Tensor, masks: Tensor, statistics: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The masks, and the style's statistics as they are."""
        return masks, statistics

    def __call__(self, features: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """`ops.losses.style_loss` of the features (B, C, H, W), a scalar."""
        masks, statistics = target
        areas = masks.flatten(1).sum(1)
        return style_loss(self.of(features, masks), statistics, areas / areas.sum())


GRAM = Statistics(gram_matrix)
MEAN_STD = Statistics(mean_std)


@dataclass(frozen=True)
class Transport:
    """Every feature of the content has a place of its own to go to.

    Under each mask the content's features are moved by the linear Monge-Kantorovich map to the
    style's mean and covariance, F* = Σ_m w_m (T_m (F − μ_c,m) + μ_s,m); the loss is
    ‖φ(y) − F*‖² / ‖F*‖². What is alike in the content stays alike, and edges stay, for F* is a
    function of F; a Gram matrix would leave open where the style's light goes. The map is that of
    Pitié and Kokaram (2007); for features Lu et al. (2019) and Mroueh (2019). Colours are moved on
    the scale of `ops.tones`.

    Attributes:
        colour_gains: the range of the maps' eigenvalues for the colours themselves, the least one
            from black to white alone, as in `ops.colour_transfer.colour_transfer`.
        feature_gains: the same for the encoder's layers, the least one in the directions in which
            the content varies most, see `CONTRAST_AXES`; far below 1 it leaves a veil.
        gram_weight: of Gram matrices beside it. They alone see what of the style's statistics no
            limited map of the content has, and let it grow wherever it can.
        shrinkage: of the covariances; see `ops.transport.shrunk`.

    Raises:
        ArgumentError: for gains that are no range around 1, and for negative numbers.
    """

    colour_gains: tuple[float, float] = GAINS
    feature_gains: tuple[float, float] = (0.85, 2.5)
    gram_weight: float = 0.0
    shrinkage: float = 1e-2

    def __post_init__(self):
        for name in ("colour_gains", "feature_gains"):
            object.__setattr__(self, name, check_gains(name, getattr(self, name)))
        check_number("gram_weight", self.gram_weight, 0)
        check_number("shrinkage", self.shrinkage, 0)

    def statistics(
        self, layer: str, features: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Means (1, M, C), roots of covariances (1, M, C, C), float64; Gram matrices or None."""
        style = moments(_vectors(layer, features), masks.flatten(1))
        gram = GRAM.statistics(layer, features, masks) if self.gram_weight else None
        return style.mean, root(style, self.shrinkage), gram

    def target(
        self, layer: str, features: Tensor, masks: Tensor, statistics: tuple
    ) -> tuple[Tensor, Tensor | None, tuple | None]:
        """F*, (B, C, H, W), at least float32; weights (H, W); and what the Gram loss takes.

        Features are at least 0, as a ReLU lets them through, and colours in [0, 1]. The weights
        are the masks' sums, ``None`` where these are 1 everywhere.
        """
        *style, gram = statistics
        pixels = _vectors(layer, features)
        weights = masks.flatten(1)
        gains = self.colour_gains if layer == COLOURS else self.feature_gains
        source = moments(pixels, weights)
        axes = self._contrast_axes(layer, source) if gains[0] else None
        mean, root = style
        if is_bent := layer == COLOURS and gains != EXACT:
            mean = reachable_mean(source.mean, mean)
        maps = map_to_root(source, mean, root, gains, self.shrinkage, axes)
        target = blend(pixels, shares(weights), maps).mT
        if is_bent:
            colours = Moments(style[0], root @ root)
            before = pixels.mean(-1).to(target)
            curve = ToneCurve.between(target.mean(1), before, colours, pixel_weights(masks))
            target = curve(target)
        target = target.unflatten(2, features.shape[2:])
        target = from_tones(target).clamp(0, 1) if layer == COLOURS else target.clamp(min=0)
        target = target.to(memory_format=torch.channels_last)
        gram = gram if gram is None else GRAM.target(layer, features, masks, gram)
        return target, pixel_weights(masks), gram

    def _contrast_axes(self, layer: str, source: Moments) -> Tensor:
        return GREY_AXIS if layer == COLOURS else principal_axes(source, CONTRAST_AXES)

    def __call__(
        self, features: Tensor, target: tuple[Tensor, Tensor | None, tuple | None]
    ) -> Tensor:
        """‖F − F*‖² / ‖F*‖², and the weighed Gram loss, a scalar."""
        moved, weights, gram = target
        loss = content_loss(features, moved, weights)
        return loss if gram is None else loss + self.gram_weight * GRAM(features, gram)


def _vectors(layer: str, features: Tensor) -> Tensor:
    """(B, N, C), on the scale on which the layer's features are moved."""
    return pixel_vectors(to_tones(features) if layer == COLOURS else features)
