"""The optimisation of one image: what it returns, also when it ends early."""

import math
import signal
from contextlib import suppress

import pytest
import torch

from photostyle import optimize
from photostyle.ops import (
    ArgumentError,
    GuidedFilter,
    LossTerms,
    MattingLaplacian,
    StyleObjective,
    VGGFeatures,
)
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.colour_transfer import colour_transfer
from photostyle.ops.tone_curve import reachable_mean
from photostyle.ops.tones import from_tones, to_tones
from photostyle.optimize import Descent, OptimizedImage
from photostyle.optimize.image_optimizer import INITS

SCHEDULE = {"steps": [3, 3]}
HEIGHT, WIDTH = 40, 52


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photo(height, width, seed):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    smooth = torch.stack([x * y, (x + y) / 2, 0.5 + 0.4 * torch.sin((4 + seed) * x)])
    return (0.85 * smooth[None] + 0.15 * random(1, 3, height, width, seed=seed)).clamp(0, 1)


@pytest.fixture(scope="module")
def content():
    return photo(HEIGHT, WIDTH, 0)


@pytest.fixture(scope="module")
def style():
    return photo(36, 32, 5).flip(1) * torch.tensor([0.9, 0.5, 0.3]).view(3, 1, 1)


def shallow(**arguments):
    return StyleObjective(
        **{
            "content_layers": ["relu2_1"],
            "content_weight": 1.0,
            "style_layers": ["relu1_1", "relu2_1"],
            "layer_weights": None,
            "matting_weight": 1e3,
        }
        | arguments
    )


@pytest.fixture(scope="module")
def objective():
    return shallow()


def optimize_image(*arguments, **options):
    """The function under test; the options of its optimiser are given beside its own.

    Without the last map of colours: the result is then what the best step has seen.
    """
    options.setdefault("keep_contrast", False)
    names = {"optimizer": "name", "learning_rate": "learning_rate", "steps": "steps"}
    descent = {names[key]: options.pop(key) for key in names if key in options}
    return optimize.optimize_image(*arguments, optimizer=Descent(**descent), **options)


class Recorder(list):
    """A callback that keeps every step, and raises at one of them."""

    def __init__(self, at=None, error=KeyboardInterrupt):
        super().__init__()
        self.at = at
        self.error = error

    def __bool__(self):
        return True  # also while it is empty

    def __call__(self, step):
        self.append(step)
        if step.number == self.at:
            raise self.error

    @property
    def best(self):
        return min(self, key=lambda step: float(step.terms.total))


class BreaksDown(torch.nn.Module):
    """An objective whose loss is NaN, or infinite, from one evaluation on."""

    def __init__(self, objective, at, value=math.nan):
        super().__init__()
        self.objective, self.at, self.value = objective, at, value
        self.weights = objective.weights
        self.evaluations = 0

    def targets(self, *arguments, **options):
        return self.objective.targets(*arguments, **options)

    def forward(self, image, targets):
        self.evaluations += 1
        terms = self.objective(image, targets)
        extra = self.value if self.evaluations >= self.at else 0.0
        return terms + LossTerms({"style": image.new_tensor(extra)})


def halves(image):
    left = image.new_zeros(image.shape[2:])
    left[:, : image.shape[3] // 2] = 1
    return torch.stack([left, 1 - left])


def applied(result, content):
    slopes, offset = result.coefficients[:, :, :3], result.coefficients[:, :, 3]
    return torch.einsum("bkchw,bchw->bkhw", slopes, content) + offset


# ----------------------------------------------------------------------------------------- result


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_result(content, style, objective, optimizer):
    steps = Recorder()
    before = content.clone(), style.clone()
    result = optimize_image(
        content,
        style,
        objective,
        steps=[6],
        optimizer=optimizer,
        learning_rate=1.0 if optimizer == "lbfgs" else 0.02,
        callback=steps,
    )
    assert isinstance(result, OptimizedImage)
    assert result.stopped is None
    assert result.image.shape == content.shape
    assert result.image.dtype == torch.float32
    assert not result.image.requires_grad
    assert result.image.min() >= 0
    assert result.image.max() <= 1
    assert result.coefficients.shape == (1, 3, 4, HEIGHT, WIDTH)
    torch.testing.assert_close(result.image, applied(result, content).clamp(0, 1))
    # It is the best of all steps, and better than the first.
    assert float(result.terms.total) == float(steps.best.terms.total)
    assert float(result.terms.total) < 0.9 * float(steps[0].terms.total)
    torch.testing.assert_close(result.image, steps.best.image.clamp(0, 1), rtol=0, atol=1e-4)
    # Neither photo was written to.
    assert torch.equal(content, before[0])
    assert torch.equal(style, before[1])


def test_callback(content, style, objective):
    steps = Recorder()
    result = optimize_image(content, style, objective, **SCHEDULE, callback=steps)
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 6
    assert {step.total for step in steps} == {6}
    sizes = [step.size for step in steps]
    assert set(sizes) == {26, 52}
    assert sizes == sorted(sizes)
    for step in steps:
        assert step.image.shape == (1, 3, *((20, 26) if step.size == 26 else (HEIGHT, WIDTH)))
        assert not step.image.requires_grad
        assert list(step.terms) == ["style", "content", "edges", "matting"]
        assert not step.terms.total.requires_grad
        assert math.isfinite(step.terms.total)
    # The next scale goes on from the last one's result: it does not start again.
    alone = Recorder()
    optimize_image(content, style, objective, steps=[1], callback=alone)
    first_of_fine = steps[sizes.index(52)]
    assert float(first_of_fine.terms.total) < float(alone[0].terms.total)
    best = min(float(step.terms.total) for step in steps if step.size == 52)
    assert float(result.terms.total) == best


@pytest.mark.parametrize(
    ("options", "sizes", "total"),
    [
        ({}, [52], 10),
        ({"colour_map": False}, [26, 52], 40),
        ({"guided_filter": None}, [26, 52], 40),
        ({"steps": [1, 2, 3]}, [16, 26, 52], 6),  # at least 16 pixels a side
    ],
)
def test_scales_and_steps(content, style, objective, options, sizes, total):
    """Each scale has twice the size of the one before; a map of colours needs one alone."""
    steps = Recorder(at=total)
    optimize_image(content, style, objective, **options, callback=steps)
    assert list(dict.fromkeys(step.size for step in steps)) == sizes
    assert {step.total for step in steps} == {total}


def test_the_guided_filter_makes_photos(content, style, objective):
    """From noise, which is no photo: what remains of it is affine in the content."""
    laplacian = MattingLaplacian(content, 1, 1e-5)
    free = shallow(matting_weight=0)
    options = {"steps": [3], "init": "noise"}
    result = optimize_image(content, style, free, **options, guided_filter=GuidedFilter(radius=8))
    noisy = optimize_image(content, style, free, **options, guided_filter=None)
    assert noisy.coefficients is None
    assert noisy.image.shape == content.shape
    assert (noisy.image.min() >= 0, noisy.image.max() <= 1) == (True, True)
    assert laplacian.matting_loss(result.image) < 0.05 * laplacian.matting_loss(noisy.image)


def test_a_smoother_filter_follows_the_content_less(content, style, objective):
    """From the content, a larger ridge keeps less of its contrast beyond the closed form's."""
    # Not L-BFGS: how often its line search may look differs between versions of PyTorch.
    options = {"steps": [1], "init": "content", "optimizer": "adam"}
    errors = [
        float(
            (
                optimize_image(
                    content, style, objective, **options, guided_filter=GuidedFilter(4, ridge)
                ).image
                - content
            )
            .square()
            .mean()
        )
        for ridge in (1e-5, 1e-3, 1e-1)
    ]
    assert errors == sorted(errors)
    assert errors[2] > 5 * errors[0]


@pytest.mark.parametrize("guided_filter", [GuidedFilter(), None], ids=["guided_filter", "none"])
def test_same_seed_same_bits(content, style, objective, guided_filter):
    options = {"steps": [2], "init": "noise", "guided_filter": guided_filter}
    first, again, other = (
        optimize_image(content, style, objective, **options, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)


def test_the_global_random_state_is_neither_used_nor_changed(content, style, objective):
    options = {"steps": [1], "init": "noise"}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = optimize_image(content, style, objective, **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(optimize_image(content, style, objective, **options).image, first.image)


def test_inits(content, style, objective):
    """Each starts where its name says: seen before the first step has moved it."""
    starts = {}
    given = content.flip(3)
    for init in (*INITS, given):
        steps = Recorder()
        result = optimize_image(
            content,
            style,
            objective,
            steps=[1],
            init=init,
            guided_filter=None,
            callback=steps,
        )
        assert result.stopped is None
        starts[init if isinstance(init, str) else "image"] = steps[0].image
    torch.testing.assert_close(starts["content"], content, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(starts["image"], given, rtol=1e-5, atol=1e-6)
    mean = style.mean((2, 3))
    torch.testing.assert_close(starts["style"].mean((2, 3)), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(starts["colour_transfer"].mean((2, 3)), mean, rtol=0, atol=0.03)
    assert not torch.equal(starts["style"], starts["colour_transfer"])
    # The correlation of a row with the next: noise has none.
    for init, image in starts.items():
        above, below = image[:, :, :-1].flatten(), image[:, :, 1:].flatten()
        correlation = float(torch.corrcoef(torch.stack([above, below]))[0, 1])
        assert (correlation > 0.5) == (init != "noise"), init


def test_image_of_another_size_to_start_from(content, style, objective):
    with pytest.raises(ArgumentError, match=r"^init=\(1, 3, 5, 6\): give an image of \(1, 3, "):
        optimize_image(content, style, objective, init=torch.zeros(1, 3, 5, 6))


def test_masks(content, style, objective):
    """Each half takes the light of its own half, and exchanged masks exchange them."""
    content = (content + content.flip(3)) / 2  # as bright on the left as on the right
    style = style.clone()
    style[..., style.shape[3] // 2 :] *= 0.2
    masks = {"content_masks": halves(content), "style_masks": halves(style)}
    options = {"steps": [2]}
    result = optimize_image(content, style, objective, **options, **masks)
    left, right = result.image[..., : WIDTH // 2 - 8], result.image[..., WIDTH // 2 + 8 :]
    assert left.mean() > 1.6 * right.mean()
    masks["style_masks"] = masks["style_masks"].flip(0)
    result = optimize_image(content, style, objective, **options, **masks)
    left, right = result.image[..., : WIDTH // 2 - 8], result.image[..., WIDTH // 2 + 8 :]
    assert right.mean() > 1.6 * left.mean()
    # Without, one light for all.
    whole = optimize_image(content, style, objective, **options).image
    assert 0.9 < whole[..., : WIDTH // 2].mean() / whole[..., WIDTH // 2 :].mean() < 1.1


@pytest.mark.parametrize("kind", ["grey", "flat", "black", "16 px", "16 px wide", "odd"])
def test_difficult_contents(style, objective, kind):
    content = {
        "grey": photo(32, 40, 1).mean(1, keepdim=True).expand(1, 3, 32, 40),
        "flat": torch.full((1, 3, 32, 40), 0.5),
        "black": torch.zeros(1, 3, 32, 40),
        "16 px": photo(16, 16, 1),
        "16 px wide": photo(64, 16, 1),
        "odd": photo(33, 47, 1),
    }[kind]
    result = optimize_image(content, style, objective, **SCHEDULE)
    assert result.stopped is None
    assert result.image.shape == content.shape
    assert torch.isfinite(result.image).all()
    assert torch.isfinite(result.coefficients).all()


def reachable(photo, style):
    """The mean that a photo takes after a style's, a value of one channel."""
    means = (to_tones(x).mean((2, 3)) for x in (photo, style))
    return float(from_tones(reachable_mean(*means)).mean())


@pytest.mark.parametrize("value", [0.0, 0.5], ids=["black", "grey"])
def test_flat_styles(content, objective, value):
    flat = torch.full((1, 3, 32, 32), value)
    result = optimize_image(content, flat, objective, **SCHEDULE)
    assert result.stopped is None
    assert torch.isfinite(result.image).all()
    assert float(result.image.mean()) == pytest.approx(reachable(content, flat), abs=0.05)


def test_the_default_objective_takes_16_pixels(style):
    result = optimize_image(photo(16, 16, 1), style, StyleObjective(VGGFeatures), steps=[1, 1])
    assert result.stopped is None
    assert torch.isfinite(result.image).all()


# --------------------------------------------------------------------------------- ended early


@pytest.mark.parametrize("at", [3, 5, 7])
def test_interrupted(content, style, objective, at):
    """Ctrl-C in the first scale, and in the second: the best so far."""
    steps = Recorder(at)
    schedule = {"steps": [4, 6]}
    result = optimize_image(content, style, objective, **schedule, callback=steps)
    assert result.stopped == "interrupted"
    assert len(steps) == at
    assert result.image.shape == content.shape
    assert torch.isfinite(result.image).all()
    torch.testing.assert_close(result.image, applied(result, content).clamp(0, 1))
    same_scale = [step for step in steps if step.size == steps[-1].size]
    best = min(same_scale, key=lambda step: float(step.terms.total))
    assert float(result.terms.total) == float(best.terms.total)
    if best.size == WIDTH:
        torch.testing.assert_close(result.image, best.image.clamp(0, 1), rtol=0, atol=1e-4)
    else:
        small = torch.nn.functional.interpolate(result.image, best.image.shape[2:], mode="area")
        assert (small - best.image.clamp(0, 1)).square().mean().sqrt() < 0.08


def test_an_interrupt_that_an_import_loses(content, style, objective, monkeypatch):
    """PyTorch imports its compilers with the first optimiser; these catch what is raised then."""
    real = torch.optim.LBFGS

    def importing(*arguments, **options):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(torch.optim, "LBFGS", importing)
    steps = Recorder()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = optimize_image(content, style, objective, **SCHEDULE, callback=steps)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert result.stopped == "interrupted"


def test_interrupted_between_two_scales(content, style):
    """Then the result of the coarser one counts."""

    class Interrupts(StyleObjective):
        def targets(self, content, *arguments, **options):
            if max(content.shape) == WIDTH:
                raise KeyboardInterrupt
            return super().targets(content, *arguments, **options)

    objective = Interrupts(style_layers=["relu1_1"], layer_weights=None)
    steps = Recorder()
    result = optimize_image(content, style, objective, **SCHEDULE, callback=steps)
    assert result.stopped == "interrupted"
    assert {step.size for step in steps} == {26}
    assert float(result.terms.total) == float(steps.best.terms.total)
    assert result.image.shape == content.shape
    assert result.coefficients.shape == (1, 3, 4, HEIGHT, WIDTH)
    torch.testing.assert_close(result.image, applied(result, content).clamp(0, 1))


@pytest.mark.parametrize("where", ["targets", "features"])
def test_interrupted_before_the_first_step(content, style, objective, where):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    broken = shallow(content_weight=2.0)
    if where == "targets":
        broken.targets = interrupt
    else:
        broken.forward = interrupt
    steps = Recorder()
    result = optimize_image(
        content, style, broken, **SCHEDULE, callback=steps, init="content", guided_filter=None
    )
    assert result.stopped == "interrupted"
    assert result.terms is None
    assert len(steps) == 0
    torch.testing.assert_close(result.image, content, rtol=0, atol=0.2)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=repr)
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_loss_that_is_not_finite(content, style, objective, optimizer, value):
    steps = Recorder()
    result = optimize_image(
        content,
        style,
        BreaksDown(objective, 4, value),
        steps=[9],
        optimizer=optimizer,
        learning_rate=1.0 if optimizer == "lbfgs" else 0.02,
        callback=steps,
    )
    assert "not finite at step 4" in result.stopped
    assert "\n" not in result.stopped
    assert len(steps) == 3
    assert torch.isfinite(result.image).all()
    assert float(result.terms.total) == float(steps.best.terms.total)
    torch.testing.assert_close(result.image, steps.best.image.clamp(0, 1), rtol=0, atol=1e-4)


def test_keeps_the_contrast_of_the_closed_form(content, style, objective):
    """One affine map after the last step: the mean is that of the closed form, blacks are black."""
    options = {"steps": [6], "init": "content"}
    plain, kept = (
        optimize_image(content, style, objective, **options, keep_contrast=keep)
        for keep in (False, True)
    )
    base = apply_affine(colour_transfer(content, style), content).clamp(0, 1)
    before, after = ((image - base).mean((2, 3)).abs().max() for image in (plain.image, kept.image))
    assert after < 0.02 < before
    assert kept.image.mean(1).std() > 0.9 * base.mean(1).std()
    torch.testing.assert_close(kept.image, applied(kept, content).clamp(0, 1))
    assert optimize_image(content, style, objective, **options, guided_filter=None).terms


def test_adds_a_map_of_colours_and_nothing_else(content, style, objective):
    """What is added to the closed form is nearer to a map of the content's colours."""
    options = {"steps": [8], "guided_filter": GuidedFilter(2, 1e-3)}
    base = apply_affine(colour_transfer(content, style), content)
    left = []
    for colour_map in (True, False):
        result = optimize_image(content, style, objective, colour_map=colour_map, **options)
        added = applied(result, content) - base
        left.append((added - NearestColourMap(content)(added)).square().mean())
        torch.testing.assert_close(result.image, applied(result, content).clamp(0, 1))
    assert left[0] < 0.5 * left[1]


@pytest.mark.parametrize("argument", ["content", "style"])
def test_photo_that_is_not_finite(content, style, objective, argument):
    photos = {"content": content.clone(), "style": style.clone()}
    photos[argument][0, 0, 3, 3] = math.nan
    with pytest.raises(ArgumentError, match=rf"^{argument}=nan: give values in \[0, 1\]"):
        optimize_image(**photos, objective=objective, **SCHEDULE)


@pytest.mark.parametrize(
    ("argument", "change", "message"),
    [
        ("content", lambda x: (255 * x).byte(), "torch.uint8: give float32"),
        ("content", lambda x: x.expand(2, *x.shape[1:]), r"\(2, 3, 40, 52\): give one photo"),
        ("content", lambda x: x.new_full(x.shape, 255), r"255: give values in \[0, 1\]"),
        ("style", lambda x: x.expand(2, *x.shape[1:]), r"\(2, 3, 36, 32\): give one photo"),
        ("style", lambda x: x[:, :1], r"\(1, 1, 36, 32\): give 3 channels"),
        ("init", lambda _: torch.full((1, 3, HEIGHT, WIDTH), 2.0), r"2: give values in \[0, 1\]"),
    ],
)
def test_photo_that_is_none(content, style, objective, argument, change, message):
    arguments = {"content": content, "style": style}
    arguments[argument] = change(arguments.get(argument))
    with pytest.raises(ArgumentError, match=rf"^{argument}={message}"):
        optimize_image(**arguments, objective=objective, **SCHEDULE)


@pytest.mark.parametrize("init", ["colour_transfer", "content", "style", "image"])
def test_half_precision_is_computed_in_float32(content, style, objective, init):
    results = []
    for dtype in (torch.float16, torch.float32):
        photos = [photo.half().to(dtype) for photo in (content, style)]
        start = photos[0].flip(3) if init == "image" else init
        results.append(optimize_image(*photos, objective, init=start, **SCHEDULE).image)
    assert results[0].dtype == torch.float32
    torch.testing.assert_close(*results)


def test_photos_of_inference_mode(content, style, objective):
    with torch.inference_mode():
        photos = {"content": content.clone(), "style": style.clone(), "init": content.flip(3)}
        masks = {"content_masks": halves(content), "style_masks": halves(style)}
    result = optimize_image(**photos, objective=objective, **SCHEDULE, **masks)
    ordinary = {name: value.clone() for name, value in (photos | masks).items()}
    expected = optimize_image(**ordinary, objective=objective, **SCHEDULE)
    assert torch.equal(result.image, expected.image)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_masks_of_any_dtype(content, style, objective, dtype):
    masks = {"content_masks": halves(content), "style_masks": halves(style)}
    expected = optimize_image(content, style, objective, **SCHEDULE, **masks)
    masks = {name: mask.to(dtype) for name, mask in masks.items()}
    result = optimize_image(content, style, objective, **SCHEDULE, **masks)
    torch.testing.assert_close(result.image, expected.image, rtol=0, atol=1e-3)


def test_untouched_it_is_the_colour_transfer(content, style, objective):
    """A single step keeps all texture, whatever the guided filter would take of it."""
    texture = 0.02 * torch.rand(content.shape, generator=torch.Generator().manual_seed(1))
    content = 0.9 * content + texture
    seen = Recorder()
    style = 0.25 + 0.5 * style
    options = {"steps": [1], "guided_filter": GuidedFilter(8, 1e-1)}
    optimize_image(content, style, objective, **options, callback=seen)
    expected = apply_affine(colour_transfer(content, style), content)
    assert 0 < expected.min() < expected.max() < 1
    torch.testing.assert_close(seen[0].image, expected, rtol=0, atol=1e-5)


def test_another_error_is_not_swallowed(content, style, objective):
    with pytest.raises(ZeroDivisionError):
        optimize_image(
            content, style, objective, **SCHEDULE, callback=Recorder(2, ZeroDivisionError)
        )


# ------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": []}, r"^steps=\[\]: give one number for each of 1 to 6 scales"),
        ({"steps": [1] * 7}, r"^steps=\[1, 1, 1, 1, 1, 1, 1\]: give one number for each of 1 to 6"),
        ({"steps": 3}, "^steps=3: give a list, one number for each scale"),
        ({"steps": "33"}, "^steps=33: give a list, one number for each scale"),
        ({"steps": [0, 1]}, "^steps=0: give a number at least 1"),
        ({"steps": [1, True]}, "^steps=True: give a whole number of at least 1"),
        ({"steps": [1, -1]}, "^steps=-1: give a number"),
        ({"steps": [1, 1.5]}, r"^steps=1\.5: give a whole number"),
        ({"optimizer": "sgd"}, r"^optimizer=sgd: unknown; choose one of lbfgs, adam"),
        ({"init": "zeros"}, r"^init=zeros: unknown; choose one of colour_transfer, content, noise"),
        ({"learning_rate": -1}, r"^learning_rate=-1: give a number at least 0"),
        ({"learning_rate": "fast"}, r"^learning_rate=fast: give a number at least 0"),
        ({"init": torch.full((1, 3, HEIGHT, WIDTH), torch.nan)}, "^init=nan: give values in"),
        ({"content_masks": torch.ones(1, HEIGHT, WIDTH)}, r"^style_masks=None: give masks of both"),
        ({"style_masks": torch.ones(1, 36, 32)}, r"^content_masks=None: give masks of both photos"),
        (
            {
                "content_masks": torch.ones(1, HEIGHT, WIDTH),
                "style_masks": torch.ones(2, 36, 32),
                "init": "content",
            },
            r"^style_masks=2: give one for each of 1",
        ),
        ({"steps": 30}, r"^steps=30: give a list"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[1:16],
)
def test_wrong_value(content, style, objective, arguments, message):
    steps = Recorder()
    with pytest.raises(ArgumentError, match=message):
        optimize_image(content, style, objective, **{**SCHEDULE, **arguments}, callback=steps)
    assert len(steps) == 0


def test_a_plain_photo_in_black():
    """Relative to black every error is infinite; it still gets as near as it may."""
    plain, black = torch.full((1, 3, 24, 32), 0.5), torch.zeros(1, 3, 24, 32)
    found = optimize_image(plain, black, StyleObjective(), steps=[3, 3])
    assert found.stopped is None
    torch.testing.assert_close(
        found.image, torch.full_like(plain, reachable(plain, black)), rtol=0, atol=0.02
    )


def test_nothing_to_minimise(content, style):
    nothing = StyleObjective(style_weight=0, edges_weight=0, matting_weight=0)
    with pytest.raises(ArgumentError, match=r"^style_weight=0: give a weight above 0"):
        optimize_image(content, style, nothing)


def test_a_line_has_no_windows(style):
    """It is refused at once; without a guided filter it is a content like any other."""
    line, steps = torch.rand(1, 3, 40, 1), []
    with pytest.raises(ArgumentError, match=r"^content=\(1, 3, 40, 1\): give at least 3 x 3"):
        optimize_image(line, style, StyleObjective(), steps=[2], callback=steps.append)
    assert not steps
    found = optimize_image(line, style, StyleObjective(), steps=[2], guided_filter=None)
    assert found.image.shape == line.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ridge": 0}, "ridge=0: give a number above 0"),
        ({"ridge": -1e-3}, "ridge=-0.001: give a number"),
        ({"ridge": "abc"}, "ridge=abc: give a number"),
        ({"ridge": math.nan}, "ridge=nan: give a number"),
        ({"radius": 0}, "radius=0: give a number at least 1"),
        ({"radius": "abc"}, "radius=abc: give a whole number"),
        ({"backend": "tpu"}, "backend=tpu: unknown; choose one of auto"),
    ],
    ids=str,
)
def test_wrong_guided_filter(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        GuidedFilter(**arguments)
