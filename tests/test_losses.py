"""Losses against their definitions in NumPy, and the objective that adds them up."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage.filters import sobel
from skimage.metrics import structural_similarity

from ops import ArgumentError, LossTerms, MattingLaplacian, StyleObjective, VGGFeatures
from ops.losses import (
    content_loss,
    edge_loss,
    edge_magnitude,
    gram_matrix,
    mean_and_deviation,
    style_loss,
    total_variation,
)

LOSSES = ["content", "style", "edges", "energy", "wide_energy", "variation"]
SHALLOW = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", "relu2_1"]}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def masks(kind, height=6, width=5):
    if kind == "whole":
        return torch.ones(1, height, width, dtype=torch.float64)
    if kind == "soft":
        left = random(height, width, seed=9) * 0.9 + 0.05
    else:
        left = torch.zeros(height, width, dtype=torch.float64)
        left[:, : width // 2] = 1
    return torch.stack([left, 1 - left])


@pytest.fixture(scope="module")
def photos():
    """Content (64 x 48) and style (40 x 56), smooth with some grain, float64."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
    content = torch.stack([x, y, 0.5 + 0.3 * torch.sin(9 * x)]).double()[None]
    y, x = torch.meshgrid(torch.linspace(0, 1, 56), torch.linspace(0, 1, 40), indexing="ij")
    style = torch.stack([0.8 * y, 0.3 * x, 0.2 + 0.1 * torch.cos(12 * x * y)]).double()[None]
    return (
        (0.9 * content + 0.1 * random(*content.shape)).clamp(0, 1),
        (0.9 * style + 0.1 * random(*style.shape, seed=1)).clamp(0, 1),
    )


def ones(image):
    return image.new_ones(1, *image.shape[2:])


def halves(image):
    left = ones(image)[0]
    left[:, left.shape[1] // 2 :] = 0
    return torch.stack([left, 1 - left])


# ------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("kind", ["whole", "hard", "soft"])
@pytest.mark.parametrize("batch", [1, 3])
def test_gram_matrix_by_hand(kind, batch):
    features, weights = random(batch, 4, 6, 5) - 0.3, masks(kind)
    expected = np.zeros((batch, len(weights), 4, 4))
    for b in range(batch):
        for m, mask in enumerate(weights.numpy()):
            for row in range(6):
                for column in range(5):
                    vector = features[b, :, row, column].numpy()
                    expected[b, m] += mask[row, column] * np.outer(vector, vector)
            expected[b, m] /= mask.sum()
    actual = gram_matrix(features, weights)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["whole", "hard", "soft"])
@pytest.mark.parametrize("batch", [1, 3])
def test_mean_and_deviation_by_hand(kind, batch):
    features, weights = random(batch, 4, 6, 5) - 0.3, masks(kind)
    actual = mean_and_deviation(features, weights).numpy()
    assert actual.shape == (batch, len(weights), 8)
    for b in range(batch):
        for m, mask in enumerate(weights.numpy()):
            for c, channel in enumerate(features[b].numpy()):
                mean = np.average(channel, weights=mask)
                deviation = np.sqrt(np.average((channel - mean) ** 2, weights=mask))
                assert actual[b, m, c] == pytest.approx(mean, rel=1e-12)
                assert actual[b, m, 4 + c] == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("statistic", [gram_matrix, mean_and_deviation])
def test_statistics_do_not_depend_on_the_scale_of_a_mask(statistic):
    features, weights = random(2, 4, 6, 5), masks("soft")
    torch.testing.assert_close(statistic(features, weights / 7), statistic(features, weights))


@pytest.mark.parametrize("statistic", [gram_matrix, mean_and_deviation])
@pytest.mark.parametrize("kind", ["whole", "hard", "soft"])
def test_gradients_of_statistics(statistic, kind):
    features = random(2, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: statistic(f, masks(kind)), features)


def test_gram_matrix_is_differentiable_twice():
    features = random(2, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda f: gram_matrix(f, masks("soft")), features)


@pytest.mark.parametrize("statistic", [gram_matrix, mean_and_deviation])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_precision(statistic, dtype):
    """Sums are of float32; gradients have the features' own precision."""
    half = (random(2, 8, 40, 30) - 0.3).to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    weights = torch.stack([random(40, 30), 1 - random(40, 30)]).float()
    statistics = [statistic(features, weights) for features in (half, single)]
    assert statistics[0].dtype == torch.float32
    torch.testing.assert_close(*statistics, rtol=1e-6, atol=0)
    for features, value in zip((half, single), statistics, strict=True):
        value.square().sum().backward()
        assert features.grad.dtype == features.dtype
    error = (half.grad.float() - single.grad).norm() / single.grad.norm()
    assert error < 4 * torch.finfo(dtype).eps


def test_deviation_of_a_dead_channel_has_a_finite_gradient():
    features = torch.zeros(1, 2, 4, 4).requires_grad_()
    statistics = mean_and_deviation(features, torch.ones(1, 4, 4))
    assert statistics.abs().max() < 1e-5
    statistics.sum().backward()
    assert torch.isfinite(features.grad).all()


# ----------------------------------------------------------------------------------------- losses


def test_content_loss():
    features, target = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    assert content_loss(target, target) == 0
    difference = features.numpy() - target.numpy()
    image = (1, 2, 3)
    expected = ((difference**2).sum(image) / (target.numpy() ** 2).sum(image)).mean()
    assert float(content_loss(features, target)) == pytest.approx(expected, rel=1e-12)
    # Relative: neither the unit of the features counts, nor their number.
    assert float(content_loss(9 * features, 9 * target)) == pytest.approx(expected, rel=1e-12)
    repeated = content_loss(features.repeat(1, 1, 2, 3), target.repeat(1, 1, 2, 3))
    assert float(repeated) == pytest.approx(expected, rel=1e-12)
    assert float(content_loss(2 * target, target)) == pytest.approx(1, rel=1e-12)


def test_style_loss():
    target = random(1, 2, 4, 4)
    areas = torch.tensor([0.8, 0.2], dtype=torch.float64)
    assert style_loss(target, target, areas) == 0
    # A mask that is off by its own norm costs its area, however large its statistics are.
    for scale in (1, 100):
        for mask, area in enumerate(areas):
            scaled = target * torch.tensor([scale, 1])[None, :, None, None]
            statistics = scaled.clone()
            statistics[:, mask] *= 2
            loss = style_loss(statistics, scaled, areas)
            assert float(loss) == pytest.approx(float(area), rel=1e-12)
    # The mean over the batch.
    batch = torch.cat([target, 3 * target])
    assert float(style_loss(batch, target, areas)) == pytest.approx(4 / 2, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 2, 6)], ids=["gram", "mean and deviation"])
def test_losses_of_a_black_target_are_finite(shape):
    black = torch.zeros(shape, requires_grad=True)
    areas = torch.full((shape[1],), 1 / shape[1])
    for loss in (style_loss(black, torch.zeros(shape), areas), content_loss(black, black.detach())):
        (gradient,) = torch.autograd.grad(loss, black)
        assert loss == 0
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("size", [(11, 11), (33, 20)])
def test_edges_against_scikit_image(size):
    content, image = random(1, 3, *size), random(1, 3, *size, seed=1)
    edges = []
    for photo in (content, image):
        luma = np.einsum("c,chw->hw", (0.299, 0.587, 0.114), photo[0].numpy())
        edges.append(sobel(luma) / 2)
        np.testing.assert_allclose(edge_magnitude(photo)[0, 0], edges[-1], atol=1e-5)
    expected = structural_similarity(
        *edges, gaussian_weights=True, sigma=1.5, data_range=1.0, use_sample_covariance=False
    )
    loss = edge_loss(edge_magnitude(image), edge_magnitude(content))
    assert float(loss) == pytest.approx(1 - expected, abs=1e-5)


def test_edge_loss_sees_edges_and_not_colours():
    content = random(1, 3, 32, 40).cumsum(3) / 40
    target = edge_magnitude(content)
    assert float(edge_loss(target, target)) == pytest.approx(0, abs=1e-12)
    assert float(edge_loss(edge_magnitude(1 - content), target)) == pytest.approx(0, abs=1e-9)
    weaker = [float(edge_loss(edge_magnitude(k * content), target)) for k in (0.9, 0.6, 0.3)]
    assert 0 < weaker[0] < weaker[1] < weaker[2]
    step = content.clone()
    step[..., 20:] += 0.2
    assert float(edge_loss(edge_magnitude(step), target)) > 0.01


def test_gradient_of_the_edge_loss():
    content, image = random(2, 3, 13, 17), random(2, 3, 13, 17, seed=1).requires_grad_()
    target = edge_magnitude(content)
    assert torch.autograd.gradcheck(lambda x: edge_loss(edge_magnitude(x), target), image)
    assert torch.autograd.gradgradcheck(lambda x: edge_loss(edge_magnitude(x), target), image)


def test_gradient_of_a_plain_image_is_finite():
    plain = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64, requires_grad=True)
    loss = edge_loss(edge_magnitude(plain), edge_magnitude(random(1, 3, 16, 16)))
    (gradient,) = torch.autograd.grad(loss, plain)
    assert torch.isfinite(gradient).all()


def test_total_variation():
    image = random(2, 3, 5, 7)
    array = image.numpy()
    across = np.mean((array[..., 1:] - array[..., :-1]) ** 2)
    down = np.mean((array[..., 1:, :] - array[..., :-1, :]) ** 2)
    assert float(total_variation(image)) == pytest.approx(across + down, rel=1e-12)
    assert total_variation(torch.full((1, 3, 5, 7), 0.4)) == 0
    ramp = torch.arange(8.0).expand(1, 3, 6, 8)
    assert total_variation(ramp) == 1


def test_loss_terms_are_a_mapping_that_adds_up():
    one = LossTerms({"content": torch.tensor(1.0), "style": torch.tensor(2.0)})
    two = LossTerms({"style": torch.tensor(10.0), "energy": torch.tensor(100.0)})
    both = one + two
    assert {name: float(value) for name, value in both.items()} == {
        "content": 1,
        "style": 12,
        "energy": 100,
    }
    assert list(both) == ["content", "style", "energy"]
    assert len(both) == 3
    assert float(both.total) == 113
    assert (float(one.total), float(two.total)) == (3, 110)  # neither was changed
    assert str(one) == "content 1  style 2  total 3"
    with pytest.raises(KeyError):
        both["variation"]


def test_loss_terms_detach():
    weight = torch.tensor(3.0, requires_grad=True)
    terms = LossTerms({"content": weight * 2})
    assert terms.total.requires_grad
    assert not terms.detach().total.requires_grad
    assert float(terms.detach().total) == 6


# -------------------------------------------------------------------------------------- objective


@pytest.fixture(scope="module")
def encoder():
    """One network for all objectives here: features in float64 up to relu2_1."""
    features = VGGFeatures(["relu1_1", "relu2_1"]).double()
    return lambda layers: features


@pytest.mark.parametrize("statistic", ["gram", "mean_and_deviation"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masks"])
def test_objective_by_hand(encoder, photos, statistic, masked):
    content, style = photos
    weights = {"content": 2.0, "style": 3.0, "edges": 5.0, "energy": 50.0, "wide_energy": 9.0}
    weights["variation"] = 7.0
    objective = StyleObjective(
        encoder,
        **SHALLOW,
        **{f"{name}_weight": weight for name, weight in weights.items()},
        statistic=statistic,
        energy_radius=2,
        wide_energy_radius=3,
        strangers_style=0.2,
        energy_epsilon=1e-4,
        backend="reference",
    )
    choose = halves if masked else ones
    targets = objective.targets(content, style, choose(content), choose(style), discord=0.25)
    image = random(*content.shape, seed=3)
    terms = objective(image, targets)

    features = [encoder(())(x) for x in (image, content, style)]
    expected = {"content": content_loss(features[0]["relu2_1"], features[1]["relu2_1"])}
    function = {"gram": gram_matrix, "mean_and_deviation": mean_and_deviation}[statistic]
    style_terms = []
    for layer in SHALLOW["style_layers"]:
        # Sizes are even, so that the masks stay exact halves at every layer.
        small_masks = [choose(x[layer]) for x in features]
        actual, target = (function(features[i][layer], small_masks[i]) for i in (0, 2))
        areas = small_masks[0].flatten(1).mean(1)
        style_terms.append(style_loss(actual, target, areas))
    expected["style"] = 0.8 * sum(style_terms) / 2  # 1 - discord (1 - strangers_style)
    expected["edges"] = edge_loss(edge_magnitude(image), edge_magnitude(content))
    expected["energy"] = MattingLaplacian(content, 2, 1e-4, "reference").energy(image)[0]
    expected["wide_energy"] = MattingLaplacian(content, 3, 1e-4, "reference").energy(image)[0] / 4
    expected["variation"] = total_variation(image)
    assert list(terms) == list(weights)
    for name, loss in expected.items():
        assert float(terms[name]) == pytest.approx(weights[name] * float(loss), rel=1e-9), name
    assert float(terms.total) == pytest.approx(sum(map(float, terms.values())), rel=1e-12)


@pytest.mark.parametrize("weighted", LOSSES)
def test_a_loss_of_weight_zero_is_not_computed(encoder, photos, weighted):
    content, style = photos
    weights = {f"{name}_weight": 0 for name in LOSSES}
    objective = StyleObjective(encoder, **SHALLOW, **{**weights, f"{weighted}_weight": 1})
    targets = objective.targets(content, style, ones(content), ones(style), discord=1)
    assert (targets.wide_laplacian is None) == (weighted != "wide_energy")
    assert (targets.laplacian is None) == (weighted != "energy")
    assert (targets.edges is None) == (weighted != "edges")
    terms = objective(random(*content.shape, seed=3), targets)
    assert list(terms) == [weighted]
    assert float(terms.total) > 0


def test_photos_that_go_together_have_no_wide_energy(encoder, photos):
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW)
    targets = objective.targets(content, style, ones(content), ones(style))
    assert "wide_energy" not in objective(content, targets)
    for discord in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match=r"^discord=\S+: give a number from 0 to 1"):
            objective.targets(content, style, ones(content), ones(style), discord=discord)


def test_wide_windows_fit_into_small_images(encoder):
    objective = StyleObjective(encoder, **SHALLOW, wide_energy_radius=8)
    assert objective.wide_laplacian(torch.rand(1, 3, 100, 20)).radius == 8
    assert objective.wide_laplacian(torch.rand(1, 3, 16, 20)).radius == 7


def test_losses_vanish_at_their_targets(encoder, photos):
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW, energy_weight=1)
    targets = objective.targets(content, content, ones(content), ones(content))
    at_target = objective(content, targets)
    assert float(at_target["content"]) == 0
    assert float(at_target["style"]) < 1e-20
    assert abs(float(at_target["edges"])) < 1e-9
    away = objective(random(*content.shape, seed=3), targets)
    # The content is an affine function of itself, up to the ridge.
    assert float(at_target["energy"]) < 1e-3 * float(away["energy"])
    targets = objective.targets(style, style.flip(3), ones(style), ones(style))
    # A mirrored photo has another content, but hardly another style.
    mirrored = objective(style.flip(3), targets)
    assert float(mirrored["style"]) < 1e-20
    assert float(mirrored["content"]) > 1e-3


def test_masks_take_each_part_to_its_own_style(encoder, photos):
    """A content whose halves already have the right styles, but for sides exchanged."""
    content, _ = photos
    objective = StyleObjective(
        encoder, **SHALLOW, content_weight=0, style_weight=1, edges_weight=0, energy_weight=0
    )
    left, right = content, content.flip(1) * 0.4
    image = torch.cat([left, right], dim=3)
    exchanged = torch.cat([right, left], dim=3)
    masks_image = halves(image)
    same = objective.targets(image, exchanged, masks_image, masks_image.flip(0))
    crossed = objective.targets(image, exchanged, masks_image, masks_image)
    # Only the seams differ in the first case.
    assert objective(image, same).total < 0.1 * objective(image, crossed).total


def test_fallback_to_the_whole_style_is_finite(encoder, photos):
    """What data.load_masks gives for a label that the style does not have."""
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW)
    fallback = torch.stack([ones(style)[0], ones(style)[0]])
    targets = objective.targets(content, style, halves(content), fallback)
    whole = objective.targets(content, style, ones(content), ones(style))
    for layer, statistics in targets.style.items():
        torch.testing.assert_close(statistics, whole.style[layer].expand_as(statistics))
    image = content.clone().requires_grad_()
    terms = objective(image, targets)
    (gradient,) = torch.autograd.grad(terms.total, image)
    assert terms["style"] > 0
    assert torch.isfinite(terms.total)
    assert torch.isfinite(gradient).all()


def test_weights_keep_their_meaning_when_the_size_changes(encoder, photos):
    content, style = photos
    objective = StyleObjective(
        encoder, **SHALLOW, energy_weight=1.0, variation_weight=1.0, backend="reference"
    )

    def losses(repeats):
        c, s, y = (
            x.repeat(1, 1, repeats, repeats)
            for x in (content, style, random(*content.shape, seed=3))
        )
        return objective(y, objective.targets(c, s, ones(c), ones(s)))

    small, large = losses(1), losses(3)
    for name in small:
        # The seams and the borders make the rest; a sum instead of a mean would be nine times.
        assert float(large[name]) == pytest.approx(float(small[name]), rel=0.3), name


@pytest.mark.parametrize("statistic", ["gram", "mean_and_deviation"])
def test_gradient_of_the_whole_objective(encoder, photos, statistic):
    content, style = photos
    objective = StyleObjective(
        encoder, **SHALLOW, energy_weight=10, variation_weight=5, statistic=statistic
    )
    targets = objective.targets(content, style, halves(content), halves(style), discord=1)
    image = random(*content.shape, seed=3).requires_grad_()
    terms = objective(image, targets)
    for name in LOSSES:
        (gradient,) = torch.autograd.grad(terms[name], image, retain_graph=True)
        direction = random(*content.shape, seed=4) - 0.5
        step = 1e-8 * direction  # few ReLUs change sign on so short a way
        with torch.no_grad():
            ahead, behind = objective(image + step, targets), objective(image - step, targets)
        numeric = float(ahead[name] - behind[name]) / 2e-8
        analytic = float((gradient * direction).sum())
        assert analytic == pytest.approx(numeric, rel=1e-4), name


def test_batch_is_the_mean_of_its_images(encoder, photos):
    """Training: several contents, one style."""
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW)
    image = random(*content.shape, seed=3)

    def losses(content, image):
        return objective(image, objective.targets(content, style, ones(content), ones(style)))

    pair = losses(torch.cat([content, content.flip(3)]), torch.cat([image, content]))
    first, second = losses(content, image), losses(content.flip(3), content)
    for name in ("style", "edges", "energy"):
        mean = (float(first[name]) + float(second[name])) / 2
        assert float(pair[name]) == pytest.approx(mean, rel=1e-9), name
    # The relative content error is taken over the batch as a whole.
    assert float(first["content"]) > float(pair["content"]) > float(second["content"]) / 2


def test_takes_the_layers_it_needs():
    asked = []

    def encoder(layers):
        asked.append(layers)
        return torch.nn.Identity()

    StyleObjective(encoder, content_layers=["relu3_2"], style_layers=("relu1_1", "relu2_2"))
    assert [sorted(layers) for layers in asked] == [["relu1_1", "relu2_2", "relu3_2"]]


# ------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [-1, "abc", float("nan"), float("inf"), True, None], ids=repr)
def test_bad_weight(encoder, name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}_weight={value}: give a number at least 0"):
        StyleObjective(encoder, **SHALLOW, **{f"{name}_weight": value})


def test_bad_share_of_style(encoder):
    with pytest.raises(ArgumentError, match=r"^strangers_style=1.5: give a number from 0 to 1"):
        StyleObjective(encoder, **SHALLOW, strangers_style=1.5)


@pytest.mark.parametrize("argument", ["content_layers", "style_layers"])
@pytest.mark.parametrize("value", [[], (), None, "relu1_1", ""], ids=repr)
def test_bad_layers(encoder, argument, value):
    with pytest.raises(ArgumentError, match=rf"^{argument}=.*: give a list of at least one layer"):
        StyleObjective(encoder, **{**SHALLOW, argument: value})


def test_unknown_layer():
    with pytest.raises(ArgumentError, match=r"^layer=relu7_1: unknown in vgg16; choose among conv"):
        StyleObjective(style_layers=["relu1_1", "relu7_1"])
    with pytest.raises(ArgumentError, match=r"^layer=relu3_4: unknown in vgg16"):
        StyleObjective(partial(VGGFeatures, encoder="vgg16"), content_layers=["relu3_4"])


def test_unknown_statistic(encoder):
    expected = r"^statistic=median: unknown; choose one of gram, mean_and_deviation"
    with pytest.raises(ArgumentError, match=expected):
        StyleObjective(encoder, **SHALLOW, statistic="median")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "tpu"}, r"backend=tpu: unknown; choose one of auto, cuda, cpu, reference"),
        ({"energy_radius": 0}, r"radius=0: give a whole number"),
        ({"energy_radius": 1.5}, r"radius=1\.5: give a whole number"),
        ({"energy_epsilon": 0}, r"epsilon=0: give a number above 0"),
        ({"energy_epsilon": -1}, r"epsilon=-1: give a number"),
    ],
    ids=str,
)
def test_bad_energy(encoder, photos, arguments, message):
    content, style = photos
    with pytest.raises(ArgumentError, match=message):
        StyleObjective(encoder, **SHALLOW, **arguments).targets(
            content, style, ones(content), ones(style)
        )


def test_masks_that_do_not_pair_up(encoder, photos):
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW)
    with pytest.raises(ArgumentError, match=r"^style_masks=1: give one for each of 2"):
        objective.targets(content, style, halves(content), ones(style))
