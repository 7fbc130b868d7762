"""Files of every kind, as cameras and editors write them, and every bad one.

They are written by Pillow, tifffile and libheif, which know nothing of libvips.
"""

import contextlib
import os
import struct
import threading
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
import pyvips
import tifffile
from PIL import Image
from skimage.color import lab2rgb

from photostyle.data import load_photo
from photostyle.ops.errors import ArgumentError

HEIGHT, WIDTH = 24, 40


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


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

    @pytest.mark.parametrize("options", [{}, {"tile": True, "tile_width": 16, "tile_height": 16}])
    def test_jpeg_inside(self, tmp_path, pixels, options):
        """Strips or tiles that are JPEG files without their tables."""
        options |= {"compression": "jpeg", "Q": 95, "keep": "none"}
        pyvips.Image.new_from_array(pixels).tiffsave(str(tmp_path / "a.tif"), **options)
        assert np.abs(load_photo(tmp_path / "a.tif").pixels.astype(int) - pixels).mean() < 3

    @pytest.mark.parametrize("is_big", [False, True])
    def test_a_thumbnail_in_the_first_page(self, tmp_path, pixels, wide, is_big):
        with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=is_big) as file:
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


def test_bytes_that_cameras_leave_in_jpeg_files(tmp_path, pixels):
    """A warning of the decoder, and no fault of the photo."""
    path = save(tmp_path / "a.jpg", pixels, quality=95)
    whole = load_photo(path).pixels
    path.write_bytes(path.read_bytes()[:-2] + bytes(20) + b"\xff\xd9")
    np.testing.assert_array_equal(load_photo(path).pixels, whole)


@pytest.mark.parametrize("options", [{}, {"tile_size": (16, 16)}, {"no_jp2": True}], ids=str)
def test_tiles_of_jpeg_2000(tmp_path, pixels, options):
    path = save(tmp_path / "a.jp2", pixels, **options)
    np.testing.assert_array_equal(load_photo(path).pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".avif"])
def test_a_file_that_shrinks_while_it_is_decoded(tmp_path, pixels, monkeypatch, suffix):
    """It has been read by then: neither the end of the process nor half a photo."""
    path = save(tmp_path / f"a{suffix}", pixels)
    whole = load_photo(path).pixels
    decode = pyvips.Image.numpy

    def cut_and_decode(image):
        os.truncate(path, 10)
        return decode(image)

    monkeypatch.setattr(pyvips.Image, "numpy", cut_and_decode)
    np.testing.assert_array_equal(load_photo(path).pixels, whole)
    assert path.stat().st_size == 10


def at(mark, offset, layout, number):
    """A change of a number in a file, so many bytes behind a mark."""

    def change(content):
        struct.pack_into(layout, content, content.index(mark) + offset, number)

    return change


def of_png(content):
    at(b"IHDR", 8, ">I", 128)(content)
    at(b"IHDR", 17, ">I", zlib.crc32(content[12:29]))(content)


def of_tiff(content):
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", content, entry)
        if tag in (257, 278):  # height, and rows in a strip
            struct.pack_into("<H" if kind == 3 else "<I", content, entry + 8, 128)


def set_tag(path, name, number):
    """Change the first number of an entry in a TIFF file."""
    with tifffile.TiffFile(path) as file:
        tag, order = file.pages[0].tags[name], file.byteorder
    content = bytearray(path.read_bytes())
    layout = {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
    struct.pack_into(order + layout, content, tag.valueoffset, number)
    path.write_bytes(content)


def of_jp2(content):
    at(b"ihdr", 4, ">I", 128)(content)
    at(b"\xff\x51", 10, ">I", 128)(content)


TWICE_AS_HIGH = {
    "JPEG": (".jpg", {}, at(b"\xff\xc0", 5, ">H", 128)),
    "progressive JPEG": (".jpg", {"progressive": True}, at(b"\xff\xc2", 5, ">H", 128)),
    "PNG": (".png", {}, of_png),
    "WebP": (".webp", {}, at(b"\x9d\x01\x2a", 5, "<H", 128)),
    "AVIF": (".avif", {}, at(b"ispe", 12, ">I", 128)),
    "HEIC": (".heic", {}, at(b"ispe", 12, ">I", 128)),
    "TIFF": (".tif", {}, of_tiff),
    "TIFF with LZW": (".tif", {"compression": "tiff_lzw"}, of_tiff),
    "BMP": (".bmp", {}, at(b"BM", 22, "<i", 128)),
    "JPEG 2000": (".jp2", {}, of_jp2),
}


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

    @pytest.mark.parametrize(
        "content", [b"text", b"GIF89a", b"%PDF-1.5", b"<svg></svg>", b"BMW in the rain"]
    )
    def test_no_picture(self, tmp_path, content):
        (tmp_path / "a.jpg").write_bytes(content * 3)
        self.check(tmp_path / "a.jpg", "not a picture that can be read; give a JPEG, PNG")

    @pytest.mark.parametrize(
        "content",
        [
            b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP", b"II*\0\x08",
            b"BM0000\0\0\0\0\x36\0\0\0\x28\0\0\0", b"0000ftypheic", b"0000ftypavif",
            b"\0\0\0\x0cjP  \r\n\x87\n",
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

    @pytest.mark.parametrize("kind", TWICE_AS_HIGH)
    def test_a_header_that_promises_twice_as_much(self, tmp_path, kind):
        """Half a photo is no photo, also where a decoder would fill the rest with grey."""
        pillow_heif.register_heif_opener()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        suffix, options, change = TWICE_AS_HIGH[kind]
        path = save(tmp_path / f"a{suffix}", noise, **options)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)
        self.check(path, "damaged")

    @pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
    @pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
    def test_tiles_that_do_not_cover_the_photo(self, tmp_path, tag, options):
        """libtiff would put black where they are missing."""
        path = tmp_path / "a.tif"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        tifffile.imwrite(path, noise, photometric="rgb", tile=(16, 16), **options)
        set_tag(path, tag, 128)
        self.check(path, "damaged .*16 of 32 tiles are there")

    @pytest.mark.parametrize("tag", ["TileOffsets", "TileByteCounts"])
    def test_a_tile_left_out(self, tmp_path, tag):
        path = tmp_path / "a.tif"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        tifffile.imwrite(path, noise, photometric="rgb", tile=(16, 16))
        set_tag(path, tag, 0)
        self.check(path, "damaged .*15 of 16 tiles are there")

    @pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
    def test_a_jpeg_strip_that_is_smaller_than_the_photo(self, tmp_path, tag):
        path = save(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), compression="jpeg")
        set_tag(path, tag, 128)
        set_tag(path, "RowsPerStrip", 128)
        self.check(path, "damaged .*64 x 64 pixels where there should be")

    def test_a_jpeg_strip_that_is_half_there(self, tmp_path):
        """Whatever the TIFF file and the JPEG file in it say of their heights."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / "a.tif", noise, compression="jpeg")
        set_tag(path, "ImageLength", 128)
        set_tag(path, "RowsPerStrip", 128)
        content = bytearray(path.read_bytes())
        at(b"\xff\xc0", 5, ">H", 128)(content)
        path.write_bytes(content)
        self.check(path, "damaged .*a JPEG strip or tile ends early")

    def test_half_of_a_jpeg_file_that_ends_as_a_whole_one(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / "a.jpg", noise)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
        self.check(path, "truncated or damaged .*premature end")

    def test_half_a_file_while_other_threads_meet_damaged_ones(self, tmp_path):
        """libvips keeps one text for the errors of all threads."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / "a.jpg", noise)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
        stop = threading.Event()

        def fail():
            while not stop.is_set():
                with contextlib.suppress(pyvips.Error):
                    pyvips.Image.new_from_buffer(b"no picture", "")

        others = [threading.Thread(target=fail) for _ in range(2)]
        for other in others:
            other.start()
        try:
            for _ in range(10):
                self.check(path, "truncated or damaged")
        finally:
            stop.set()
            for other in others:
                other.join()

    def test_a_palette_that_is_missing(self, tmp_path, pixels):
        image = Image.fromarray(pixels).quantize(9)
        image.save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        start = content.index(b"PLTE") - 4
        (length,) = struct.unpack_from(">I", content, start)
        (tmp_path / "a.png").write_bytes(content[:start] + content[start + 12 + length :])
        self.check(tmp_path / "a.png", "damaged")

    @pytest.mark.parametrize("fault", [KeyError("IHDR"), ZeroDivisionError("0")])
    def test_whatever_a_library_makes_of_it(self, tmp_path, pixels, monkeypatch, fault):
        path = save(tmp_path / "a.png", pixels)

        def fail(_):
            raise fault

        monkeypatch.setattr(pyvips.Image, "numpy", fail)
        self.check(path, "truncated or damaged")

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
