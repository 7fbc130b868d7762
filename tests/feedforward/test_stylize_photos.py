"""The feed-forward mode: the network's file, and what ``method=feedforward`` writes.

Most tests call ``stylize.main`` in this process. The network is tiny and not trained: what it does
to a photo is arbitrary, but not small.
"""

import errno
import json
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from safetensors import safe_open
from safetensors.torch import save_file

from photostyle import stylize
from photostyle.data import PhotoOptions, apply_coefficients, encoders, load_photo, paths
from photostyle.feedforward import StyleNetwork, TransformNet, load_network
from photostyle.feedforward import style_network as network_file
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops import ArgumentError, GuidedFilter
from photostyle.ops.colour_transfer import GAINS
from photostyle.ops.tones import CURVATURE

WIDTH, HEIGHT, SIZE = 96, 72, 48
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

pytestmark = pytest.mark.usefixtures("no_network")


def tiny_network(guided_filter: GuidedFilter | None = GuidedFilter(radius=3)) -> StyleNetwork:  # noqa: B008
    """A network that moves the colours by some tens of levels, none of them out of range."""
    torch.manual_seed(0)
    net = TransformNet(4, 1, style=0.5 + 0.1 * torch.randn(1, 3, 64, 64))
    torch.nn.init.normal_(net.output.weight, std=0.02)
    quality = {"style_distance": 0.25}
    return StyleNetwork(net.eval(), guided_filter, "tiny, of tests", {"steps": 3}, quality)


def picture(seed, width=WIDTH, height=HEIGHT):
    """Smooth colours and some grain."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return Image.fromarray((np.stack(planes, -1) + grain).clip(0, 255).astype(np.uint8))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files(folder):
    """Everything in a folder, with contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
    }


def names(folder):
    return sorted(name for name, content in files(folder).items() if content is not None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a network, a photo and a folder of three."""
    monkeypatch.chdir(tmp_path)
    tiny_network().save("tiny.safetensors")
    tiny_network(None).save("painter.safetensors")
    picture(0).save("photo.png")
    Path("trip/day 1").mkdir(parents=True)
    picture(1).save("trip/a.png")
    picture(2, 64, 80).save("trip/day 1/b.JPG")
    picture(3).save("trip/day 1/c.webp", lossless=True)
    Path("trip/notes.txt").write_text("no photo")
    picture(4).save("trip/.hidden.png")
    return tmp_path


@pytest.fixture
def run(folder, command):
    """``run(key=value)`` -> exit code and output; ``None`` leaves a key out."""

    def call(**values):
        values = {
            "method": "feedforward", "content": "photo.png", "network": "tiny.safetensors",
            "output": "out.png", "size": SIZE, "device": "cpu", "precision": "float32",
        } | values  # fmt: skip
        return command(
            stylize.main,
            *(f"{key}={value}" for key, value in values.items() if value is not None),
        )

    return call


@pytest.fixture
def threads():
    """``torch.set_num_threads``, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# --------------------------------------------------------------------------------- network files


@pytest.mark.parametrize("guided_filter", [GuidedFilter(5, 2e-3), None], ids=["photo", "painting"])
def test_round_trip(tmp_path, guided_filter):
    before = tiny_network(guided_filter)
    before.save(tmp_path / "n.safetensors")
    after = load_network(tmp_path / "n.safetensors")
    assert (after.guided_filter, after.name) == (guided_filter, "tiny, of tests")
    assert (after.config, after.metrics) == ({"steps": 3}, {"style_distance": 0.25})
    expected = {"width": 4, "blocks": 1, "base": "colour_transfer"}
    expected |= {"gains": GAINS, "curvature": CURVATURE}
    assert after.net.architecture == expected
    assert not after.net.training
    assert {tensor.dtype for tensor in after.net.state_dict().values()} == {torch.float32}
    image = torch.rand(2, 3, 21, 34)
    # Float16 weights: measured 0.0004.
    torch.testing.assert_close(after(image), before(image), atol=2e-3, rtol=0)
    with safe_open(tmp_path / "n.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118


def test_coefficients_give_the_result():
    network, image = tiny_network(), torch.rand(2, 3, 40, 37)
    coefficients = network.coefficients(image)
    result = torch.einsum("bkchw,bchw->bkhw", coefficients[:, :, :3], image) + coefficients[:, :, 3]
    torch.testing.assert_close(result, network(image), atol=1e-5, rtol=0)
    assert tiny_network(None).coefficients(image) is None


def test_shipped_names(tmp_path, monkeypatch):
    monkeypatch.setattr(network_file, "SHIPPED", tmp_path)
    tiny_network().save(tmp_path / "dusk.safetensors")
    tiny_network().save(tmp_path / "autumn.safetensors")
    assert load_network("dusk").name == "tiny, of tests"
    with pytest.raises(ArgumentError, match=r"network=noon: no such file; .* autumn, dusk$"):
        load_network("noon")


def test_no_code_of_a_file_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    (tmp_path / "n.safetensors").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ArgumentError, match="no network file"):
        load_network(tmp_path / "n.safetensors")
    assert not (tmp_path / "harm").exists()


def test_a_file_that_shrinks_when_it_has_been_read(tmp_path):
    """Weights are copies: the network goes on without its file."""
    tiny_network().save(tmp_path / "n.safetensors")
    network = load_network(tmp_path / "n.safetensors")
    photo = torch.rand(1, 3, 24, 32)
    expected = network(photo)
    os.truncate(tmp_path / "n.safetensors", 10)
    assert torch.equal(network(photo), expected)


def changed_network(path, drop=(), add=(), **metadata):
    """A network file with other metadata, without some tensors or with others."""
    with safe_open("tiny.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | metadata
    for key in drop:
        del tensors[key]
    tensors.update(add)
    save_file(tensors, path, {key: value for key, value in metadata.items() if value is not None})


def architecture(**changes):
    fields = {"width": 4, "blocks": 1, "base": "colour_transfer", "gains": GAINS}
    return json.dumps(fields | {"curvature": CURVATURE} | changes)


BAD_NETWORKS = {
    "text": (lambda path: path.write_text("This is not a network.\n" * 9), "no network file"),
    "empty": (lambda path: path.touch(), "the file is empty; give a network file"),
    "truncated": (
        lambda path: path.write_bytes(Path("tiny.safetensors").read_bytes()[:-40]),
        "no network file",
    ),
    "other safetensors": (
        lambda path: save_file({"a": torch.zeros(3)}, path),
        "safetensors, but no network of ours",
    ),
    "other format": (
        lambda path: changed_network(path, format="photostyle network 3"),
        "safetensors, but no network of ours",
    ),
    "no architecture": (
        lambda path: changed_network(path, architecture=None),
        "damaged network file",
    ),
    "architecture that is no JSON": (
        lambda path: changed_network(path, architecture="{"),
        "damaged network file",
    ),
    "unknown argument": (
        lambda path: changed_network(path, architecture=architecture(depth=3)),
        "damaged network file",
    ),
    "unknown base": (
        lambda path: changed_network(path, architecture=architecture(base="sepia")),
        "damaged network file (base=sepia: unknown",
    ),
    "weights of another width": (
        lambda path: changed_network(path, architecture=architecture(width=8)),
        "damaged network file",
    ),
    "weights of fewer blocks": (
        lambda path: changed_network(path, architecture=architecture(blocks=2)),
        "damaged network file",
    ),
    "missing weights": (
        lambda path: changed_network(path, drop=["output.bias"]),
        "damaged network file",
    ),
    "weights that are not finite": (
        lambda path: changed_network(path, add={"output.bias": torch.full((3,), torch.nan)}),
        "damaged network file (output.bias=tensor: give finite numbers",
    ),
    "weights that float16 does not hold": (
        lambda path: changed_network(path, add={"output.bias": torch.full((3,), 1e30)}),
        "damaged network file (output.bias=tensor: give finite numbers, at most 65504",
    ),
    "weights that are no floats": (
        lambda path: changed_network(path, add={"output.bias": torch.zeros(3, dtype=torch.int32)}),
        "damaged network file (output.bias=tensor: give finite numbers",
    ),
    "weights of another shape": (
        lambda path: changed_network(path, add={"output.weight": torch.zeros(3)}),
        "damaged network file",
    ),
    "a tensor as an argument": (
        lambda path: changed_network(path, architecture=architecture(style_mean=[0, 0, 0])),
        "damaged network file (architecture=['width', 'blocks', 'base', 'gains', 'curvature', 'sty",
    ),
    "a width beyond all networks": (
        lambda path: changed_network(path, architecture=architecture(width=10**30)),
        "damaged network file (width=1000000000000000000000000000000: give a number from 1 to 1024",
    ),
    "more than the file holds": (
        lambda path: changed_network(path, architecture=architecture(width=1024, blocks=1024)),
        "damaged network file (its weights do not fit its architecture)",
    ),
    "a kind that is no text": (
        lambda path: changed_network(path, architecture=architecture(kind=["universal"])),
        "damaged network file",
    ),
    "no numbers as gains": (
        lambda path: changed_network(path, architecture=architecture(gains=["a", "b"])),
        "damaged network file (gains=",
    ),
    "an architecture that is a list": (
        lambda path: changed_network(path, architecture="[]"),
        "damaged network file (architecture=[]: give fields by name",
    ),
    "nested without end": (
        lambda path: changed_network(path, config="[" * 100_000),
        "damaged network file",
    ),
    "a colour_map that is a number": (
        lambda path: changed_network(path, colour_map="7"),
        "damaged network file (colour_map=7: give true or false)",
    ),
    "an empty guided_filter": (
        lambda path: changed_network(path, guided_filter="{}"),
        "damaged network file (guided_filter=[]: without radius, ridge",
    ),
    "a guided_filter that is a number": (
        lambda path: changed_network(path, guided_filter="7"),
        "damaged network file (guided_filter=7: give fields by name",
    ),
    "metrics that are no numbers": (
        lambda path: changed_network(path, metrics='{"loss": "low"}'),
        "damaged network file (metrics=",
    ),
    "guided_filter out of range": (
        lambda path: changed_network(path, guided_filter='{"radius": 0, "ridge": 0.001}'),
        "damaged network file (radius=0",
    ),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_file_that_is_no_network(run, folder, case):
    make, message = BAD_NETWORKS[case]
    make(Path("bad.safetensors"))
    before = files(folder)
    code, out, err = run(network="bad.safetensors")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: network=bad.safetensors: {message}")
    assert err.count("\n") == 1
    assert files(folder) == before


# ------------------------------------------------------------------------------------- bad values

OPTIONS = PhotoOptions(size=SIZE)
BAD = {
    "masks": ({"masks": "auto"}, "masks=auto: network=tiny.safetensors has a style of its own"),
    "masks_dir": ({"masks_dir": "m"}, "masks_dir: there is no such argument here, but with"),
    "missing content": ({"content": "nope.png"}, "content=nope.png: no such file"),
    "no content": ({"content": None}, "content=???: required; give it as content=VALUE"),
    "null content": ({"content": "null"}, "content=None: required; give a photo, a folder or a"),
    "text file": ({"content": "text.png"}, "content=text.png: not a picture that can be read"),
    "max_pixels": ({"max_pixels": 6000}, "content=photo.png: 96 x 72 pixels are too many"),
    "empty folder": ({"content": "empty"}, "content=empty: no photos there; give a photo, or a"),
    "pattern without photos": ({"content": "trip/*.txt"}, "content=trip/*.txt: no photos there"),
    "pattern below nothing": ({"content": "no/*.png"}, "content=no/*.png: no photos there"),
    "no network": ({"network": None}, "style=None: required: a photo whose style to take; or give"),
    "missing network": ({"network": "nope"}, "network=nope: no such file; give a network file"),
    "folder as network": ({"network": "trip"}, "network=trip: no such file; give a network file"),
    "missing content, output exists": (
        {"content": "nope.png", "output": "trip/a.png"},
        "content=nope.png: no such file",
    ),
    "output exists": ({"output": "trip/a.png"}, "output=trip/a.png: exists; give another name or"),
    "output is content": (
        {"output": "./photo.png", "overwrite": "true"},
        "output=photo.png: is the file of content; give another name",
    ),
    "output in no folder": ({"output": "no/out.png"}, "output=no/out.png: there is no folder no"),
    "unknown suffix": ({"output": "out.gif"}, "output=out.gif: end its name in one of .jpg"),
    "folder for one photo": ({"output": "empty"}, "output=empty: is a folder; give the name of a"),
    "file for a folder": (
        {"content": "trip", "output": "photo.png"},
        "output=photo.png: ",
    ),
    "folder onto itself": (
        {"content": "trip", "output": "empty/../trip", "overwrite": "true"},
        "output=empty/../trip: holds the photos; give another folder",
    ),
    "a result that is a link to a photo": (
        {"content": "trip", "output": "links", "overwrite": "true"},
        "output=links/a.png: is the file of content; give another name",
    ),
    "pattern onto itself": (
        {"content": "trip/**/*.png", "output": "trip"},
        "output=trip: holds the photos; give another folder",
    ),
    "negative strength": ({"strength": -0.1}, "strength=-0.1: give a number from 0 to 1"),
    "strength above 1": ({"strength": 1.5}, "strength=1.5: give a number from 0 to 1"),
    "strength that is no number": ({"strength": "much"}, "strength=much: give a number from 0"),
    "batch_size 0": ({"batch_size": 0}, "batch_size=0: give a number at least 1"),
    "workers 0": ({"workers": 0}, "workers=0: give a number at least 1"),
    "workers that are not whole": ({"workers": 1.5}, "workers=1.5: give a whole number"),
    "size": ({"size": 31}, "size=31: give a number at least 32"),
    "quality": ({"quality": 0}, "quality=0: give a number from 1 to 100"),
    "overwrite": ({"overwrite": "maybe"}, "overwrite=maybe: give true or false"),
    "full_resolution": ({"full_resolution": 2}, "full_resolution=2: give true or false"),
    "precision": (
        {"precision": "float16"},
        "precision=float16: unknown; choose one of auto, float32, bfloat16",
    ),
    "device": ({"device": "tpu"}, "device=tpu: unknown; choose one of auto, cpu, cuda, cuda:N"),
    "style": (
        {"style": "photo.png"},
        "style=photo.png: network=tiny.safetensors has a style of its",
    ),
    "mask": ({"content_mask": "a.png"}, "content_mask=a.png: network=tiny.safetensors has a style"),
    "share": ({"whole_share": 0.5}, "whole_share=0.5: network=tiny.safetensors has a style of its"),
}


@pytest.mark.parametrize(
    ("content", "output", "warned"),
    [("trip", "trip/out", True), ("trip", "out", False), ("trip/*.png", "trip/out", False)],
)
def test_results_within_their_content(run, content, output, warned):
    """Another run would take them for photos, where it looks that deep."""
    code, _, err = run(content=content, output=output)
    assert code == 0
    assert ("trip/out is within trip: for another run its photos are content" in err) is warned


@pytest.mark.parametrize("case", BAD)
def test_wrong_value(run, folder, case):
    """Exit code 2, one line on stderr that names it, and nothing written."""
    values, message = BAD[case]
    Path("text.png").write_text("This is not a picture.\n")
    Path("empty").mkdir()
    Path("links").mkdir()
    Path("links/a.png").symlink_to("../trip/a.png")
    before = files(folder)
    code, out, err = run(**values)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert files(folder) == before


# -------------------------------------------------------------------------------------- one photo


def test_one_photo_at_its_own_size(run, folder):
    before = set(names(folder))
    code, out, err = run()
    assert code == 0
    assert set(names(folder)) - before == {"out.png"}
    assert out.startswith("out.png: 1 photo, ")
    assert "error" not in err
    photo = load_photo("photo.png")
    coefficients = load_network("tiny.safetensors").coefficients(photo.tensor(SIZE))
    expected = apply_coefficients(coefficients, photo.pixels)
    np.testing.assert_array_equal(pixels("out.png"), expected)
    assert np.abs(expected.astype(int) - photo.pixels).mean() > 10


def test_working_size(run, folder):
    assert run(full_resolution="false").code == 0
    guide = load_photo("photo.png").tensor(SIZE)
    expected = load_network("tiny.safetensors")(guide)[0].permute(1, 2, 0) * 255
    assert pixels("out.png").shape == (36, 48, 3)
    assert np.abs(pixels("out.png") - expected.clamp(0, 255).numpy()).max() < 0.51


def test_painterly_network(run, folder):
    """Nothing ties its result to the photo's own pixels."""
    code, _, err = run(network="painter.safetensors")
    assert code == 0
    assert "the results have the working size" in err
    assert pixels("out.png").shape == (36, 48, 3)
    assert run(network="painter.safetensors", output="0.png", strength=0).code == 0
    guide = load_photo("photo.png").tensor(SIZE)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(pixels("0.png"), guide, atol=1e-4)


@pytest.mark.parametrize("full_resolution", ["true", "false"])
def test_strength(run, folder, full_resolution):
    for strength in (0, 0.5, 1):
        values = {"output": f"{strength}.png", "full_resolution": full_resolution}
        assert run(strength=strength, **values).code == 0
    none, half, whole = (pixels(f"{strength}.png") for strength in (0, 0.5, 1))
    if full_resolution == "true":
        np.testing.assert_array_equal(none, pixels("photo.png"))
    inside = (whole > 0) & (whole < 255)
    assert inside.mean() > 0.9
    assert np.abs(half - (none + whole) / 2)[inside].max() <= 1.5  # three roundings
    assert run(output="default.png", full_resolution=full_resolution).code == 0
    np.testing.assert_array_equal(pixels("default.png"), whole)


def test_default_names(run, folder):
    Path("a.photo (1).png").write_bytes(Path("photo.png").read_bytes())
    assert run(content="a.photo (1).png", output=None).code == 0
    with Image.open("a.photo (1)_tiny.png") as image:
        assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
    assert run(content="trip", output=None).code == 0
    assert names("trip_tiny") == ["a.png", "day 1/b.JPG", "day 1/c.webp"]


def test_a_photo_whose_name_looks_like_a_pattern(run, folder):
    Path("photo.png").rename("[photo]*.png")
    assert run(content="[photo]*.png").code == 0
    assert Path("out.png").is_file()


def test_what_the_file_says_is_kept(run, folder):
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image = picture(0)
    image.putalpha(Image.fromarray(alpha))
    exif = Image.Exif()
    exif[315] = "A. Photographer"
    image.save("trip/a.png", icc_profile=SRGB, exif=exif)
    assert run(content="trip", output="out").code == 0
    with Image.open("out/a.png") as result:
        assert result.info["icc_profile"] == SRGB
        assert result.getexif()[315] == "A. Photographer"
        np.testing.assert_array_equal(np.asarray(result)[..., 3], alpha)


def test_same_as_the_library(run, folder):
    assert run().code == 0
    settings = {"options": PhotoOptions(size=SIZE), "device": "cpu", "precision": "float32"}
    report = stylize_photos("photo.png", "tiny.safetensors", "b.png", **settings)
    assert (report.exit_code, report.done, report.output) == (0, 1, Path("b.png"))
    assert Path("b.png").read_bytes() == Path("out.png").read_bytes()


# ------------------------------------------------------------------------------------ many photos


def test_folder(run, folder):
    """The tree is kept, and every photo is what it would be alone.

    But for rounding: with another number of threads a convolution adds in another order.
    """
    code, out, _ = run(content="trip", output="new/out")
    assert code == 0
    assert out.startswith("new/out: 3 photos, ")
    assert names("new/out") == ["a.png", "day 1/b.JPG", "day 1/c.webp"]
    for name in names("new/out"):
        assert run(content=f"trip/{name}", output="alone.png", overwrite="true").code == 0
        alone = pixels("alone.png")
        if name.endswith("png"):
            difference = np.abs(pixels(f"new/out/{name}").astype(int) - alone)
            assert difference.max() <= 1
            assert difference.mean() < 1e-3
        assert pixels(f"new/out/{name}").shape == alone.shape


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("trip/*", ["a.png"]),
        ("trip/**", ["a.png", "day 1/b.JPG", "day 1/c.webp"]),
        ("trip/**/*.[jw]*", ["day 1/c.webp"]),
        ("trip/**/*.[Jw]*", ["day 1/b.JPG", "day 1/c.webp"]),
        ("*/day 1/?.webp", ["trip/day 1/c.webp"]),
        ("**/**/a.png", ["trip/a.png"]),
        ("*.png", ["photo.png"]),
    ],
)
def test_pattern(run, folder, pattern, expected):
    """Below ``output`` stands what is below the part of the pattern without wildcards."""
    assert run(content=pattern, output="out").code == 0
    assert names("out") == expected


def test_what_is_there_is_skipped(run, folder):
    assert run(content="trip", output="out").code == 0
    Path("out/a.png").write_bytes(b"mine")
    Path("out/day 1/b.JPG").unlink()
    code, out, _ = run(content="trip", output="out")
    assert code == 0
    assert out.startswith("out: 1 photo, ")
    assert "skipped: 2 photos that exist" in out
    assert Path("out/a.png").read_bytes() == b"mine"
    assert run(content="trip", output="out").out.startswith("out: 0 photos, ")
    code, out, _ = run(content="trip", output="out", overwrite="true")
    assert (code, "skipped" in out) == (0, False)
    assert pixels("out/a.png").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("content", [".", "**/*", "trip/../**/*.png"])
def test_results_are_not_stylised_again(run, folder, content):
    assert run(content=content, output="out/a").code == 0
    first = names("out/a")
    assert "trip/a.png" in first or "../trip/a.png" in first
    code, out, _ = run(content=content, output="out/a")
    assert (code, names("out/a")) == (0, first)
    assert out.startswith("out/a: 0 photos, ")


def test_bad_photos_among_good_ones(run, folder):
    whole = Path("trip/a.png").read_bytes()
    Path("trip/truncated.png").write_bytes(whole[: len(whole) // 2])
    Path("trip/text.jpg").write_text("This is not a picture.\n")
    Path("trip/empty.webp").touch()
    picture(0, 12, 40).save("trip/tiny.png")
    code, out, err = run(content="trip", output="out", batch_size=3)
    assert code == 1
    assert out.startswith("out: 3 photos, ")
    for name, reason in {
        "empty.webp": "the file is empty",
        "text.jpg": "not a picture that can be read",
        "tiny.png": "12 x 40 pixels are too few",
        "truncated.png": "truncated or damaged",
    }.items():
        assert f"\nfailed: content=trip/{name}: {reason}" in out
    assert out.count("failed:") == 4
    assert "Traceback" not in err
    assert names("out") == ["a.png", "day 1/b.JPG", "day 1/c.webp"]


NO_PICTURE = "gives no picture: numbers that are not finite"


@pytest.mark.parametrize("full_resolution", ["true", "false"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_numbers_that_are_no_colours_are_no_result(run, monkeypatch, number, full_resolution):
    def forward(net, photo, weights=None):
        return torch.full_like(photo, number)

    monkeypatch.setattr(TransformNet, "forward", forward)
    code, out, err = run(full_resolution=full_resolution)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"error: content=photo.png: {NO_PICTURE}"
    assert not Path("out.png").exists()


def test_numbers_that_are_no_colours_in_a_folder(run, folder, monkeypatch):
    """The error is that of its photo; the others have results."""
    coefficients = StyleNetwork.coefficients

    def first_is_wild(network, photos):
        found = coefficients(network, photos)
        return torch.where(torch.arange(len(found)).view(-1, 1, 1, 1, 1) == 0, torch.nan, found)

    picture(5).save("trip/b.png")
    shutil.rmtree("trip/day 1")
    monkeypatch.setattr(StyleNetwork, "coefficients", first_is_wild)
    code, out, _ = run(content="trip", output="out", batch_size=2)
    assert code == 1
    assert f"\nfailed: content=trip/a.png: {NO_PICTURE}" in out
    assert names("out") == ["b.png"]


def test_files_that_are_passed_over(run, folder):
    """Counted by their kind; those in the output folder are not the user's."""
    for name in ("1.CR2", "2.cr2", "day 1/3.Cr2", "film.mov", "README", "day 1/.hidden"):
        Path("trip", name).touch()
    Path("trip/.thumbnails").mkdir()
    picture(5).save("trip/.thumbnails/a.png")
    Path("trip/out").mkdir()
    Path("trip/out/notes.txt").touch()
    code, out, _ = run(content="trip", output="trip/out")
    assert code == 0
    assert out.startswith("trip/out: 3 photos, ")
    expected = "passed over: 3 .cr2, 3 hidden, 1 .mov, 1 .txt, 1 without a suffix"
    assert out.splitlines()[1:] == [expected]
    code, out, _ = run(content="trip/*", output="out")
    expected = "passed over: 2 .cr2, 1 .mov, 1 .txt, 1 hidden, 1 without a suffix"
    assert out.splitlines()[1:] == [expected]
    assert "passed over" not in run(content="trip/a*.png", output="out 2").out


@pytest.fixture
def closed(folder, monkeypatch):
    """A folder among the photos that cannot be read, not even by an administrator."""
    Path("trip/closed").mkdir()
    scandir, access = os.scandir, os.access

    def refuses(path="."):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [("trip", "Permission denied"), ("trip/**/*", "no permission"), ("*/*/*", "no permission")],
)
def test_a_folder_below_that_cannot_be_read(run, closed, content, reason):
    """The others are done; the exit code says that not all is."""
    code, out, _ = run(content=content, output="out")
    assert code == 1
    assert out.splitlines()[-1] == f"1 folder not read: trip/closed ({reason})"
    assert "out/day 1/b.JPG" in names(".") or "out/trip/day 1/b.JPG" in names(".")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trip/closed", "cannot be read: Permission denied"),
        ("trip/closed/*", "no photos there, and not read: trip/closed (no permission)"),
        ("trip/closed/**", "no photos there, and not read: trip/closed (no permission)"),
    ],
)
def test_the_folder_itself_cannot_be_read(run, closed, content, message):
    code, out, err = run(content=content, output="out")
    assert (code, out) == (2, "")
    assert err == f"error: content={content}: {message}\n"


@pytest.mark.parametrize("argument", ["content", "network", "output", "style", "save_style"])
@pytest.mark.parametrize("value", ["n" * 300, "circle"])
def test_path_out_of_reach(run, folder, argument, value):
    suffix = ".safetensors" if argument in ("style", "save_style") else ""
    Path(f"circle{suffix}").symlink_to(f"circle{suffix}")
    before = files(folder)
    universal = {"network": None, "style": "photo.png"} if "style" in argument else {}
    code, out, err = run(**universal | {argument: value + suffix})
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {argument}={value}{suffix}: cannot be reached: ")
    assert err.count("\n") == 1
    assert files(folder) == before


def test_pattern_below_what_is_out_of_reach(run, folder):
    Path("circle").symlink_to("circle")
    code, out, err = run(content="circle/*.png", output="out")
    assert (code, out) == (2, "")
    assert err.startswith("error: content=circle/*.png: cannot be reached: Too many levels")


def test_link_as_output(run, folder):
    Path("elsewhere").mkdir()
    Path("out.png").symlink_to("elsewhere/result.png")
    assert run().code == 0
    assert os.readlink("out.png") == "elsewhere/result.png"
    assert pixels("elsewhere/result.png").shape == (HEIGHT, WIDTH, 3)


def test_places_that_cannot_be_written(run, folder):
    Path("out").mkdir()
    Path("out/day 1").write_text("a file where a folder should be")
    code, out, _ = run(content="trip", output="out")
    assert code == 1
    assert out.startswith("out: 1 photo, ")
    assert "\nfailed: output=out/day 1/b.JPG: cannot be written: " in out
    assert names("out") == ["a.png", "day 1"]


@pytest.mark.reliability
def test_full_disk(run, folder, monkeypatch):
    """What does not fit is reported and leaves nothing behind."""
    encode = encoders.encode

    def full(file, file_format, *arguments):
        encode(file, file_format, *arguments)
        if file_format == "JPEG":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(encoders, "encode", full)
    code, out, _ = run(content="trip", output="out")
    assert code == 1
    assert "failed: output=out/day 1/b.JPG: cannot be written: No space left on device" in out
    assert names("out") == ["a.png", "day 1/c.webp"]
    code, out, err = run(output="out.jpg")
    assert (code, out) == (2, "")
    where = "No space left on device; the result is in out_rescued.png"
    assert f"output=out.jpg: cannot be written: {where}\n" in err
    assert not list(folder.glob("*.jpg"))
    assert pixels("out_rescued.png").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.reliability
def test_a_disk_that_fills_at_any_moment(folder, disk, monkeypatch):
    """What was written before is whole, what was not is named, and the next run makes it."""
    monkeypatch.setattr(tempfile, "tempdir", "elsewhere")
    Path("elsewhere").mkdir()
    writes, complete = 0, False
    while not complete:
        disk.fills("out", writes=writes)
        report = stylize_photos(
            "trip", "tiny.safetensors", "out", options=OPTIONS, device="cpu", workers=1
        )
        complete = not report.failures
        assert report.done + len(report.failures) == 3
        assert report.exit_code == (not complete)
        full = f"cannot be written: {os.strerror(errno.ENOSPC)}"
        assert all(failure.endswith(full) for failure in report.failures)
        assert len(names("out")) == report.done
        for name in names("out"):
            assert pixels(f"out/{name}").shape[2] == 3
        shutil.rmtree("out")
        writes += 1
    assert writes > 6
    assert os.listdir("elsewhere") == []


Usage = namedtuple("Usage", "total used free")


def test_room_on_the_disk(run, folder, monkeypatch):
    """Without any for the largest photo no work begins; without enough for all there is a warning.

    A result of the working size takes less.
    """
    sizes = [
        Path(f"trip/{name}").stat().st_size for name in ("a.png", "day 1/b.JPG", "day 1/c.webp")
    ]
    free = sum(sizes) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    monkeypatch.setattr(paths, "LEAST_ROOM", 1)
    code, _, err = run(content="trip", output="new/out")
    assert code == 0
    assert "WARNING: new/out: 0.0 MB are free there, the photos take 0.0 MB: not all may" in err
    free = max(sizes) - 1
    code, out, err = run(content="trip", output="other")
    assert (code, out) == (2, "")
    assert err.startswith("error: output=other: 0.0 MB are free there, at least 0.0 MB are needed")
    assert not Path("other").exists()
    assert run(content="trip", output="other", full_resolution="false").code == 0
    free = Path("photo.png").stat().st_size - 1
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("error: output=out.png: 0.0 MB are free there, at least")
    assert run(full_resolution="false").code == 0


@pytest.mark.parametrize("full_resolution", ["true", "false"])
def test_batches_equal_single_photos(run, folder, full_resolution):
    """Of mixed sizes, in batches that do not divide their number."""
    Path("mixed").mkdir()
    for number, (width, height) in enumerate([(96, 72), (60, 90), (96, 72), (40, 33), (192, 144)]):
        picture(number, width, height).save(f"mixed/{number}.png")
    for batch_size, workers in ((1, 1), (3, 2), (9, 4)):
        values = {"batch_size": batch_size, "workers": workers, "full_resolution": full_resolution}
        assert run(content="mixed", output=f"out{batch_size}", **values).code == 0
    for name in names("mixed"):
        single = pixels(f"out1/{name}")
        for other in ("out3", "out9"):
            assert np.abs(pixels(f"{other}/{name}") - single).max() <= 1


@pytest.mark.parametrize(("workers", "share"), [(None, 1), (1, 3), (2, 1)])
def test_threads(folder, monkeypatch, threads, workers, share):
    """The workers share PyTorch's threads, and its setting is put back."""
    forward, seen = TransformNet.forward, []

    def notes(self, *arguments):
        seen.append(torch.get_num_threads())
        return forward(self, *arguments)

    monkeypatch.setattr(TransformNet, "forward", notes)
    threads(3)
    report = stylize_photos(
        "trip", "tiny.safetensors", options=OPTIONS, device="cpu", workers=workers
    )
    assert report.done == 3
    assert seen == [share] * 3
    assert torch.get_num_threads() == 3


def test_a_defect_of_ours_keeps_its_traceback(folder, monkeypatch, threads):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(TransformNet, "forward", broken)
    threads(2)
    with pytest.raises(RuntimeError, match="a defect"):
        stylize_photos("trip", "tiny.safetensors", options=OPTIONS, device="cpu")
    assert torch.get_num_threads() == 2
    assert not Path("trip_tiny").exists()


def test_bfloat16_is_close(run):
    """Worst measured: 2 levels, in an untrained network; "auto" is one of the two."""
    for precision in ("float32", "bfloat16", "auto"):
        assert run(output=f"{precision}.png", precision=precision).code == 0
    exact, coarse, auto = (pixels(f"{name}.png") for name in ("float32", "bfloat16", "auto"))
    assert np.abs(exact.astype(int) - coarse).max() <= 4
    assert any((auto == other).all() for other in (exact, coarse))


def test_interrupted(run, folder, monkeypatch):
    """The photo begun is finished, those before are kept, the rest is left for the next run."""
    Path("many").mkdir()
    for number in range(20):
        picture(number).save(f"many/{number:02d}.png")
    forward, calls = TransformNet.forward, []

    def interrupts(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return forward(self, *arguments)

    monkeypatch.setattr(TransformNet, "forward", interrupts)
    # Where these tests run in the background of a shell, it is ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = run(content="many", output="out", workers=1)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert code == 130
    done = names("out")
    assert 3 <= len(done) < 20
    for name in done:
        assert pixels(f"out/{name}").shape == (HEIGHT, WIDTH, 3)
    assert out.startswith(f"out: {len(done)} photos, ")
    assert out.endswith(f"\ninterrupted; {20 - len(done)} photos left\n")
    assert "interrupted; finishing the photos begun" in err
    assert "Traceback" not in err
    code, out, _ = run(content="many", output="out")
    assert (code, len(names("out"))) == (0, 20)
    assert f"skipped: {len(done)} photos that exist" in out
