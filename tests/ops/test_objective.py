"""The objective that adds the losses up, by hand; and which it leaves out."""

from functools import partial

import pytest
import torch

from photostyle.ops import (
    GRAM,
    MEAN_STD,
    ArgumentError,
    MattingLaplacian,
    StyleObjective,
    Transport,
    VGGFeatures,
)
from photostyle.ops.filters import edge_magnitude
from photostyle.ops.gram import gram_matrix, mean_std
from photostyle.ops.losses import content_loss, edge_loss, style_loss, total_variation

LOSSES = ["style", "content", "edges", "matting", "total_variation"]
SHALLOW = {
    "content_layers": ["relu2_1"],
    "content_weight": 1.0,
    "style_layers": ["relu1_1", "relu2_1"],
    "layer_weights": None,
}
STYLE_LOSSES = {
    "transport": Transport(),
    "both": Transport(gram_weight=0.5),
    "gram": GRAM,
    "mean_std": MEAN_STD,
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


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


@pytest.fixture(scope="module")
def encoder():
    """One network for all objectives here: features in float64 up to relu2_1."""
    features = VGGFeatures(["relu1_1", "relu2_1"]).double()
    return lambda layers: features


@pytest.mark.parametrize("kind", STYLE_LOSSES)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masks"])
def test_objective_by_hand(encoder, photos, kind, masked):
    content, style = photos
    weights = {"style": 3.0, "content": 2.0, "edges": 5.0, "matting": 50.0, "total_variation": 7.0}
    objective = StyleObjective(
        encoder,
        content_layers=["relu2_1"],
        style_layers=["colours", "relu1_1", "relu2_1"],
        layer_weights=[1, 3, 4],
        **{f"{name}_weight": weight for name, weight in weights.items()},
        style_loss=STYLE_LOSSES[kind],
        matting_radius=2,
        matting_ridge=1e-4,
        backend="reference",
    )
    choose = halves if masked else ones
    targets = objective.targets(content, style, choose(content), choose(style))
    image = random(*content.shape, seed=3)
    terms = objective(image, targets)

    features = [{"colours": x, **encoder(())(x)} for x in (image, content, style)]
    expected = {"content": content_loss(features[0]["relu2_1"], features[1]["relu2_1"])}
    expected["style"] = 0
    for layer, share in (("colours", 1 / 8), ("relu1_1", 3 / 8), ("relu2_1", 4 / 8)):
        # Sizes are even, so that the masks stay exact halves at every layer.
        small_masks = [choose(x[layer]) for x in features]
        if kind in ("transport", "both"):
            statistics = Transport().statistics(layer, features[2][layer], small_masks[2])
            target, *_ = Transport().target(layer, features[1][layer], small_masks[1], statistics)
            expected["style"] += share * content_loss(features[0][layer], target)
        if kind != "transport":
            function = mean_std if kind == "mean_std" else gram_matrix
            actual, target = (function(features[i][layer], small_masks[i]) for i in (0, 2))
            loss = style_loss(actual, target, small_masks[0].flatten(1).mean(1))
            expected["style"] += (0.5 if kind == "both" else 1) * share * loss
    expected["edges"] = edge_loss(edge_magnitude(image), edge_magnitude(content))
    expected["matting"] = MattingLaplacian.with_ridge(content, 2, 1e-4, "reference").matting_loss(
        image
    )[0]
    expected["total_variation"] = total_variation(image)
    assert list(terms) == list(weights)
    for name, loss in expected.items():
        assert float(terms[name]) == pytest.approx(weights[name] * float(loss), rel=1e-9), name
    assert float(terms.total) == pytest.approx(sum(map(float, terms.values())), rel=1e-12)


@pytest.mark.parametrize("weighted", LOSSES)
def test_a_loss_of_weight_zero_is_not_computed(encoder, photos, weighted):
    content, style = photos
    weights = {f"{name}_weight": 0 for name in LOSSES}
    objective = StyleObjective(encoder, **{**SHALLOW, **weights, f"{weighted}_weight": 1})
    targets = objective.targets(content, style, ones(content), ones(style))
    assert (targets.laplacian is None) == (weighted != "matting")
    assert (targets.edges is None) == (weighted != "edges")
    terms = objective(random(*content.shape, seed=3), targets)
    assert list(terms) == [weighted]
    assert float(terms.total) > 0


def test_losses_vanish_at_their_targets(encoder, photos):
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW, matting_weight=1, style_loss=GRAM)
    targets = objective.targets(content, content, ones(content), ones(content))
    at_target = objective(content, targets)
    assert float(at_target["content"]) == 0
    assert float(at_target["style"]) < 1e-20
    assert abs(float(at_target["edges"])) < 1e-9
    away = objective(random(*content.shape, seed=3), targets)
    # The content is an affine function of itself, up to the ridge.
    assert float(at_target["matting"]) < 1e-3 * float(away["matting"])
    targets = objective.targets(style, style.flip(3), ones(style), ones(style))
    # A mirrored photo has another content, but hardly another style.
    mirrored = objective(style.flip(3), targets)
    assert float(mirrored["style"]) < 1e-20
    assert float(mirrored["content"]) > 1e-3


@pytest.mark.parametrize("kind", STYLE_LOSSES)
def test_masks_take_each_part_to_its_own_style(encoder, photos, kind):
    """A content whose halves already have the right styles, but for sides exchanged."""
    content, _ = photos
    alone = {"content_weight": 0, "style_weight": 1, "edges_weight": 0, "matting_weight": 0}
    objective = StyleObjective(encoder, **{**SHALLOW, **alone}, style_loss=STYLE_LOSSES[kind])
    left, right = content, content.flip(1) * 0.4
    image = torch.cat([left, right], dim=3)
    exchanged = torch.cat([right, left], dim=3)
    masks_image = halves(image)
    same = objective.targets(image, exchanged, masks_image, masks_image.flip(0))
    crossed = objective.targets(image, exchanged, masks_image, masks_image)
    # Only the seams differ in the first case; a target for each pixel sees more of them.
    share = 0.25 if kind in ("transport", "both") else 0.15
    assert objective(image, same).total < share * objective(image, crossed).total


@pytest.mark.parametrize("kind", STYLE_LOSSES)
def test_fallback_to_the_whole_style_is_finite(encoder, photos, kind):
    """What data.load_masks gives for a label that the style does not have."""
    content, style = photos
    objective = StyleObjective(encoder, **SHALLOW, style_loss=STYLE_LOSSES[kind])
    fallback = torch.stack([ones(style)[0], ones(style)[0]])
    targets = objective.targets(content, style, halves(content), fallback)
    whole = objective.style_statistics(style, ones(style))
    for layer, statistics in objective.style_statistics(style, fallback).items():
        parts = zip(statistics, whole[layer], strict=True)
        for ours, theirs in (part for part in parts if part[0] is not None):
            torch.testing.assert_close(ours, theirs.expand_as(ours))
    image = content.clone().requires_grad_()
    terms = objective(image, targets)
    (gradient,) = torch.autograd.grad(terms.total, image)
    assert terms["style"] > 0
    assert torch.isfinite(terms.total)
    assert torch.isfinite(gradient).all()


def test_weights_keep_their_meaning_when_the_size_changes(encoder, photos):
    content, style = photos
    objective = StyleObjective(
        encoder, **SHALLOW, matting_weight=1.0, total_variation_weight=1.0, backend="reference"
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
        assert float(large[name]) == pytest.approx(float(small[name]), rel=0.4), name


@pytest.mark.parametrize("kind", STYLE_LOSSES)
def test_gradient_of_the_whole_objective(encoder, photos, kind):
    content, style = photos
    objective = StyleObjective(
        encoder,
        **SHALLOW,
        matting_weight=10,
        total_variation_weight=5,
        style_weight=10,
        style_loss=STYLE_LOSSES[kind],
    )
    targets = objective.targets(content, style, halves(content), halves(style))
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
    for name in ("style", "content", "edges", "matting"):
        mean = (float(first[name]) + float(second[name])) / 2
        assert float(pair[name]) == pytest.approx(mean, rel=1e-9), name


def test_takes_the_layers_it_needs():
    asked = []

    def encoder(layers):
        asked.append(layers)
        return torch.nn.Identity()

    layers = {"style_layers": ("colours", "relu1_1", "relu2_2"), "layer_weights": None}
    StyleObjective(encoder, content_layers=["relu3_2"], content_weight=1, **layers)
    StyleObjective(encoder, content_layers=["relu3_2"], content_weight=0, **layers)
    assert [sorted(layers) for layers in asked] == [
        ["relu1_1", "relu2_2", "relu3_2"],
        ["relu1_1", "relu2_2"],
    ]


# ------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [-1, "abc", float("nan"), float("inf"), True, None], ids=repr)
def test_bad_weight(encoder, name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}_weight={value}: give a number at least 0"):
        StyleObjective(encoder, **{**SHALLOW, f"{name}_weight": value})


@pytest.mark.parametrize("value", [[1], [1, 2, 3], "12", 1, {}], ids=repr)
def test_layer_weights_that_do_not_fit_the_layers(encoder, value):
    with pytest.raises(ArgumentError, match=r"^layer_weights=.*: give a list of 2 numbers"):
        StyleObjective(encoder, **{**SHALLOW, "layer_weights": value})


@pytest.mark.parametrize(
    ("value", "message"), [([1, -1], "give a number at least 0"), ([0, 0], "at least one number")]
)
def test_layer_weights_out_of_range(encoder, value, message):
    with pytest.raises(ArgumentError, match=rf"^layer_weights=.*: .*{message}"):
        StyleObjective(encoder, **{**SHALLOW, "layer_weights": value})


@pytest.mark.parametrize("argument", ["content_layers", "style_layers"])
@pytest.mark.parametrize("value", [[], (), None, "relu1_1", ""], ids=repr)
def test_bad_layers(encoder, argument, value):
    with pytest.raises(ArgumentError, match=rf"^{argument}=.*: give a list of at least one layer"):
        StyleObjective(encoder, **{**SHALLOW, argument: value})


@pytest.mark.parametrize("value", ["gram", None, 1])
def test_what_is_no_style_loss(encoder, value):
    with pytest.raises(ArgumentError, match=rf"^style_loss={value}: give Transport\(\), GRAM or "):
        StyleObjective(encoder, **SHALLOW | {"style_loss": value})


def test_unknown_layer():
    with pytest.raises(
        ArgumentError, match=r"^layers=relu7_1: unknown in vgg16; choose among conv"
    ):
        StyleObjective(style_layers=["relu1_1", "relu7_1"], layer_weights=None)
    encoder = partial(VGGFeatures, model="vgg16")
    with pytest.raises(ArgumentError, match=r"^layers=relu3_4: unknown in vgg16"):
        StyleObjective(encoder, content_layers=["relu3_4"], content_weight=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "tpu"}, r"backend=tpu: unknown; choose one of auto, cuda, cpu, reference"),
        ({"matting_radius": 0}, r"matting_radius=0: give a number at least 1"),
        ({"matting_radius": 1.5}, r"radius=1\.5: give a whole number"),
        ({"matting_ridge": 0}, r"ridge=0: give a number above 0"),
        ({"matting_ridge": -1}, r"matting_ridge=-1: give a number"),
    ],
    ids=str,
)
def test_bad_matting_loss(encoder, photos, arguments, message):
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
