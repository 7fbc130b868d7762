"""The network of any style: what it computes, its files, ``style=PHOTO``, and its training.

Most networks here are not trained: what they add to the base is arbitrary, but not small.
"""

import os
import signal
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from photostyle import stylize, train
from photostyle.data import TrainingPhotos
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    StyleNetwork,
    UniversalNet,
    load_network,
    load_style,
    save_style,
    train_network,
)
from photostyle.feedforward.train import held_out_styles
from photostyle.feedforward.training_objective import AnyStyle
from photostyle.feedforward.universal_net import LAYERS
from photostyle.ops import ArgumentError, GuidedFilter, StyleObjective, VGGFeatures
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.colour_transfer import colour_transfer

WIDTH, HEIGHT, SIZE = 96, 72, 64


def picture(seed, width=WIDTH, height=HEIGHT, tint=(1, 1, 1)):
    """Smooth colours and some grain, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return ((np.stack(planes, -1) + grain) * tint).clip(0, 255).astype(np.uint8)


def tensor(*arguments, **options):
    return torch.from_numpy(picture(*arguments, **options)).permute(2, 0, 1)[None] / 255


def universal(width=4, **arguments):
    """An untrained network that moves colours by some levels."""
    torch.manual_seed(0)
    net = UniversalNet(width, 1, **arguments)
    torch.nn.init.normal_(net.output.weight, std=0.05)
    return net.eval()


def halves(image):
    left = (torch.arange(image.shape[3]) < image.shape[3] // 2).float()
    left = left.expand(1, *image.shape[2:])
    return torch.cat([left, 1 - left])


def apply(net, photo, statistics, masks=None):
    """The network's output before anything is filtered."""
    return net(*net.start(photo, statistics, masks).inputs)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with networks, photos, a style and a folder of three photos."""
    monkeypatch.chdir(tmp_path)
    StyleNetwork(universal(), GuidedFilter(3), "any").save("any.safetensors")
    Image.fromarray(picture(0)).save("photo.png")
    Image.fromarray(picture(7, 80, 64, (1, 0.6, 0.3))).save("warm.png")
    for i in range(3):
        Path("trip").mkdir(exist_ok=True)
        Image.fromarray(picture(i + 1)).save(f"trip/{i}.png")
    return tmp_path


@pytest.fixture
def run(folder, command):
    """``run(key=value)`` -> exit code and output; ``None`` leaves a key out."""

    def call(**values):
        values = {
            "method": "feedforward", "content": "photo.png", "style": "warm.png",
            "network": "any.safetensors", "output": "out.png", "size": SIZE, "device": "cpu",
            "precision": "float32",
        } | values  # fmt: skip
        words = (f"{key}={value}" for key, value in values.items() if value is not None)
        return command(stylize.main, *words)

    return call


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


# ------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize("regions", [False, True])
def test_untrained_it_is_the_colour_transfer(regions):
    """To the last digit, texture and all, whatever the guided filter."""
    photo, style = tensor(0), 0.3 + 0.4 * tensor(7, 80, 64, (1, 0.6, 0.3))
    masks = (None, None)
    if regions:
        masks = [halves(image) for image in (photo, style)]
    net = UniversalNet()
    network = StyleNetwork(net, GuidedFilter(16, 0.1)).with_style(
        net.statistics(style, masks[1]), masks[0]
    )
    coefficients = colour_transfer(photo, style, *masks, gains=net.transport.colour_gains)
    expected = apply_affine(coefficients, photo)
    assert 0 < expected.min() < expected.max() < 1
    torch.testing.assert_close(network(photo), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.coefficients(photo), coefficients, rtol=0, atol=1e-5)
    assert (expected - photo).abs().mean() > 0.1


def test_masks_that_a_style_is_given_with():
    """As many as it has; a part of the style alone would be taken without a word."""
    network, style = StyleNetwork(universal(), GuidedFilter(3)), tensor(7)
    halves = torch.ones(2, *style.shape[2:]) / 2
    regions, whole = network.net.statistics(style, halves), network.net.statistics(style)
    with pytest.raises(ArgumentError, match=r"^masks=None: give 2, one for each mask of the style"):
        network.with_style(regions)
    with pytest.raises(ArgumentError, match=r"^masks=2: give 1, one for each"):
        network.with_style(whole, halves)


def test_a_network_of_one_style_is_given_none():
    with pytest.raises(ArgumentError, match=r"^network=dusk: has a style of its own"):
        load_network("dusk").with_style(universal().statistics(tensor(7)))


def test_coefficients_give_the_result():
    network = StyleNetwork(universal(), GuidedFilter(3))
    photo = tensor(0)
    network = network.with_style(network.net.statistics(tensor(7, tint=(1, 0.6, 0.3))))
    result = apply_affine(network.coefficients(photo), photo)
    torch.testing.assert_close(result, network(photo), rtol=0, atol=1e-4)
    start = network.net.start(photo, network.style)
    assert (result - start.base).abs().mean() > 0.005


def test_adds_a_map_of_colours_and_nothing_else():
    """Whatever the decoder says: of two pixels of one colour neither is the lighter one."""
    net = universal()
    torch.nn.init.normal_(net.output.weight, std=0.1)
    network = StyleNetwork(net, GuidedFilter(2, 1e-4))
    photo = tensor(0)
    network = network.with_style(net.statistics(tensor(7, tint=(1, 0.6, 0.3))))
    start = net.start(photo, network.style)
    left = []
    for colour_map in (True, False):
        added = replace(network, colour_map=colour_map)(photo) - start.base
        left.append((added - NearestColourMap(photo)(added)).square().mean())
    assert left[0] < 0.25 * left[1]


def test_a_photo_in_its_own_style():
    """Nothing is to be moved but coloured noise, and no feature misses its target."""
    photo = tensor(0)
    net = universal()
    (_, base, targets), *_ = net.start(photo, net.statistics(photo))
    torch.testing.assert_close(base, photo, rtol=0, atol=0.5 / 255)
    torch.testing.assert_close(base.mean(1), photo.mean(1), rtol=0, atol=1e-5)
    features = net.encoder(torch.nn.functional.avg_pool2d(photo, 2))
    for layer in LAYERS:
        torch.testing.assert_close(targets[layer], features[layer], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (33, 50), (64, 47)])
def test_any_size(size):
    photo = torch.rand(2, 3, *size)
    net = universal()
    result = apply(net, photo, net.statistics(tensor(7)))
    assert (result.shape, result.dtype) == (photo.shape, torch.float32)
    assert result.isfinite().all()
    # Each photo of a batch is treated for itself.
    alone = apply(net, photo[1:], net.statistics(tensor(7)))
    # Of few pixels covariances are singular, and rounding decides on the axes of the gains.
    torch.testing.assert_close(result[1:], alone, rtol=0, atol=5e-3)


def test_one_style_for_each_photo_of_a_batch():
    photos = torch.cat([tensor(0), tensor(1)])
    styles = torch.cat([tensor(7, tint=(1, 0.5, 0.2)), tensor(8, tint=(0.2, 0.5, 1))])
    net = universal()
    together = apply(net, photos, net.statistics(styles))
    for i in range(2):
        one = slice(i, i + 1)
        alone = apply(net, photos[one], net.statistics(styles[one]))
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)


def test_regions():
    """Left to left and right to right: each half is as if it were alone, away from the border."""
    warm, cold = tensor(7, 48, 72, (1, 0.5, 0.2)), tensor(8, 48, 72, (0.2, 0.5, 1))
    photo, style = tensor(0), torch.cat([warm, cold], 3)
    net = universal()
    masks = halves(photo)
    together = net.start(photo, net.statistics(style, masks), masks)
    for half, source in ((slice(0, 36), warm), (slice(60, 96), cold)):
        whole = slice(0, 48) if half.start == 0 else slice(48, 96)
        alone = net.start(photo[..., whole], net.statistics(source))
        inner = slice(half.start - whole.start, half.stop - whole.start)
        error = (together.base[..., half] - alone.base[..., inner]).abs().mean()
        assert error < 0.02
    # The features, too: with the masks exchanged they are to go elsewhere.
    exchanged = net.start(photo, net.statistics(style, masks.flip(0)), masks)
    for layer in LAYERS:
        moved, stayed = (start.inputs[2][layer] for start in (exchanged, together))
        assert (moved - stayed).abs().mean() > 0.3 * stayed.mean()


def test_flat_photos():
    """Black, white and one colour, as content and as style."""
    net = universal()
    flat = torch.cat([torch.full((1, 3, 32, 32), value) for value in (0.0, 0.3, 1.0)])
    for style in (*flat.split(1), tensor(7)):
        assert apply(net, flat, net.statistics(style)).isfinite().all()


def test_gradients_reach_what_is_trained_and_nothing_else():
    net = universal()
    result = apply(net, tensor(0), net.statistics(tensor(7)))
    result.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    assert all(parameter.grad is None for parameter in net.encoder.parameters())
    assert not any(name.startswith("encoder") for name in net.state_dict())


def test_bfloat16():
    photo, statistics = tensor(0), universal().statistics(tensor(7))
    expected, half = universal(), universal().convolve_in(torch.bfloat16)
    results = [apply(net, photo, statistics) for net in (expected, half)]
    assert results[1].dtype == torch.float32
    torch.testing.assert_close(*results, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"width": 0}, "width"),
        ({"blocks": -1}, "blocks"),
        ({"colour_gains": (2, 3)}, "colour_gains"),
        ({"feature_gains": 1}, "feature_gains"),
    ],
)
def test_bad_architecture(arguments, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}="):
        UniversalNet(**arguments)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (torch.full((1, 3, 16, 16), 255.0), r"^style=255: give values in \[0, 1\]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "^style=torch.uint8: give float32"),
        (torch.zeros(3, 16, 16), r"^style=\(3, 16, 16\): give \(B, C, H, W\)"),
    ],
)
def test_a_style_that_is_no_photo(style, message):
    with pytest.raises(ArgumentError, match=message):
        universal().statistics(style)


def test_masks_of_bools():
    net, left = universal(), (torch.arange(16) < 6).expand(1, 16, 16)
    both = torch.cat([left, ~left])
    photo, style = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for masks in (both, both.float()):
        network = StyleNetwork(net, GuidedFilter(2, 1e-4))
        results.append(network.with_style(net.statistics(style, masks), masks)(photo))
    torch.testing.assert_close(*results)


# ------------------------------------------------------------------------------------------ files


def test_network_file(folder):
    net = universal(colour_gains=(0.5, 1.2))
    network = StyleNetwork(net, GuidedFilter(3, 1e-2), "any", {"steps": 3}, {"loss": 0.5})
    network.save("b.safetensors")
    loaded = load_network("b.safetensors")
    assert loaded.net.architecture == net.architecture
    assert (loaded.guided_filter.radius, loaded.metrics) == (3, {"loss": 0.5})
    photo, statistics = tensor(0), net.statistics(tensor(7))
    results = [n.with_style(statistics)(photo) for n in (network, loaded)]
    torch.testing.assert_close(*results, rtol=0, atol=2e-3)  # weights in float16
    with pytest.raises(ArgumentError, match=r"^style=None: required by a network"):
        loaded(photo)


def test_statistics_file(tmp_path):
    statistics = universal().statistics(tensor(7))
    save_style(statistics, tmp_path / "warm.safetensors")
    loaded = load_style(tmp_path / "warm.safetensors")
    assert loaded.features.keys() == statistics.features.keys()
    parts, again = (
        [*style.colours, *(part for layer in LAYERS for part in style.features[layer][:2])]
        for style in (statistics, loaded)
    )
    assert all(torch.equal(*both) for both in zip(parts, again, strict=True))


# -------------------------------------------------------------------------------- the command line


def test_a_photo_in_the_style_of_another(run):
    code, out, err = run()
    assert code == 0, err
    assert out.startswith("out.png: 1 photo")
    red, _, blue = (pixels("out.png") - pixels("photo.png")).mean((0, 1))
    assert red > blue + 20


def test_the_output_is_named_after_the_style(run):
    assert run(output=None).code == 0
    assert Path("photo_warm.png").is_file()


def test_statistics_instead_of_the_photo(run):
    assert run(masks="none", save_style="warm.safetensors").code == 0
    Path("warm.png").unlink()
    assert run(style="warm.safetensors", output="again.png").code == 0
    assert Path("out.png").read_bytes() == Path("again.png").read_bytes()


@pytest.mark.reliability
def test_statistics_that_cannot_be_written(run, disk):
    """The photos are done by then, and of many the report still tells."""
    Path("full").mkdir()
    disk.fills("full", writes=0)
    values = {"masks": "none", "save_style": "full/warm.safetensors"}
    expected = "save_style=full/warm.safetensors: cannot be written: No space left on device"
    code, out, err = run(**values)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"error: {expected}"
    assert Path("out.png").is_file()
    code, out, _ = run(content="trip", output="out", **values)
    assert code == 1
    assert out.startswith("out: 3 photos, ")
    assert out.splitlines()[-1] == f"failed: {expected}"


def test_a_folder(run):
    """Without regions unless they are asked for; each photo is as if it were alone.

    To a rounding: it then has all threads to itself, and sums come out in another order.
    """
    assert run(content="trip", output="plain").code == 0
    assert run(content="trip", output="regions", masks="auto").code == 0
    for name in ("0.png", "1.png", "2.png"):
        assert run(content=f"trip/{name}", overwrite="true", masks="none").code == 0
        assert np.abs(pixels(f"plain/{name}") - pixels("out.png")).max() <= 1
        assert run(content=f"trip/{name}", overwrite="true").code == 0
        assert np.abs(pixels(f"regions/{name}") - pixels("out.png")).max() <= 1


def test_painted_masks(run):
    """Left takes from left, right from right."""
    style = np.concatenate(
        [picture(7, 48, 72, (1, 0.3, 0.2)), picture(8, 48, 72, (0.2, 0.3, 1))], 1
    )
    Image.fromarray(style).save("both.png")
    codes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    codes[:, : WIDTH // 2, 0] = 255
    codes[:, WIDTH // 2 :, 2] = 255
    Image.fromarray(codes).save("mask.png")
    assert run(style="both.png", content_mask="mask.png", style_mask="mask.png").code == 0
    tint = (pixels("out.png")[..., 0] - pixels("out.png")[..., 2]).mean(0)
    assert tint[:40].mean() > tint[56:].mean() + 60


BAD = {
    "no style": ({"style": None}, "style=None: network=any.safetensors takes any; give a photo"),
    "nothing": ({"style": None, "network": None}, "style=None: required: a photo whose style"),
    "missing style": ({"style": "no.png"}, "style=no.png: no such file"),
    "missing style, output exists": (
        {"style": "no.png", "output": "photo.png"},
        "style=no.png: no such file",
    ),
    "masks beside painted ones": (
        {"masks": "auto", "style_mask": "style.png"},
        "masks=auto: says what to do without style_mask; leave one of them out",
    ),
    "a result of many that is the style": (
        {"content": "trip", "style": "made/0.png", "output": "made", "overwrite": "true"},
        "output=made/0.png: is the file of style; give another name",
    ),
    "statistics onto the network": (
        {"save_style": "any.safetensors", "overwrite": "true"},
        "save_style=any.safetensors: is the file of network; give another name",
    ),
    "a share of many photos": (
        {"content": ".", "whole_share": 0.5},
        "whole_share=0.5: many photos have regions on request; add masks=auto",
    ),
    "missing statistics": ({"style": "no.safetensors"}, "style=no.safetensors: no such file"),
    "network as style": (
        {"style": "any.safetensors"},
        "style=any.safetensors: not 'photostyle style 2', but photostyle network",
    ),
    "other version": (
        {"style": "old.safetensors"},
        "style=old.safetensors: not 'photostyle style 2', but photostyle style 1; write it again",
    ),
    "another program's": (
        {"style": "other.safetensors"},
        "style=other.safetensors: not 'photostyle style 2', but another program's",
    ),
    "truncated": ({"style": "cut.safetensors"}, "style=cut.safetensors: no file of statistics"),
    "damaged": ({"style": "nan.safetensors"}, "style=nan.safetensors: damaged: nothing usable as"),
    "another shape": (
        {"style": "flat.safetensors"},
        "style=flat.safetensors: damaged: nothing usable as relu1_1.root (its shape is (1, 1, 64))",
    ),
    "colours beyond all photos": (
        {"style": "bright.safetensors"},
        "style=bright.safetensors: damaged: nothing usable as colours.covariance (",
    ),
    "a tensor less": (
        {"style": "less.safetensors"},
        "style=less.safetensors: damaged: nothing usable as relu2_1.mean ('relu2_1.mean')",
    ),
    "regions of statistics": (
        {"style": "warm.safetensors", "masks": "auto"},
        "masks=auto: a file of statistics has no regions",
    ),
    "masks and statistics": (
        {"style": "warm.safetensors", "content_mask": "a.png", "style_mask": "a.png"},
        "content_mask=a.png: style=warm.safetensors is a file of statistics",
    ),
    "one mask": ({"content_mask": "photo.png"}, "style_mask=None: masks come in pairs"),
    "masks for a folder": (
        {"content": "trip", "output": "o", "content_mask": "a.png", "style_mask": "a.png"},
        "content_mask=a.png: painted masks are those of one photo",
    ),
    "masks": ({"masks": "some"}, "masks=some: unknown; choose one of auto, none"),
    "batches and regions": (
        {"content": "trip", "output": "o", "masks": "auto", "batch_size": 2},
        "batch_size=2: with masks=auto each photo has regions of its own; leave one of them out",
    ),
    "whole_share": ({"whole_share": 2}, "whole_share=2: give a number from 0 to 1"),
    "share and statistics": (
        {"style": "warm.safetensors", "whole_share": 0.5},
        "whole_share=0.5: style=warm.safetensors is a file of statistics",
    ),
    "save_style": ({"save_style": "warm.pt"}, "save_style=warm.pt: give a file that ends in .safe"),
    "save_style in no folder": (
        {"save_style": "no/warm.safetensors"},
        "save_style=no/warm.safetensors: there is no folder no",
    ),
    "save_style that exists": (
        {"save_style": "warm.safetensors"},
        "save_style=warm.safetensors: exists; give another name or overwrite=true",
    ),
    "folder as style": ({"style": "trip"}, "style=trip: "),
    "content": ({"content": "no.png", "save_style": "s.safetensors"}, "content=no.png: no such"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_value(run, folder, case):
    """Exit code 2, one line on stderr that names it, and nothing written."""
    values, message = BAD[case]
    Path("made").mkdir()
    Path("made/0.png").write_bytes(Path("warm.png").read_bytes())
    save_style(universal().statistics(tensor(7)), "warm.safetensors")
    statistics = load_file("warm.safetensors")
    now = {"format": "photostyle style 2"}
    save_file(statistics, "old.safetensors", {"format": "photostyle style 1"})
    save_file(statistics, "other.safetensors")
    Path("cut.safetensors").write_bytes(Path("warm.safetensors").read_bytes()[:5000])
    save_file(
        {**statistics, "colours.mean": torch.full((1, 1, 3), torch.nan)}, "nan.safetensors", now
    )
    for name, change in {
        "flat": {"relu1_1.root": torch.zeros(1, 1, 64)},
        "bright": {"colours.covariance": torch.full((1, 1, 3, 3), 1e30)},
        "less": {"relu2_1.mean": None},
    }.items():
        tensors = {
            key: value for key, value in {**statistics, **change}.items() if value is not None
        }
        save_file(tensors, f"{name}.safetensors", now)
    before = sorted(folder.rglob("*"))
    code, out, err = run(**values)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")
    assert sorted(folder.rglob("*")) == before


# --------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        tint = np.random.default_rng(i).uniform(0.2, 1, 3)
        Image.fromarray(picture(i, WIDTH, 80, tint)).save(folder / f"{i:02d}.png")
    return folder


class Objective(StyleObjective):
    """Shallow features. Ctrl-C comes when it is called for the ``interrupt``-th time."""

    def __init__(self, interrupt=None):
        layers = ["colours", "relu1_1", "relu2_1"]
        super().__init__(style_layers=layers, layer_weights=None, backend="cpu")
        self.interrupt = interrupt
        self.calls = 0

    def forward(self, image, targets):
        self.calls += 1
        if self.calls == self.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(image, targets)


def trained(photos, output, *, steps=6, region_share=0.0, **arguments):
    stream = partial(TrainingPhotos, photos, crop=64, batch_size=2, held_out=3, workers=1)
    defaults = {
        "photos": stream,
        "styles": stream,
        "region_share": region_share,
        "network": partial(UniversalNet, 8, 1),
        "objective": Objective(),
        "guided_filter": GuidedFilter(3),
        "schedule": Schedule(steps, learning_rate=5e-3, warmup=2, ema_decay=0.9),
        "intervals": Intervals(validation=100, checkpoint=2, pictures=100),
        "options": RunOptions(64, device="cpu"),
    }
    return train_network(output=output, **{**defaults, **arguments})


def test_learns(photos, tmp_path):
    """More than the colour transfer that it starts from, on photos and styles held out."""
    report = trained(photos, tmp_path / "run", steps=40)
    assert report.exit_code == 0
    assert report.metrics["loss"] < 0.97 * report.metrics["colour_transfer_loss"]
    assert load_network(report.network).is_universal


def test_one_style_held_out(photos, tmp_path):
    """The colour transfer is still what the network is compared with."""
    stream = partial(TrainingPhotos, photos, crop=64, batch_size=2, held_out=1, workers=1)
    report = trained(photos, tmp_path / "run", steps=1, styles=stream)
    assert report.metrics["colour_transfer_loss"] > 0


def test_damaged_styles_are_not_measured_with(photos, tmp_path, caplog):
    content = (photos / "00.png").read_bytes()
    styles = tmp_path / "styles"
    styles.mkdir()
    for number in range(4):
        (styles / f"{number}.png").write_bytes(content)
    (styles / "0.png").write_bytes(content[: len(content) // 2])  # the first is held out
    stream = partial(TrainingPhotos, styles, crop=64, batch_size=2, held_out=2, workers=1)
    report = trained(photos, tmp_path / "run", steps=1, styles=stream)
    assert "no style to measure with: styles=" in caplog.text
    assert report.metrics["loss"] > 0


@pytest.mark.parametrize("damaged", [{0}, {2}, {2, 3}, {0, 4}, {0, 1, 2, 3}])
def test_no_photo_is_its_own_style(tmp_path, damaged):
    """Where styles are the photos, and some cannot be read: photo i is measured with style i."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(path)
        if number in damaged:
            path.write_bytes(path.read_bytes()[:30])
    styles = held_out_styles(paths, 64, torch.device("cpu"))
    shown = [round(float(255 * style.max()) / 40) for style in styles]
    assert len(shown) == 5
    readable = [number for number in range(5) if number not in damaged]
    if len(readable) > 1:
        assert all(shown[number] != number for number in readable)


def test_styles_from_shards_are_validated(photos, tmp_path):
    """Shards hold no photo out: those to measure with are styles for each other."""
    with tarfile.open(tmp_path / "styles.tar", "w") as shard:
        for path in sorted(photos.iterdir()):
            shard.add(path, path.name)
    stream = partial(TrainingPhotos, tmp_path / "styles.tar", crop=64, batch_size=2, workers=1)
    report = trained(photos, tmp_path / "run", steps=1, styles=stream)
    assert report.metrics["colour_transfer_loss"] > 0


def test_a_style_and_styles(photos, tmp_path):
    with pytest.raises(ArgumentError, match=r"^style=.*: styles are given, too; leave one out"):
        trained(photos, tmp_path / "run", style=photos / "00.png")


def test_regions_are_a_share_of_the_batches(photos):
    objective = StyleObjective(style_layers=["relu1_1"], layer_weights=None, backend="cpu")
    batch = [torch.cat([tensor(i, 64, 64), tensor(i + 1, 64, 64)]) for i in (0, 5)]
    torch.manual_seed(0)
    for share, parts in ((0.0, {1}), (1.0, {2}), (0.5, {1, 2})):
        losses = AnyStyle(objective, universal(), share)
        examples = [losses.training_example(*batch) for _ in range(10 if share == 0.5 else 1)]
        assert {len(example.targets) for example in examples} == parts
        for example in examples:
            raw = losses.net(*example.inputs)
            assert raw.shape == batch[0].shape
            assert losses(example, raw).total.isfinite()


def test_the_encoder_of_regions_is_read_once(photos, monkeypatch):
    made = []

    def counted(layers):
        made.append(layers)
        return VGGFeatures(layers)

    monkeypatch.setattr("photostyle.feedforward.training_objective.VGGFeatures", counted)
    objective = StyleObjective(style_layers=["relu1_1"], layer_weights=None, backend="cpu")
    losses = AnyStyle(objective, universal(), 1.0)
    for _ in range(2):
        losses.training_example(*(torch.cat([tensor(i), tensor(i + 1)]) for i in (0, 5)))
    assert len(made) == 1


def test_other_workers_for_shards_of_styles(photos, tmp_path):
    """They decide which style comes when."""
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for path in sorted(photos.iterdir()):
            file.add(path, path.name)
    for workers in (1, 0):
        styles = partial(TrainingPhotos, tmp_path / "0.tar", crop=64, batch_size=2, workers=workers)
        options = RunOptions(64, device="cpu", resume=not workers)
        values = {"styles": styles, "options": options, "steps": 1}
        if workers:
            trained(photos, tmp_path / "run", **values)
            continue
        with pytest.raises(ArgumentError, match=r"^resume=true: .* workers is \[0\], was \[1\]"):
            trained(photos, tmp_path / "run", **values)


def test_stopped_and_resumed(photos, tmp_path):
    """The same weights as in one go, bit for bit, regions included."""
    trained(photos, tmp_path / "whole", region_share=0.5)
    half = trained(photos, tmp_path / "half", region_share=0.5, objective=Objective(6))
    assert (0 < half.steps < 6, half.exit_code) == (True, 130)
    options = RunOptions(64, device="cpu", resume=True)
    assert trained(photos, tmp_path / "half", region_share=0.5, options=options).steps == 6
    whole, half = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(whole[key], half[key]) for key in whole)


def test_init(photos, tmp_path, folder):
    """From an exported network of the same kind and size; a style's own is refused."""
    report = trained(photos, tmp_path / "a", steps=1)
    trained(photos, tmp_path / "b", steps=1, init=report.network)
    with pytest.raises(ArgumentError, match=r"^init=any.safetensors: has network.width=4; give"):
        trained(photos, tmp_path / "c", init="any.safetensors")
    with pytest.raises(ArgumentError, match=r"^init=dusk: a network of any style"):
        trained(photos, tmp_path / "c", init="dusk")
    assert not (tmp_path / "c").exists()


def test_command_line(photos, folder, command):
    words = [f"styles={photos}", f"data.root={photos}", "output=run", "steps=1", "crop=64"]
    words += ["size=64", "batch_size=1", "data.held_out=2", "data.workers=1", "device=cpu"]
    words += ["architecture@network=universal", "network.width=4", "network.blocks=1"]
    code, out, err = command(train.main, *words)
    assert code == 0, err
    assert out.startswith("run/network.safetensors: 1 steps; validation: loss ")
    words[2] = "output=other"
    code, out, err = command(train.main, "styles=empty", *words[1:])
    assert (code, out) == (2, "")
    assert err.startswith("error: styles=empty: ")
    Path("empty").mkdir()
    code, out, err = command(train.main, "styles=empty", *words[1:])
    assert (code, out) == (2, "")
    assert err.startswith("error: styles=empty: holds neither photos")
    assert not Path("other").exists()


def test_a_mask_is_not_overwritten(run):
    """By a result that is called like it, and that was not named."""
    Image.fromarray(picture(2)).save("a.png")
    Image.fromarray(picture(3)).save("mask.png")
    for name in ("a_mask.png", "style_mask.png"):
        Image.new("RGB", (96, 48), "red").save(name)
    before = Path("a_mask.png").read_bytes()
    code, _, err = run(
        content="a.png", style="mask.png", content_mask="a_mask.png", style_mask="style_mask.png",
        output=None, overwrite="true",
    )  # fmt: skip
    assert code == 2
    assert "output=a_mask.png: is the file of content_mask; give another name" in err
    assert Path("a_mask.png").read_bytes() == before
