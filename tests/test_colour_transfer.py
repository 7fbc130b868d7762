"""The colour transfer against SciPy's matrix square root, and what it must leave alone."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from data import load_image
from ops import colour_transfer
from ops.colour_transfer import NOISE_VARIANCE, colour_moments, monge_kantorovich

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def content():
    return load_image(EXAMPLES / "pavilion.jpg", 64).double()


@pytest.fixture(scope="module")
def style():
    """Of little contrast, so that no result is clamped."""
    return 0.4 + 0.2 * load_image(EXAMPLES / "sunset.jpg", 48).double()


def whole(image):
    return torch.ones(1, *image.shape[2:], dtype=image.dtype)


def halves(image):
    left = torch.zeros(image.shape[2:], dtype=image.dtype)
    left[:, : image.shape[3] // 3] = 1
    return torch.stack([left, 1 - left])


def transfer_whole(content, style):
    return colour_transfer(content, style, whole(content), whole(style))


def colours(image):
    return image[0].flatten(1).numpy()


def map_by_hand(source, target):
    """Pitié and Kokaram's map of two covariances."""
    root = scipy.linalg.sqrtm(source)
    inverse = np.linalg.inv(root)
    return inverse @ scipy.linalg.sqrtm(root @ target @ root) @ inverse


def moments_by_hand(image):
    return colours(image).mean(1), np.cov(colours(image), bias=True)


def test_moments(content):
    mean, covariance = colour_moments(content, whole(content))
    expected_mean, expected_covariance = moments_by_hand(content)
    np.testing.assert_allclose(mean[0], expected_mean, atol=1e-12)
    np.testing.assert_allclose(covariance[0], expected_covariance, atol=1e-12)


def test_moments_under_soft_masks(content):
    weights = torch.rand(2, *content.shape[2:], generator=torch.Generator().manual_seed(0))
    mean, covariance = colour_moments(content.float(), weights)
    assert mean.dtype == covariance.dtype == torch.float64
    for m in range(2):
        values, w = colours(content.float()).astype(float), weights[m].flatten().double().numpy()
        np.testing.assert_allclose(mean[m], np.average(values, axis=1, weights=w), atol=1e-12)
        expected = np.cov(values, aweights=w, bias=True)
        np.testing.assert_allclose(covariance[m], expected, atol=1e-12)


def test_map_against_scipy(content, style):
    (_, source), (_, target) = (moments_by_hand(image) for image in (content, style))
    ours = monge_kantorovich(torch.from_numpy(source), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(ours, map_by_hand(source, target), rtol=1e-8, atol=1e-8)
    # What makes it the map of least motion, and a map of these covariances.
    np.testing.assert_allclose(ours, ours.T, atol=1e-10)
    assert np.linalg.eigvalsh(ours).min() > 0
    np.testing.assert_allclose(ours @ source @ ours.T, target, atol=1e-10)


def test_transfer_against_scipy(content, style):
    (source_mean, source), (mean, target) = map(moments_by_hand, (content, style))
    noise = NOISE_VARIANCE * np.eye(3)
    slope = map_by_hand(source + noise, target + noise)
    expected = slope @ (colours(content) - source_mean[:, None]) + mean[:, None]
    assert expected.min() > 0
    assert expected.max() < 1
    np.testing.assert_allclose(colours(transfer_whole(content, style)), expected, atol=1e-9)


def test_the_result_has_the_moments_of_the_style(content, style):
    result_mean, result = moments_by_hand(transfer_whole(content, style))
    mean, target = moments_by_hand(style)
    np.testing.assert_allclose(result_mean, mean, atol=1e-10)
    # Apart from the noise that is added to both covariances.
    np.testing.assert_allclose(result, target, atol=2 * NOISE_VARIANCE)
    assert np.abs(result - target).max() < 0.01 * np.linalg.norm(target)


def test_the_same_colours_stay(content):
    torch.testing.assert_close(transfer_whole(content, content), content, rtol=0, atol=1e-9)
    shuffled = content.flip(2, 3)
    torch.testing.assert_close(transfer_whole(content, shuffled), content, rtol=0, atol=1e-9)


def test_masks_are_separate_transfers(content, style):
    masks, style_masks = halves(content), halves(style)
    result = colour_transfer(content, style, masks, style_masks)
    for mask, style_mask in zip(masks.bool(), style_masks.bool(), strict=True):
        part, style_part = content[:, :, mask][:, :, None], style[:, :, style_mask][:, :, None]
        expected = transfer_whole(part, style_part)[:, :, 0]
        torch.testing.assert_close(result[:, :, mask], expected, rtol=0, atol=1e-10)


def test_soft_masks_blend_their_results(content, style):
    # Of equal weight everywhere, so that each has the moments of the whole content.
    masks = torch.stack([0.3 * whole(content)[0], 0.7 * whole(content)[0]])
    styles = halves(style)
    result = colour_transfer(content, style, masks, styles)
    first, second = (colour_transfer(content, style, whole(content), styles[[m]]) for m in range(2))
    assert (first - second).abs().max() > 0.02
    torch.testing.assert_close(result, 0.3 * first + 0.7 * second, rtol=0, atol=1e-10)


def test_a_flat_content_takes_the_mean_of_the_style(content, style):
    flat = torch.full_like(content, 0.5)
    result = transfer_whole(flat, style)
    expected = style.mean((2, 3), keepdim=True).expand_as(result)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


def test_a_flat_content_of_one_level_of_noise_stays_flat(content, style):
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0))
    flat = 0.5 + (noise.double() - 0.5) / 255
    deviation = transfer_whole(flat, style).std((2, 3))
    # The exact map would give it the contrast of the style.
    assert (deviation < style.std((2, 3)) / 2).all()


def test_a_flat_style_flattens(content):
    flat = torch.full_like(content, 0.25)
    result = transfer_whole(content, flat)
    # No more contrast is left than the noise that is added to the covariances.
    assert (result.var((2, 3), unbiased=False) <= NOISE_VARIANCE).all()
    torch.testing.assert_close(transfer_whole(flat, flat), flat, rtol=0, atol=1e-9)


def test_grey_photos_have_no_colour_to_invert(content, style):
    grey = content.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    result = transfer_whole(grey, style)
    assert torch.isfinite(result).all()
    np.testing.assert_allclose(result.mean((2, 3)), style.mean((2, 3)), atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_dtype_shape_and_range(content, dtype):
    contrasty = torch.zeros(1, 3, 8, 8, dtype=dtype)
    contrasty[..., ::2] = 1
    result = transfer_whole(content.to(dtype), contrasty)
    assert result.dtype == dtype
    assert result.shape == content.shape
    assert result.min() == 0
    assert result.max() == 1


def test_leaves_its_arguments_alone(content, style):
    before = content.clone(), style.clone()
    transfer_whole(content, style)
    assert torch.equal(content, before[0])
    assert torch.equal(style, before[1])
