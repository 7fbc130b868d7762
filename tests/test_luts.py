"""``lut=FILE.cube`` of all methods, and ``method=lut``, from the command line."""

import errno
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.color import rgb2lab

from photostyle import stylize
from photostyle.data import Photo, load_photo, save_photo
from photostyle.data.colour_space import adobe_rgb_profile
from photostyle.data.cube_file import load_cube
from photostyle.data.vips import libvips

METHODS = ("optimize", "colour_transfer", "feedforward")
SIZE = 64
TOLERANCE = 0.5  # measured 0.28

pytestmark = pytest.mark.usefixtures("no_network")


def picture(seed, width=SIZE, height=48):
    """Smooth colours and some grain; no larger than the working size."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return Image.fromarray((np.stack(planes, -1) + grain).clip(0, 255).astype(np.uint8))


def p3_profile():
    return libvips().Image.profile_load("p3")


def files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two photos and a folder of two more."""
    monkeypatch.chdir(tmp_path)
    picture(0).save("photo.png")
    picture(7).point(lambda level: level // 2 + 60).save("style.png")
    Path("trip/day 1").mkdir(parents=True)
    picture(1).save("trip/a.png")
    picture(2, 40, 60).save("trip/day 1/b.png")
    return tmp_path


@pytest.fixture
def run(folder, command):
    """``run(method, key=value)`` -> exit code and output; ``None`` leaves a key out."""

    def call(method, **values):
        values = {"content": "photo.png", "output": "out.png", "lut": "a.cube"} | values
        if method != "lut":
            values = {"style": "style.png", "size": SIZE, "device": "cpu"} | values
        words = [f"{key}={value}" for key, value in values.items() if value is not None]
        if method == "optimize":
            words += ["optimizer.steps=[1]"]
        return command(stylize.main, f"method={method}", *words)

    return call


def residual_of(out):
    return float(re.search(r"^a\.cube: LUT, residual (\d+\.\d\d) ΔE\*ab$", out, re.MULTILINE)[1])


def by_pillow(photo, cube):
    """The photo by a LUT file, read and applied by other programs than ours."""
    rows = [line.split() for line in Path(cube).read_text().splitlines() if line[0].isdigit()]
    table = ImageFilter.Color3DLUT(33, [tuple(map(float, row)) for row in rows])
    with Image.open(photo) as image:
        return np.asarray(image.filter(table))


def distance(first, second):
    """Root mean square of ΔE*ab."""
    return np.sqrt(np.square(rgb2lab(first) - rgb2lab(second)).sum(-1).mean())


# ------------------------------------------------------------------------------ the LUT of a result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [1, 0.5])
def test_is_as_far_from_the_result_as_it_says(run, method, strength):
    """At the working size, but for the rounding of both pictures to 8 bits."""
    code, out, _ = run(method, strength=strength)
    assert code == 0
    result = np.asarray(Image.open("out.png"))
    there = distance(by_pillow("photo.png", "a.cube"), result)
    assert there**2 == pytest.approx(residual_of(out) ** 2, abs=TOLERANCE)
    changed = distance(np.asarray(Image.open("photo.png")), result)
    assert residual_of(out) < 0.7 * changed


def test_ffmpeg_agrees(run, by_ffmpeg):
    out = run("colour_transfer").out
    pixels = np.asarray(Image.open("photo.png")).astype(np.uint16) * 257
    there = distance(by_ffmpeg(pixels, "a.cube"), np.asarray(Image.open("out.png")))
    assert there**2 == pytest.approx(residual_of(out) ** 2, abs=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_strength_0_is_the_identity(run, method):
    code, out, _ = run(method, strength=0)
    assert (code, residual_of(out)) == (0, 0)
    steps = np.indices((33, 33, 33)) / 32
    np.testing.assert_allclose(load_cube("a.cube").table, np.moveaxis(steps, 0, -1), atol=1e-6)


def test_without_regions_less_is_left(run):
    residuals = [
        residual_of(run("colour_transfer", masks=masks, overwrite="true").out)
        for masks in ("auto", "none")
    ]
    assert residuals[1] < residuals[0]


def test_of_the_working_size(run):
    assert run("colour_transfer", full_resolution="false").code == 0
    assert run("feedforward", full_resolution="false", output="b.png", lut="b.cube").code == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a.txt", "lut=a.txt: give a file that ends in .cube"),
        ("there.cube", "lut=there.cube: exists; give another name or overwrite=true"),
        ("no/a.cube", "lut=no/a.cube: there is no folder no"),
    ],
)
def test_refused_before_the_work(run, folder, method, value, message):
    Path("there.cube").touch()
    before = files(folder)
    code, out, err = run(method, lut=value)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("error:") == err.count("\n") == 1
    assert files(folder) == before


def test_refused_of_many_photos(run, folder):
    before = files(folder)
    code, _, err = run("feedforward", content="trip", output="made")
    assert (code, err) == (2, "error: lut=a.cube: is that of one photo; give one as content\n")
    assert files(folder) == before


@pytest.mark.reliability
@pytest.mark.parametrize("method", METHODS)
def test_that_cannot_be_written_after_all(run, method, monkeypatch):
    """The photo is there, and one line says what is not."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("photostyle.data.lut_output.save_cube", full)
    code, _, err = run(method)
    assert code == 2
    assert err.splitlines()[-1] == "error: lut=a.cube: cannot be written: No space left on device"
    assert load_photo("out.png").pixels.shape == (48, SIZE, 3)
    assert not Path("a.cube").exists()


# ------------------------------------------------------------------------------------ method=lut


def save_cube_of(path, function, size=17):
    """A cube of a function of colours, written by hand."""
    rows = [
        "{:.6f} {:.6f} {:.6f}".format(*function(np.array([r, g, b]) / (size - 1)))
        for b in range(size)
        for g in range(size)
        for r in range(size)
    ]
    Path(path).write_text("\n".join([f"LUT_3D_SIZE {size}", *rows, ""]))


def warm(colour):
    """Trilinear interpolation of it is exact."""
    red, green, blue = colour[..., 0], colour[..., 1], colour[..., 2]
    return np.stack([0.2 + 0.8 * red, green * (0.6 + 0.3 * red), 0.7 * blue], -1)


@pytest.fixture
def warm_cube(folder):
    save_cube_of("a.cube", warm)


@pytest.mark.usefixtures("warm_cube")
class TestMethodLut:
    @pytest.mark.parametrize("strength", [1, 0.25])
    def test_8_bits(self, run, strength):
        """Dithered: within one level, and right on average."""
        code, out, _ = run("lut", strength=strength)
        assert code == 0
        assert out.startswith("out.png: 1 photo, ")
        before, after = (np.asarray(Image.open(f"{name}.png")) / 255 for name in ("photo", "out"))
        expected = before + strength * (warm(before) - before)
        assert np.abs(after - expected).max() < 1 / 255
        assert np.abs((after - expected).mean((0, 1))).max() < 0.05 / 255

    def test_16_bits_and_transparency(self, run):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 65536, (30, 40, 3), np.uint16)
        alpha = rng.integers(0, 65536, (30, 40), np.uint16)
        save_photo("photo.png", Photo(pixels, alpha))
        assert run("lut").code == 0
        result = load_photo("out.png")
        np.testing.assert_array_equal(result.alpha, alpha)
        expected = 65535 * warm(pixels / 65535)
        assert np.abs(result.pixels - expected).max() < 1  # half of it by rounding to nearest

    @pytest.mark.parametrize("profile", [adobe_rgb_profile, p3_profile])
    def test_profile_and_metadata_stay(self, run, profile):
        """By the LUT as sRGB, and back to the photo's own space."""
        photo = Photo(np.asarray(picture(3)).astype(np.uint16) * 257)
        tagged = replace(photo, icc_profile=profile())
        exif = Image.Exif()
        exif[0x010E] = "A description"
        metadata = replace(photo.metadata, exif=exif.tobytes()[6:])
        save_photo("photo.png", replace(tagged, metadata=metadata))
        assert run("lut").code == 0
        result = load_photo("out.png")
        assert result.icc_profile == tagged.icc_profile
        with Image.open("out.png") as image:
            assert image.getexif()[0x010E] == "A description"
        before, after = (each.space.to_srgb(each.pixels) for each in (tagged, result))
        visible = (before > 0.02).all(-1) & (before < 0.98).all(-1)
        assert visible.mean() > 0.5
        errors = np.abs(after - warm(before))[visible]
        assert errors.max() < 2e-3
        as_srgb = np.abs(result.pixels / 65535 - warm(photo.pixels / 65535))
        assert as_srgb.max() > 0.01  # its numbers are not those of sRGB

    def test_the_identity_changes_nothing(self, run):
        """Not even colours that sRGB lacks."""
        save_cube_of("a.cube", lambda colour: colour)
        rng = np.random.default_rng(1)
        for profile in (None, adobe_rgb_profile(), p3_profile()):
            for white, dtype in ((255, np.uint8), (65535, np.uint16)):
                pixels = rng.integers(0, white, (40, 50, 3), dtype, endpoint=True)
                save_photo("photo.png", Photo(pixels, icc_profile=profile))
                assert run("lut", overwrite="true").code == 0
                np.testing.assert_array_equal(load_photo("out.png").pixels, pixels)

    def test_strength_0_changes_nothing(self, run):
        assert run("lut", strength=0).code == 0
        np.testing.assert_array_equal(load_photo("out.png").pixels, load_photo("photo.png").pixels)

    def test_curves(self, run):
        Path("a.cube").write_text("LUT_1D_SIZE 3\n0 1 0\n0.5 0.5 0.25\n1 0 0.5\n")
        assert run("lut").code == 0
        before, after = (np.asarray(Image.open(f"{name}.png")) / 255 for name in ("photo", "out"))
        expected = np.stack([before[..., 0], 1 - before[..., 1], before[..., 2] / 2], -1)
        assert np.abs(after - expected).max() < 1 / 255

    def test_working_size(self, run):
        picture(5, 200, 100).save("photo.png")
        assert run("lut", full_resolution="false", size=50).code == 0
        assert load_photo("out.png").pixels.shape == (25, 50, 3)

    def test_repeats_what_wrote_it(self, run):
        """The LUT of a result, applied to its photo, is the result but for the residual."""
        residual = residual_of(run("colour_transfer", overwrite="true").out)
        assert run("lut", output="again.png").code == 0
        pictures = [np.asarray(Image.open(name)) for name in ("out.png", "again.png")]
        assert distance(*pictures) ** 2 == pytest.approx(residual**2, abs=1)

    def test_folder(self, run):
        Path("trip/notes.txt").write_text("no photo")
        Path("trip/broken.png").write_bytes(b"\x89PNG")
        code, out, _ = run("lut", content="trip", output=None)
        assert code == 1
        assert out.startswith("trip_a: 2 photos, ")
        assert "passed over: 1 .txt" in out
        assert "failed: content=trip/broken.png: " in out
        before, after = (load_photo(f"{f}/day 1/b.png").pixels / 255 for f in ("trip", "trip_a"))
        assert np.abs(after - warm(before)).max() < 1 / 255
        assert "skipped: 2 photos that exist" in run("lut", content="trip", output=None).out

    def test_pattern(self, run):
        code, out, _ = run("lut", content="trip/**/b.*", output="made", workers=2)
        assert (code, [str(path) for path in Path("made").rglob("*.png")]) == (
            0,
            ["made/day 1/b.png"],
        )
        assert out.startswith("made: 1 photo, ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lut": None}, "lut=???: required; give it as lut=VALUE"),
        ({"lut": "null"}, "lut=None: required; give a .cube file"),
        ({"lut": "b.cube"}, "lut=b.cube: no such file; give a .cube file"),
        ({"lut": "trip"}, "lut=trip: is a folder; give a .cube file"),
        ({"lut": "photo.png"}, "lut=photo.png: no LUT that can be read: "),
        ({"content": "no.png"}, "content=no.png: no such file"),
        ({"content": "null"}, "content=None: required; give a photo, a folder or a pattern"),
        ({"output": "style.png"}, "output=style.png: exists; give another name or overwrite=true"),
        ({"strength": 2}, "strength=2: give a number from 0 to 1"),
        ({"workers": 0}, "workers=0: give a number at least 1"),
        (
            {"style": "style.png"},
            "style: there is no such argument here, but with method=colour_transfer",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("warm_cube")
def test_method_lut_refuses(run, folder, values, message):
    before = files(folder)
    code, out, err = run("lut", **values)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert files(folder) == before
