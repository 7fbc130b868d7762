"""LUTs: what is fitted, and what applying one does, against SciPy's interpolation."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from skimage.color import rgb2lab

from photostyle.ops.errors import ArgumentError
from photostyle.ops.lut import Lut
from photostyle.ops.lut_fit import SIZE, fit_lut, lut_residual


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def photo_of(height, width, *, least=0.2, most=0.7):
    """Warm lights, cold shadows: a part of all colours, with greys among them."""
    y, x = torch.meshgrid(
        torch.linspace(least, most, height, dtype=torch.float64),
        torch.linspace(-0.1, 0.1, width, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([y + x, y, y - x])[None]


def greys(count=1001):
    return torch.linspace(0, 1, count, dtype=torch.float64).expand(1, 3, 1, count)


def graded(photo):
    """A grade as editors make: a curve, and less of a colour."""
    curve = photo**1.3
    return 0.9 * curve + 0.1 * curve.mean(1, keepdim=True)


def table(lut):
    return lut.table.astype(np.float64)


def random_lut(*shape, **domain):
    return Lut(np.random.default_rng(0).random(shape, np.float32), **domain)


# ---------------------------------------------------------------------------------------- applying


@pytest.mark.parametrize("size", [2, 5, 33])
def test_trilinear_within_the_domain_and_clamped_beyond(size):
    low, high = (-0.5, 0.0, 0.2), (1.0, 2.0, 0.7)
    lut = random_lut(size, size, size, 3, low=low, high=high)
    axes = [np.linspace(*ends, size) for ends in zip(low, high, strict=True)]
    expected = RegularGridInterpolator(axes, table(lut))
    image = 3 * random(2, 3, 20, 30) - 1
    inside = image.movedim(1, -1).numpy().clip(low, high)
    by_hand = torch.from_numpy(expected(inside)).movedim(-1, 1)
    assert lut(image).dtype == torch.float64
    torch.testing.assert_close(lut(image), by_hand, rtol=0, atol=1e-5)  # measured 3e-6


def test_curves():
    lut = Lut(np.array([[0, 1, 0.5], [1, 0, 0.5], [0, 1, 0.9]], np.float32), (0, 0, 0), (1, 2, 1))
    colours = np.array([[0.25, 0.5, 0.75], [2, -1, 1]], np.float32)
    np.testing.assert_allclose(lut.look_up(colours), [[0.5, 0.5, 0.7], [0, 1, 0.9]], atol=1e-6)


# ----------------------------------------------------------------------------------------- fitting


def test_the_photo_itself_has_the_identity():
    photo = photo_of(40, 60)
    lattice = np.moveaxis(np.indices((SIZE,) * 3), 0, -1) / (SIZE - 1)
    np.testing.assert_allclose(fit_lut(photo, photo).table, lattice, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "residual"),
    [(graded, 0.1), (lambda photo: 0.7 * photo.flip(1) + 0.1, 0.3)],
    ids=["grade", "channels exchanged"],
)
def test_says_what_a_map_of_colours_says(change, residual):
    """Measured 0.03 and 0.1 ΔE*ab; the photo itself is 6 and more away."""
    photo = photo_of(60, 80)
    lut = fit_lut(photo, change(photo))
    identity = fit_lut(photo, photo)
    assert lut_residual(lut, photo, change(photo)) < residual
    assert lut_residual(identity, photo, change(photo)) > 5


def test_residual_is_the_root_mean_square_of_the_distance_in_lab():
    photo, image, weights = random(1, 3, 9, 11), random(1, 3, 9, 11, seed=1), random(9, 11, seed=2)
    lut = random_lut(5, 5, 5, 3)
    lab = [rgb2lab(picture[0].movedim(0, -1).numpy()) for picture in (lut(photo), image)]
    squares = torch.from_numpy(np.square(lab[0] - lab[1]).sum(-1))
    by_hand = ((squares * weights).sum() / weights.sum()).sqrt().item()
    assert lut_residual(lut, photo, image, weights) == pytest.approx(by_hand, rel=1e-5)


def test_what_depends_on_the_place_is_left():
    """One half of the same colours lighter, one darker: the mean of both, and the rest is told."""
    photo = photo_of(40, 60)
    image = photo.clone()
    image[..., :30] += 0.1
    image[..., 30:] -= 0.1
    mirrored = torch.cat([photo, photo], 3)
    lut = fit_lut(mirrored, torch.cat([photo + 0.1, photo - 0.1], 3))
    torch.testing.assert_close(lut(photo), photo, rtol=0, atol=1e-3)
    assert 8 < lut_residual(lut, mirrored, torch.cat([photo + 0.1, photo - 0.1], 3)) < 12


def test_goes_on_as_the_affine_map_of_the_photo():
    """Colours far from the photo's: by the same contrast and shift, in [0, 1]."""
    photo = 0.3 + 0.2 * random(1, 3, 60, 80)
    lut = fit_lut(photo, 0.8 * photo + 0.05)
    colours = random(1, 3, 30, 30, seed=3)
    # Measured 0.01; the identity is 0.15 away.
    torch.testing.assert_close(lut(colours), 0.8 * colours + 0.05, rtol=0, atol=0.02)
    steep = fit_lut(photo, (2.5 * photo - 0.6).clamp(0, 1))
    assert table(steep).min() == 0
    assert table(steep).max() == 1


def test_a_photo_of_one_colour_shifts_all():
    photo = torch.full((1, 3, 16, 16), 0.4, dtype=torch.float64)
    shift = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)[None, :, None, None]
    lut = fit_lut(photo, photo + shift)
    colours = 0.2 + 0.6 * random(1, 3, 20, 20)
    torch.testing.assert_close(lut(colours), colours + shift, rtol=0, atol=1e-3)


def test_greys_rise_even_where_the_photo_has_them_fall():
    """The light wall is made darker than the dark one; by any interpolation no grey falls."""
    photo = photo_of(60, 80)
    image = photo + 0.5 * (0.45 - photo) * (photo > 0.45)
    image[:, :, 40:] -= 0.2
    lut = fit_lut(photo, image)
    corners = lut.table[(np.arange(SIZE),) * 3]
    assert np.diff(corners, axis=0).min() >= 0
    assert lut(greys()).diff(dim=3).min() >= -1e-6
    without = np.diff(image[0, :, :, 40].numpy(), axis=1).min()
    assert without < -0.1  # or else there would have been nothing to do


def test_smooth():
    """Slopes change little from step to step, of 1/32, though the image is noisy."""
    photo = photo_of(80, 120)
    noise = 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)).double()
    lut = fit_lut(photo, (graded(photo) + noise).clamp(0, 1))
    bends = [np.abs(np.diff(table(lut), 2, axis=axis)) for axis in range(3)]
    assert max(bend.max() for bend in bends) < 0.045  # measured 0.03
    assert lut_residual(lut, photo, graded(photo)) < 2  # measured 1.3; of the noise 10


def test_pixels_that_do_not_count():
    photo = torch.cat([photo_of(40, 60), photo_of(40, 60)], 3)
    image = torch.cat([graded(photo_of(40, 60)), torch.zeros(1, 3, 40, 60).double()], 3)
    weights = torch.zeros(40, 120)
    weights[:, :60] = 1
    lut = fit_lut(photo, image, weights)
    assert lut_residual(lut, photo, image, weights) < 0.1
    expected = fit_lut(photo_of(40, 60), graded(photo_of(40, 60)))
    np.testing.assert_allclose(lut.table, expected.table, atol=2e-3)  # measured 5e-4


@pytest.mark.parametrize("shape", [(4, 4, 4, 2), (3, 4, 5, 3), (1, 3), (4, 4, 3), (3,)])
def test_a_table_that_is_none(shape):
    with pytest.raises(ArgumentError, match=r"^table=.*: give \(N, N, N, 3\) or \(N, 3\)"):
        Lut(np.zeros(shape, np.float32))
    with pytest.raises(ArgumentError, match=r"^table=float64: give float32"):
        Lut(np.zeros((4, 3)))


def test_images_that_are_none():
    lut = Lut(np.zeros((4, 3), np.float32))
    with pytest.raises(ArgumentError, match=r"^image=\(1, 4, 8, 8\): give \(B, 3, H, W\)"):
        lut(torch.rand(1, 4, 8, 8))
    with pytest.raises(ArgumentError, match=r"^image=torch.uint8: give floating-point"):
        lut(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
