"""Affine colour maps of every pixel: applied, resized, blended with the identity."""

import pytest
import torch

from photostyle.ops.affine import apply_affine, blend_affine, resize_affine


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_apply_by_hand():
    coefficients, image = random(2, 5, 4, 6, 7), random(2, 3, 6, 7, seed=1)
    expected = torch.einsum("bkchw,bchw->bkhw", coefficients[:, :, :3], image)
    expected = expected + coefficients[:, :, 3]
    torch.testing.assert_close(apply_affine(coefficients, image), expected)


def test_resize_keeps_maps_that_are_the_same_everywhere():
    coefficients = random(1, 3, 4, 1, 1).expand(-1, -1, -1, 6, 7)
    resized = resize_affine(coefficients, (11, 20))
    assert resized.shape == (1, 3, 4, 11, 20)
    torch.testing.assert_close(resized, coefficients[..., :1, :1].expand_as(resized))
    assert resize_affine(coefficients, (6, 7)) is coefficients


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_blend_of_maps_is_the_blend_of_their_results(strength):
    coefficients, image = random(1, 3, 4, 6, 7), random(1, 3, 6, 7, seed=1)
    result = apply_affine(blend_affine(coefficients, strength), image)
    expected = torch.lerp(image, apply_affine(coefficients, image), strength)
    torch.testing.assert_close(result, expected)
