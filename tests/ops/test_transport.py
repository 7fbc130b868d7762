"""The linear Monge-Kantorovich map of features: against SciPy, and what it promises."""

import numpy as np
import pytest
import scipy.linalg
import torch

from photostyle.ops import GRAM, ArgumentError, StyleObjective, Transport
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import colour_transfer
from photostyle.ops.style_losses import CONTRAST_AXES
from photostyle.ops.transport import (
    EXACT,
    GREY_AXIS,
    AffineMaps,
    Moments,
    blend,
    check_gains,
    map_to_root,
    moments,
    monge_kantorovich,
    principal_axes,
    root,
)

TALL = (1, 12, 20, 17)
"""Features of 12 channels at 340 places."""


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mixed(shape, seed):
    """Correlated features of a mean and a contrast of their own, well above 0."""
    _, channels, *_ = shape
    x = torch.einsum("dc,bchw->bdhw", random(channels, channels, seed=seed), random(*shape, seed=9))
    return x + 40 + 3 * random(1, channels, 1, 1, seed=seed + 1)


def whole(features):
    return torch.ones(1, *features.shape[2:], dtype=torch.float64)


def halves(features):
    left = whole(features)[0]
    left[:, left.shape[1] // 3 :] = 0
    return torch.stack([left, 1 - left])


def vectors(features):
    return features.flatten(2).mT


def covariance(x, weights=None):
    return np.cov(x[0].T.numpy(), aweights=weights, bias=True)


def target_of(transport, content, style, layer="relu2_1", masks=whole):
    statistics = transport.statistics(layer, style, masks(style))
    return transport.target(layer, content, masks(content), statistics)[0]


def exact(**options):
    return Transport(colour_gains=EXACT, feature_gains=EXACT, shrinkage=0.0, **options)


# ------------------------------------------------------------------------------------ the map


def test_moments_against_numpy():
    x, weights = random(2, 30, 5), torch.rand(3, 30, dtype=torch.float64)
    weights[1, :20] = 0
    mean, cov = moments(x, weights)
    assert mean.shape == (2, 3, 5)
    assert cov.shape == (2, 3, 5, 5)
    for b in range(2):
        for m in range(3):
            w = weights[m].numpy()
            np.testing.assert_allclose(mean[b, m], np.average(x[b], axis=0, weights=w), atol=1e-12)
            expected = np.cov(x[b].T.numpy(), aweights=w, bias=True)
            np.testing.assert_allclose(cov[b, m], expected, atol=1e-12)


def test_moments_without_weights_are_those_of_equal_ones():
    x = random(2, 30, 5)
    for ours, theirs in zip(moments(x), moments(x, torch.ones(1, 30)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_moments_of_a_small_spread_about_a_large_mean():
    """Means first: E[xy] − E[x]E[y] would lose it in float32, and here even in float64."""
    x = 1e6 + 1e-3 * random(1, 50, 3)
    _, cov = moments(x, torch.ones(1, 50))
    np.testing.assert_allclose(cov[0, 0], covariance(x), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 1e-6), (torch.float32, 1e-12)])
def test_moments_are_of_float64(dtype, error):
    """Summed in float64, but for half precision, where float32 loses nothing that was there."""
    x = random(1, 40, 4).to(dtype)
    mean, cov = moments(x, torch.ones(1, 40))
    assert mean.dtype == cov.dtype == torch.float64
    np.testing.assert_allclose(mean[0, 0], x.double()[0].mean(0), atol=error)
    np.testing.assert_allclose(cov[0, 0], covariance(x.double()), atol=error)


def test_map_against_scipy():
    source, target = (moments(vectors(mixed(TALL, seed)), torch.ones(1, 340)) for seed in (1, 2))
    maps = monge_kantorovich(source, target)
    s, t = (part.covariance[0, 0].numpy() for part in (source, target))
    half = scipy.linalg.sqrtm(s)
    inverse = np.linalg.inv(half)
    expected = inverse @ scipy.linalg.sqrtm(half @ t @ half) @ inverse
    np.testing.assert_allclose(maps.matrix[0, 0], expected, atol=1e-8)
    np.testing.assert_allclose(maps.matrix, maps.matrix.mT, atol=1e-10)
    assert np.linalg.eigvalsh(maps.matrix[0, 0]).min() > 0
    np.testing.assert_allclose(
        maps.offset[0, 0], target.mean[0, 0] - maps.matrix[0, 0] @ source.mean[0, 0], atol=1e-9
    )


def test_a_known_root_gives_the_same_map():
    source, target = (moments(vectors(mixed(TALL, seed)), torch.ones(1, 340)) for seed in (1, 2))
    direct = monge_kantorovich(source, target, gains=(0.5, 2.0), shrinkage=0.01)
    known = map_to_root(source, target.mean, root(target, 0.01), (0.5, 2.0), 0.01)
    for ours, theirs in zip(direct, known, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("gains", [(0.9, 1.1), (0.0, 1.0), (1.0, 1.0), (0.5, float("inf"))])
def test_gains_stay_in_their_range(gains):
    source, target = (moments(vectors(mixed(TALL, seed)), torch.ones(1, 340)) for seed in (1, 2))
    free = torch.linalg.eigvalsh(monge_kantorovich(source, target).matrix)
    assert free.min() < 0.5
    assert free.max() > 2
    values = torch.linalg.eigvalsh(monge_kantorovich(source, target, gains=gains).matrix)
    assert values.min() >= gains[0] - 1e-9
    assert values.max() <= gains[1] + 1e-9
    maps = monge_kantorovich(source, target, gains=gains)
    moved = (maps.matrix @ source.mean[..., None])[..., 0] + maps.offset
    torch.testing.assert_close(moved, target.mean)  # however tight, the mean is the style's


@pytest.mark.parametrize("gains", [EXACT, (0.9, 1.2)])
@pytest.mark.parametrize("shrinkage", [0.0, 0.01])
def test_equal_moments_have_the_identity(gains, shrinkage):
    same = moments(vectors(mixed(TALL, 1)), torch.ones(1, 340))
    maps = monge_kantorovich(same, same, gains=gains, shrinkage=shrinkage)
    torch.testing.assert_close(
        maps.matrix[0, 0], torch.eye(12, dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(maps.offset, torch.zeros_like(maps.offset), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_singular_covariances(count):
    """Fewer vectors than channels: gains in their range, means met, all of it finite."""
    source = moments(random(1, count, 8), torch.ones(1, count))
    target = moments(3 + random(1, 40, 8, seed=1), torch.ones(1, 40))
    for pair in ((source, target), (target, source), (source, source)):
        maps = monge_kantorovich(*pair, gains=(0.5, 2.0), shrinkage=0.01)
        values = torch.linalg.eigvalsh(maps.matrix)
        assert maps.matrix.isfinite().all()
        assert values.min() >= 0.5 - 1e-9
        assert values.max() <= 2 + 1e-9
        moved = (maps.matrix @ pair[0].mean[..., None])[..., 0] + maps.offset
        torch.testing.assert_close(moved, pair[1].mean)


def test_blend_is_the_weighted_sum_of_the_maps():
    x = random(2, 9, 4)
    weights = torch.rand(3, 9, dtype=torch.float64)
    weights[0, :3] = 0
    weights = weights / weights.sum(0)
    maps = AffineMaps(random(2, 3, 4, 4, seed=1), random(2, 3, 4, seed=2))
    expected = sum(
        weights[m, :, None] * (x @ maps.matrix[:, m].mT + maps.offset[:, m, None]) for m in range(3)
    )
    torch.testing.assert_close(blend(x, weights, maps), expected)


@pytest.mark.parametrize("value", [None, 1, [1], [0.5, 2, 3], "12", {"a": 1}, [1.1, 2], [0.2, 0.9]])
def test_gains_that_are_no_range(value):
    expected = r"^gains=.*: give two numbers, \[least, greatest\], with 1 between them"
    with pytest.raises(ArgumentError, match=expected):
        check_gains("gains", value)


@pytest.mark.parametrize("value", [[-1, 2], ["a", 2], [float("nan"), 2], [None, 1], [True, 2]])
def test_gains_that_are_no_numbers(value):
    with pytest.raises(ArgumentError, match=r"^gains=.*: give a number at least 0"):
        check_gains("gains", value)


# --------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("masks", [whole, halves])
def test_the_target_has_the_mean_and_the_covariance_of_the_style(masks):
    content, style = mixed(TALL, 1), mixed((1, 12, 15, 31), 2)
    target = target_of(exact(), content, style, masks=masks)
    for mask, style_mask in zip(masks(content), masks(style), strict=True):
        ours = moments(vectors(target), mask.flatten()[None])
        theirs = moments(vectors(style), style_mask.flatten()[None])
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.covariance, theirs.covariance, rtol=0, atol=1e-6)


def test_equal_features_get_equal_targets():
    """Wherever they stand: what a Gram matrix does not say."""
    content, style = mixed(TALL, 1), mixed((1, 12, 15, 31), 2)
    content[..., 3:6, :4] = content[..., 12:15, 9:13]
    target = target_of(Transport(), content, style)
    assert torch.equal(target[..., 3:6, :4], target[..., 12:15, 9:13])
    assert (target[..., :3, :4] - target[..., 12:15, 9:13]).abs().max() > 0.1


@pytest.mark.parametrize(("layer", "channels"), [("colours", 3), ("relu1_1", 12), ("relu4_1", 12)])
def test_a_style_of_the_same_statistics_changes_nothing(layer, channels):
    content = mixed((1, channels, 20, 17), 1)
    if layer == "colours":
        content = content / content.max()
    target = target_of(Transport(), content, content.flip(2, 3), layer)
    torch.testing.assert_close(target, content, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", ["colours", "relu1_1"])
def test_targets_can_be_reached(layer):
    """Neither colours that no screen shows nor features that no ReLU lets through."""
    content, style = (mixed((1, 3, 20, 17), seed) for seed in (1, 2))
    content, style = (
        0.5 + 0.3 * (x - x.mean((2, 3), keepdim=True)) / x.std() for x in (content, style)
    )
    target = target_of(Transport((1, 3), (1, 3)), content, 2 * style - 0.5, layer)
    assert target.min() == 0
    assert (target.max() == 1) == (layer == "colours")


@pytest.mark.parametrize("masks", [whole, halves])
def test_colours_go_where_the_closed_form_takes_them(masks):
    """To a mean that can be reached, black and white bent: else one would undo the other."""
    content, night = mixed((1, 3, 24, 17), 1), mixed((1, 3, 20, 31), 2)
    content = (content - content.min()) / (content.max() - content.min())
    night = 0.1 * (night - night.min()) / (night.max() - night.min())
    target = target_of(Transport(shrinkage=0.0), content, night, "colours", masks=masks)
    coefficients = colour_transfer(content, night, masks(content), masks(night))
    error = target - apply_affine(coefficients, content).clamp(0, 1)
    inner = error[..., :5].abs() if masks is halves else error.abs()
    assert inner.mean() < 0.02
    assert target.mean() > night.mean() + 0.1


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_1", "relu4_1"])
def test_features_have_gains_of_their_own(layer):
    """The least one where they vary most: of 12 channels in two directions."""
    transport = Transport(colour_gains=(0.9, 1.2), feature_gains=(0.4, 3.0), shrinkage=0.0)
    content = mixed(TALL, 1) + 100
    mean = content.mean((2, 3), keepdim=True)
    axes = principal_axes(moments(vectors(content)), CONTRAST_AXES)[0, 0]
    assert axes.shape == (12, 2)
    for contrast, most, rest in ((0.1, 0.4, 0.1), (10, 3.0, 3.0)):
        target = target_of(transport, content, mean + contrast * (content - mean), layer)
        assert target.min() > 0  # else a ReLU would have cut
        before, after = vectors(content - mean), vectors(target - mean)
        torch.testing.assert_close(after @ axes, most * (before @ axes))
        across = torch.eye(12).double() - axes @ axes.mT
        torch.testing.assert_close(after @ across, rest * (before @ across))


def test_the_target_is_what_a_relu_lets_through():
    content, style = mixed(TALL, 1), mixed(TALL, 2) - 40
    target = target_of(exact(), content, style)
    assert target.min() == 0
    assert (target == 0).any()


def test_masks_of_few_pixels_and_features_without_contrast():
    content, style = mixed(TALL, 1), mixed((1, 12, 15, 31), 2)
    few = torch.zeros(2, *content.shape[2:], dtype=torch.float64)
    few[0, 4, 5] = 1
    few[1] = 1 - few[0]
    flat = torch.full_like(style, 7.0)
    for y in (style, flat):
        statistics = Transport().statistics("relu2_1", y, halves(y))
        target, *_ = Transport().target("relu2_1", content, few, statistics)
        assert target.isfinite().all()
    # One pixel goes to the mean of its style.
    statistics = Transport().statistics("relu2_1", style, halves(style))
    target, *_ = Transport().target("relu2_1", content, few, statistics)
    mean = moments(vectors(style), halves(style).flatten(1)).mean[0, 0]
    torch.testing.assert_close(target[0, :, 4, 5], mean)
    statistics = Transport().statistics("relu2_1", style, whole(style))
    level, *_ = Transport().target(
        "relu2_1", torch.full_like(content, 3.0), whole(content), statistics
    )
    torch.testing.assert_close(level[0, :, 0, 0], vectors(style).mean((0, 1)))
    assert level.std((2, 3)).max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_and_single_precision(dtype):
    content, style = mixed(TALL, 1), mixed((1, 12, 15, 31), 2)
    expected = target_of(Transport(), content, style)
    target = target_of(Transport(), content.to(dtype), style.to(dtype))
    assert target.dtype == torch.float32
    error = (target - expected).norm() / expected.norm()
    assert error < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("photo", ["photos", "one colour"])
def test_objective_at_its_own_target(photo):
    """A photo in its own style has no style loss, and a gradient that is finite."""
    content = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    if photo == "one colour":
        content = torch.full_like(content, 0.4)
    objective = StyleObjective(style_layers=["colours", "relu1_1", "relu2_1"], layer_weights=None)
    mask = torch.ones(1, 32, 40)
    image = content.clone().requires_grad_()
    terms = objective(image, objective.targets(content, content, mask, mask))
    (gradient,) = torch.autograd.grad(terms.total, image)
    assert terms["style"].item() < 1e-6
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["colour_gains", "feature_gains"])
def test_bad_gains(name):
    with pytest.raises(ArgumentError, match=rf"^{name}=\[2, 3\]: give two numbers"):
        Transport(**{name: [2, 3]})


@pytest.mark.parametrize("name", ["shrinkage", "gram_weight"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), None, "a"])
def test_bad_numbers(name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}={value}: give a number at least 0"):
        Transport(**{name: value})


def test_gram_matrices_beside_it():
    content, style = mixed(TALL, 1), mixed((1, 12, 15, 31), 2)
    plain, both = Transport(), Transport(gram_weight=0.3)
    losses = []
    for loss in (plain, GRAM, both):
        statistics = loss.statistics("relu2_1", style, halves(style))
        losses.append(loss(content, loss.target("relu2_1", content, halves(content), statistics)))
    assert losses[2].item() == pytest.approx((losses[0] + 0.3 * losses[1]).item(), rel=1e-12)


def test_a_least_gain_along_an_axis_alone():
    """Black to white keeps its contrast, colours may fade: a grey style makes a grey photo."""
    colours = vectors(mixed((1, 3, 20, 17), 1))
    source = moments(colours, torch.ones(1, 340))
    grey = colours.mean(2, keepdim=True).expand_as(colours) * 0.01
    target = moments(grey, torch.ones(1, 340))
    matrix = monge_kantorovich(source, target, gains=(0.9, 1.5), axes=GREY_AXIS).matrix[0, 0]
    both = monge_kantorovich(source, target, gains=(0.9, 1.5)).matrix[0, 0]
    assert torch.linalg.eigvalsh(both).min() == pytest.approx(0.9)
    assert float(GREY_AXIS.mT @ matrix @ GREY_AXIS) == pytest.approx(0.9)
    values = torch.linalg.eigvalsh(matrix)
    assert values[:2].max() < 0.1
    assert values.min() > -1e-9


def test_a_least_gain_along_principal_axes():
    """What varies most keeps its contrast in all of their span; what varies little may fade."""
    content = vectors(mixed((1, 10, 20, 17), 1))
    source = moments(content, torch.ones(1, 340))
    target = Moments(source.mean, 1e-4 * source.covariance)
    axes = principal_axes(source, 0.3)
    variances = torch.linalg.eigvalsh(source.covariance)[0, 0]
    inner = axes.mT @ source.covariance @ axes
    torch.testing.assert_close(inner[0, 0], torch.diag(variances[-3:]))
    matrix = monge_kantorovich(source, target, gains=(0.9, 1.5), axes=axes).matrix
    gains = torch.linalg.eigvalsh(matrix)[0, 0]
    torch.testing.assert_close(gains[-3:], torch.full((3,), 0.9, dtype=gains.dtype))
    torch.testing.assert_close(gains[:7], torch.full((7,), 0.01, dtype=gains.dtype))
    assert principal_axes(source, 0.0).shape == (1, 1, 10, 1)


def test_a_style_of_more_contrast_needs_no_least_gain():
    source = moments(vectors(mixed((1, 3, 20, 17), 1)), torch.ones(1, 340))
    target = Moments(source.mean + 1, 9 * source.covariance)
    with_axes = monge_kantorovich(source, target, gains=(0.9, 5.0), axes=GREY_AXIS)
    torch.testing.assert_close(with_axes.matrix, monge_kantorovich(source, target).matrix)
