"""A toe and a shoulder: black and white stay where the content or the style has them.

A map that moves the mean of a photo's tones moves their ends along: a lighter style puts a veil
over blacks, a darker one drives shadows into black and makes whites grey. So tones are bent towards
their ends, as by the characteristic curve of a film. With l the lightness of tones, m its median
and e its black or white point,

    h(l) = l + k (e − m) c (t − c²/3),    t = (l − m) / (e − m),    c = t limited to [0, 1],

a cubic from m to e and a line beyond, of slopes 1 + k c (2 − c): 1 at m, 1 + k at e, and most of
the bend near m, so that little of it is left for the ends, where it would be flat. Towards a flat
end saturation falls with c, to none where the slope is g at most.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from photostyle.ops.tones import CURVATURE, to_tones
from photostyle.ops.transport import Moments

END = 0.01
"""Share of a photo's pixels that its black point is not exceeded by, and its white point by."""
SPREAD = 2.0
"""Deviations from the mean to the ends of a style, of which the moments alone are known."""
SLOPES = (0.4, 2.0)
"""At the ends. Flatter ones lose the texture of shadows, steeper ones show their noise."""
GREY_SLOPE = 0.625
"""g: of an end that is grey. What is black or white but for a tint would show it."""
LARGEST_SHIFT = 0.4
"""Of lightness, in tones, of which black and white are 1.2 apart: a photo stays to be seen."""


def at_shares(values: Tensor, shares: Sequence[float], weights: Tensor | None) -> Tensor:
    """What these shares of the pixels do not exceed, (..., S), of values (..., N).

    Pixels of less than half the largest of the weights, (H, W) in [0, 1], do not count; ``None``:
    all do.
    """
    if weights is not None:
        values = values[..., weights.flatten() >= 0.5 * weights.max()]
    ranks = [max(1, round(share * values.shape[-1])) for share in shares]
    return torch.stack([values.kthvalue(rank).values for rank in ranks], -1)


def reachable_mean(content: Tensor, style: Tensor) -> Tensor:
    """The mean tones, (..., 3), that a photo takes after those of a style.

    Their shift of lightness s becomes a tanh(s/a), a being `LARGEST_SHIFT`: a photo by daylight
    that took all of a night's darkness would be black almost everywhere.
    """
    shift = (style - content).mean(-1, keepdim=True)
    return style - shift + LARGEST_SHIFT * torch.tanh(shift / LARGEST_SHIFT)


class ToneCurve(NamedTuple):
    """h, of each photo of a batch.

    Attributes:
        middle: m, (B, 1).
        ends: e, of black and of white, (B, 2).
        bends: k, of black and of white, (B, 2).
    """

    middle: Tensor
    ends: Tensor
    bends: Tensor

    @classmethod
    def between(
        cls,
        moved: Tensor,
        content: Tensor,
        style: Moments,
        weights: Tensor | None,
        curvature: float = CURVATURE,
    ) -> Self:
        """The curve that brings each end of what was moved between the content's and the style's.

        Args:
            moved, content: lightness of their tones, (B, N).
            style: moments of its tones, (B, M, 3) and (B, M, 3, 3), of one style or of B.
            weights: of the pixels, (H, W) in [0, 1]; ``None``: all alike.
            curvature: of the scale of tones.
        """
        middle = at_shares(moved, (0.5,), weights)
        ends, of_content = (at_shares(x, (END, 1 - END), weights) for x in (moved, content))
        of_style = _ends_of(style, curvature).to(ends)
        belongs = ends.clamp(
            torch.minimum(of_content, of_style), torch.maximum(of_content, of_style)
        )
        least, greatest = (slope - 1 for slope in SLOPES)
        bends = 1.5 * (belongs - ends) / (ends - middle)
        # A photo of one colour has no ends to be moved.
        return cls(middle, ends, bends.nan_to_num(0, 0, 0).clamp(least, greatest))

    def __call__(self, tones: Tensor) -> Tensor:
        """Tones (B, 3, ...) of lightness h(l), less saturated towards a flat end."""
        lightness = tones.mean(1, keepdim=True)
        bent, _, saturation = self._at(lightness)
        return bent + saturation * (tones - lightness)

    def slopes(self, tones: Tensor) -> tuple[Tensor, Tensor]:
        """Of lightness, h', and of what differs from it, (B, 1, ...), at tones (B, 3, ...)."""
        _, slope, saturation = self._at(tones.mean(1, keepdim=True))
        return slope, saturation

    def _at(self, lightness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h' and saturation at (B, 1, ...)."""
        before, middle = lightness.flatten(1), self.middle
        bent, slope, saturation = before, torch.ones_like(before), torch.ones_like(before)
        for end, k in zip(self.ends.split(1, 1), self.bends.split(1, 1), strict=True):
            length = end - middle
            t = (before - middle) / torch.where(length == 0, torch.inf, length)
            c = t.clamp(0, 1)
            bent = bent + k * length * c * (t - c**2 / 3)
            slope = slope + k * c * (2 - c)
            saturation = saturation - c * (-k / (1 - GREY_SLOPE)).clamp(0, 1)
        return tuple(part.view_as(lightness) for part in (bent, slope, saturation))


def _ends_of(style: Moments, curvature: float) -> Tensor:
    """The outermost that its masks have, (B, 2)."""
    mean = style.mean.mean(-1)
    spread = SPREAD * style.covariance.mean((-1, -2)).clamp(min=0).sqrt()
    ends = torch.stack([(mean - spread).amin(-1), (mean + spread).amax(-1)], -1)
    black, white = to_tones(ends.new_tensor([0, 1]), curvature)
    return ends.clamp(black, white)
