"""The colour transfer against SciPy's matrix square root, and what it must leave alone."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F

from photostyle.data import load_image
from photostyle.ops import ArgumentError
from photostyle.ops.affine import apply_affine, resize_affine
from photostyle.ops.colour_transfer import (
    GAINS,
    NOISE_VARIANCE,
    colour_maps,
    colour_moments,
    colour_transfer,
    match_colours,
    restore_contrast,
    transfer_to,
)
from photostyle.ops.tone_curve import ToneCurve, at_shares, reachable_mean
from photostyle.ops.tones import CURVATURE, from_tones, to_tones
from photostyle.ops.transport import EXACT, GREY_AXIS, Moments, monge_kantorovich

EXAMPLES = Path(__file__).parents[2] / "examples"


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


def transfer(content, style, content_masks=None, style_masks=None, gains=EXACT, curvature=0):
    """The exact map of pixel values, unless it is told otherwise, applied to the content."""
    coefficients = colour_transfer(
        content, style, content_masks, style_masks, gains=gains, curvature=curvature
    )
    return apply_affine(coefficients, content)


def transfer_whole(content, style):
    return transfer(content, style).clamp(0, 1)


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
    np.testing.assert_allclose(mean[0, 0], expected_mean, atol=1e-12)
    np.testing.assert_allclose(covariance[0, 0], expected_covariance, atol=1e-12)


def test_moments_under_soft_masks(content):
    weights = torch.rand(2, *content.shape[2:], generator=torch.Generator().manual_seed(0))
    mean, covariance = colour_moments(content.float(), weights)
    assert mean.dtype == covariance.dtype == torch.float64
    for m in range(2):
        values, w = colours(content.float()).astype(float), weights[m].flatten().double().numpy()
        np.testing.assert_allclose(mean[0, m], np.average(values, axis=1, weights=w), atol=1e-12)
        expected = np.cov(values, aweights=w, bias=True)
        np.testing.assert_allclose(covariance[0, m], expected, atol=1e-12)


def test_map_against_scipy(content, style):
    (_, source), (_, target) = (moments_by_hand(image) for image in (content, style))
    nought = torch.zeros(3, dtype=torch.float64)
    moments = [Moments(nought, torch.from_numpy(part)) for part in (source, target)]
    ours = monge_kantorovich(*moments).matrix.numpy()
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


def test_regions_are_separate_transfers_away_from_their_border(content, style):
    masks, style_masks = halves(content), halves(style)
    result = transfer(content, style, masks, style_masks)
    column = content.shape[3] // 3
    reach = 2 * round(64 / 20)  # of the guided filter, there and back
    for mask, style_mask, columns in zip(
        masks.bool(),
        style_masks.bool(),
        (slice(None, column - reach), slice(column + reach, None)),
        strict=True,
    ):
        part, style_part = content[:, :, mask][:, :, None], style[:, :, style_mask][:, :, None]
        expected = torch.zeros_like(content)
        expected[:, :, mask] = transfer(part, style_part)[:, :, 0]
        torch.testing.assert_close(result[..., columns], expected[..., columns])


def test_borders_of_regions_are_soft_where_the_photo_is(style):
    """No step where the content has none, and a sharp one at an edge."""
    plain = torch.full((1, 3, 80, 120), 0.5, dtype=torch.float64)
    edge = plain.clone()
    edge[..., 60:] = 0.9
    left = torch.zeros(80, 120, dtype=torch.float64)
    left[:, :60] = 1
    masks, style_masks = torch.stack([left, 1 - left]), halves(style)
    steps = []
    for photo in (plain, edge):
        offset = colour_transfer(photo, style, masks, style_masks, curvature=0)[0, :, 3]
        steps.append(
            float(
                (offset[..., 60] - offset[..., 59]).norm()
                / (offset[..., -1] - offset[..., 0]).norm()
            )
        )
    assert steps[0] < 0.2  # over 13 pixels
    assert steps[1] > 0.7


def test_no_halo_where_regions_meet_at_an_edge():
    """A bright sky turns dark and dark houses bright: each is the same up to its edge."""
    noise = torch.randn(1, 3, 60, 96, generator=torch.Generator().manual_seed(0)).double()
    content = torch.where(torch.arange(96) < 48, 0.2, 0.8) + 0.02 * noise
    style = torch.where(torch.arange(96) < 48, 0.7, 0.15) + 0.02 * noise.flip(2)
    mask = (torch.arange(96) < 48).double().expand(60, 96)
    masks = torch.stack([mask, 1 - mask])
    result = transfer(content, style, masks, masks, gains=(0.85, 1.8), curvature=CURVATURE)
    columns = result.mean((0, 1, 2))
    torch.testing.assert_close(columns[36:47], columns[:24].mean().expand(11), rtol=0, atol=0.025)
    torch.testing.assert_close(columns[50:61], columns[72:].mean().expand(11), rtol=0, atol=0.025)


def test_masks_that_are_the_same_everywhere_blend_their_maps(content, style):
    # Of equal weight everywhere, so that each has the moments of the whole content.
    masks = torch.stack([0.3 * whole(content)[0], 0.7 * whole(content)[0]])
    styles = halves(style)
    result = transfer(content, style, masks, styles)
    first, second = (transfer(content, style, whole(content), styles[[m]]) for m in range(2))
    assert (first - second).abs().max() > 0.02
    torch.testing.assert_close(result, 0.3 * first + 0.7 * second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("gains", [(0.9, 1.1), (1.0, 1.0)])
def test_gains_limit_contrast(content, gains):
    """To a style of no contrast, from black to white alone, and from it, in all colours."""
    flat = 0.5 + 0.01 * (content - 0.5)
    slopes = colour_transfer(content, flat, gains=gains, curvature=0)[0, :, :3, 0, 0]
    assert float(GREY_AXIS.mT @ slopes @ GREY_AXIS) == pytest.approx(gains[0], rel=1e-3)
    assert torch.linalg.eigvalsh(slopes)[:2].max() < 0.2  # some is left of noise's own
    slopes = colour_transfer(flat, content, gains=gains, curvature=0)[0, :, :3, 0, 0]
    values = torch.linalg.eigvalsh(slopes)
    torch.testing.assert_close(values, torch.full_like(values, gains[1]))


def test_a_grey_style_makes_a_grey_photo(content, style):
    grey = style.mean(1, keepdim=True).expand_as(style)
    result = apply_affine(colour_transfer(content, grey), content)
    saturation = (result.amax(1) - result.amin(1)).mean()
    assert saturation < 0.1 * (content.amax(1) - content.amin(1)).mean()
    assert result.mean(1).std() > 0.8 * content.mean(1).std()


@pytest.mark.parametrize("gains", [None, [2, 3], [1], "1"], ids=repr)
def test_bad_gains(content, gains):
    with pytest.raises(ArgumentError, match=r"^gains=.*: give two numbers, \[least, greatest\]"):
        colour_transfer(content, content, gains=gains)


@pytest.mark.parametrize("curvature", [-0.1, 1, None, "a"], ids=repr)
def test_bad_curvature(content, curvature):
    expected = rf"^curvature={curvature}: give a number from 0 to 0.99"
    with pytest.raises(ArgumentError, match=expected):
        colour_transfer(content, content, curvature=curvature)


def test_coefficients_apply_at_any_size(content, style):
    """Maps of a small photo, resized, applied to the large one, are the large photo's maps."""
    large = load_image(EXAMPLES / "pavilion.jpg", 256).double()
    small = colour_transfer(content, style, curvature=0)
    maps = small[..., :1, :1].expand(-1, -1, -1, *large.shape[2:])
    difference = apply_affine(maps, large) - transfer(large, style, gains=(0.85, 1.5))
    assert difference.abs().max() < 0.05  # moments differ a little between sizes


def test_a_batch_is_matched_photo_by_photo(content, style):
    moments = colour_moments(style, whole(style))
    batch = torch.cat([content, content.flip(1) * 0.5])
    result = match_colours(batch, moments)
    for photo, ours in zip(batch.split(1), result.split(1), strict=True):
        torch.testing.assert_close(ours, transfer(photo, style), rtol=0, atol=1e-9)


def test_a_flat_content_takes_the_mean_of_the_style(content, style):
    flat = torch.full_like(content, 0.5)
    result = transfer_whole(flat, style)
    expected = style.mean((2, 3), keepdim=True).expand_as(result)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


def by_tones(content, style):
    """The map of tones of whole photos, pixel by pixel."""
    tones, wanted = colours(to_tones(content)), colours(to_tones(style))
    noise = NOISE_VARIANCE * np.eye(3)
    (mean, source), (style_mean, target) = (
        (part.mean(1), np.cov(part, bias=True)) for part in (tones, wanted)
    )
    moved = map_by_hand(source + noise, target + noise) @ (tones - mean[:, None])
    result = from_tones(torch.from_numpy(moved + style_mean[:, None]))
    return result.clamp(0, 1).reshape(content.shape)


@pytest.mark.parametrize("name", ["sunset", "dusk", "picos_de_europa"])
def test_tones_are_moved_by_curves(content, name):
    """Coefficients say in small windows what curves say pixel by pixel, at other sizes, too."""
    style = load_image(EXAMPLES / f"{name}.jpg", 48).double()
    photos = content, load_image(EXAMPLES / "pavilion.jpg", 200).double()
    coefficients = colour_transfer(content, style, gains=EXACT)
    for photo, expected_error in zip(photos, (4 / 255, 8 / 255), strict=True):
        maps = resize_affine(coefficients, photo.shape[2:])
        error = apply_affine(maps, photo).clamp(0, 1) - by_tones(photo, style)
        assert error.square().mean().sqrt() < expected_error


@pytest.mark.parametrize("shade", [0.15, 0.85])
def test_nothing_is_cut_off_where_a_style_is_darker_or_lighter(content, shade):
    """Where pixel values would be shifted beyond black or white, tones come near to it."""
    style = (shade + 0.1 * (content.flip(3) - 0.5)).clamp(0, 1)
    cut = []
    for curvature in (0, CURVATURE):
        result = transfer(content, style, gains=(1, 1), curvature=curvature)
        assert (result.mean() - content.mean()).sign() == np.sign(shade - 0.5)
        cut.append(float((result - result.clamp(0, 1)).abs().mean()))
    assert cut[0] > 0.01
    assert cut[1] < 0.5 * cut[0]


def test_a_plain_photo_takes_the_mean_tone(content, style):
    flat = torch.full_like(content, 0.3)
    result = transfer(flat, style, curvature=CURVATURE)
    expected = from_tones(to_tones(style).mean((2, 3), keepdim=True)).expand_as(result)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-4)


def test_a_line(content, style):
    line = content[:, :, :1]
    result = transfer(line, style, curvature=CURVATURE)
    torch.testing.assert_close(result.clamp(0, 1), by_tones(line, style))


def test_a_small_curvature_is_none(content, style):
    straight, bent = (transfer(content, style, curvature=c) for c in (0, 1e-3))
    torch.testing.assert_close(bent, straight, rtol=0, atol=1e-5)


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


@pytest.mark.parametrize("gains", [EXACT, GAINS])
def test_a_style_in_black_and_white_takes_all_colour(content, style, gains):
    grey = style.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    coefficients = colour_transfer(content, grey, gains=gains)
    result = apply_affine(coefficients, content).clamp(0, 1)
    assert float(result.amax(1).sub(result.amin(1)).max()) < 0.2 / 255
    assert result.std() > 0.8 * grey.std()
    faded = restore_contrast(content, result)
    assert float(faded.amax(1).sub(faded.amin(1)).max()) < 0.2 / 255


def test_grey_photos_have_no_colour_to_invert(content, style):
    grey = content.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    result = transfer_whole(grey, style)
    assert torch.isfinite(result).all()
    np.testing.assert_allclose(result.mean((2, 3)), style.mean((2, 3)), atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_dtype_and_shape(content, dtype):
    contrasty = torch.zeros(1, 3, 8, 8, dtype=dtype)
    contrasty[..., ::2] = 1
    coefficients = colour_transfer(content.to(dtype), contrasty)
    assert coefficients.dtype == dtype
    assert coefficients.shape == (1, 3, 4, *content.shape[2:])


def test_leaves_its_arguments_alone(content, style):
    before = content.clone(), style.clone()
    transfer_whole(content, style)
    assert torch.equal(content, before[0])
    assert torch.equal(style, before[1])


def test_a_veil_is_taken_away(content, style):
    """What has been pulled towards grey has the closed form's colours again, and no more."""
    base = apply_affine(colour_transfer(content, style, gains=EXACT), content).clamp(0, 1)
    restored = restore_contrast(0.8 * base + 0.15, base)
    torch.testing.assert_close(restored, base, rtol=0, atol=5e-3)  # noise is allowed for
    torch.testing.assert_close(restore_contrast(base, base), base, rtol=0, atol=1e-4)


def test_black_is_as_black_as_before(content, style):
    """A little light over everything goes."""
    base = apply_affine(colour_transfer(content, style), content)
    black = base.flatten(2).quantile(0.01, dim=2)
    result = restore_contrast(0.97 * base + 0.03, base)
    assert (result.flatten(2).quantile(0.01, dim=2) - black).abs().max() < 2 / 255


def test_contrast_is_not_lowered_nor_raised_without_limit(content, style):
    base = apply_affine(colour_transfer(content, style, gains=EXACT), content)
    centre = base.mean((2, 3), keepdim=True)

    def contrast(image):
        return float(image.mean(1).std())

    more, flat = (centre + factor * (base - centre) for factor in (1.3, 0.3))
    assert contrast(restore_contrast(more, base)) >= 0.99 * contrast(more.clamp(0, 1))
    assert contrast(restore_contrast(flat, base)) <= 1.61 / 0.95 * contrast(flat)


PAIR = torch.rand(1, 3, 8, 9), torch.rand(1, 3, 7, 6)
MASKS = torch.ones(2, 8, 9) / 2, torch.ones(2, 7, 6) / 2


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ((None, MASKS[1]), "^content_masks=None: give masks of both photos or of neither"),
        ((MASKS[0], None), "^style_masks=None: give masks of both photos or of neither"),
        ((MASKS[0], MASKS[1][:1]), "^style_masks=1: give one for each of 2"),
        ((MASKS[0].mT, MASKS[1]), r"^content_masks=\(2, 9, 8\): give \(M, 8, 9\), as the photo"),
        ((MASKS[0], MASKS[1].mT), r"^style_masks=\(2, 6, 7\): give \(M, 7, 6\), as the photo"),
        ((MASKS[0], MASKS[1] * torch.nan), r"^style_masks=nan: give values in \[0, 1\]"),
        ((MASKS[0].numpy(), MASKS[1]), r"^content_masks=ndarray: give a torch.Tensor \(M, H, W\)"),
        ((255 * MASKS[0], MASKS[1]), r"^content_masks=127.5: give values in \[0, 1\]"),
        ((MASKS[0], MASKS[1] * torch.eye(2)[0].view(2, 1, 1)), "^style_masks=masks: one is 0 ev"),
        ((0 * MASKS[0], MASKS[1]), "^content_masks=masks: all of them are 0 everywhere"),
    ],
)
def test_masks_that_do_not_fit(masks, message):
    with pytest.raises(ArgumentError, match=message):
        colour_transfer(*PAIR, *masks)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ((PAIR[0].numpy(), PAIR[1]), "^content=ndarray: give a torch.Tensor"),
        ((PAIR[0][0], PAIR[1]), r"^content=\(3, 8, 9\): give \(B, C, H, W\)"),
        ((PAIR[0][:, :1], PAIR[1]), r"^content=\(1, 1, 8, 9\): give 3 channels, \(B, 3, H, W\)"),
        ((PAIR[0].byte(), PAIR[1]), "^content=torch.uint8: give float32, float64"),
        ((PAIR[0] * 0 + 255, PAIR[1]), r"^content=255: give values in \[0, 1\]"),
        ((PAIR[0], PAIR[1].expand(2, 3, 7, 6)), r"^style=\(2, 3, 7, 6\): give one photo, \(1, 3, "),
        ((PAIR[0], PAIR[1].byte()), "^style=torch.uint8: give float32, float64"),
        ((PAIR[0], PAIR[1] * 0 - 0.5), r"^style=-0.5: give values in \[0, 1\]"),
        ((PAIR[0], PAIR[1] * torch.inf), r"^style=inf: give values in \[0, 1\]"),
    ],
)
def test_photos_that_are_none(photos, message):
    with pytest.raises(ArgumentError, match=message):
        colour_transfer(*photos)


def test_what_rounding_drives_out_of_range_counts_as_a_photo():
    assert colour_transfer(PAIR[0] * 1.0005 - 0.0002, PAIR[1]).isfinite().all()


def test_photos_of_a_batch(content, style):
    """Each has maps of its own: the same as alone."""
    batch = torch.cat([content, content.flip(3) ** 2])
    alone = torch.cat([colour_transfer(photo, style) for photo in batch.split(1)])
    torch.testing.assert_close(colour_transfer(batch, style), alone)


def test_regions_of_a_batch(content, style):
    """Each photo's own: the same as alone."""
    batch = torch.cat([content, content.flip(3) ** 2])
    left = (torch.arange(content.shape[3]) < 20).float().expand(1, *content.shape[2:])
    masks = torch.cat([left, 1 - left])
    wanted = colour_moments(to_tones(style), torch.ones(2, *style.shape[2:]) / 2)
    together = transfer_to(wanted, batch, masks)
    alone = torch.cat([transfer_to(wanted, photo, masks) for photo in batch.split(1)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("curvature", [0, CURVATURE])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(content, style, dtype, curvature):
    found = colour_transfer(content.to(dtype), style.to(dtype), curvature=curvature)
    assert found.dtype == torch.float32


def share_of_black(image):
    """Of the pixels: darker than 0.03."""
    return float((image.clamp(0, 1).mean(1) < 0.03).double().mean())


def test_coloured_noise_of_a_plain_wall_is_not_carried(content, style):
    """Blotches of a level lose their colour, not their lightness."""
    noise = torch.randn(1, 3, 60, 200, generator=torch.Generator().manual_seed(0)).double()
    noise = F.avg_pool2d(noise, 5, 1, 2)
    photo = torch.tensor([0.6, 0.55, 0.45]).double().view(1, 3, 1, 1) + noise / noise.std() / 255
    photo[..., :80] = F.interpolate(content, (60, 80))
    result = transfer(photo, style, gains=GAINS, curvature=CURVATURE)

    def deviations(image):
        """Of lightness and of colour."""
        light = image.mean(1, keepdim=True)
        return float(light.std()), float((image - light).square().sum(1).mean().sqrt())

    wall = [image[..., 110:] for image in (photo, result)]
    wall = [deviations(part - part.mean((2, 3), keepdim=True)) for part in wall]
    assert wall[1][0] > 0.8 * wall[0][0]
    assert wall[1][1] < 0.12 * wall[0][1]  # 0.25 where it is carried


def test_black_stays_black_in_a_lighter_style(content):
    """Both photos have black; a mean that is lighter must not put a veil over it."""
    scaled = (content - content.min()) / (content.max() - content.min())
    dark, light = scaled**2, 1 - (1 - scaled.flip(3)) ** 2
    result = transfer(dark, light, gains=GAINS, curvature=CURVATURE)
    assert result.mean() > dark.mean() + 0.15
    assert at_shares(result.mean(1).flatten(1), (0.01,), None) < 0.16  # a shift leaves 0.33


def test_shadows_keep_their_texture_in_a_style_of_more_contrast(content):
    """A greatest gain of 1.8 must not drive what is dark into black."""
    style = (content.flip(3) > content.median()).double()
    photo = 0.1 + 0.8 * content
    result = transfer(photo, style, gains=GAINS, curvature=CURVATURE)
    assert result.std() > 1.2 * photo.std()
    dark = photo.mean(1) < photo.mean(1).flatten().quantile(0.1)
    after, before = (image.mean(1)[dark].clamp(0, 1).std() for image in (result, photo))
    assert after > 0.6 * before  # with a parabola, of slopes from 0.5, 0.37


def test_daylight_stays_to_be_seen_in_a_style_by_night(content):
    light = 0.25 + 0.75 * content
    night = 0.1 * content.flip(3) ** 2
    result = transfer(light, night, gains=GAINS, curvature=CURVATURE)
    assert result.mean() < 0.75 * light.mean()
    assert share_of_black(night) > 0.4
    assert share_of_black(result) < 0.05  # a shift leaves 0.5


def test_bent_tones_are_curves_too(content):
    """As for the exact map: coefficients say in small windows what bent tones say by pixel."""
    style = load_image(EXAMPLES / "picos_de_europa.jpg", 48).double() ** 0.3
    tones = to_tones(content)
    source = colour_moments(tones, whole(content))
    moments = colour_moments(to_tones(style), whole(style))
    target = moments._replace(mean=reachable_mean(source.mean, moments.mean))
    matrix, offset = (part[0, 0] for part in colour_maps(source, target, GAINS))
    moved = (matrix @ tones.flatten(2) + offset[:, None]).view_as(tones)
    curve = ToneCurve.between(moved.mean(1).flatten(1), tones.mean(1).flatten(1), moments, None)
    assert curve.bends.abs().max() > 0.1
    error = transfer(content, style, gains=GAINS, curvature=CURVATURE) - from_tones(curve(moved))
    assert error.square().mean().sqrt() < 5 / 255


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, -1, 0)])
def test_contrast_is_raised_but_not_noise(tint):
    """Grey and coloured noise of plain gradients, by a style of 2.5 times their range."""
    across = torch.linspace(-0.1, 0.1, 64).double()
    down = torch.linspace(-0.1, 0.1, 48).double()[:, None]
    along = [torch.tensor(x).double()[:, None, None] for x in ([1, 1, 1], [1, -1, 0], tint)]
    gradient = 0.5 + across * along[0] + down * along[1]
    noise = 0.01 * torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * along[2]
    style = 0.5 + 2.5 * (gradient - 0.5)
    coefficients = colour_transfer((gradient + noise)[None], style[None])
    clean, noisy = (apply_affine(coefficients, x[None]) for x in (gradient, gradient + noise))
    assert (clean.std((0, 2, 3)) > 1.6 * gradient.std((1, 2))).all()
    assert (noisy - clean).std() < 1.3 * noise.std()  # by the tangents themselves 1.8
