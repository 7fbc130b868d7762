"""The network of the feed-forward mode: what it is at the start, at any size, in any layout."""

import pytest
import torch
from torch import nn

from photostyle.feedforward import TransformNet
from photostyle.feedforward.transform_net import BASES, instance_norm
from photostyle.ops import ArgumentError
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import GAINS, NOISE_VARIANCE, colour_moments, colour_transfer
from photostyle.ops.tones import CURVATURE
from photostyle.ops.transport import EXACT

# Odd, of each remainder by 4, square and long, and the least that is allowed.
SIZES = [(8, 8), (8, 64), (9, 11), (16, 16), (17, 33), (30, 21), (31, 40), (65, 34)]


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photo(height, width, seed=0, batch=1):
    """Smooth colours and some grain; each image of a batch has its own."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    images = [
        torch.stack([x * y, (x + y) / 2, 0.5 + 0.4 * torch.sin((4 + seed + i) * x)])
        for i in range(batch)
    ]
    grain = random(batch, 3, height, width, seed=seed)
    return (0.8 * torch.stack(images) + 0.2 * grain).clamp(0, 1)


@pytest.fixture(scope="module")
def style():
    return 0.2 + 0.5 * photo(36, 32, 5).flip(1) * torch.tensor([0.9, 0.5, 0.3]).view(3, 1, 1)


def whole(image):
    return image.new_ones(1, *image.shape[2:])


def untrained(style, **arguments):
    torch.manual_seed(0)
    return TransformNet(**{"width": 4, "blocks": 2, "style": style} | arguments)


def apply(net, content):
    """The network's output before anything is filtered."""
    return net(*net.start(content).inputs)


def trained(style, **arguments):
    """As after some steps: the last convolution is not zero any more."""
    net = untrained(style, **arguments)
    nn.init.normal_(net.output.weight, std=0.1)
    nn.init.normal_(net.output.bias, std=0.1)
    return net.requires_grad_(False)


def starts(style, content, curvature=CURVATURE):
    """What each base is, by other means."""
    return {
        "colour_transfer": torch.cat(
            [
                apply_affine(colour_transfer(image, style, curvature=curvature), image)
                for image in content.split(1)
            ]
        ),
        "content": content,
        "none": content,
    }


# -------------------------------------------------------------------------------------- the output


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size(style, size, base):
    net = trained(style, base=base)
    nn.init.normal_(net.output.weight, std=10)  # far into the saturation
    content = photo(*size, batch=2)
    before = content.clone()
    result = apply(net, content)
    assert result.shape == content.shape
    assert result.dtype == torch.float32
    assert torch.equal(content, before)
    limit = 0.5 if base == "none" else 1
    residual = result - (0.5 if base == "none" else net.start(content).base)
    assert residual.abs().max() <= limit + 1e-6
    assert residual.abs().max() > 0.9 * limit


@pytest.mark.parametrize("curvature", [0, CURVATURE])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_starts_at_its_base(style, size, base, curvature):
    net = untrained(style, base=base, curvature=curvature)
    content = photo(*size, batch=3)
    _, start, coefficients = net.start(content)
    # The moments of the style are kept in float32.
    expected = starts(style, content, curvature)[base]
    torch.testing.assert_close(start, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(apply_affine(coefficients.expand(3, 3, 4, *size), content), start)
    result = apply(net, content)
    assert torch.equal(result, torch.full_like(result, 0.5) if base == "none" else start)


def test_the_base_has_the_moments_of_the_style(style):
    content = photo(60, 50, batch=2)
    expected = colour_moments(style, whole(style))
    for image in apply(untrained(style, gains=EXACT, curvature=0), content).split(1):
        mean, covariance = colour_moments(image, whole(image))
        torch.testing.assert_close(mean, expected[0], rtol=0, atol=1e-6)
        # The noise that it adds to both covariances is what they can differ by.
        torch.testing.assert_close(covariance, expected[1], rtol=0, atol=NOISE_VARIANCE)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("base", BASES)
def test_no_grid_on_a_plain_photo(style, base, value):
    """Neither from the borders nor from the strides, though not a multiple of them."""
    content = torch.full((1, 3, 37, 46), value)
    # The worst measured is 0.
    result = apply(trained(style, base=base), content)
    torch.testing.assert_close(result, result[:, :, :1, :1].expand_as(result), rtol=0, atol=1e-5)


# ----------------------------------------------------------------------------------- the same again


@pytest.mark.parametrize("base", BASES)
def test_layouts(style, base):
    net = trained(style, base=base)
    content = photo(30, 45, batch=2)
    last = content.contiguous(memory_format=torch.channels_last)
    sliced = photo(60, 90, batch=2)[:, :, ::2, ::2].copy_(content)
    assert not sliced.is_contiguous()
    expected = apply(net, content)
    for other in (last, sliced):
        torch.testing.assert_close(apply(net, other), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("base", BASES)
def test_a_batch_equals_its_photos(style, base):
    """Each has its own moments and its own normalisation."""
    net = trained(style, base=base)
    content = photo(35, 28, batch=3)
    singles = torch.cat([apply(net, image) for image in content.split(1)])
    # The worst measured is 3.4e-6.
    torch.testing.assert_close(apply(net, content), singles, rtol=0, atol=1e-5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16(style, base, autocast):
    """The base keeps its precision; the residual has the three digits that bfloat16 has."""
    net = trained(style, base=base)
    content = photo(48, 52, batch=2)
    expected_start, expected = net.start(content).base, apply(net, content)
    if not autocast:
        net.convolve_in(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        start, result = net.start(content).base, apply(net, content)
    assert torch.equal(start, expected_start)
    assert result.dtype == torch.float32
    assert not torch.equal(result, expected)
    # The worst measured are 0.083 and 0.0066, of residuals up to 0.98.
    error = (result - expected).abs()
    assert error.max() < 0.12
    assert error.mean() < 0.01


@pytest.mark.parametrize("base", BASES)
def test_compiled(style, base):
    """As one graph, for any backend of torch.compile."""
    net = trained(style, base=base)
    content = photo(26, 31, batch=2)
    inputs = net.start(content).inputs
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), net(*inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 5, 16])
def test_instance_norm(channels):
    """nn.InstanceNorm2d, values and gradients."""
    ours, theirs = instance_norm(channels), nn.InstanceNorm2d(channels, affine=True)
    with torch.no_grad():
        for ours_, theirs_ in zip(ours.parameters(), theirs.parameters(), strict=True):
            theirs_.copy_(ours_.normal_())
    x, weight = random(2, channels, 9, 14), random(2, channels, 9, 14, seed=1)
    results, gradients = [], []
    for norm in (ours, theirs):
        leaf = (7 * x - 3).requires_grad_()
        y = norm(leaf)
        (y * weight).sum().backward()
        results.append(y)
        gradients.append([leaf.grad, *(parameter.grad for parameter in norm.parameters())])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("base", BASES)
def test_gradients_reach_every_parameter(style, base):
    net = trained(style, base=base).requires_grad_()
    (apply(net, photo(33, 38, batch=2)) - 0.1).square().mean().backward()
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            assert parameter.grad.isfinite().all(), (module, name)
            # The normalisation takes away what a bias before it adds.
            if module is net.output or not isinstance(module, nn.Conv2d) or name != "bias":
                assert parameter.grad.abs().max() > 0, (module, name)


def test_an_untrained_network_learns(style):
    """It starts from zero, and yet its last convolution has a gradient."""
    net = untrained(style)
    (apply(net, photo(32, 32)) - 0.1).square().mean().backward()
    assert net.output.weight.grad.abs().max() > 0
    assert net.output.bias.grad.abs().max() > 0


def test_the_architecture_makes_the_network_again(style):
    net = trained(style, width=3, blocks=1, curvature=0.3)
    again = TransformNet(**net.architecture)
    again.load_state_dict(net.state_dict())
    content = photo(24, 25)
    assert torch.equal(apply(again, content), apply(net, content))
    assert net.architecture == {
        "width": 3, "blocks": 1, "base": "colour_transfer", "gains": GAINS, "curvature": 0.3
    }  # fmt: skip


def test_no_blocks(style):
    content = photo(20, 20)
    assert apply(trained(style, blocks=0), content).shape == content.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, r"^width=0: give a number from 1 to 1024"),
        ({"width": -1}, r"^width=-1: give a number from 1"),
        ({"width": 1025}, r"^width=1025: give a number from 1 to 1024"),
        ({"width": 1.5}, r"^width=1\.5: give a whole number"),
        ({"width": "wide"}, r"^width=wide: give a whole number"),
        ({"width": True}, r"^width=True: give a whole number"),
        ({"blocks": -1}, r"^blocks=-1: give a number from 0 to 1024"),
        ({"blocks": 1025}, r"^blocks=1025: give a number from 0"),
        ({"blocks": None}, r"^blocks=None: give a whole number"),
        ({"base": "style"}, r"^base=style: unknown; choose one of colour_transfer, content, none"),
        ({"base": None}, r"^base=None: unknown; choose one of"),
        ({"curvature": 1}, r"^curvature=1: give a number from 0 to 0\.99"),
    ],
    ids=str,
)
def test_wrong_value(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TransformNet(**arguments)
