"""LUT files: as other programs read and write them, and what is wrong with one."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from photostyle.data.cube_file import check_cube, load_cube, save_cube
from photostyle.ops import ArgumentError
from photostyle.ops.lut import Lut

CORNERS = [f"{r} {g} {b}" for b in (0, 1) for g in (0, 1) for r in (0, 1)]
"""Of a cube of 2 x 2 x 2, red fastest: the identity."""


def cube(*header, rows=CORNERS, end="\n"):
    return end.join([*header, *rows, ""])


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "a.cube"
        path.write_bytes(content.encode("latin-1") if isinstance(content, str) else content)
        return load_cube(path)

    return load


def smooth_lut(size=17):
    r, g, b = np.indices((size,) * 3) / (size - 1)
    colours = np.stack([r**1.2, 0.8 * g + 0.2 * r * b, 0.1 + 0.9 * np.sqrt(b)], -1)
    return Lut(colours.astype(np.float32))


def random_pixels():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def tables_by_hand(path):
    """The numbers after the header, by plain Python."""
    lines = path.read_text("ascii").splitlines()
    return [tuple(map(float, line.split())) for line in lines if line[0] in "0123456789"]


# ----------------------------------------------------------------------------------------- writing


def test_layout(tmp_path):
    lut = smooth_lut(3)
    save_cube(tmp_path / "a.cube", lut)
    lines = (tmp_path / "a.cube").read_text("ascii").splitlines()
    assert lines[0].startswith('TITLE "')
    assert "sRGB" in lines[0]
    assert {"LUT_3D_SIZE 3", "DOMAIN_MIN 0 0 0", "DOMAIN_MAX 1 1 1"} <= set(lines)
    assert max(map(len, lines)) <= 250
    rows = tables_by_hand(tmp_path / "a.cube")
    by_hand = [lut.table[r, g, b] for b in range(3) for g in range(3) for r in range(3)]
    np.testing.assert_allclose(rows, by_hand, atol=5e-7)


@pytest.mark.parametrize("shape", [(4, 4, 4, 3), (7, 3)], ids=["cube", "curves"])
def test_round_trip(tmp_path, shape):
    table = np.random.default_rng(1).random(shape, np.float32)
    before = Lut(table, (-1.0, 0.0, 0.25), (1.0, 4.0, 0.5))
    save_cube(tmp_path / "a.cube", before)
    after = load_cube(tmp_path / "a.cube")
    assert (after.low, after.high) == (before.low, before.high)
    np.testing.assert_allclose(after.table, table, atol=1e-6)


@pytest.mark.reliability
def test_appears_whole_or_not_at_all(tmp_path, disk):
    path = tmp_path / "a.cube"
    path.write_text("another")
    with pytest.raises(FileExistsError):
        save_cube(path, smooth_lut(), overwrite=False)
    disk.fills(tmp_path, writes=20)
    with pytest.raises(OSError, match="No space left"):
        save_cube(path, smooth_lut())
    assert path.read_text() == "another"
    assert list(tmp_path.iterdir()) == [path]


def test_pillow_makes_the_same_of_it(tmp_path):
    lut, pixels = smooth_lut(), random_pixels()
    save_cube(tmp_path / "a.cube", lut)
    table = ImageFilter.Color3DLUT(17, tables_by_hand(tmp_path / "a.cube"))
    by_pillow = np.asarray(Image.fromarray(pixels).filter(table)).astype(float)
    ours = 255 * load_cube(tmp_path / "a.cube").look_up(pixels.astype(np.float32) / 255)
    assert np.abs(by_pillow - ours).max() < 1  # measured 0.6


def test_ffmpeg_makes_the_same_of_it(tmp_path, by_ffmpeg):
    """Its reader and its interpolation, in 16 bits."""
    lut, pixels = smooth_lut(), random_pixels().astype(np.uint16) * 257
    save_cube(tmp_path / "a.cube", lut)
    ours = 65535 * lut.look_up(pixels.astype(np.float32) / 65535)
    there = by_ffmpeg(pixels, tmp_path / "a.cube").astype(float)
    assert np.abs(there - ours).max() < 2  # measured 1.0


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "content",
    [
        cube("LUT_3D_SIZE 2"),
        cube("LUT_3D_SIZE 2", end="\r\n"),
        "\ufeff".encode() + cube("LUT_3D_SIZE 2").encode(),
        cube('TITLE "Für Elise"', "", "# said by", "DOMAIN_MIN 0 0 0", "LUT_3D_SIZE 2", "  # b"),
        cube("LUT_3D_SIZE 2", "LUT_3D_INPUT_RANGE 0.0 1.0"),
        cube("LUT_3D_SIZE 2", rows=[f" {row}\t# {row}\n\n" for row in CORNERS]),
        cube("LUT_3D_SIZE 2", rows=[row.replace("1", "1.0e+00") for row in CORNERS]),
        cube("LUT_1D_SIZE 2", rows=["0 0 0", "1 1 1"]),
        cube("LUT_1D_SIZE 3", "DOMAIN_MIN -1 -1 -1", rows=["-1 -1 -1", "0 0 0", "1 1 1"]),
    ],
    ids=["plain", "CRLF", "mark", "comments", "range", "spaces", "exponents", "curves", "domain"],
)
def test_all_say_the_identity(load, content):
    colours = np.random.default_rng(2).random((50, 3), np.float32)
    np.testing.assert_allclose(load(content).look_up(colours), colours, atol=1e-6)


def test_red_is_fastest(load):
    rows = [f"{i} 0 0" for i in range(8)]
    lut = load(cube("LUT_3D_SIZE 2", rows=rows))
    assert lut.look_up(np.eye(3, dtype=np.float32))[:, 0].tolist() == [1, 2, 4]


def test_a_domain_of_its_own(load):
    lut = load(cube("DOMAIN_MIN 0 0 0", "DOMAIN_MAX 2 4 1", "LUT_3D_SIZE 2"))
    (colour,) = lut.look_up(np.array([[1, 1, 1]], np.float32))
    assert colour.tolist() == [0.5, 0.25, 1]


@pytest.mark.parametrize("size", [2, 3, 64, 256])
def test_any_size(load, size):
    """All entries the same, or else the largest would take a minute to write."""
    rows = ["0.5 0.25 1\n" * size**3]
    assert load(cube(f"LUT_3D_SIZE {size}", rows=rows)).table.shape == (size, size, size, 3)


BAD = {
    "nothing but a comment": ("# nothing", "it ends before a table"),
    "text": ("This is no LUT.\n", "unknown word 'This'"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(2000), "unknown word '.x89PNG'"),
    "one line": ("#" + "0 " * 1000, "a line of more than 1000 bytes"),
    "no size": (cube(), "give one of LUT_1D_SIZE and LUT_3D_SIZE before the table"),
    "both": (cube("LUT_1D_SIZE 2", "LUT_3D_SIZE 2"), "give one of LUT_1D_SIZE and LUT_3D_SIZE"),
    "twice": (cube("LUT_3D_SIZE 2", "LUT_3D_SIZE 2"), "LUT_3D_SIZE is there twice"),
    "no number": (cube("LUT_3D_SIZE two"), "LUT_3D_SIZE needs a whole number"),
    "too large": (cube("LUT_3D_SIZE 257"), "size 257, at most 256 are allowed"),
    "too large curves": (cube("LUT_1D_SIZE 65537"), "size 65537, at most 65536 are allowed"),
    "too small": (cube("LUT_3D_SIZE 1"), "size 1, at least 2 are needed"),
    "truncated": (cube("LUT_3D_SIZE 2", rows=CORNERS[:5]), "for 8 colours, and there are only 5"),
    "cut in a row": (cube("LUT_3D_SIZE 2")[:-3], "number of columns changed from 3 to 2"),
    "too long": (cube("LUT_3D_SIZE 2", rows=[*CORNERS, "1 1 1"]), "8 colours, and there are more"),
    "two columns": (cube("LUT_3D_SIZE 2", rows=["0 0"] * 8), "2 numbers in a line of the table"),
    "NaN": (cube("LUT_3D_SIZE 2", rows=[*CORNERS[:7], "nan 1 1"]), "not all colours are finite"),
    "NaN first": (cube("LUT_3D_SIZE 2", rows=["nan 1 1", *CORNERS[1:]]), "not all colours are"),
    "infinity": (cube("LUT_3D_SIZE 2", rows=["1e99 1 1", *CORNERS[1:]]), "not all colours are"),
    "word": (cube("LUT_3D_SIZE 2", rows=["0 0 0", "0 x 0"]), "could not convert string 'x'"),
    "unknown": (cube("LUT_IN_VIDEO_RANGE", "LUT_3D_SIZE 2"), "unknown word 'LUT_IN_VIDEO_RANGE'"),
    "domain": (cube("DOMAIN_MIN 0 0", "LUT_3D_SIZE 2"), "DOMAIN_MIN needs 3 numbers"),
    "domain of words": (cube("DOMAIN_MAX a b c", "LUT_3D_SIZE 2"), "DOMAIN_MAX needs 3 numbers"),
    "empty domain": (cube("DOMAIN_MIN 1 0 0", "LUT_3D_SIZE 2"), "a domain must be from less to"),
    "beyond all light": (cube("LUT_3D_SIZE 2", rows=["1e30 1 1", *CORNERS[1:]]), "not all colours"),
    "a domain of one colour": (cube("DOMAIN_MAX 1e-9 1 1", "LUT_3D_SIZE 2"), "a domain must be"),
    "a domain beyond all light": (cube("DOMAIN_MAX 1e30 1 1", "LUT_3D_SIZE 2"), "a domain must be"),
    "endless domain": (cube("DOMAIN_MAX inf 1 1", "LUT_3D_SIZE 2"), "a domain must be from less"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(load, case):
    content, message = BAD[case]
    with pytest.raises(ArgumentError, match=f"lut=.*a.cube: no LUT that can be read: .*{message}"):
        load(content)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(ArgumentError, match=r"lut=.*b\.cube: no such file; give a \.cube file"):
        load_cube(tmp_path / "b.cube")
    with pytest.raises(ArgumentError, match=r"lut=.*: is a folder; give a \.cube file"):
        load_cube(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", r"give a file that ends in \.cube"),
        ("there.cube", "exists; give another name or overwrite=true"),
        ("folder.cube", "is a folder; give the name of a file"),
        ("no/a.cube", "there is no folder"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "there.cube").touch()
    (tmp_path / "folder.cube").mkdir()
    with pytest.raises(ArgumentError, match=f"lut=.*{name}: {message}"):
        check_cube(tmp_path / name, overwrite=False)
    check_cube(tmp_path / "there.cube", overwrite=True)
    check_cube(tmp_path / "A.CUBE", overwrite=False)
