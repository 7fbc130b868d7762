"""The scale of tones: its inverse, its slope, its ends, and the limit in which it is none."""

import numpy as np
import pytest
import torch

from photostyle.ops.tones import CURVATURE, from_tones, to_tones, tone_slope

VALUES = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("curvature", [0, 1e-3, CURVATURE, 0.99])
def test_there_and_back(curvature):
    torch.testing.assert_close(from_tones(to_tones(VALUES, curvature), curvature), VALUES)


def test_against_numpy():
    """Log-odds: artanh(x) is half of log((1 + x) / (1 - x))."""
    t = CURVATURE * (2 * VALUES.numpy() - 1)
    expected = np.log((1 + t) / (1 - t)) / (4 * CURVATURE)
    np.testing.assert_allclose(to_tones(VALUES), expected, atol=1e-15)


@pytest.mark.parametrize("curvature", [0, CURVATURE])
def test_slope_is_the_derivative(curvature):
    x = VALUES[1:-1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(to_tones(x, curvature).sum(), x)
    torch.testing.assert_close(tone_slope(x.detach(), curvature), expected)


def test_mid_grey_is_nought_and_black_and_white_are_opposite():
    black, grey, white = to_tones(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert grey == 0
    assert black == -white
    assert tone_slope(torch.tensor(0.5)) == 1
    assert float(tone_slope(torch.tensor(1.0))) == pytest.approx(1 / (1 - CURVATURE**2))


def test_beyond_black_and_white():
    outside = torch.tensor([-3.0, 1.5])
    assert torch.equal(to_tones(outside), to_tones(outside.clamp(0, 1)))
    assert torch.equal(tone_slope(outside), tone_slope(outside.clamp(0, 1)))
    far = from_tones(torch.tensor([-1e6, 1e6]))
    torch.testing.assert_close(far, 0.5 + torch.tensor([-0.5, 0.5]) / CURVATURE)


def test_no_curvature_is_a_shift():
    torch.testing.assert_close(to_tones(VALUES, 0), VALUES - 0.5)
    torch.testing.assert_close(to_tones(VALUES, 1e-4), VALUES - 0.5)
