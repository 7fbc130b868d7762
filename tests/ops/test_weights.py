"""Pixels that count less, as where a photo is transparent: half a photo with weight 1 and the rest
with weight 0 is that half alone."""

import pytest
import torch

from photostyle.ops import Transport
from photostyle.ops.colour_map import NearestColourMap, nearest_colour_map
from photostyle.ops.colour_transfer import (
    COLOURED_NOISE,
    colour_moments,
    colour_transfer,
    match_colours,
    restore_contrast,
)
from photostyle.ops.gram import pixel_weights
from photostyle.ops.losses import content_loss, edge_loss
from photostyle.ops.objective import StyleObjective
from photostyle.ops.regions import describe, segment_together
from photostyle.ops.style_losses import COLOURS, GRAM
from photostyle.ops.transport import shares

HEIGHT, WIDTH = 32, 48
HALF = WIDTH // 2


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def photo():
    return random(1, 3, HEIGHT, WIDTH)


@pytest.fixture
def weights():
    """1 on the left, 0 on the right."""
    return (torch.arange(WIDTH) < HALF).double().expand(HEIGHT, WIDTH)


def left(image):
    return image[..., :HALF].contiguous()


def test_shares():
    masks = torch.tensor([[0.2, 0.0, -0.1], [0.2, 0.0, 0.3]])
    assert shares(masks).tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 1.0]]


def test_weights_of_masks(weights):
    masks = torch.stack([0.3 * weights, 0.7 * weights])
    assert torch.allclose(pixel_weights(masks), weights)
    assert pixel_weights(torch.stack([weights, 1 - weights])) is None


def test_content_loss(photo, weights):
    other = random(1, 3, HEIGHT, WIDTH, seed=1)
    found = content_loss(photo, other, weights)
    torch.testing.assert_close(found, content_loss(left(photo), left(other)))
    ones = torch.ones_like(weights)
    torch.testing.assert_close(content_loss(photo, other, ones), content_loss(photo, other))


def test_edge_loss(weights):
    edges = random(2, 1, HEIGHT, WIDTH)
    other = random(2, 1, HEIGHT, WIDTH, seed=1)
    # A window is 11 pixels wide: what is seen by one in the left half is left of column 29.
    narrow = (torch.arange(WIDTH) < HALF - 5).double().expand(HEIGHT, WIDTH)
    found = edge_loss(edges, other, narrow)
    torch.testing.assert_close(found, edge_loss(left(edges), left(other)))
    ones = torch.ones_like(weights)
    torch.testing.assert_close(edge_loss(edges, other, ones), edge_loss(edges, other))


@pytest.mark.parametrize("layer", [COLOURS, "relu1_1"])
def test_transport(photo, weights, layer):
    loss, style = Transport(), random(1, 3, 20, 20, seed=1) ** 2
    statistics = loss.statistics(layer, style, torch.ones(1, 20, 20))
    whole = loss.target(layer, photo, weights[None], statistics)
    half = loss.target(layer, left(photo), torch.ones(1, HEIGHT, HALF), statistics)
    torch.testing.assert_close(left(whole[0]), half[0])
    image = random(1, 3, HEIGHT, WIDTH, seed=2)
    torch.testing.assert_close(loss(image, whole), loss(left(image), half))


def test_gram(photo, weights):
    masks = torch.ones(1, HEIGHT, HALF, dtype=torch.float64)
    torch.testing.assert_close(
        GRAM.statistics("relu1_1", photo, weights[None]),
        GRAM.statistics("relu1_1", left(photo), masks),
    )


def test_colour_transfer():
    reach = 2 * COLOURED_NOISE.radius  # windows over windows look across the cut
    half = reach + 40
    photo = random(1, 3, 40, 2 * half)
    weights = (torch.arange(2 * half) < half).double().expand(40, -1)
    alone = photo[..., :half].contiguous()
    style = random(1, 3, 20, 20, seed=1) ** 2
    ones = torch.ones(1, 20, 20, dtype=torch.float64)
    found = colour_transfer(photo, style, weights[None], ones)
    same = colour_transfer(photo, style, weights[None], ones, curvature=0)
    torch.testing.assert_close(same[..., :half], colour_transfer(alone, style, curvature=0))
    far = slice(half - reach)
    torch.testing.assert_close(found[..., far], colour_transfer(alone, style)[..., far])


def test_masks_at_a_cut_keep_their_sum(photo, weights):
    """Where nothing counts the maps are some, and finite."""
    masks = torch.stack([weights * 0.4, weights * 0.6])
    style = random(1, 3, 20, 20, seed=1)
    ones = torch.ones(2, 20, 20, dtype=torch.float64)
    assert colour_transfer(photo, style, masks, ones).isfinite().all()


def test_matching(photo, weights):
    style = colour_moments(random(1, 3, 9, 9, seed=1), torch.ones(1, 9, 9, dtype=torch.float64))
    found = match_colours(photo, style, weights=weights)
    torch.testing.assert_close(left(found), match_colours(left(photo), style))


def test_contrast(photo, weights):
    base = random(1, 3, HEIGHT, WIDTH, seed=1)
    found = restore_contrast(photo, base, weights)
    torch.testing.assert_close(left(found), restore_contrast(left(photo), left(base)))


def test_colour_map(photo, weights):
    image = random(1, 3, HEIGHT, WIDTH, seed=1)
    found = NearestColourMap(photo, pixel_weights=weights)(image)
    torch.testing.assert_close(left(found), NearestColourMap(left(photo))(left(image)))
    found = nearest_colour_map(photo, image, pixel_weights=weights)
    torch.testing.assert_close(left(found), nearest_colour_map(left(photo), left(image)))


def test_gradient_of_the_colour_map():
    photo, image = random(1, 3, 6, 7), random(1, 2, 6, 7, seed=1).requires_grad_()
    nearest = NearestColourMap(photo, pixel_weights=random(6, 7, seed=2))
    assert torch.autograd.gradcheck(nearest, (image,))


def test_objective(weights):
    """What an image shows where nothing counts is no loss of style."""
    content, style = random(1, 3, HEIGHT, WIDTH), random(1, 3, 24, 24, seed=1)
    content, style = content.float(), style.float()
    objective = StyleObjective(style_layers=(COLOURS,), layer_weights=None, matting_weight=0)
    targets = objective.targets(content, style, weights[None].float(), torch.ones(1, 24, 24))
    image = content.clone()
    image[..., HALF + 8 :] = 0.5
    losses = [objective(x, targets) for x in (content, image)]
    torch.testing.assert_close(losses[0]["style"], losses[1]["style"])
    torch.testing.assert_close(losses[0]["edges"], losses[1]["edges"])


def test_regions():
    """A half that is not compared takes no region for itself: only those of the other are left."""
    y = torch.linspace(0, 1, 96)[:, None].expand(96, 128)
    sky = torch.stack([0.3 * y, 0.5 * y, 1 - 0.2 * y])
    ground = torch.stack([0.5 * y, 0.4 * y, 0.1 * y]) + 0.2 * torch.rand(
        3, 96, 128, generator=torch.Generator().manual_seed(0)
    )
    content = torch.cat([sky, ground], 1)[None].clamp(0, 1)
    hidden = torch.ones(192, 128)
    hidden[96:] = 0
    whole, _ = segment_together(describe(content), describe(content))
    seen, style = segment_together(describe(content, hidden), describe(content, hidden))
    for masks in (whole, seen, style):
        torch.testing.assert_close(masks.sum(0), torch.ones(192, 128))
    other = content.clone()
    other[:, :, 140:] = 0.5
    again, _ = segment_together(describe(other, hidden), describe(content, hidden))
    assert (again[:, :60] - seen[:, :60]).abs().mean() < 0.05
