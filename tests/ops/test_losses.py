"""Losses against their definitions in NumPy."""

import numpy as np
import pytest
import torch
from skimage.filters import sobel
from skimage.metrics import structural_similarity

from photostyle.ops import LossTerms
from photostyle.ops.filters import edge_magnitude, ssim
from photostyle.ops.gram import gram_matrix, mean_std
from photostyle.ops.losses import content_loss, edge_loss, style_loss, total_variation
from photostyle.ops.metrics import edge_ssim


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
def test_mean_std_by_hand(kind, batch):
    features, weights = random(batch, 4, 6, 5) - 0.3, masks(kind)
    actual = mean_std(features, weights).numpy()
    assert actual.shape == (batch, len(weights), 8)
    for b in range(batch):
        for m, mask in enumerate(weights.numpy()):
            for c, channel in enumerate(features[b].numpy()):
                mean = np.average(channel, weights=mask)
                deviation = np.sqrt(np.average((channel - mean) ** 2, weights=mask))
                assert actual[b, m, c] == pytest.approx(mean, rel=1e-12)
                assert actual[b, m, 4 + c] == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("statistic", [gram_matrix, mean_std])
def test_statistics_do_not_depend_on_the_scale_of_a_mask(statistic):
    features, weights = random(2, 4, 6, 5), masks("soft")
    torch.testing.assert_close(statistic(features, weights / 7), statistic(features, weights))


@pytest.mark.parametrize("statistic", [gram_matrix, mean_std])
@pytest.mark.parametrize("kind", ["whole", "hard", "soft"])
def test_gradients_of_statistics(statistic, kind):
    features = random(2, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: statistic(f, masks(kind)), features)


def test_gram_matrix_is_differentiable_twice():
    features = random(2, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda f: gram_matrix(f, masks("soft")), features)


@pytest.mark.parametrize("statistic", [gram_matrix, mean_std])
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
    statistics = mean_std(features, torch.ones(1, 4, 4))
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
    features = black.reshape(1, shape[1], -1, 2)
    losses = style_loss(black, torch.zeros(shape), areas), content_loss(features, features.detach())
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, black)
        assert loss == 0
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("size", [(11, 11), (33, 20)])
def test_edges_against_scikit_image(size):
    content, image = random(1, 3, *size), random(1, 3, *size, seed=1)
    edges = []
    for photo in (content, image):
        luma = np.einsum("c,chw->hw", (0.299, 0.587, 0.114), photo[0].numpy())
        edges.append(sobel(luma))
        np.testing.assert_allclose(edge_magnitude(photo)[0, 0], edges[-1], atol=2e-5)
    magnitudes = edge_magnitude(image), edge_magnitude(content)
    for data_range, ours in ((1, ssim(*magnitudes)), (2, 1 - edge_loss(*magnitudes))):
        theirs = structural_similarity(
            *edges,
            gaussian_weights=True,
            sigma=1.5,
            data_range=data_range,
            use_sample_covariance=False,
        )
        assert float(ours) == pytest.approx(theirs, abs=2e-5)
    assert edge_ssim(content, image) == pytest.approx(float(ssim(*magnitudes)), abs=1e-12)


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
    two = LossTerms({"style": torch.tensor(10.0), "matting": torch.tensor(100.0)})
    both = one + two
    assert {name: float(value) for name, value in both.items()} == {
        "content": 1,
        "style": 12,
        "matting": 100,
    }
    assert list(both) == ["content", "style", "matting"]
    assert len(both) == 3
    assert float(both.total) == 113
    assert (float(one.total), float(two.total)) == (3, 110)  # neither was changed
    assert str(one) == "content 1  style 2  total 3"
    with pytest.raises(KeyError):
        both["total_variation"]


def test_loss_terms_detach():
    weight = torch.tensor(3.0, requires_grad=True)
    terms = LossTerms({"content": weight * 2})
    assert terms.total.requires_grad
    assert not terms.detach().total.requires_grad
    assert float(terms.detach().total) == 6


def test_a_black_target_is_no_division_by_zero():
    """Errors count as beside two hundredths of white, weights or not."""
    image, black = torch.full((2, 3, 4, 5), 0.5), torch.zeros(2, 3, 4, 5)
    assert content_loss(image, black).item() == pytest.approx(0.25 / 4e-4)
    left = (torch.arange(5) < 2).float().expand(4, 5)
    assert content_loss(image, black, left).item() == pytest.approx(0.25 / 4e-4)
    assert content_loss(image, image + 0.1).item() == pytest.approx(0.01 / 0.36)
