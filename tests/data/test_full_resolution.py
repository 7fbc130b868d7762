"""apply_coefficients against upsampling the whole at once with PyTorch's own interpolation."""

import numpy as np
import pytest
import torch

from photostyle.data import apply_coefficients


def random_case(grid, size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    coefficients = 0.4 + 0.4 * torch.randn(1, 3, 4, *grid, generator=generator, dtype=dtype)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return coefficients, pixels


def whole(coefficients, pixels):
    size = pixels.shape[:2]
    maps = torch.nn.functional.interpolate(
        coefficients.flatten(1, 2), size=size, mode="bilinear", align_corners=False
    ).unflatten(1, (3, 4))[0]
    guide = torch.from_numpy(pixels).permute(2, 0, 1).to(coefficients.dtype) / 255
    values = (maps[:, :3] * guide).sum(1) + maps[:, 3]
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture
def threads():
    """``torch.set_num_threads``, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 3, 40])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((7, 9), (23, 31)), ((16, 16), (16, 16)), ((13, 40), (52, 161)), ((1, 1), (17, 19))],
    ids=["odd", "same size", "wide", "one coefficient"],
)
def test_equals_interpolation_of_the_whole(grid, size, number, threads):
    """By any number of threads, more of them than rows included."""
    coefficients, pixels = random_case(grid, size)
    threads(number)
    result = apply_coefficients(coefficients, pixels)
    np.testing.assert_array_equal(result, whole(coefficients, pixels))
    assert result.dtype == np.uint8


def test_a_larger_photo():
    coefficients, pixels = random_case((85, 128), (701, 1051))
    expected = whole(coefficients, pixels)
    np.testing.assert_array_equal(apply_coefficients(coefficients, pixels), expected)
    # In float32 a value may fall on the other side of a half.
    single = apply_coefficients(coefficients.float(), pixels)
    assert np.abs(single.astype(int) - expected).max() <= 1
    assert (single != expected).mean() < 1e-3


def test_identity_keeps_every_pixel():
    _, pixels = random_case((1, 1), (64, 48))
    identity = torch.eye(3, 4)[None, :, :, None, None].expand(1, 3, 4, 8, 6)
    np.testing.assert_array_equal(apply_coefficients(identity, pixels), pixels)


def test_clamps_and_leaves_its_arguments_alone():
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels.flags.writeable = False
    coefficients = torch.zeros(1, 3, 4, 4, 4)
    coefficients[:, 0, 0] = 9
    coefficients[:, 1, 3] = -1
    coefficients[:, 2, 3] = 0.5
    before = coefficients.clone()
    result = apply_coefficients(coefficients.requires_grad_(), pixels)
    assert result.reshape(-1, 3).min(0).tolist() == [255, 0, 128]
    assert result.reshape(-1, 3).max(0).tolist() == [255, 0, 128]
    assert torch.equal(coefficients, before)


def test_a_strided_view_of_a_photo():
    coefficients, pixels = random_case((5, 6), (20, 30))
    view = pixels[::-1, ::2]
    result = apply_coefficients(coefficients, view)
    np.testing.assert_array_equal(result, whole(coefficients, view.copy()))


def test_in_place():
    coefficients, pixels = random_case((5, 6), (20, 30))
    expected = apply_coefficients(coefficients, pixels)
    assert apply_coefficients(coefficients, pixels, out=pixels) is pixels
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((30, 20, 3), np.uint8),
        np.zeros((20, 30, 3)),
        np.zeros((20, 60, 3), np.uint8)[:, ::2],
    ],
    ids=["shape", "dtype", "strides"],
)
def test_refuses_as_out(out):
    with pytest.raises(ValueError, match=r"out must be \(20, 30, 3\) uint8 in C order"):
        apply_coefficients(*random_case((5, 6), (20, 30)), out=out)


@pytest.mark.parametrize(
    ("coefficients", "pixels", "message"),
    [
        (torch.zeros(1, 3, 3, 4, 4), np.zeros((8, 8, 3), np.uint8), "must be .1, 3, 4, h, w"),
        (torch.zeros(3, 4, 4, 4), np.zeros((8, 8, 3), np.uint8), "must be .1, 3, 4, h, w"),
        (torch.zeros(1, 3, 4, 4, 4).half(), np.zeros((8, 8, 3), np.uint8), "float32 or float"),
        (torch.zeros(1, 3, 4, 4, 4), np.zeros((8, 8)), "must be .H, W, 3. uint8"),
        (torch.zeros(1, 3, 4, 4, 4), np.zeros((8, 8, 3)), "must be .H, W, 3. uint8"),
    ],
)
def test_refuses(coefficients, pixels, message):
    with pytest.raises(ValueError, match=message):
        apply_coefficients(coefficients, pixels)
