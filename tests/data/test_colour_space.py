"""What numbers mean: against LittleCMS through Pillow, and against the formulas."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from photostyle.data.colour_space import ColourSpace, adobe_rgb_profile, colour_space
from photostyle.data.vips import libvips

SRGB = ImageCms.createProfile("sRGB")


def p3_profile():
    return libvips().Image.profile_load("p3")


PROFILES = {"adobe": adobe_rgb_profile, "p3": p3_profile}


@pytest.fixture(params=PROFILES)
def profile(request):
    return PROFILES[request.param]()


def colours(count, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top + 1, (20, count, 3), dtype, endpoint=False)


def test_as_littlecms(profile):
    """Where sRGB has the colour; LittleCMS rounds to 8 bits and cuts the rest."""
    pixels = colours(500)
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    options = {"renderingIntent": ImageCms.Intent.RELATIVE_COLORIMETRIC}
    image = ImageCms.profileToProfile(Image.fromarray(pixels), source, SRGB, **options)
    expected = np.asarray(image)
    found = ColourSpace(profile).to_srgb(pixels) * 255
    inside = ((expected > 0) & (expected < 255)).all(-1)
    assert inside.mean() > 0.4
    difference = np.abs(found - expected)[inside]
    assert difference.max() < 2
    assert difference.mean() < 0.4


def test_adobe_rgb_by_its_formula():
    """Adobe RGB (1998), 4.3; both have the white of D65."""
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    from_xyz = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.204, 1.057]]
    pixels = colours(500, np.uint16)
    light = (pixels / 65_535) ** (563 / 256) @ np.transpose(to_xyz) @ np.transpose(from_xyz)
    size = np.abs(light)
    encoded = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    found = ColourSpace(adobe_rgb_profile()).to_srgb(pixels)
    difference = np.abs(found - np.copysign(encoded, light))
    assert difference.mean() < 2e-3
    assert difference.max() < 0.03  # close to black, where the curve of sRGB is steep


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_there_and_back(profile, dtype):
    """Also of colours that sRGB lacks."""
    space, pixels = ColourSpace(profile), colours(500, dtype)
    image = space.to_srgb(pixels)
    assert (image.min(), image.max()) < (-0.1, 1.5)
    difference = np.abs(space.levels(image) / 65_535 - pixels / np.iinfo(dtype).max)
    # Close to black the curves that LittleCMS gives are coarse.
    assert difference.max() < 5e-3
    assert difference.mean() < 1e-4


def test_what_a_space_cannot_say_is_cut(profile):
    image = np.array([[[2.0, -2.0, 0.5]]], np.float32)
    levels = ColourSpace(profile).levels(image)
    assert levels[0, 0, :2].tolist() == [65_535, 0]


def test_srgb_is_told_by_its_numbers():
    assert colour_space(None) is None
    assert colour_space(ImageCms.ImageCmsProfile(SRGB).tobytes()) is None
    assert colour_space(libvips().Image.profile_load("srgb")) is None
    assert colour_space(p3_profile()) is not None


def test_a_profile_that_is_a_table(table_profile):
    """Of a printer, say: no three curves and a matrix."""
    with pytest.raises(ValueError, match="no curves and matrix"):
        ColourSpace(table_profile)


@pytest.mark.parametrize("steepness", [10, 1e4])
def test_curves_beyond_all_light_are_no_colours(steepness):
    """(a x + b)^10, finite or not in the precision that photos are computed in."""
    parameters = (round(65_536 * number) for number in (10, steepness, 0))
    curve = b"para" + bytes(4) + struct.pack(">Hxx3i", 1, *parameters)
    profile = bytearray(adobe_rgb_profile())
    for tag in (b"rTRC", b"gTRC", b"bTRC"):
        struct.pack_into(">II", profile, profile.index(tag) + 4, len(profile), len(curve))
    with pytest.raises(ValueError, match="no curves and matrix"):
        ColourSpace(bytes(profile + curve))
