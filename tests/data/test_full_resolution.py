"""apply_coefficients against upsampling the whole at once with PyTorch's own interpolation.

And apply_to_photo: photos of 8 and 16 bits, with and without a colour space of their own.
"""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from photostyle.data import Photo, apply_coefficients, apply_to_photo, full_resolution
from photostyle.data.colour_space import adobe_rgb_profile

DEPTHS = pytest.mark.parametrize("depth", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
IDENTITY = torch.eye(3, 4)[None, :, :, None, None]
# Light of red, green and blue in XYZ: Adobe RGB (1998), 4.3.5.3, and IEC 61966-2-1.
ADOBE_RGB = np.array(
    [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
)
SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def random_pixels(size, depth=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(depth).max, (*size, 3), depth, True)


def random_case(grid, size, depth=np.uint8):
    generator = torch.Generator().manual_seed(0)
    coefficients = 0.4 + 0.4 * torch.randn(1, 3, 4, *grid, generator=generator, dtype=torch.float64)
    return coefficients, random_pixels(size, depth)


def whole(coefficients, pixels):
    size = pixels.shape[:2]
    maps = torch.nn.functional.interpolate(
        coefficients.flatten(1, 2), size=size, mode="bilinear", align_corners=False
    ).unflatten(1, (3, 4))[0]
    white = np.iinfo(pixels.dtype).max
    guide = torch.from_numpy(pixels / white).permute(2, 0, 1).to(coefficients.dtype)
    values = (maps[:, :3] * guide).sum(1) + maps[:, 3]
    return (values.clamp(0, 1) * white).permute(1, 2, 0).numpy()


def assert_rounded(result, expected, error=1e-9):
    """16 bits to nearest; 8 bits to one of both neighbours, and on average to what is between."""
    difference = result - expected
    if result.dtype == np.uint16:
        assert np.abs(difference).max() <= 0.5 + error
        return
    assert np.abs(difference).max() < 0.98 + error
    between = np.abs(expected - np.rint(expected)) > 0.1
    if between.sum() > 1000:
        assert abs(difference[between].mean()) < 0.02


@pytest.fixture
def threads():
    """``torch.set_num_threads``, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@DEPTHS
@pytest.mark.parametrize("number", [1, 3, 40])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((7, 9), (23, 31)), ((16, 16), (16, 16)), ((13, 40), (52, 161)), ((1, 1), (17, 19))],
    ids=["odd", "same size", "wide", "one coefficient"],
)
def test_equals_interpolation_of_the_whole(grid, size, number, depth, threads):
    """By any number of threads, more of them than rows included."""
    coefficients, pixels = random_case(grid, size, depth)
    threads(number)
    result = apply_coefficients(coefficients, pixels)
    assert_rounded(result, whole(coefficients, pixels))
    assert result.dtype == depth
    threads(2)
    np.testing.assert_array_equal(result, apply_coefficients(coefficients, pixels))


@DEPTHS
def test_a_larger_photo(depth):
    coefficients, pixels = random_case((85, 128), (701, 1051), depth)
    expected = whole(coefficients, pixels)
    assert_rounded(apply_coefficients(coefficients, pixels), expected)
    # A float32 has 24 bits: a level of 16 is its 256th step.
    single = apply_coefficients(coefficients.float(), pixels)
    assert_rounded(single, expected, error=1e-3 if depth == np.uint8 else 0.05)


def test_a_smooth_sky_of_eight_bits_keeps_no_bands():
    """Blurred as by the eye it is nearer to what it would be without any rounding."""
    y, x = np.mgrid[0:200, 0:300]
    sky = np.stack([90 + y / 8, 130 + y / 9 + x / 60, 120 + y / 14 - x / 40], -1)
    coefficients = torch.cat([1.5 * torch.eye(3), torch.full((3, 1), -0.1)], 1)
    pixels = np.rint(sky).astype(np.uint8)
    found = apply_coefficients(coefficients[None, :, :, None, None], pixels)
    expected, nearest = 1.5 * sky - 25.5, np.rint(1.5 * pixels - 25.5)
    errors = [gaussian_filter(image - expected, (2, 2, 0)).std() for image in (found, nearest)]
    assert errors[0] < 0.6 * errors[1]
    np.testing.assert_array_equal(
        found, apply_coefficients(coefficients[None, :, :, None, None], pixels)
    )


@DEPTHS
@pytest.mark.parametrize("profile", [None, adobe_rgb_profile()], ids=["sRGB", "Adobe RGB"])
def test_identity_keeps_every_pixel(profile, depth, monkeypatch):
    """To the bit, in the darkest and the most saturated colours, too, and in several strips."""
    pixels = random_pixels((64, 48), depth)
    pixels[:8] //= 64
    pixels[8:16, :, 1:] = 0
    monkeypatch.setattr(full_resolution, "STRIP_PIXELS", 5 * 48)
    photo = Photo(pixels.copy(), icc_profile=profile)
    result = apply_to_photo(IDENTITY.expand(1, 3, 4, 8, 6), photo)
    np.testing.assert_array_equal(result.pixels, pixels)
    assert (result.pixels.dtype, result.icc_profile) == (depth, profile)
    again = apply_to_photo(IDENTITY.expand(1, 3, 4, 8, 6), photo, in_place=True)
    np.testing.assert_array_equal(again.pixels, pixels)


@DEPTHS
def test_without_a_profile_it_is_apply_coefficients(depth):
    coefficients, pixels = random_case((5, 6), (40, 60), depth)
    alpha = random_pixels((40, 60), depth)[..., 0]
    result = apply_to_photo(coefficients, Photo(pixels, alpha))
    np.testing.assert_array_equal(result.pixels, apply_coefficients(coefficients, pixels))
    np.testing.assert_array_equal(result.alpha, alpha)


def adobe_rgb_as_srgb(levels):
    """Levels from 0 to 1, (..., 3) each; of colours that sRGB lacks, beyond that."""
    light = levels ** (563 / 256) @ (np.linalg.inv(SRGB) @ ADOBE_RGB).T
    size = np.abs(light)
    encoded = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(encoded, light)


def srgb_as_adobe_rgb(levels):
    size = np.abs(levels)
    decoded = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    light = np.copysign(decoded, levels) @ (np.linalg.inv(ADOBE_RGB) @ SRGB).T
    return light.clip(0, 1) ** (256 / 563)


def applied_in_srgb(coefficients, levels):
    """The same coefficients everywhere, in Adobe RGB from 0 to 1."""
    maps = coefficients[0, :, :, 0, 0].double().numpy()
    return srgb_as_adobe_rgb(adobe_rgb_as_srgb(levels) @ maps[:, :3].T + maps[:, 3])


@DEPTHS
@pytest.mark.parametrize("in_place", [False, True])
def test_in_the_colour_space_of_the_photo(depth, in_place, monkeypatch):
    """As to sRGB, there, and back, by the standards' own numbers in float64."""
    coefficients = IDENTITY * 0.5 + torch.tensor([0.3, 0.1, 0.2])[None, :, None, None, None] / 4
    pixels, white = random_pixels((40, 60), depth), np.iinfo(depth).max
    by_hand = white * applied_in_srgb(coefficients, pixels / white)

    monkeypatch.setattr(full_resolution, "STRIP_PIXELS", 7 * 60)
    photo = Photo(pixels.copy(), icc_profile=adobe_rgb_profile())
    result = apply_to_photo(coefficients.expand(1, 3, 4, 5, 6), photo, in_place=in_place)
    assert (result.pixels is photo.pixels) == in_place
    assert (result.pixels.dtype, result.icc_profile) == (depth, photo.icc_profile)
    # A fraction of a level of 8 bits: both matrices have five digits.
    assert_rounded(result.pixels, by_hand, error=0.15 * white / 255)
    # The same numbers taken for those of sRGB give another result.
    wrong = apply_coefficients(coefficients, pixels)
    assert np.abs(wrong - by_hand).max() > 10 * white / 255


def test_shadows_in_the_colour_space_of_the_photo():
    """Made brighter they have no steps: near black a curve is steep."""
    grey = np.arange(16 * 256, dtype=np.uint16).reshape(16, 256)
    photo = Photo(grey[..., None].repeat(3, 2), icc_profile=adobe_rgb_profile())
    result = apply_to_photo(2.5 * IDENTITY, photo)
    by_hand = 65535 * applied_in_srgb(2.5 * IDENTITY, photo.pixels / 65535)
    assert np.abs(result.pixels - by_hand).max() <= 0.15 * 257
    assert (np.diff(result.pixels[..., 1].ravel().astype(int)) >= 0).all()


def test_clamps_and_leaves_its_arguments_alone():
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels.flags.writeable = False
    coefficients = torch.zeros(1, 3, 4, 4, 4)
    coefficients[:, 0, 0] = 9
    coefficients[:, 1, 3] = -1
    coefficients[:, 2, 3] = 128 / 255
    before = coefficients.clone()
    result = apply_coefficients(coefficients.requires_grad_(), pixels)
    assert result.reshape(-1, 3).min(0).tolist() == [255, 0, 128]
    assert result.reshape(-1, 3).max(0).tolist() == [255, 0, 128]
    assert torch.equal(coefficients, before)


def test_a_strided_view_of_a_photo():
    coefficients, pixels = random_case((5, 6), (20, 30))
    view = pixels[::-1, ::2]
    result = apply_coefficients(coefficients, view)
    np.testing.assert_array_equal(result, apply_coefficients(coefficients, view.copy()))


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
        (torch.zeros(1, 3, 4, 4, 4), np.zeros((8, 8)), "must be .H, W, 3. uint8 or uint16, not"),
        (torch.zeros(1, 3, 4, 4, 4), np.zeros((8, 8, 3)), "must be .H, W, 3. uint8 or uint16"),
        (torch.zeros(1, 3, 4, 4, 4), np.zeros((8, 8, 3), np.int16), "must be .H, W, 3. uint8 or"),
    ],
)
def test_refuses(coefficients, pixels, message):
    with pytest.raises(ValueError, match=message):
        apply_coefficients(coefficients, pixels)
