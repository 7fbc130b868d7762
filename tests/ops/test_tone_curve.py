"""Toe and shoulder: where the ends of tones go, how far, and what stays as it is."""

import pytest
import torch

from photostyle.ops.tone_curve import (
    LARGEST_SHIFT,
    SLOPES,
    ToneCurve,
    at_shares,
    reachable_mean,
)
from photostyle.ops.tones import to_tones
from photostyle.ops.transport import Moments

BLACK, WHITE = to_tones(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()


def tones(low, high, count=1001):
    """Of grey pixels from dark to light, (1, 3, N)."""
    return torch.linspace(low, high, count, dtype=torch.float64).expand(1, 3, -1)


def grey_style(mean, deviation):
    """Moments of one mask."""
    covariance = torch.full((1, 1, 3, 3), deviation**2, dtype=torch.float64)
    return Moments(torch.full((1, 1, 3), mean, dtype=torch.float64), covariance)


def curve(moved, content, style, weights=None):
    return ToneCurve.between(moved.mean(1), content.mean(1), style, weights)


def ends(tones):
    return at_shares(tones.mean(1), (0.01, 0.5, 0.99), None)[0].tolist()


# Lowest and highest tones of what was moved and of the content; mean and deviation of the style;
# the black and white that are expected. Ends are a hundredth of the pixels away from the extremes.
CASES = {
    "already between": ((-0.4, 0.4), (-0.5, 0.5), (0.0, 0.15), (-0.392, 0.392)),
    "a veil over black": ((-0.2, 0.5), (-0.5, 0.5), (0.15, 0.2), (-0.25, 0.493)),
    "white beyond white": ((-0.4, 0.7), (-0.4, 0.4), (0.0, 0.4), (-0.392, WHITE)),
    "grey where both are white": ((-0.4, 0.3), (-0.4, 0.5), (0.0, 0.2), (-0.393, 0.4)),
    "both ends far beyond both": ((-0.6, 0.75), (-0.4, 0.5), (0.05, 0.2), (-0.391, 0.491)),
    "black beyond both": ((-0.45, 0.1), (-0.4, 0.4), (-0.3, 0.05), (-0.4, 0.094)),
}


@pytest.mark.parametrize("case", CASES)
def test_ends_come_between_those_of_content_and_style(case):
    moved, content, style, expected = CASES[case]
    moved, content, style = tones(*moved), tones(*content), grey_style(*style)
    before, after = ends(moved), ends(curve(moved, content, style)(moved))
    assert (after[0], after[2]) == pytest.approx(expected, abs=0.01)
    assert after[1] == pytest.approx(before[1])


def test_what_is_between_them_stays_exactly():
    moved = tones(-0.3, 0.3)
    bent = curve(moved, tones(-0.4, 0.4), grey_style(0, 0.1))
    assert torch.equal(bent(moved), moved)
    for slope in bent.slopes(moved):
        assert torch.equal(slope, torch.ones(1, 1, 1001, dtype=torch.float64))


@pytest.mark.parametrize(
    ("moved", "content", "slopes"),
    [((-0.1, 0.5), (-0.5, 0.5), (SLOPES[1], 1)), ((-0.9, 0.0), (-0.3, 0.3), SLOPES)],
)
def test_slopes_are_limited(moved, content, slopes):
    moved = tones(*moved)
    bent = curve(moved, tones(*content), grey_style(0.0, 0.3))
    found, saturation = (part[0, 0] for part in bent.slopes(moved))
    assert (found[0], found[-1]) == pytest.approx(slopes)
    assert (bent(moved)[0, 0].diff() > 0).all()
    assert saturation[0] == pytest.approx(float(slopes[0] > 1))  # a lifted black is grey
    assert saturation[500] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("case", CASES)
def test_slope_is_the_derivative(case):
    moved, content, style, _ = CASES[case]
    moved = tones(*moved)
    bent = curve(moved, tones(*content), grey_style(*style))
    x = tones(-1, 1, 40).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(bent(x).mean(1).sum(), x)
    torch.testing.assert_close(3 * gradient[:, :1], bent.slopes(x.detach())[0])


@pytest.mark.parametrize("case", CASES)
def test_hue_stays_and_saturation_falls_where_the_curve_is_flat(case):
    """Lifted, a black that is a little blue would be navy; a white, held back, yellow."""
    moved, content, style, _ = CASES[case]
    bent = curve(tones(*moved), tones(*content), grey_style(*style))
    tint = torch.tensor([-0.05, -0.02, 0.07], dtype=torch.float64)[:, None]
    moved = tones(-1, 1)
    found = bent(moved + tint) - bent(moved)
    torch.testing.assert_close(found, bent.slopes(moved)[1] * tint)


def test_each_photo_of_a_batch_has_its_own():
    moved = torch.cat([tones(-0.1, 0.4), tones(-0.6, 0.1)])
    content = torch.cat([tones(-0.5, 0.5), tones(-0.4, 0.2)])
    style = grey_style(0.0, 0.3)
    together = curve(moved, content, style)(moved)
    alone = [curve(m, c, style)(m) for m, c in zip(moved.split(1), content.split(1), strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_the_outermost_ends_of_the_styles_regions_count():
    """A style whose one region is dark has black, whatever its other one is."""
    light, dark = grey_style(0.3, 0.05), grey_style(-0.4, 0.05)
    both = Moments(*(torch.cat(parts, 1) for parts in zip(light, dark, strict=True)))
    moved, content = tones(-0.25, 0.45), tones(-0.2, 0.5)
    assert ends(curve(moved, content, light)(moved))[0] > ends(moved)[0]
    assert torch.equal(curve(moved, content, both)(moved), moved)


def test_transparent_pixels_do_not_count():
    moved, content, style = tones(-0.1, 0.4), tones(-0.5, 0.5), grey_style(0.0, 0.3)
    weights = torch.ones(7, 143)
    weights[5:] = 0.1
    seen = weights.flatten() == 1
    found = curve(moved, content, style, weights)
    expected = curve(moved[..., seen], content[..., seen], style)
    for part, same in zip(found, expected, strict=True):
        assert torch.equal(part, same)


def test_a_photo_of_one_colour_stays():
    flat = torch.full((1, 3, 50), 0.2, dtype=torch.float64)
    bent = curve(flat, tones(-0.5, 0.5), grey_style(-0.4, 0.0))
    assert torch.equal(bent(flat), flat)
    assert torch.isfinite(bent(tones(-1, 1))).all()


def test_a_colour_of_no_lightness_has_no_spread():
    """Rounding may leave a variance just below 0, of a style whose channels cancel out."""
    style = grey_style(0.0, 0.3)
    style = style._replace(covariance=style.covariance - style.covariance - 1e-20)
    assert torch.isfinite(curve(tones(-0.3, 0.3), tones(-0.4, 0.4), style).bends).all()


def test_means_come_near_enough_and_not_too_near():
    content = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    for shift in (0.05, -0.15, 0.5, -1.0):
        style = content.flip(0) + shift
        found = reachable_mean(content, style)
        moved = (found - content).mean()
        assert moved.sign() == torch.tensor(shift).sign()
        assert moved.abs() <= min(abs(shift), LARGEST_SHIFT)
        torch.testing.assert_close(found - found.mean(), style - style.mean())  # hue is the style's
        if abs(shift) < 0.2:
            assert moved.abs() > 0.95 * abs(shift)
