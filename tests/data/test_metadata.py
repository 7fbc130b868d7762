"""What a file says about its photo, from file to file: byte by byte but for size and orientation.

The blocks are made and read back by Pillow and by hand.
"""

import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from photostyle.data import Metadata, Photo, load_photo, save_photo

SIZE = HEIGHT, WIDTH = 24, 40
KEEPS_EXIF = [".jpg", ".png", ".webp", ".avif", ".heic"]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\xc3\xa9</x:xmpmeta>'
IPTC = b"\x1c\x02\x78\x00\x04text"
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"


def entry(tag, kind, count, value, order="<"):
    return struct.pack(f"{order}HHI", tag, kind, count) + value


def block(*, thumbnail=b"", orientation=6):
    """What Pillow would not write: text in UTF-8, the rational 0/0, a maker's notes, a thumbnail.

    The maker's notes hold an offset of their own, so that they can be read only where they are.
    """
    copyright_, notes = "© Zoë".encode() + b"\0", b"Maker\0" + bytes(range(40))
    top, exif, gps = 8, 8 + 2 + 6 * 12 + 4, 8 + 2 + 6 * 12 + 4 + 2 + 4 * 12 + 4
    data = gps + 2 + 2 * 12 + 4
    places = {"copyright": data, "notes": data + 8, "gps": data + 8 + len(notes)}
    second = places["gps"] + 24
    image = second + 2 + 2 * 12 + 4
    long, short = (lambda n: struct.pack("<I", n)), (lambda n: struct.pack("<HH", n, 0))
    result = b"II*\0" + long(top)
    result += struct.pack("<H", 6)
    result += entry(256, 4, 1, long(9999)) + entry(
        ExifTags.Base.Orientation, 3, 1, short(orientation)
    )
    result += entry(315, 2, 4, b"A B\0")
    result += entry(ExifTags.Base.Copyright, 2, len(copyright_), long(places["copyright"]))
    result += entry(0x8769, 4, 1, long(exif)) + entry(0x8825, 4, 1, long(gps))
    result += long(second if thumbnail else 0)
    result += struct.pack("<H", 4)
    result += entry(0x927C, 7, len(notes), long(places["notes"]))
    result += entry(0xA001, 3, 1, short(1))
    result += entry(0xA002, 3, 1, short(999)) + entry(0xA003, 4, 1, long(999)) + long(0)
    result += struct.pack("<H", 2)
    result += entry(1, 2, 2, b"N\0\0\0") + entry(2, 5, 3, long(places["gps"])) + long(0)
    result += copyright_ + notes + bytes(24)
    if thumbnail:
        result += struct.pack("<H", 2)
        result += entry(513, 4, 1, long(image)) + entry(514, 4, 1, long(len(thumbnail))) + long(0)
        result += thumbnail
    return result


def parsed(exif):
    """By Pillow: the first directory, that of the camera and that of the place."""
    found = Image.Exif()
    found.load(b"Exif\0\0" + exif)
    return found, found.get_ifd(ExifTags.IFD.Exif), found.get_ifd(ExifTags.IFD.GPSInfo)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.fixture
def camera(tmp_path, pixels):
    """A photo as a camera writes it."""
    extra = b"".join(
        struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data
        for marker, data in (
            (0xED, b"Photoshop 3.0\0" + RESOURCES + b"8BIM\x04\x0c\0\0\0\0\0\x04JPEG"),
            (0xFE, "Grüße".encode()),
        )
    )
    path = tmp_path / "camera.jpg"
    Image.fromarray(pixels).save(
        path, exif=b"Exif\0\0" + block(thumbnail=b"thumbnail"), xmp=XMP, extra=extra, dpi=(300, 150)
    )
    return path


@pytest.mark.parametrize("suffix", KEEPS_EXIF)
def test_exif_is_copied(tmp_path, camera, suffix):
    """Only what the pixels' new order and size ask for is different, and the thumbnail is gone."""
    photo = load_photo(camera)
    assert photo.pixels.shape == (WIDTH, HEIGHT, 3)
    save_photo(tmp_path / f"result{suffix}", photo)
    before, after = block(), load_photo(tmp_path / f"result{suffix}").metadata.exif
    if suffix != ".avif":  # where the orientation is the container's matter
        assert len(after) == len(before) + 30  # the second directory, out of which no link leads
        after = after[: len(before)]
        changed = [i for i in range(len(before)) if before[i] != after[i]]
        expected = bytearray(before)
        for tag, value in ((256, HEIGHT), (274, 1), (0xA002, HEIGHT), (0xA003, WIDTH)):
            place = before.index(struct.pack("<HHI", tag, 3 if tag in (274, 0xA002) else 4, 1)) + 8
            expected[place : place + 2] = struct.pack("<H", value)
        assert after == bytes(expected)
        assert len(changed) <= 8
    top, details, place = parsed(after)
    assert top[315] == "A B"
    assert top.get(274, 1) == 1
    assert (details[0xA002], details[0xA003]) == (HEIGHT, WIDTH)
    assert details[0x927C] == b"Maker\0" + bytes(range(40))
    assert "© Zoë".encode() + b"\0" in after
    assert place[1] == "N"
    assert b"thumbnail" not in (tmp_path / f"result{suffix}").read_bytes()


def test_exif_to_tiff_and_back(tmp_path, camera, pixels):
    """The entries move, their values do not change."""
    save_photo(tmp_path / "a.tif", load_photo(camera))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        np.testing.assert_array_equal(file.asarray().shape, (WIDTH, HEIGHT, 3))
        assert tags["ExifTag"].value["MakerNote"] == b"Maker\0" + bytes(range(40))
        assert tags["GPSTag"].value["GPSLatitude"] == (0, 0) * 3
        assert tags["Copyright"].value == "© Zoë"
        assert tags["XMP"].value == XMP
        assert 274 not in tags
    photo = load_photo(tmp_path / "a.tif")
    assert photo.metadata.xmp == XMP
    assert photo.metadata.image_resources == RESOURCES
    save_photo(tmp_path / "again.jpg", photo)
    top, details, place = parsed(load_photo(tmp_path / "again.jpg").metadata.exif)
    assert top[315] == "A B"
    assert details[0x927C] == b"Maker\0" + bytes(range(40))
    assert place[1] == "N"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".heic", ".tif"])
def test_xmp(tmp_path, camera, suffix):
    save_photo(tmp_path / f"result{suffix}", load_photo(camera))
    assert load_photo(tmp_path / f"result{suffix}").metadata.xmp == XMP


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".heic", ".tif"])
@pytest.mark.parametrize(
    "orientation",
    [b' tiff:Orientation="6"/>', b" tiff:Orientation = '6'/>", b"><tiff:Orientation>6</"],
)
def test_an_orientation_in_xmp(tmp_path, pixels, suffix, orientation):
    """Pictures are upright: what readers that go by XMP turn them by goes with EXIF's."""
    xmp = b"<rdf:Description" + orientation
    photo = Photo(pixels, metadata=Metadata(exif=block(), xmp=xmp))
    save_photo(tmp_path / f"a{suffix}", photo)
    found = load_photo(tmp_path / f"a{suffix}")
    assert found.pixels.shape == pixels.shape
    assert found.metadata.xmp == xmp.replace(b"6", b"1")
    if suffix != ".heic":  # which only a plugin opens
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert ImageOps.exif_transpose(image).size == (WIDTH, HEIGHT)


def test_a_large_profile_and_a_large_text_of_a_png_file(tmp_path, pixels):
    """Packed, a file of them is small."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode() + " " * (2 << 20), zip=True)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png", pnginfo=texts, icc_profile=profile + bytes(3 << 19))
    photo = load_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, pixels)
    assert photo.metadata.xmp.startswith(XMP)


def test_a_thumbnail_that_is_said_to_be_all_of_it(tmp_path, pixels, caplog):
    """Without it nothing is left: the block is damaged, and the photo is read without."""
    exif = bytearray(block(thumbnail=b"thumbnail"))
    for tag, value in ((513, 8), (514, len(exif) - 8)):
        at = exif.rindex(struct.pack("<HHI", tag, 4, 1)) + 8
        struct.pack_into("<I", exif, at, value)
    with pytest.raises(ValueError, match="requires a buffer"):
        Metadata(bytes(exif)).of_upright(7, 8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(exif))
    photo = load_photo(tmp_path / "a.jpg")
    assert photo.metadata.exif is None
    assert "EXIF data are damaged and are not kept" in caplog.text


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_iptc_without_thumbnails(tmp_path, camera, suffix):
    save_photo(tmp_path / f"result{suffix}", load_photo(camera))
    assert load_photo(tmp_path / f"result{suffix}").metadata.image_resources == RESOURCES


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_comments_and_resolution(tmp_path, camera, suffix):
    save_photo(tmp_path / f"result{suffix}", load_photo(camera))
    with Image.open(tmp_path / f"result{suffix}") as image:
        assert [round(dots) for dots in image.info["dpi"]] == [300, 150]
        comment = image.info["comment" if suffix == ".jpg" else "Comment"]
    assert comment == ("Grüße".encode() if suffix == ".jpg" else "Grüße")


def test_texts_of_png(tmp_path, pixels):
    texts = PngInfo()
    texts.add_text("Title", "Abend")
    texts.add_itxt("Author", "Žofie")
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=texts)
    save_photo(tmp_path / "b.png", load_photo(tmp_path / "a.png"))
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Title": "Abend", "Author": "Žofie"}
    save_photo(tmp_path / "b.jpg", load_photo(tmp_path / "a.png"))
    assert ("Comment", "Author: Žofie") in load_photo(tmp_path / "b.jpg").metadata.comments


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_from_tiff_only_what_describes_the_photo(tmp_path, pixels, is_big, order):
    options = {
        "bigtiff": is_big,
        "byteorder": order,
        "photometric": "rgb",
        "description": "evening",
        "resolution": (300, 300),
        "metadata": None,
    }
    tifffile.imwrite(tmp_path / "scan.tif", pixels, iccprofile=b"none", **options)
    for suffix in (".jpg", ".tif"):
        save_photo(tmp_path / f"a{suffix}", load_photo(tmp_path / "scan.tif"))
        top, _, _ = parsed(load_photo(tmp_path / f"a{suffix}").metadata.exif)
        assert top[ExifTags.Base.ImageDescription] == "evening"
        assert top[ExifTags.Base.XResolution] == 300
        assert ExifTags.Base.StripOffsets not in top


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(tmp_path, pixels, order):
    exif = Image.Exif()
    exif.endian = order
    exif[274], exif[315] = 8, "A. Photographer"
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    photo = load_photo(tmp_path / "a.jpg")
    assert photo.pixels.shape == (WIDTH, HEIGHT, 3)
    for suffix in (".jpg", ".tif"):
        save_photo(tmp_path / f"b{suffix}", photo)
        result = load_photo(tmp_path / f"b{suffix}")
        assert result.pixels.shape == (WIDTH, HEIGHT, 3)
        assert parsed(result.metadata.exif)[0][315] == "A. Photographer"


@pytest.mark.parametrize("name", ["exif", "xmp", "image_resources"])
def test_too_long_for_jpeg_is_left_out_with_a_warning(tmp_path, pixels, caplog, name):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    blocks = {"exif": exif.tobytes()[6:], "xmp": bytes(70_000), "image_resources": bytes(70_000)}
    photo = Photo(pixels, metadata=Metadata(**{name: blocks[name]}))
    save_photo(tmp_path / "a.jpg", photo)
    assert getattr(load_photo(tmp_path / "a.jpg").metadata, name) is None
    assert "do not fit into a JPEG" in caplog.text
    save_photo(tmp_path / "a.tif", photo)
    assert load_photo(tmp_path / "a.tif").pixels.shape == pixels.shape


def test_bmp_holds_no_metadata(tmp_path, pixels):
    save_photo(tmp_path / "a.bmp", Photo(pixels, metadata=Metadata(block(), XMP)))
    found = load_photo(tmp_path / "a.bmp")
    assert (found.metadata.exif, found.metadata.xmp) == (None, None)
    np.testing.assert_array_equal(found.pixels, pixels)


@pytest.mark.parametrize("end", range(0, len(block(thumbnail=b"thumbnail")), 7))
def test_a_block_cut_anywhere(end):
    """It is read, or it is damaged; nothing else."""
    metadata = Metadata(block(thumbnail=b"thumbnail")[:end])
    try:
        metadata.orientation  # noqa: B018
    except ValueError:
        return
    assert metadata.of_upright(7, 8).orientation == 1


@pytest.mark.parametrize("dots", [(0, 300), (300, 1e6), (0.01, 0.01)])
def test_a_resolution_that_no_format_can_say_is_left_out(tmp_path, pixels, dots):
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=dots)
    photo = load_photo(tmp_path / "a.png")
    assert photo.metadata.resolution is None
    for suffix in (".jpg", ".png", ".tif"):
        save_photo(tmp_path / f"b{suffix}", photo)
        assert load_photo(tmp_path / f"b{suffix}").pixels.shape == pixels.shape


def test_directories_in_a_circle():
    exif = bytearray(block())
    place = exif.index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    exif[place : place + 4] = struct.pack("<I", 8)
    with pytest.raises(ValueError, match="again and again"):
        Metadata(bytes(exif)).orientation  # noqa: B018


@pytest.mark.parametrize(
    ("space", "index", "expected"),
    [(0xFFFF, b"R03\0", True), (2, None, True), (1, b"R98\0", False), (0xFFFF, None, False)],
)
def test_adobe_rgb_by_exif_alone(tmp_path, pixels, space, index, expected):
    """The marker counts as a profile, and is kept."""
    exif = Image.Exif()
    details = {ExifTags.Base.ColorSpace: space}
    if index is not None:
        details[ExifTags.IFD.Interop] = {1: index.decode().rstrip("\0")}
    exif[ExifTags.IFD.Exif] = details
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    photo = load_photo(tmp_path / "a.jpg")
    assert photo.metadata.is_adobe_rgb is expected
    assert (photo.space is not None) is expected
    save_photo(tmp_path / "b.jpg", photo)
    assert load_photo(tmp_path / "b.jpg").metadata.is_adobe_rgb is expected
