"""From file to file with every method: what colours mean, what is hidden, and how fine levels are.

The result may depend on what a photo shows, and on nothing about how its file says it.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from photostyle import stylize
from photostyle.data import Photo, load_photo, save_photo
from photostyle.data.colour_space import adobe_rgb_profile, colour_space, matrix_profile
from photostyle.data.vips import libvips

EXAMPLES = Path(__file__).parents[1] / "examples"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = 112
OPTIMISER = ("method=optimize", "optimizer.steps=[2]", "backend=cpu")
METHODS = {
    "colour_transfer": ("method=colour_transfer",),
    "optimiser": OPTIMISER,
    "universal": ("method=feedforward",),
}

pytestmark = pytest.mark.usefixtures("no_network")


# Far outside sRGB (ISO 22028-2).
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))


def prophoto_profile():
    return matrix_profile("ProPhoto", PROPHOTO, 1.8)


ENCODINGS = {
    "p3": lambda: libvips().Image.profile_load("p3"),
    "adobe": adobe_rgb_profile,
    "prophoto": prophoto_profile,
}


@pytest.fixture
def run(command, tmp_path, monkeypatch):
    """``run(method, content, style, output, *words)``: the written photo."""
    monkeypatch.chdir(tmp_path)

    def stylise(method, content, style, output, *words):
        files = [f"content={content}", f"output={output}", f"size={SIZE}"]
        files += [] if style is None else [f"style={style}"]
        code, _, err = command(stylize.main, *METHODS.get(method, method), *files, *words)
        assert code == 0, err
        return load_photo(output)

    return stylise


def example(name, size=SIZE):
    with Image.open(EXAMPLES / f"{name}.jpg") as image:
        image.thumbnail((size, size))
        return np.asarray(image.convert("RGB"))


def encoded(pixels, profile):
    """The colours of sRGB pixels in the numbers of another space, 16 bits each."""
    levels = colour_space(profile).levels(pixels.astype(np.float32) / 255)
    return Photo(np.rint(levels).astype(np.uint16), icc_profile=profile)


def difference(first, second):
    """Mean ΔE*ab of what two photos show."""
    lab = [rgb2lab(photo.tensor()[0].permute(1, 2, 0).numpy()) for photo in (first, second)]
    return np.sqrt(((lab[0] - lab[1]) ** 2).sum(-1)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("space", ENCODINGS)
def test_encodings_of_one_photo(run, method, space):
    """As content and as style."""
    profile = ENCODINGS[space]()
    for name in ("sunset", "pavilion"):
        save_photo(f"{name}.tif", Photo(example(name)))
        save_photo(f"{name}_other.tif", encoded(example(name), profile))
    expected = run(method, "pavilion.tif", "sunset.tif", "expected.tif")
    as_style = run(method, "pavilion.tif", "sunset_other.tif", "a.tif")
    assert difference(as_style, expected) < 0.6
    as_content = run(method, "pavilion_other.tif", "sunset.tif", "b.tif")
    assert as_content.icc_profile == profile
    assert as_content.pixels.dtype == np.uint16
    assert difference(as_content, expected) < 0.6


def test_a_network_of_one_style_and_the_encodings(run):
    save_photo("srgb.tif", Photo(example("pavilion")))
    save_photo("other.tif", encoded(example("pavilion"), prophoto_profile()))
    method = ("method=feedforward", "network=autumn")
    results = [run(method, f"{name}.tif", None, f"{name}_out.tif") for name in ("srgb", "other")]
    assert difference(*results) < 0.6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("space", ["srgb", "p3", "prophoto"])
def test_strength_0_is_the_photo(run, method, dtype, space):
    """To the bit, colours outside sRGB included."""
    profile = SRGB if space == "srgb" else ENCODINGS[space]()
    top = np.iinfo(dtype).max
    random = np.random.default_rng(0)
    pixels = random.integers(0, top, (50, 70, 3), dtype, endpoint=True)
    save_photo("photo.png", Photo(pixels, icc_profile=profile))
    save_photo("style.png", Photo(example("sunset", 64)))
    result = run(method, "photo.png", "style.png", "out.png", "strength=0", "masks=none")
    assert result.icc_profile == profile
    np.testing.assert_array_equal(result.pixels, pixels)


@pytest.mark.parametrize("method", ["colour_transfer", "universal"])
def test_a_gradient_of_sixteen_bits_stays_one(run, method):
    levels = np.linspace(15_000, 50_000, 3000).round().astype(np.uint16)
    save_photo("sky.tif", Photo(np.tile(levels[None, :, None], (40, 1, 3))))
    save_photo("style.png", Photo(example("sunset")))
    result = run(method, "sky.tif", "style.png", "out.tif", "masks=none")
    assert all(len(np.unique(result.pixels[20, :, channel])) > 1000 for channel in range(3))


def cut_out(pixels, hidden):
    """A photo of which a disc can be seen, with something else under the rest."""
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    centre = pixels.shape[0] / 2, pixels.shape[1] / 2
    distance = np.hypot(y - centre[0], x - centre[1])
    alpha = (255 * np.clip((0.45 * min(pixels.shape[:2]) - distance) / 2, 0, 1)).astype(np.uint8)
    return Photo(np.where(alpha[..., None] == 0, np.uint8(hidden), pixels), alpha)


SINGLE = ("method=feedforward", "network=autumn")


@pytest.mark.parametrize("method", [*METHODS, SINGLE], ids=str)
@pytest.mark.parametrize("masks", ["auto", "none"])
def test_what_is_hidden_in_the_content_changes_nothing(run, method, masks):
    if method == SINGLE and masks == "auto":
        return
    save_photo("style.png", Photo(example("sunset")))
    style, words = ("style.png", [f"masks={masks}"]) if method != SINGLE else (None, [])
    results = []
    for hidden in (0, 255):
        save_photo("cut.png", cut_out(example("pavilion"), hidden))
        results.append(run(method, "cut.png", style, f"out{hidden}.png", *words))
    seen = results[0].alpha > 0
    np.testing.assert_array_equal(results[0].alpha, results[1].alpha)
    np.testing.assert_array_equal(results[0].pixels[seen], results[1].pixels[seen])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("masks", ["auto", "none"])
def test_what_is_hidden_in_the_style_changes_nothing(run, method, masks):
    save_photo("content.png", Photo(example("pavilion")))
    results = []
    for hidden in (0, 255):
        save_photo("cut.png", cut_out(example("sunset"), hidden))
        results.append(run(method, "content.png", "cut.png", f"{hidden}.png", f"masks={masks}"))
    np.testing.assert_array_equal(results[0].pixels, results[1].pixels)


@pytest.mark.parametrize("method", ["colour_transfer", "universal"])
def test_what_is_hidden_counts_nothing(run, method):
    """A style of which only the sky can be seen gives what that sky alone gives."""
    pixels = example("sunset")
    sky = pixels[: pixels.shape[0] // 2]
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[: len(sky)] = 255
    save_photo("content.png", Photo(example("pavilion")))
    save_photo("cut.png", Photo(pixels, alpha))
    save_photo("sky.png", Photo(sky))
    save_photo("whole.png", Photo(pixels))
    cut, alone, whole = (
        run(method, "content.png", f"{name}.png", f"by_{name}.png", "masks=none")
        for name in ("cut", "sky", "whole")
    )
    assert difference(cut, alone) < 1
    assert difference(cut, whole) > 3


@pytest.mark.parametrize("method", METHODS)
def test_a_style_in_black_and_white(run, method):
    """Nothing of the photo's colours is left, by eye or by number."""
    grey = np.asarray(Image.fromarray(example("sunset")).convert("L"))
    save_photo("content.png", Photo(example("pavilion")))
    save_photo("grey.png", Photo(np.stack([grey] * 3, -1)))
    result = run(method, "content.png", "grey.png", "out.png")
    assert np.ptp(result.pixels.astype(int), axis=-1).max() <= 1
    assert result.pixels.std() > 40


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_be_seen(command, tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    pixels = example("sunset")
    save_photo("content.png", Photo(pixels))
    save_photo("clear.png", Photo(pixels, np.zeros(pixels.shape[:2], np.uint8)))
    for argument, other in (("content", "style"), ("style", "content")):
        words = [f"{argument}=clear.png", f"{other}=content.png", "output=out.png"]
        code, _, err = command(stylize.main, *METHODS[method], *words)
        assert code == 2
        assert f"error: {argument}=clear.png: is transparent everywhere" in err
        assert not Path("out.png").exists()


def test_a_result_has_its_photos_format(command, tmp_path, monkeypatch):
    """And transparency with it; where the output has none a line says so."""
    monkeypatch.chdir(tmp_path)
    save_photo("cut.png", cut_out(example("pavilion"), 0))
    save_photo("style.jpg", Photo(example("sunset")))
    words = ["method=colour_transfer", "content=cut.png", "style=style.jpg", f"size={SIZE}"]
    assert command(stylize.main, *words).code == 0
    assert load_photo("cut_style.png").alpha.min() == 0
    code, _, err = command(stylize.main, *words, "output=flat.jpg")
    assert code == 0
    assert "flat.jpg holds no transparency: the photo is put on white" in err
    assert load_photo("flat.jpg").pixels[0, 0].min() > 250


@pytest.mark.parametrize("method", METHODS)
def test_what_a_format_cannot_hold_is_refused_before_the_work(
    command, tmp_path, monkeypatch, method
):
    """WebP holds 16383 pixels a side; the working size always fits."""
    monkeypatch.chdir(tmp_path)
    save_photo("wide.png", Photo(np.zeros((16, 16_400, 3), np.uint8)))
    save_photo("style.png", Photo(example("sunset", 64)))
    words = [*METHODS[method], "content=wide.png", "style=style.png", "output=out.webp"]
    for name in ("ops.regions.segment_together", "ops.matting.laplacian.MattingLaplacian.product"):
        monkeypatch.setattr(f"photostyle.{name}", lambda *_, **__: pytest.fail("work"))
    code, _, err = command(stylize.main, *words)
    assert code == 2
    assert "output=out.webp: WEBP holds at most 16383 pixels a side, not 16400 x 16" in err
