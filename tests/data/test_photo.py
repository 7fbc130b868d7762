"""From a photo to what is computed with, and back: colour spaces, transparency, depth."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from photostyle.data import Metadata, Photo, load_image, load_photo, save_image
from photostyle.data.colour_space import adobe_rgb_profile, colour_space
from photostyle.ops import ArgumentError

HEIGHT, WIDTH = 40, 60


def smooth(dtype=np.uint8):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = np.stack([x / (WIDTH - 1), y / (HEIGHT - 1), 0.3 + 0.3 * np.sin(x / 9)], -1)
    return (planes * np.iinfo(dtype).max).round().astype(dtype)


def disc(dtype=np.uint8):
    """Opaque in the middle, with a soft border."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    opacity = np.clip((14 - np.hypot(y - 20, x - 30)) / 3, 0, 1)
    return (opacity * np.iinfo(dtype).max).round().astype(dtype)


def with_hidden(pixels, alpha, value):
    return np.where(alpha[..., None] == 0, np.asarray(value, pixels.dtype), pixels)


class TestColourSpace:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("size", [None, 30])
    def test_tensor_is_in_srgb(self, dtype, size):
        profile = adobe_rgb_profile()
        image = colour_space(profile).to_srgb(smooth(np.uint16)).clip(0, 1)
        found = Photo(smooth(dtype), icc_profile=profile).tensor(size)
        if size is None:
            expected = torch.from_numpy(image).permute(2, 0, 1)[None]
            assert (found - expected).abs().max() < (0.04 if dtype == np.uint8 else 1e-6)
            assert (found - expected).abs().mean() < 2e-3
        assert (found.min(), found.max()) >= (0, 0)
        assert found.max() <= 1
        assert found.shape == (1, 3, *((HEIGHT, WIDTH) if size is None else (20, 30)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_with_image_is_the_way_back(self, dtype):
        photo = Photo(smooth(dtype), icc_profile=adobe_rgb_profile())
        # Not far from grey, where sRGB has all colours.
        gentle = Photo(photo.pixels // 6 + photo.white // 5 * 2, icc_profile=photo.icc_profile)
        result = photo.with_image(gentle.tensor())
        assert result.pixels.dtype == dtype
        assert result.icc_profile == photo.icc_profile
        levels = np.abs(result.pixels.astype(int) - gentle.pixels)
        assert levels.max() <= (1 if dtype == np.uint8 else 64)

    def test_in_srgb(self):
        photo = Photo(smooth(np.uint16), icc_profile=adobe_rgb_profile())
        result = photo.in_srgb()
        assert (result.pixels.dtype, result.icc_profile) == (np.uint8, None)
        assert (result.tensor() - photo.tensor()).abs().max() <= 0.51 / 255

    def test_a_profile_that_is_a_table_is_applied_when_the_file_is_read(
        self, tmp_path, table_profile
    ):
        options = {"photometric": "rgb", "iccprofile": table_profile}
        tifffile.imwrite(tmp_path / "a.tif", smooth(), **options)
        loaded = load_photo(tmp_path / "a.tif")
        assert loaded.icc_profile is None
        assert np.abs(loaded.pixels.astype(int) - smooth()).max() > 20


class TestTransparency:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("size", [None, 30])
    def test_what_is_hidden_changes_nothing(self, dtype, size):
        pixels, alpha = smooth(dtype), disc(dtype)
        photos = [
            Photo(with_hidden(pixels, alpha, value), alpha)
            for value in (0, np.iinfo(dtype).max, np.iinfo(dtype).max // 3)
        ]
        tensors = [photo.tensor(size) for photo in photos]
        assert torch.equal(tensors[0], tensors[1])
        assert torch.equal(tensors[0], tensors[2])
        assert torch.equal(photos[0].opacity(size), photos[1].opacity(size))

    def test_what_is_seen_is_what_is_there(self):
        pixels, alpha = smooth(), disc()
        tensor = Photo(pixels, alpha).tensor()[0].permute(1, 2, 0).numpy()
        seen = alpha > 255 / 16
        assert np.abs(255 * tensor - pixels)[seen].max() <= 0.51
        # The rest has the colour of the border.
        border = pixels.astype(int)[(alpha > 255 / 32) & (alpha < 200)]
        low, high = border.min(0) - 1, border.max(0) + 1
        hidden = 255 * tensor[alpha == 0]
        assert ((hidden >= low) & (hidden <= high)).all()

    def test_opacity(self):
        opacity = Photo(smooth(), disc()).opacity()
        assert opacity.shape == (HEIGHT, WIDTH)
        expected = disc() / 255
        assert np.abs(opacity.numpy() - np.where(expected < 1 / 32, 0, expected)).max() < 1e-6
        assert Photo(smooth()).opacity() is None
        assert Photo(smooth(), np.full((HEIGHT, WIDTH), 255, np.uint8)).opacity() is None
        smaller = Photo(smooth(), disc()).opacity(30)
        assert smaller.shape == (20, 30)
        assert abs(float(smaller.mean()) - expected.mean()) < 0.01

    def test_transparent_everywhere(self):
        photo = Photo(smooth(), np.zeros((HEIGHT, WIDTH), np.uint8))
        assert torch.isfinite(photo.tensor()).all()
        assert photo.opacity().max() == 0

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_alpha_follows_the_pixels(self, dtype):
        photo = Photo(smooth(), disc())
        result = photo.with_pixels(smooth(dtype)[::2, ::2])
        assert result.alpha.dtype == dtype
        expected = disc()[::2, ::2] / 255
        assert np.abs(result.alpha / np.iinfo(dtype).max - expected).mean() < 0.03

    def test_faint_alpha_is_kept(self):
        """It counts for nothing, but is what the photo has."""
        alpha = np.full((HEIGHT, WIDTH), 7 * 257, np.uint16)
        photo = Photo(smooth(np.uint16), alpha)
        assert photo.opacity().max() == 0
        assert (photo.in_srgb().alpha == 7).all()


class TestTensor:
    def test_values_and_layout(self, pixels):
        tensor = Photo(pixels).tensor()
        assert tensor.shape == (1, 3, 24, 40)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        np.testing.assert_allclose(tensor[0].permute(1, 2, 0), pixels / 255, atol=1e-6)

    @pytest.mark.parametrize(
        ("size", "shape"), [(20, (16, 20)), (30, (18, 30)), (40, (24, 40)), (512, (24, 40))]
    )
    def test_size_is_the_long_side_at_least_16_pixels_a_side(self, pixels, size, shape):
        assert Photo(pixels).tensor(size).shape == (1, 3, *shape)
        assert Photo(pixels.swapaxes(0, 1)).tensor(size).shape == (1, 3, *shape[::-1])

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            (0, "at least 16"),
            (15, "at least 16"),
            (17.5, "give a whole number"),
            ("a", "give a who"),
        ],
    )
    def test_a_size_that_is_none(self, pixels, size, message):
        for method in (Photo(pixels).tensor, Photo(pixels, alpha=pixels[..., 0]).opacity):
            with pytest.raises(ArgumentError, match=f"^size={size}: .*{message}"):
                method(size)

    def test_resizing_is_antialiased(self):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        centre = Photo(stripes).tensor(16)[..., 4:12, 4:12]
        assert (centre - 0.5).abs().max() < 0.02

    def test_resizing_is_lanczos(self):
        """As in Pillow, to a rounding, also from an array that must not be written to."""
        pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
        pixels.flags.writeable = False
        expected = Image.fromarray(pixels).resize((36, 20), Image.Resampling.LANCZOS)
        resized = (255 * Photo(pixels).tensor(36)[0]).permute(1, 2, 0).numpy()
        assert abs(resized - np.asarray(expected, np.float32)).max() < 1.01

    def test_load_and_save_image(self, tmp_path):
        image = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
        save_image(image, tmp_path / "a.png")
        loaded = load_image(tmp_path / "a.png")
        assert (loaded - image).abs().max() <= 0.5 / 255 + 1e-6
        assert load_image(tmp_path / "a.png", size=24).shape == (1, 3, 16, 24)

    def test_save_image_clamps(self, tmp_path):
        image = torch.tensor([-1.0, 0.5, 2.0])[None, :, None, None].expand(1, 3, 16, 16)
        save_image(image.clone().requires_grad_(), tmp_path / "a.png")
        assert load_photo(tmp_path / "a.png").pixels[3, 3].tolist() == [0, 128, 255]

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (torch.zeros(3, 16, 16), "must be .1, 3, H, W."),
            (torch.zeros(2, 3, 16, 16), "must be .1, 3, H, W."),
            (torch.zeros(1, 1, 16, 16), "must be .1, 3, H, W."),
            (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "of floats"),
            (torch.full((1, 3, 16, 16), torch.nan), "must be finite"),
        ],
    )
    def test_save_image_refuses(self, tmp_path, image, message):
        with pytest.raises(ValueError, match=message):
            save_image(image, tmp_path / "a.png")
        assert not list(tmp_path.iterdir())


class TestPhoto:
    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ((np.zeros((8, 8), np.uint8),), "pixels must be"),
            ((np.zeros((8, 8, 3), np.float32),), "pixels must be"),
            ((np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8), np.uint8)), "alpha must be"),
            ((np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.uint8)), "alpha must be"),
        ],
    )
    def test_refuses_other_arrays(self, arrays, message):
        with pytest.raises(ValueError, match=message):
            Photo(*arrays)

    def test_with_pixels_keeps_the_rest(self, pixels):
        ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (24, 1))
        profile = adobe_rgb_profile()
        photo = Photo(pixels, ramp, profile, Metadata(xmp=b"xmp"))
        other = photo.with_pixels(255 - pixels)
        assert other.alpha is photo.alpha
        assert (other.icc_profile, other.metadata) == (profile, Metadata(xmp=b"xmp"))
        smaller = photo.with_pixels(pixels[::2, ::2])
        assert smaller.alpha.shape == (12, 20)
        assert np.abs(smaller.alpha.astype(int) - ramp[::2, ::2]).max() < 8
