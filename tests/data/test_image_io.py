"""Photos between file and array: every format and colour mode, and every bad file.

Files are written by Pillow and tifffile, which know nothing of libvips.
"""

import os
import resource
import stat
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
import pyvips
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo
from skimage.color import lab2rgb

from photostyle.data import (
    Metadata,
    Photo,
    check_output,
    load_image,
    load_photo,
    save_image,
    save_photo,
)
from photostyle.data.colour_space import adobe_rgb_profile
from photostyle.data.paths import FORMATS
from photostyle.ops.errors import ArgumentError

HEIGHT, WIDTH = 24, 40
SUFFIXES = [*FORMATS, ".JPG", ".Png"]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Upright pixels -> the pixels that a file of this orientation stores (EXIF 2.3, tag 274).
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def pixels():
    """A smooth picture, different in every corner and channel."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x * 255 / (WIDTH - 1), y * 255 / (HEIGHT - 1), 60 + x + 2 * y]
    return np.stack(planes, -1).round().astype(np.uint8)


@pytest.fixture
def grey(pixels):
    return pixels[..., 0].copy()


def alpha_ramp():
    return np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))


def exif_block(orientation=None):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Copyright] = "Somebody"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2020:02:03 04:05:06",
        ExifTags.Base.ExifImageWidth: 999,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (46.0, 30.0, 15.0)}
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def grey_profile(gamma):
    """A minimal grey ICC profile with a pure power law (ICC.1:2010, 8.4)."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big")
    white = b"XYZ " + bytes(4)
    white += b"".join(v.to_bytes(4, "big") for v in (0xF6D6, 0x10000, 0xD32D))
    text = b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"grey\0" + bytes(78)
    body, table = b"", b""
    for name, data in ((b"desc", text), (b"wtpt", white), (b"kTRC", curve)):
        table += name + (132 + 36 + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data + bytes(-len(data) % 4)
    size = (132 + 36 + len(body)).to_bytes(4, "big")
    header = size + bytes(4) + b"\x02\x40\0\0" + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(v.to_bytes(4, "big") for v in (0xF6D6, 0x10000, 0xD32D))
    return header.ljust(128, b"\0") + (3).to_bytes(4, "big") + table + body


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_pixels(self, tmp_path, pixels, suffix):
        path = tmp_path / f"photo{suffix}"
        save_photo(path, Photo(pixels))
        loaded = load_photo(path)
        tolerance = {"WEBP": 12, "JPEG": 6, "AVIF": 6, "HEIC": 6}.get(FORMATS[suffix.lower()], 0)
        assert np.abs(loaded.pixels.astype(int) - pixels).max() <= tolerance
        assert loaded.pixels.flags.writeable
        assert loaded.alpha is None

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".tif", ".heic"])
    def test_profile(self, tmp_path, pixels, suffix):
        save_photo(tmp_path / f"a{suffix}", Photo(pixels, icc_profile=SRGB))
        assert load_photo(tmp_path / f"a{suffix}").icc_profile == SRGB

    @pytest.mark.parametrize("suffix", [".bmp", ".jp2"])
    def test_without_a_place_for_the_profile(self, tmp_path, pixels, suffix):
        """The colours stay, as sRGB."""
        photo = Photo(pixels, icc_profile=adobe_rgb_profile())
        save_photo(tmp_path / f"a{suffix}", photo)
        loaded = load_photo(tmp_path / f"a{suffix}")
        assert loaded.icc_profile is None
        assert (loaded.tensor() - photo.tensor()).abs().max() < 0.6 / 255
        assert (loaded.tensor() - Photo(pixels).tensor()).abs().max() > 0.1

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_sixteen_bits(self, tmp_path, suffix):
        """More than a thousand levels, in a file that others read."""
        levels = np.linspace(0, 65_535, 2000).astype(np.uint16)
        pixels = np.repeat(np.tile(levels, (16, 1))[..., None], 3, 2)
        pixels[..., 1] = pixels[..., 1][:, ::-1]
        save_photo(tmp_path / f"a{suffix}", Photo(pixels))
        loaded = load_photo(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(loaded.pixels, pixels)
        if suffix == ".tif":
            np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
        else:
            # Pillow keeps the upper byte of 16-bit RGB, which shows that the order is right.
            with Image.open(tmp_path / "a.png") as image:
                np.testing.assert_array_equal(np.asarray(image), pixels >> 8)

    @pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".heic", ".bmp", ".jp2"])
    def test_sixteen_bits_where_eight_are_kept(self, tmp_path, pixels, suffix):
        save_photo(tmp_path / f"a{suffix}", Photo(pixels.astype(np.uint16) * 257))
        loaded = load_photo(tmp_path / f"a{suffix}").pixels
        assert loaded.dtype == np.uint8
        assert np.abs(loaded.astype(int) - pixels).max() <= 12

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jp2"])
    def test_alpha_is_kept(self, tmp_path, pixels, suffix):
        save_photo(tmp_path / f"a{suffix}", Photo(pixels, alpha_ramp()))
        np.testing.assert_array_equal(load_photo(tmp_path / f"a{suffix}").alpha, alpha_ramp())

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_alpha_of_sixteen_bits(self, tmp_path, pixels, suffix):
        alpha = alpha_ramp().astype(np.uint16) * 257 - (alpha_ramp() > 0)
        save_photo(tmp_path / f"a{suffix}", Photo(pixels.astype(np.uint16), alpha))
        np.testing.assert_array_equal(load_photo(tmp_path / f"a{suffix}").alpha, alpha)

    @pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
    def test_transparency_becomes_white(self, tmp_path, pixels, suffix, caplog):
        save_photo(tmp_path / f"a{suffix}", Photo(pixels, alpha_ramp()))
        opacity = alpha_ramp()[..., None] / 255
        expected = opacity * pixels + (1 - opacity) * 255
        found = load_photo(tmp_path / f"a{suffix}").pixels
        assert np.abs(found - expected).max() <= (6 if suffix == ".jpg" else 0.5)
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path / f'a{suffix}'} holds no transparency: the photo is put on white"
        ]

    def test_opaque_alpha_is_no_transparency(self, tmp_path, pixels, caplog):
        save_photo(tmp_path / "a.jpg", Photo(pixels, np.full((HEIGHT, WIDTH), 255, np.uint8)))
        assert not caplog.records

    def test_jpeg_keeps_its_chroma_and_heeds_quality(self, tmp_path, pixels):
        save_photo(tmp_path / "fine.jpg", Photo(pixels))
        save_photo(tmp_path / "coarse.jpg", Photo(pixels), quality=20)
        with Image.open(tmp_path / "fine.jpg") as image:
            assert JpegImagePlugin.get_sampling(image) == 0
        assert (tmp_path / "coarse.jpg").stat().st_size < (tmp_path / "fine.jpg").stat().st_size


class TestOrientation:
    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
    def test_is_applied_once(self, tmp_path, pixels, orientation, suffix):
        image = Image.fromarray(np.dstack([pixels, alpha_ramp()]))
        if STORED[orientation] is not None:
            image = image.transpose(STORED[orientation])
        path = tmp_path / f"a{suffix}"
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        image.save(path, exif=exif_block(orientation), **options)
        photo = load_photo(path)
        np.testing.assert_array_equal(photo.pixels, pixels)
        np.testing.assert_array_equal(photo.alpha, alpha_ramp())
        save_photo(tmp_path / "again.png", photo)
        np.testing.assert_array_equal(load_photo(tmp_path / "again.png").pixels, pixels)

    @pytest.mark.parametrize("value", [0, 9, 1000])
    def test_a_meaningless_one_is_ignored(self, tmp_path, pixels, value):
        path = save(tmp_path / "a.png", pixels, exif=exif_block(value))
        np.testing.assert_array_equal(load_photo(path).pixels, pixels)

    @pytest.mark.parametrize("suffix", [".avif", ".heic"])
    def test_of_a_container_that_has_turned_the_photo_itself(self, tmp_path, pixels, suffix):
        """Both say it twice, in the container and in EXIF; only the first counts."""
        pillow_heif.register_heif_opener()
        path = tmp_path / f"a{suffix}"
        stored = Image.fromarray(pixels).transpose(STORED[6])
        stored.save(path, exif=exif_block(6), quality=95, subsampling="4:4:4")
        assert np.abs(load_photo(path).pixels.astype(int) - pixels).mean() < 3

    @pytest.mark.parametrize("block", [b"Exif\0\0nonsense", exif_block(6)[:40], exif_block()[:-30]])
    def test_damaged_exif_is_left_out_with_a_warning(self, tmp_path, pixels, block, caplog):
        photo = load_photo(save(tmp_path / "a.jpg", pixels, exif=block))
        assert photo.pixels.shape == pixels.shape
        assert photo.metadata.exif is None
        assert "EXIF data are damaged" in caplog.text

    def test_exif_in_a_text_as_imagemagick_wrote_it(self, tmp_path, pixels):
        block = exif_block(8)
        text = PngInfo()
        text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
        photo = load_photo(save(tmp_path / "a.png", np.rot90(pixels, -1), pnginfo=text))
        np.testing.assert_array_equal(photo.pixels, pixels)

    def test_unreadable_text_is_left_out_with_a_warning(self, tmp_path, pixels, caplog):
        text = PngInfo()
        text.add_text("Raw profile type exif", "\nexif\n 8\nno hexadecimal digits\n")
        photo = load_photo(save(tmp_path / "a.png", pixels, pnginfo=text))
        assert photo.metadata.exif is None
        np.testing.assert_array_equal(photo.pixels, pixels)
        assert "EXIF data are damaged" in caplog.text


class TestColourModes:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
    def test_grey(self, tmp_path, grey, suffix):
        path = tmp_path / f"a{suffix}"
        save(path, grey)
        loaded = load_photo(path).pixels
        assert (loaded == loaded[..., :1]).all()
        assert np.abs(loaded[..., 0].astype(int) - grey).max() <= (4 if suffix == ".jpg" else 0)

    def test_grey_with_alpha(self, tmp_path, grey):
        image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha_ramp())])
        image.save(tmp_path / "a.png")
        photo = load_photo(tmp_path / "a.png")
        np.testing.assert_array_equal(photo.pixels, np.dstack([grey] * 3))
        np.testing.assert_array_equal(photo.alpha, alpha_ramp())

    def test_one_bit(self, tmp_path, grey):
        Image.fromarray(grey > 127).save(tmp_path / "a.png")
        np.testing.assert_array_equal(
            load_photo(tmp_path / "a.png").pixels[..., 1], np.where(grey > 127, 255, 0)
        )

    @pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
    def test_palette(self, tmp_path, transparency):
        indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
        image = Image.fromarray(indices).convert("P")
        colours = np.array([[200, 10, 20], [30, 220, 40], [50, 60, 240]], np.uint8)
        image.putdata(indices.ravel().tolist())
        image.putpalette(colours.tobytes())
        options = {} if transparency is None else {"transparency": transparency}
        image.save(tmp_path / "a.png", **options)
        photo = load_photo(tmp_path / "a.png")
        np.testing.assert_array_equal(photo.pixels, colours[indices])
        if transparency is None:
            assert photo.alpha is None
        else:
            levels = [255, 0, 255] if transparency == 1 else [255, 0, 128]
            np.testing.assert_array_equal(photo.alpha, np.array(levels)[indices])

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_sixteen_bit_grey(self, tmp_path, grey, suffix):
        levels = grey.astype(np.uint16) * 255
        path = save(tmp_path / f"a{suffix}", levels)
        np.testing.assert_array_equal(load_photo(path).pixels, np.dstack([levels] * 3))

    def test_32_bit_integer_grey(self, tmp_path, grey):
        """Within 16 bits."""
        path = save(tmp_path / "a.tif", grey.astype(np.int32) * 257)
        np.testing.assert_array_equal(load_photo(path).pixels[..., 0], grey.astype(int) * 257)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.full((20, 20), 1.5, np.float32), "levels from 1.5 to 1.5; .* 0 .black. to 1"),
            (np.full((20, 20), np.nan, np.float32), "levels from nan"),
            (np.full((20, 20), -1, np.int32), "levels from -1"),
            (np.full((20, 20), 70_000, np.int32), "to 65535"),
        ],
    )
    def test_numbers_that_are_no_colours(self, tmp_path, array, message):
        with pytest.raises(ArgumentError, match=message):
            load_photo(save(tmp_path / "a.tif", array))

    def test_lab_of_eight_bits_is_refused(self, tmp_path):
        Image.new("LAB", (20, 20)).save(tmp_path / "a.tif")
        with pytest.raises(ArgumentError, match=r"a TIFF file of a kind that cannot be read"):
            load_photo(tmp_path / "a.tif")

    def test_cmyk_without_profile(self, tmp_path):
        """As ink on paper: black is black, paper white, and cyan less vivid than on a screen."""
        inks = np.zeros((16, 48, 4), np.uint8)
        inks[:, 16:32, 0], inks[:, 32:, 3] = 255, 255
        Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
        paper, cyan, black = load_photo(tmp_path / "a.tif").pixels[8, [8, 24, 40]].astype(int)
        assert paper.min() > 250
        assert black.max() < 60
        assert cyan[0] < 60
        assert 120 < cyan[2] < 255

    def test_a_profile_for_other_pixels_is_dropped(self, tmp_path, pixels, caplog):
        Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.tif", icc_profile=SRGB)
        assert load_photo(tmp_path / "a.tif").icc_profile is None
        assert "ICC profile is for RGB" in caplog.text

    def test_a_damaged_profile_is_dropped(self, tmp_path, pixels, caplog):
        path = save(tmp_path / "a.jpg", pixels, icc_profile=b"no profile")
        assert load_photo(path).icc_profile is None
        assert "ICC profile is damaged" in caplog.text

    def test_grey_profile_is_applied_and_not_kept(self, tmp_path):
        grey = np.tile(np.arange(0, 256, 6, dtype=np.uint8), (20, 1))
        path = save(tmp_path / "a.png", grey, icc_profile=grey_profile(gamma=1.8))
        photo = load_photo(path)
        assert photo.icc_profile is None
        linear = (grey / 255) ** 1.8
        srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(photo.pixels - 255 * srgb[..., None]).max() < 2.5

    def test_rgb_profile_of_a_grey_photo_is_kept(self, tmp_path, grey):
        path = save(tmp_path / "a.tif", grey, icc_profile=SRGB)
        assert load_photo(path).icc_profile == SRGB


class TestTiff:
    """As editors and scanners write it."""

    @pytest.fixture
    def wide(self, pixels):
        """No level of it is one of 8 bits."""
        return pixels.astype(np.uint16) * 255 + 100

    @pytest.mark.parametrize(
        "options",
        [
            {"tile": (16, 16)},
            {"byteorder": ">"},
            {"bigtiff": True},
            {"compression": "zlib", "predictor": True},
            {"rowsperstrip": 5},
        ],
        ids=str,
    )
    def test_layouts(self, tmp_path, wide, options):
        tifffile.imwrite(tmp_path / "a.tif", wide, photometric="rgb", **options)
        np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").pixels, wide)

    def test_planes(self, tmp_path, wide):
        planes = np.ascontiguousarray(wide.transpose(2, 0, 1))
        options = {"photometric": "rgb", "planarconfig": "separate"}
        tifffile.imwrite(tmp_path / "a.tif", planes, **options)
        np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").pixels, wide)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_white_is_zero(self, tmp_path, grey, dtype):
        white = np.iinfo(dtype).max
        grey = grey.astype(dtype) * (white // 255)
        tifffile.imwrite(tmp_path / "a.tif", white - grey, photometric="miniswhite")
        np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").pixels[..., 1], grey)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_floats(self, tmp_path, wide, dtype):
        tifffile.imwrite(tmp_path / "a.tif", (wide / 65_535).astype(dtype), photometric="rgb")
        difference = load_photo(tmp_path / "a.tif").pixels.astype(int) - wide
        assert np.abs(difference).max() <= (0 if dtype == np.float32 else 16)

    def test_a_thumbnail_in_the_first_page(self, tmp_path, pixels, wide):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(pixels[:20, :20], photometric="rgb", subfiletype=1)
            file.write(wide, photometric="rgb", description="the photo", metadata=None)
            file.write(wide[::-1], photometric="rgb", description="another one")
        photo = load_photo(tmp_path / "a.tif")
        np.testing.assert_array_equal(photo.pixels, wide)
        assert b"the photo" in photo.metadata.exif

    def test_channels_beside_the_photo(self, tmp_path, wide):
        """Selections that an editor has kept are no transparency."""
        stored = np.dstack([wide, wide[..., :2]])
        options = {"photometric": "rgb", "extrasamples": ["unspecified"] * 2}
        tifffile.imwrite(tmp_path / "a.tif", stored, **options)
        photo = load_photo(tmp_path / "a.tif")
        assert photo.alpha is None
        np.testing.assert_array_equal(photo.pixels, wide)

    def test_colours_multiplied_by_their_alpha(self, tmp_path, wide):
        stored = np.dstack([wide // 2, np.full_like(wide[..., 0], 32_768)])
        options = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
        tifffile.imwrite(tmp_path / "a.tif", stored, **options)
        photo = load_photo(tmp_path / "a.tif")
        assert np.abs(photo.pixels.astype(int) - wide).max() <= 2
        assert (photo.alpha == 32_768).all()

    def test_webp_inside(self, tmp_path, pixels):
        options = {"compression": "webp", "Q": 95, "keep": "none"}
        pyvips.Image.new_from_array(pixels).tiffsave(str(tmp_path / "a.tif"), **options)
        assert np.abs(load_photo(tmp_path / "a.tif").pixels.astype(int) - pixels).mean() < 2

    def test_numbers_of_64_bits_are_refused(self, tmp_path, wide):
        tifffile.imwrite(tmp_path / "a.tif", wide / 65_535, photometric="rgb")
        with pytest.raises(ArgumentError, match="a TIFF file of a kind that cannot be read"):
            load_photo(tmp_path / "a.tif")

    def test_lab_of_sixteen_bits(self, tmp_path):
        lab = np.zeros((20, 20, 3), np.int16)
        lab[..., 0], lab[..., 1] = 0.6 * 32_767, 30 * 256
        pyvips.Image.new_from_array(lab, interpretation="labs").tiffsave(str(tmp_path / "a.tif"))
        found = load_photo(tmp_path / "a.tif").pixels[10, 10] / 65_535
        np.testing.assert_allclose(found, lab2rgb([[[60.0, 30.0, 0.0]]])[0, 0], atol=0.01)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "JPEG"), ("a.jpg", "PNG"), ("a", "WEBP"), ("a.heic", "AVIF"), ("a.txt", "TIFF")],
)
def test_what_is_inside_counts(tmp_path, pixels, name, kind):
    save(tmp_path / name, pixels, format=kind)
    assert np.abs(load_photo(tmp_path / name).pixels.astype(int) - pixels).mean() < 5


@pytest.mark.parametrize("bits", [8, 10])
def test_heic(tmp_path, pixels, bits):
    """As phones write it; of more than 8 bits all are kept."""
    wide = pixels.astype(np.uint16) * 257
    mode, stored = ("RGB", pixels) if bits == 8 else ("RGB;16", wide)
    file = pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), stored.tobytes())
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    file.save(tmp_path / "a.heic", quality=-1, chroma=444)
    photo = load_photo(tmp_path / "a.heic")
    assert photo.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.abs(photo.pixels / photo.white - pixels / 255).max() < 4 / 255


def test_a_name_that_libvips_would_take_apart(tmp_path, pixels):
    path = save(tmp_path / "a.png", pixels).rename(tmp_path / "a[page=3].png")
    np.testing.assert_array_equal(load_photo(path).pixels, pixels)


def test_a_file_that_has_changed_is_read_again(tmp_path, pixels):
    path = save(tmp_path / "a.png", pixels)
    load_photo(path)
    save(path, 255 - pixels)
    np.testing.assert_array_equal(load_photo(path).pixels, 255 - pixels)


class TestBadInput:
    def check(self, path, message, **options):
        with pytest.raises(ArgumentError, match=message) as caught:
            load_photo(path, argument="style", **options)
        assert caught.value.argument == "style"
        assert str(caught.value).startswith(f"style={path}: ")
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "none.jpg", "no such file; give a JPEG")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "is a folder; give a JPEG")

    def test_below_a_file(self, tmp_path):
        (tmp_path / "a").write_text("text")
        self.check(tmp_path / "a" / "b.jpg", "cannot be opened: Not a directory")

    def test_named_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        self.check(tmp_path / "pipe", "no regular file")

    def test_empty(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        self.check(tmp_path / "a.jpg", "the file is empty")

    @pytest.mark.parametrize("content", [b"text", b"GIF89a", b"%PDF-1.5", b"<svg></svg>"])
    def test_no_picture(self, tmp_path, content):
        (tmp_path / "a.jpg").write_bytes(content * 3)
        self.check(tmp_path / "a.jpg", "not a picture that can be read; give a JPEG, PNG")

    @pytest.mark.parametrize(
        "content",
        [
            b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP", b"II*\0\x08", b"BM",
            b"0000ftypheic", b"0000ftypavif", b"\0\0\0\x0cjP  \r\n\x87\n",
        ],
    )  # fmt: skip
    def test_nothing_but_a_signature(self, tmp_path, content):
        (tmp_path / "a.jpg").write_bytes(content * 3)
        self.check(tmp_path / "a.jpg", "damaged")

    def test_not_permitted(self, tmp_path, pixels, monkeypatch):
        path = save(tmp_path / "a.png", pixels)

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        # Not chmod: it does not stop a root user.
        monkeypatch.setattr("builtins.open", refuse)
        self.check(path, "no permission to read it")

    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            (".jpg", {}),
            (".jpg", {"progressive": True}),
            (".png", {}),
            (".webp", {}),
            (".avif", {}),
            (".heic", {}),
            (".jp2", {}),
            (".tif", {}),
            (".tif", {"compression": "tiff_lzw"}),
            (".bmp", {}),
        ],
    )
    def test_cut_in_half(self, tmp_path, suffix, options):
        pillow_heif.register_heif_opener()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / f"a{suffix}", noise, **options)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        self.check(path, "damaged")

    def test_too_small(self, tmp_path, pixels):
        path = save(tmp_path / "a.png", pixels[:15])
        self.check(path, "40 x 15 pixels are too few; give at least 16 a side")

    def test_too_large_by_the_header_alone(self, tmp_path, pixels, monkeypatch):
        path = save(tmp_path / "a.png", pixels)
        monkeypatch.setattr(pyvips.Image, "numpy", lambda _: pytest.fail("decoded"))
        self.check(path, "40 x 24 pixels are too many; give at most 959", max_pixels=959)

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".jp2"])
    def test_our_limit_replaces_that_of_pillow(self, tmp_path, pixels, monkeypatch, suffix):
        path = save(tmp_path / f"a{suffix}", pixels)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert load_photo(path, max_pixels=960).pixels.shape == pixels.shape
        assert Image.MAX_IMAGE_PIXELS == 100


class TestTensor:
    def test_values_and_layout(self, pixels):
        tensor = Photo(pixels).tensor()
        assert tensor.shape == (1, 3, HEIGHT, WIDTH)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        np.testing.assert_allclose(tensor[0].permute(1, 2, 0), pixels / 255, atol=1e-6)

    @pytest.mark.parametrize(
        ("size", "shape"), [(20, (16, 20)), (30, (18, 30)), (40, (24, 40)), (512, (24, 40))]
    )
    def test_size_is_the_long_side_at_least_16_pixels_a_side(self, pixels, size, shape):
        assert Photo(pixels).tensor(size).shape == (1, 3, *shape)
        assert Photo(pixels.swapaxes(0, 1)).tensor(size).shape == (1, 3, *shape[::-1])

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
        photo = Photo(pixels, alpha_ramp(), SRGB, Metadata(xmp=b"xmp"))
        other = photo.with_pixels(255 - pixels)
        assert other.alpha is photo.alpha
        assert (other.icc_profile, other.metadata) == (SRGB, Metadata(xmp=b"xmp"))
        smaller = photo.with_pixels(pixels[::2, ::2])
        assert smaller.alpha.shape == (12, 20)
        assert np.abs(smaller.alpha.astype(int) - alpha_ramp()[::2, ::2]).max() < 8


class TestWriting:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".heic"])
    @pytest.mark.parametrize("before", [None, b"earlier result"])
    def test_a_disk_that_fills_half_way(self, tmp_path, suffix, before):
        """The error is that of the file system, whoever encodes."""
        path = tmp_path / f"a{suffix}"
        if before is not None:
            path.write_bytes(before)
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, earlier[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                save_photo(path, Photo(noise))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
        assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else [path.name])
        assert before is None or path.read_bytes() == before

    def test_interrupted_while_libvips_encodes(self, tmp_path, pixels, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("photostyle.data.encoders._Inserting._pass_head_on", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_photo(tmp_path / "a.jpg", Photo(pixels))
        assert not list(tmp_path.iterdir())

    def test_permissions_follow_the_umask(self, tmp_path, pixels):
        previous = os.umask(0o027)
        try:
            save_photo(tmp_path / "a.png", Photo(pixels))
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640

    def test_replaces_an_existing_file(self, tmp_path, pixels):
        path = save(tmp_path / "a.png", 255 - pixels)
        save_photo(str(path), Photo(pixels))
        np.testing.assert_array_equal(load_photo(str(path)).pixels, pixels)
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    def test_keeps_an_existing_file_on_request(self, tmp_path, pixels):
        path = tmp_path / "a.png"
        save_photo(path, Photo(pixels), overwrite=False)
        with pytest.raises(ArgumentError, match=r"a\.png: exists; give another name or overw"):
            save_photo(path, Photo(255 - pixels), overwrite=False)
        np.testing.assert_array_equal(load_photo(path).pixels, pixels)
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("quality", [0, 101, "high"])
    def test_quality_out_of_range(self, tmp_path, pixels, quality):
        with pytest.raises(ArgumentError, match=f"quality={quality}: give a number from 1 to 100"):
            save_photo(tmp_path / "a.jpg", Photo(pixels), quality=quality)

    def test_unknown_suffix(self, tmp_path, pixels):
        with pytest.raises(ArgumentError, match=r"end its name in one of \.jpg \.jpeg \.png"):
            save_photo(tmp_path / "a.gif", Photo(pixels))

    def test_too_large_for_the_format(self, tmp_path):
        panorama = Photo(np.zeros((16, 16_384, 3), np.uint8))
        with pytest.raises(ArgumentError, match=r"WEBP holds at most 16383 .*; use \.png or \.tif"):
            save_photo(tmp_path / "a.webp", panorama)
        assert not list(tmp_path.iterdir())


class TestCheckOutput:
    def check(self, path, message, **options):
        with pytest.raises(ArgumentError, match=message) as caught:
            check_output(path, **options)
        assert str(caught.value).startswith(f"output={path}: ")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_accepts(self, tmp_path, suffix):
        check_output(tmp_path / f"a{suffix}")

    def test_suffix(self, tmp_path):
        self.check(tmp_path / "a.gif", r"one of \.jpg \.jpeg \.png \.webp \.tif \.tiff \.bmp")
        self.check(tmp_path / "a", "end its name")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "is a folder")

    def test_no_such_folder(self, tmp_path):
        self.check(tmp_path / "b" / "a.png", "there is no folder .*; create it first")

    def test_not_permitted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        self.check(tmp_path / "a.png", "no permission to write to the folder")

    def test_exists(self, tmp_path):
        (tmp_path / "a.png").touch()
        self.check(tmp_path / "a.png", "exists; give another name or overwrite=true")
        check_output(tmp_path / "a.png", overwrite=True)


def test_the_first_of_two_pictures(tmp_path, pixels):
    """As stereo cameras and phones write them."""
    first, second = Image.fromarray(pixels), Image.fromarray(pixels[::-1, ::-1])
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "a.mpo") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    difference = load_photo(tmp_path / "a.mpo").pixels.astype(int) - pixels
    assert np.abs(difference).mean() < 3


def test_animation_gives_its_first_frame(tmp_path, pixels):
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    buffer = BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    (tmp_path / "a.webp").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(load_photo(tmp_path / "a.webp").pixels, pixels)
