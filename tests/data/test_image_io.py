"""Photos between file and array: every format and colour mode, and every bad file.

Files are written by Pillow and tifffile, which know nothing of libvips.
"""

import os
import resource
import stat

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from photostyle.data import (
    Photo,
    load_photo,
    save_photo,
)
from photostyle.data.colour_space import adobe_rgb_profile
from photostyle.data.image_io import encode_photo
from photostyle.data.metadata import Metadata
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


def replaced(old, new):
    """A change of all such bytes in a profile."""

    def change(profile):
        assert old in profile
        profile[:] = profile.replace(old, new)

    return change


PROFILE_DAMAGES = {
    "colours with a name in no alphabet": replaced(b"RGB XYZ ", b"R\xff\xe9 XYZ "),
    "colours of no photo": replaced(b"RGB XYZ ", b"Lab XYZ "),
    "numbers of a kind that they have not": replaced(b"XYZ \0\0\0\0", b"text\0\0\0\0"),
    "curves of no kind": replaced(b"curv", b"cuvr"),
    "half": lambda profile: profile.__delitem__(slice(len(profile) // 2, None)),
    "no primaries": replaced(b"rXYZ", b"xXYZ"),
}


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


class TestInMemory:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_as_from_and_to_a_file(self, tmp_path, pixels, suffix):
        """Pixels, transparency, profile and metadata; the writer's bytes are the same."""
        wide = pixels.astype(np.uint16) * 257
        exif = Metadata(exif_block(6)[6:], resolution=(300, 300))
        written = Photo(wide, alpha_ramp().astype(np.uint16) * 257, adobe_rgb_profile(), exif)
        path = tmp_path / f"a{suffix}"
        save_photo(path, written, quality=80)
        content = encode_photo(written, FORMATS[suffix], name="a", quality=80)
        assert content == path.read_bytes()
        photo, expected = load_photo("a", content=content), load_photo(path)
        np.testing.assert_array_equal(photo.pixels, expected.pixels)
        np.testing.assert_array_equal(photo.alpha, expected.alpha)
        assert photo.icc_profile == expected.icc_profile
        assert photo.metadata == expected.metadata

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty; give a JPEG, PNG"),
            (b"text", "not a picture that can be read; give a JPEG, PNG"),
            (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
            (b"II*\0\x08\0\0\0", "damaged, or a TIFF file of a kind that cannot be read"),
        ],
    )
    def test_errors_say_the_name(self, content, message):
        with pytest.raises(ArgumentError) as caught:
            load_photo("shard/a.jpg", argument="style", content=content)
        assert str(caught.value).startswith(f"style=shard/a.jpg: {message}")

    def test_what_cannot_be_written(self, pixels):
        with pytest.raises(
            ArgumentError, match=r"^output=a: WEBP holds at most 16383 pixels a side"
        ):
            encode_photo(Photo(np.zeros((16, 16_384, 3), np.uint8)), "WEBP", name="a")
        with pytest.raises(ArgumentError, match=r"^quality=101: give a number from 1 to 100"):
            encode_photo(Photo(pixels), "JPEG", name="a", quality=101)


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

    @pytest.mark.parametrize("damage", PROFILE_DAMAGES)
    def test_whatever_is_wrong_with_a_profile_it_is_dropped(self, tmp_path, pixels, caplog, damage):
        profile = bytearray(adobe_rgb_profile())
        PROFILE_DAMAGES[damage](profile)
        path = save(tmp_path / "a.tif", pixels, icc_profile=bytes(profile))
        photo = load_photo(path)
        assert photo.icc_profile is None
        np.testing.assert_array_equal(photo.pixels, pixels)
        (record,) = caplog.records
        assert "ICC profile" in record.message
        assert "\n" not in record.message

    def test_a_profile_that_is_no_profile_by_its_tag(self, tmp_path, pixels, caplog):
        """A number where TIFF wants bytes."""
        tag = (34675, 4, 1, 7, True)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[tag])
        photo = load_photo(tmp_path / "a.tif")
        assert photo.icc_profile is None
        np.testing.assert_array_equal(photo.pixels, pixels)

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


class TestWriting:
    @pytest.mark.reliability
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
