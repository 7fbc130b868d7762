"""Training style networks, as a library: what a run learns, writes, survives and goes on from.

The networks and features are tiny: a step takes a twentieth of a second.
"""

import errno
import logging
import math
import os
import shutil
import signal
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from photostyle.data import load_image
from photostyle.data.training.stream import TrainingPhotos
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    TransformNet,
    load_network,
    train_network,
)
from photostyle.feedforward.checkpoint import Checkpoints
from photostyle.ops import ArgumentError, GuidedFilter, LossTerms, StyleObjective, VGGFeatures
from photostyle.ops.metrics import StyleDistance

WIDTH, HEIGHT = 96, 80


def photo_pixels(width, height, seed):
    """Smooth colours and some grain, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (np.roll(np.stack(planes, -1), seed, 2) + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twelve photos."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        Image.fromarray(photo_pixels(WIDTH, HEIGHT, i)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the photo of the style."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo_pixels(64, 80, 5)[:, :, ::-1] // 2).save("light.png")
    return tmp_path


class Objective(StyleObjective):
    """Shallow features; ``at`` has what to do before training batches, counted from 1.

    A function that returns losses changes them. ``measured`` is added to the content losses of
    the measurements on held-out photos.
    """

    def __init__(self, at=None, measured=None, **arguments):
        layers = {"style_layers": ["colours", "relu1_1", "relu2_1"], "layer_weights": None}
        layers |= {"content_layers": ["relu2_2"], "content_weight": 1.0}
        weights = {"style_weight": 60.0, "edges_weight": 0.0, "matting_weight": 0.0}
        super().__init__(**{**layers, **weights, "backend": "cpu", **arguments})
        self.at = at or {}
        self.measured = iter([0.0, *(measured or ())])  # the first is a trial, before training
        self.batches = 0

    def forward(self, image, targets):
        terms = super().forward(image, targets)
        if not torch.is_grad_enabled():
            return terms + LossTerms({"content": torch.tensor(next(self.measured, 0.0))})
        self.batches += 1
        return (self.at[self.batches]() if self.batches in self.at else None) or terms


def train(photos, objective=None, **values):
    """A short run; values replace those below, and those of the data, schedule and intervals."""
    groups = {
        "data": {"crop": 64, "batch_size": 2, "workers": 1, "held_out": 2},
        "schedule": {"steps": 6, "learning_rate": 2e-3, "warmup": 2, "ema_decay": 0.9},
        "intervals": {"log": 1, "pictures": 3, "validation": 3, "checkpoint": 2, "keep": 100},
    }
    groups["intervals"]["validation"] = values.pop("measure", 3)
    for group in groups.values():
        group.update({key: values.pop(key) for key in {*group} & {*values} - {"validation"}})
    for key in ("gradient_accumulation", "max_gradient_norm"):
        if key in values:
            groups["schedule"][key] = values.pop(key)
    names = "size", "seed", "device", "precision", "resume"
    options = {"size": 64, "device": "cpu"} | {k: values.pop(k) for k in names if k in values}
    arguments = {
        "style": "light.png",
        "output": "run",
        "photos": partial(TrainingPhotos, photos, **groups["data"]),
        "network": small_network(),
        "objective": objective or Objective(),
        "guided_filter": GuidedFilter(2, 1e-4, "cpu"),
        "schedule": Schedule(**groups["schedule"]),
        "intervals": Intervals(**groups["intervals"]),
        "options": RunOptions(**options),
    }
    return train_network(**{**arguments, **values})


def small_network(**arguments):
    return partial(TransformNet, width=4, blocks=1, **arguments)


def checkpoints(output="run"):
    return Checkpoints(Path(output, "checkpoints"), 1)


def at_step(step, output="run"):
    """The tensors of a checkpoint."""
    return load(Path(output, f"checkpoints/step_{step:08d}.safetensors").read_bytes())


def weights(tensors, group="net"):
    return {
        name.removeprefix(f"{group}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{group}.")
    }


def assert_equal(ours, theirs):
    """Bit for bit."""
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def exported(output="run"):
    """The weights in the network's file, without the moments of the style."""
    return dict(load_network(Path(output, "network.safetensors")).net.named_parameters())


def halved(tensors):
    return {name: tensor.half().float() for name, tensor in tensors.items()}


def scalars(output="run"):
    log = EventAccumulator(str(Path(output, "logs")), size_guidance={"scalars": 0, "images": 0})
    log.Reload()
    return {tag: {e.step: e.value for e in log.Scalars(tag)} for tag in log.Tags()["scalars"]}, log


def interrupt(number=signal.SIGTERM):
    signal.raise_signal(number)


# ------------------------------------------------------------------------------------- the schedule


def test_learning_rate():
    """Grows evenly, then falls to 0 as half a cosine."""
    schedule = Schedule(steps=100, learning_rate=2e-3, warmup=9)
    rates = [schedule.learning_rate_at(step) for step in range(101)]
    cosine = [1e-3 * (1 + math.cos(math.pi * step / 100)) for step in range(101)]
    assert rates[:9] == pytest.approx([(step + 1) / 10 * cosine[step] for step in range(9)])
    assert rates[9:] == pytest.approx(cosine[9:])
    assert rates[50] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(rate > after for rate, after in pairwise(rates[9:]))
    assert Schedule(steps=10, learning_rate=1e-3, warmup=0).learning_rate_at(0) == 1e-3


def test_decay_of_the_average():
    schedule = Schedule(steps=100, ema_decay=0.99)
    decays = [schedule.ema_decay_at(step) for step in range(5000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Schedule, steps=0), r"^steps=0: give a number at least 1"),
        (partial(Schedule, steps=-1), r"^steps=-1: give a number at least 1"),
        (partial(Schedule, steps=1.5), r"^steps=1\.5: give a whole number"),
        (partial(Schedule, learning_rate=-1e-3), r"^learning_rate=-0\.001: give"),
        (partial(Schedule, learning_rate=math.nan), r"^learning_rate=nan: give a num"),
        (partial(Schedule, warmup=-1), r"^warmup=-1: give a number at least 0"),
        (partial(Schedule, max_gradient_norm=-1), r"^max_gradient_norm=-1: give"),
        (partial(Schedule, ema_decay=1.5), r"^ema_decay=1\.5: give a number from 0 to 1"),
        (
            partial(Schedule, gradient_accumulation=0),
            r"^gradient_accumulation=0: give a number at least 1",
        ),
        (partial(Intervals, log=0), r"^log=0: give a number at least 1"),
        (partial(Intervals, pictures=-1), r"^pictures=-1: give a number at least 1"),
        (partial(Intervals, validation=0), r"^validation=0: give a number"),
        (partial(Intervals, checkpoint=2.5), r"^checkpoint=2\.5: give a whole number"),
        (partial(Intervals, keep=0), r"^keep=0: give a number at least 1"),
    ],
    ids=lambda value: value[1:24] if isinstance(value, str) else "",
)
def test_wrong_schedule(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


# ----------------------------------------------------------------------------------------- learning


def test_learns(photos, folder):
    values = {"steps": 30, "learning_rate": 5e-3, "ema_decay": 0.5, "measure": 10}
    report = train(photos, **values, network=small_network(base="content"))
    assert (report.steps, report.skipped, report.stopped, report.exit_code) == (30, 0, None, 0)
    curves, _ = scalars()
    total = np.sum([list(curves[f"loss/{name}"].values()) for name in ("content", "style")], 0)
    assert total[-6:].mean() < 0.8 * total[:6].mean()
    assert curves["validation/loss"][30] < 0.95 * curves["validation/loss"][10]
    assert report.metrics["loss"] == pytest.approx(min(curves["validation/loss"].values()))


def test_the_moving_average_is_exported(photos, folder):
    """Worked out again from the weights after each step."""
    report = train(photos, steps=8, ema_decay=0.4, checkpoint=1, held_out=0)
    average = weights(at_step(0))
    for step in range(8):
        decay = min(0.4, (1 + step) / (10 + step))
        for name, weight in weights(at_step(step + 1)).items():
            average[name] = decay * average[name] + (1 - decay) * weight
    assert report.metrics == {}
    for name, weight in exported().items():
        torch.testing.assert_close(weight, average[name].half().float(), rtol=2e-3, atol=1e-6)
    assert not torch.equal(average["output.weight"], weights(at_step(8))["output.weight"])


@pytest.mark.parametrize("measured", [[0, 5, 2, 5], [9, 5, 3, 2], [9, 5, math.nan, 7]], ids=str)
def test_the_best_on_held_out_photos_is_exported(photos, folder, measured):
    """Of four measurements on one photo, the one with the least loss."""
    values = {"steps": 8, "measure": 2, "pictures": 100, "held_out": 1}
    objective = Objective(measured=[measured[0], 0, *measured[1:]])  # of the colour transfer: 0
    report = train(photos, objective, **values)
    curves, _ = scalars()
    losses = curves["validation/loss"]
    assert list(losses) == [2, 4, 6, 8]
    best = {(0, 5, 2, 5): 2, (9, 5, 3, 2): 8}.get(tuple(measured), 4)
    assert report.metrics["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert_equal(exported(), halved(weights(at_step(best), "ema")))
    assert load_network("run/network.safetensors").metrics == report.metrics


@pytest.mark.parametrize("gone", [1, 2])
def test_photos_to_measure_on_that_go_away(photos, folder, tmp_path_factory, caplog, gone):
    """Training goes on; of those that are left is what is measured later."""
    other = tmp_path_factory.mktemp("other")
    for number in range(2):
        Image.fromarray(photo_pixels(70, 70, number)).save(other / f"{number}.png")

    def lose():
        for number in range(gone):
            (other / f"{number}.png").unlink()

    report = train(photos, Objective({4: lose}), validation=other, steps=6, measure=3)
    assert (report.steps, report.exit_code) == (6, 0)
    assert caplog.text.count("no validation photo: ") == gone
    measured = scalars()[0]["validation/loss"]
    assert [*measured] == ([3, 6] if gone == 1 else [3])
    assert load_network(report.network).metrics == report.metrics


def test_all_photos_are_trained_with_where_others_are_measured_on(photos, folder):
    """None is held out, be it as many as there are."""
    Path("other").mkdir()
    Image.fromarray(photo_pixels(70, 70, 2)).save("other/photo.png")
    assert train(photos, validation="other", held_out=12, steps=1).exit_code == 0


def test_photos_to_measure_on(photos, folder, tmp_path_factory):
    """Those of another folder instead of held-out ones."""
    other = tmp_path_factory.mktemp("other")
    Image.fromarray(photo_pixels(70, 70, 2)).save(other / "photo.jpg")
    report = train(photos, validation=other, held_out=0, steps=3)
    figures = {"loss", "style_distance", "edge_ssim", "colour_transfer_loss"}
    assert set(report.metrics) == figures


def test_figures_are_of_what_the_network_gives(photos, folder):
    """Of the exported file, applied: with the contrast that it restores."""
    Path("other").mkdir()
    Image.fromarray(photo_pixels(70, 60, 2)).save("other/photo.png")
    report = train(photos, validation="other", steps=2, measure=2)
    with torch.no_grad():
        result = load_network(report.network)(load_image("other/photo.png", 64)).clamp(0, 1)
    style = load_image("light.png", 64)
    masks = (image.new_ones(1, *image.shape[2:]) for image in (result, style))
    found = StyleDistance()(result, style, *masks)
    assert report.metrics["style_distance"] == pytest.approx(float(found), rel=2e-3)


def test_figures_of_other_photos_are_not_compared(photos, folder):
    """A run that goes on measures its best network again."""
    for number in range(2):
        Path(f"v{number}").mkdir()
        Image.fromarray(photo_pixels(70, 60, 2 + number)).save(f"v{number}/photo.png")
    values = {"steps": 4, "measure": 2, "pictures": 100}
    objective = Objective({3: interrupt}, measured=[0, 0])
    first = train(photos, objective, validation="v0", **values)
    report = train(photos, Objective(measured=[9, 0, 0]), validation="v1", resume=True, **values)
    assert report.metrics["loss"] != first.metrics["loss"]
    assert_equal(exported(), halved(weights(at_step(2), "ema")))


def test_a_style_that_is_transparent_in_part(photos, folder):
    image = Image.open("light.png").convert("RGBA")
    image.putpixel((0, 0), (255, 0, 0, 0))
    image.save("hole.png")
    with pytest.raises(ArgumentError, match=r"^style=hole\.png: is transparent in part; give a"):
        train(photos, style="hole.png")


def test_another_network_without_settings(photos, folder):
    """As from Python: the architecture is compared all the same."""
    train(photos, steps=1)
    with pytest.raises(ArgumentError, match=r"network\.gains\.?.* is .*1\.5"):
        train(photos, steps=2, resume=True, network=small_network(gains=(1.0, 1.5)))


@pytest.mark.parametrize("values", [{"radius": 20_000}, {"ridge": 1e7}])
def test_a_guided_filter_that_no_file_holds(photos, folder, values):
    with pytest.raises(ArgumentError, match=f"^{next(iter(values))}="):
        train(photos, guided_filter=GuidedFilter(**values))


def test_shards(photos, folder):
    """Which hold no photos out: the last average is exported."""
    with tarfile.open("photos.tar", "w") as file:
        for path in sorted(photos.iterdir()):
            file.add(path, path.name)
    report = train("photos.tar", held_out=0, steps=3)
    assert report.metrics == {}
    assert_equal(exported(), halved(weights(at_step(3), "ema")))


def test_without_workers(photos, folder):
    """The same weights, bit for bit."""
    for workers in (0, 1):
        train(photos, workers=workers, output=f"by_{workers}", held_out=0, steps=2)
    assert_equal(at_step(2, "by_0"), at_step(2, "by_1"))


def test_random_numbers_of_the_caller_go_on(photos, folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(photos, workers=0, held_out=0, steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_outside_the_main_thread(photos, folder):
    """Signals are the main thread's, and its handlers stay as they are."""
    found = []

    def seen():
        found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor() as executor:
        objective = Objective({1: seen})
        run = executor.submit(train, photos, objective, workers=0, held_out=0, steps=1)
        assert run.result().exit_code == 0
    assert found == [before]


def test_workers_of_shards(photos, folder):
    """They decide which photos come when; of a folder they do not."""
    for number in range(2):
        with tarfile.open(f"{number}.tar", "w") as file:
            for path in sorted(photos.iterdir()):
                file.add(path, path.name)
    values = {"held_out": 0, "steps": 1}
    train("{0..1}.tar", workers=1, **values)
    with pytest.raises(ArgumentError, match=r"^resume=true: .* workers is \[2\], was \[1\]"):
        train("{0..1}.tar", workers=2, **values, resume=True)
    train(photos, workers=1, **values, output="folder")
    train(photos, workers=2, **values, output="folder", resume=True)


def test_photos_per_step(photos, folder):
    """Two batches of two per step come to what one batch of four does."""
    many = {"held_out": 0, "steps": 4, "checkpoint": 4}
    train(photos, batch_size=4, **many)
    train(photos, batch_size=2, gradient_accumulation=2, **many, output="accumulated")
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = [load_network(Path(name, "network.safetensors")) for name in ("run", "accumulated")]
    # Few steps: after more, a maximum of the encoder that rounding decides sends both apart.
    torch.testing.assert_close(*(network(photo) for network in results), rtol=0, atol=1e-4)
    theirs, ours = weights(at_step(4)), weights(at_step(4, "accumulated"))
    difference = torch.cat([(ours[name] - theirs[name]).flatten().abs() for name in theirs])
    # The worst measured are 2.4e-7 and 1.0e-5.
    assert difference.quantile(0.99) < 1e-5
    assert difference.max() < 1e-4
    one, other = scalars()[0], scalars("accumulated")[0]
    # The worst measured is 4.0e-4, of the last gradient.
    for tag in ("loss/content", "loss/style", "training/gradient_norm"):
        assert list(other[tag].values()) == pytest.approx(list(one[tag].values()), rel=2e-3)


def test_long_gradients_are_cut(photos, folder):
    """What is told of them is their length before."""
    for output, limit in (("long", 1e6), ("short", 1e-3)):
        train(photos, max_gradient_norm=limit, held_out=0, steps=1, output=output)
        told = scalars(output)[0]["training/gradient_norm"][1]
        assert 1e-3 < told < 1e6
        # A tenth of the gradient, after the first step.
        moments = weights(at_step(1, output), "adam.exp_avg").values()
        length = float(torch.stack([moment.norm() for moment in moments]).norm())
        assert 10 * length == pytest.approx(min(told, limit), rel=1e-3)


def test_photorealism_off(photos, folder):
    """The painterly network of Johnson et al.: no guided filter, and none in its file."""
    train(photos, network=small_network(base="none"), guided_filter=None, steps=4)
    network = load_network("run/network.safetensors")
    assert network.guided_filter is None
    assert network.net.base == "none"
    photo = torch.rand(1, 3, 40, 44)
    assert torch.equal(network(photo), network.net(*network.start(photo).inputs))
    assert network.coefficients(photo) is None


def test_the_file(photos, folder):
    """Everything that applying the network needs, and where it comes from."""
    published = {"schedule": {"steps": 4}, "layers": ["relu1_1"], "none": None}
    settings = {"style": "light.png"}
    report = train(photos, steps=4, colour_map=False, published=published, settings=settings)
    assert report.network == Path("run/network.safetensors")
    network = load_network(report.network)
    assert network.name == "light"
    assert network.config == published
    assert network.metrics == report.metrics
    expected = {"width": 4, "blocks": 1, "base": "colour_transfer"}
    expected |= {"gains": (0.85, 1.8), "curvature": 0.6}
    assert network.net.architecture == expected
    assert (network.guided_filter.radius, network.guided_filter.ridge) == (2, 1e-4)
    assert network.colour_map is False
    photo = torch.rand(1, 3, 40, 44)
    assert network(photo).shape == photo.shape
    assert network.coefficients(photo).shape == (1, 3, 4, 40, 44)
    for figure in ("loss", "style_distance", "edge_ssim"):
        assert f"{figure} {report.metrics[figure]:.3f}" in str(report)
    assert str(report).startswith("run/network.safetensors: 4 steps; validation: ")


def test_default_output(photos, folder):
    report = train(photos, output=None, steps=1, held_out=0)
    assert report.network == Path("outputs/light/network.safetensors")
    assert sorted(path.name for path in Path("outputs/light").iterdir()) == [
        "checkpoints", "logs", "network.safetensors"
    ]  # fmt: skip


def test_bfloat16_and_then_float32(photos, folder):
    """One after the other in one process."""
    values = {"steps": 2, "held_out": 0}
    for precision in ("bfloat16", "float32", "auto"):
        assert train(photos, precision=precision, output=precision, **values).exit_code == 0
    low, full, auto = (weights(at_step(2, name)) for name in ("bfloat16", "float32", "auto"))
    assert_equal(auto, full)
    assert all(weight.dtype == torch.float32 for weight in low.values())
    assert not torch.equal(low["output.weight"], full["output.weight"])


def test_init(photos, folder):
    """The weights of another network, not its style: its first checkpoint holds them."""
    train(photos, steps=2)
    Image.fromarray(photo_pixels(64, 80, 9)).save("other.png")
    report = train(
        photos, style="other.png", steps=1, init="run/network.safetensors", output="next"
    )
    assert_equal(halved(weights(at_step(0, "next"))), exported())
    theirs, ours = load_network("run/network.safetensors"), load_network(report.network)
    assert not torch.equal(ours.net.style_mean, theirs.net.style_mean)


def test_seeds(photos, folder):
    values = {"steps": 2, "held_out": 0}
    for output, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(seed + len(output))
        train(photos, seed=seed, output=output, **values)
    a, b, c = (weights(at_step(2, output)) for output in "abc")
    assert_equal(a, b)
    assert not torch.equal(a["encode.0.0.weight"], c["encode.0.0.weight"])


# -------------------------------------------------------------------------------- what can be seen


def test_tensorboard(photos, folder):
    train(photos, steps=6, log=2, pictures=3, measure=4, warmup=0, learning_rate=1e-3)
    curves, log = scalars()
    losses = {"content", "style"}
    values = {
        "learning_rate", "gradient_norm", "photos_per_second", "skipped_steps", "unreadable_photos"
    }  # fmt: skip
    figures = {"loss", "style_distance", "edge_ssim", "colour_transfer_loss"}
    assert set(curves) == {
        *(f"loss/{name}" for name in losses),
        *(f"training/{name}" for name in values),
        *(f"validation/{name}" for name in figures),
    }
    for tag, curve in curves.items():
        assert list(curve) == ([4, 6] if tag.startswith("validation/") else [2, 4, 6]), tag
        assert all(map(math.isfinite, curve.values())), tag
    # Of step n is the rate that it was taken with, and the first counts as 0.
    schedule = Schedule(steps=6, warmup=0, learning_rate=1e-3)
    expected = [schedule.learning_rate_at(step) for step in (1, 3, 5)]
    assert list(curves["training/learning_rate"].values()) == pytest.approx(expected, rel=1e-6)
    assert min(curves["training/photos_per_second"].values()) > 0
    assert min(curves["training/gradient_norm"].values()) > 0
    assert log.Tags()["images"] == ["content, raw, result"]
    pictures = log.Images("content, raw, result")
    assert [event.step for event in pictures] == [3, 6]
    # Three across and a row for each of the two held-out photos, of 48 pixels and a line between.
    assert (pictures[0].width, pictures[0].height) == (3 * 50 + 2, 2 * 50 + 2)


def test_a_resumed_run_writes_no_point_twice(photos, folder):
    """Also where it was not stopped but broke off after its checkpoint."""
    values = {"steps": 9, "checkpoint": 4, "measure": 3, "pictures": 3}
    twice = Objective({7: lambda: (interrupt(), interrupt())})
    with pytest.raises(KeyboardInterrupt):
        train(photos, twice, **values)
    assert max(scalars()[0]["loss/content"]) == 6
    train(photos, **values, resume=True)
    log = EventAccumulator("run/logs", size_guidance={"scalars": 0, "images": 0})
    log.Reload()
    for tag in log.Tags()["scalars"]:
        steps = [event.step for event in log.Scalars(tag)]
        expected = [3, 6, 9] if tag.startswith("validation/") else list(range(1, 10))
        assert steps == expected, tag
    assert [event.step for event in log.Images("content, raw, result")] == [3, 6, 9]


@pytest.mark.reliability
def test_progress(photos, folder, capfd):
    train(photos, steps=4, measure=2)
    shown = capfd.readouterr().err
    assert "4/4" in shown
    for name in ("content", "style", "photos/s", "step 2: loss", "edge_ssim"):
        assert name in shown


# ------------------------------------------------------------------------------------- interrupted


@pytest.mark.reliability
@pytest.mark.parametrize(
    ("at", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT), (8, signal.SIGTERM)]
)
def test_stopped_and_resumed(photos, folder, number, at):
    """Bit for bit what a run comes to that was never stopped: weights, averages, moments, file."""
    values = {"steps": 8, "measure": 3, "checkpoint": 3}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    whole = train(photos, **values)
    stopped = train(photos, Objective({at: lambda: interrupt(number)}), **values, output="stopped")
    assert (stopped.steps, stopped.exit_code) == (at, 130)
    assert "interrupted; go on with resume=true" in str(stopped)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoints("stopped").newest().step == at
    assert load_network("stopped/network.safetensors").net.width == 4
    resumed = train(photos, **values, output="stopped", resume=True)
    assert (resumed.steps, resumed.exit_code, resumed.stopped) == (8, 0, None)
    assert resumed.metrics == whole.metrics
    assert_equal(at_step(8, "stopped"), at_step(8))
    assert_equal(exported("stopped"), exported())


def test_stopped_with_batches_added_up(photos, folder):
    """The step is finished first, and the next run takes the batch after it."""
    values = {"steps": 4, "gradient_accumulation": 3, "held_out": 0}
    train(photos, **values)
    stopped = train(photos, Objective({4: interrupt}), **values, output="stopped")
    assert stopped.steps == 2
    train(photos, **values, output="stopped", resume=True)
    assert_equal(at_step(4, "stopped"), at_step(4))


def test_the_best_so_far_is_kept_over_a_stop(photos, folder):
    values = {"steps": 6, "measure": 2, "pictures": 100, "held_out": 1}
    objective = Objective({3: interrupt}, [0, 0])
    first = train(photos, objective, **values)
    report = train(photos, Objective(measured=[9, 0, 0, 9]), **values, resume=True)
    assert report.metrics == first.metrics
    assert_equal(exported(), halved(weights(at_step(2), "ema")))


@pytest.mark.reliability
def test_the_second_signal_is_not_waited_for(photos, folder):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    objective = Objective({4: lambda: (interrupt(signal.SIGINT), interrupt(signal.SIGINT))})
    with pytest.raises(KeyboardInterrupt):
        train(photos, objective, held_out=0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoints().newest().step == 2
    assert train(photos, held_out=0, resume=True).steps == 6


def test_resumed_where_there_is_nothing_yet(photos, folder, caplog):
    """A job script says it from the start."""
    with caplog.at_level(logging.INFO):
        assert train(photos, resume=True, held_out=0).exit_code == 0
    assert "no checkpoint in run yet; starting" in caplog.messages


def test_resumed_after_its_end(photos, folder):
    first = train(photos)
    before = {name: tensor.clone() for name, tensor in exported().items()}
    again = train(photos, resume=True)
    assert (again.steps, again.exit_code) == (6, 0)
    assert again.metrics == first.metrics
    assert_equal(exported(), before)


def changed_tensors(change):
    """A damage of a checkpoint: other tensors in a file that is whole."""

    def damage(path):
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata()
        change(tensors)
        save_file(tensors, path, header)

    return damage


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"damaged"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a tensor less": changed_tensors(lambda tensors: tensors.pop("ema.output.bias")),
    "another shape": changed_tensors(
        lambda tensors: tensors.update({"net.output.bias": torch.zeros(1)})
    ),
    "not finite": changed_tensors(lambda tensors: tensors["best.output.bias"].fill_(torch.nan)),
    "no random state": changed_tensors(
        lambda tensors: tensors.update({"random": torch.zeros(3, dtype=torch.uint8)})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_resumed_from_the_one_before_a_damaged_checkpoint(photos, folder, caplog, damage):
    values = {"steps": 6, "checkpoint": 2, "held_out": 0}
    train(photos, **values)
    expected = at_step(6)
    for step in (4, 6):
        DAMAGES[damage](Path("run/checkpoints", f"step_{step:08d}.safetensors"))
    # Then as one that keeps a single checkpoint, and is stopped before the damaged ones.
    stopped = train(photos, Objective({1: interrupt}), **values, keep=1, resume=True)
    assert stopped.steps == 3
    assert "is damaged and passed over" in caplog.text
    assert Path("run/checkpoints/step_00000003.safetensors").exists()
    train(photos, **values, keep=1, resume=True)
    assert_equal(checkpoints().newest().tensors, expected)
    assert [path.name for path in Path("run/checkpoints").iterdir()] == [
        "step_00000006.safetensors"
    ]


# -------------------------------------------------------------------------------- what goes wrong


class Breaks(Objective):
    """Some batches have a loss, or a gradient, that is not finite."""

    def __init__(self, batches, kind="loss"):
        super().__init__()
        self.bad = batches
        self.kind = kind

    def forward(self, image, targets):
        terms = super().forward(image, targets)
        if not torch.is_grad_enabled() or self.batches not in self.bad:
            return terms
        zero = 0 * image.sum()
        bad = zero * math.inf if self.kind == "loss" else zero.square().sqrt()
        return terms + LossTerms({"content": bad})


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_one_bad_batch(photos, folder, kind):
    """It is left out, and counted."""
    values = {"steps": 6, "checkpoint": 1}
    report = train(photos, Breaks([3], kind), **values)
    assert (report.steps, report.skipped, report.exit_code) == (6, 1, 0)
    assert "6 steps, 1 of them skipped (gradient not finite)" in str(report)
    assert_equal(weights(at_step(3)), weights(at_step(2)))
    for group in ("ema", "adam"):
        assert_equal(weights(at_step(3), group), weights(at_step(2), group))
    assert not torch.equal(at_step(4)["net.output.weight"], at_step(3)["net.output.weight"])
    assert all(tensor.isfinite().all() for tensor in at_step(6).values())
    assert list(scalars()[0]["training/skipped_steps"].values()) == [0, 0, 1, 1, 1, 1]
    # The count goes on, too.
    assert train(photos, steps=6, resume=True).skipped == 1


def test_one_bad_batch_of_those_added_up(photos, folder):
    report = train(photos, Breaks([3]), gradient_accumulation=2, steps=3, held_out=0)
    assert (report.steps, report.skipped) == (3, 1)


def test_nine_bad_batches_in_a_row_are_survived(photos, folder):
    bad = {*range(2, 11), *range(12, 21)}
    report = train(photos, Breaks(bad), steps=22, checkpoint=22, held_out=0)
    assert (report.steps, report.skipped, report.exit_code) == (22, 18, 0)


LEARNING_RATE = "a lower learning_rate or precision=float32"
HOPELESS = {
    "style": (
        lambda: {"objective": Objective(style_weight=1e300)},
        "the loss style is not finite in 10 steps in a row; try a lower style_weight or "
        "learning_rate",
    ),
    "content": (
        lambda: {"objective": Objective(content_weight=1e300)},
        f"the loss content is not finite in 10 steps in a row; try {LEARNING_RATE}",
    ),
    "matting": (
        lambda: {"objective": Objective(matting_weight=1e300)},
        "the loss matting is not finite in 10 steps in a row; try a lower "
        "matting_weight or a larger matting_ridge",
    ),
    "gradient": (
        lambda: {"objective": Breaks(range(100), "gradient")},
        f"the gradient is not finite in 10 steps in a row; try {LEARNING_RATE}",
    ),
}


@pytest.mark.parametrize("term", HOPELESS)
def test_ten_bad_batches_in_a_row(photos, folder, term):
    """The run ends, says which loss it is and what to change, and keeps a checkpoint."""
    make, message = HOPELESS[term]
    report = train(photos, **make(), steps=30, checkpoint=30, measure=30, held_out=0)
    assert (report.steps, report.skipped, report.exit_code) == (10, 10, 1)
    assert report.stopped == message
    assert message in str(report)
    checkpoint = checkpoints().newest()
    assert checkpoint.step == 10
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
    assert all(weight.isfinite().all() for weight in exported().values())


def test_unreadable_photos_are_counted(photos, folder):
    mixed = folder / "mixed"
    mixed.mkdir()
    for path in photos.iterdir():
        os.link(path, mixed / path.name)
    content = (photos / "03.png").read_bytes()
    (mixed / "bad.png").write_bytes(content[: len(content) // 2])
    (mixed / "text.jpg").write_text("This is not a picture.\n")
    report = train(mixed, steps=8, held_out=0)
    assert report.exit_code == 0
    assert scalars()[0]["training/unreadable_photos"][8] == 2


@pytest.mark.parametrize("where", ["held out", "folder"])
def test_unreadable_photos_to_measure_on_are_passed_over(photos, folder, caplog, where):
    """They come to light while training, which must not end for that."""
    mixed = folder / "mixed"
    mixed.mkdir()
    for path in photos.iterdir():
        os.link(path, mixed / path.name)
    content = (photos / "03.png").read_bytes()
    (mixed / "00.0.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(photo_pixels(400, 40, 0)).save(mixed / "05.0.png")
    if where == "held out":
        report = train(mixed, steps=6, held_out=7)
    else:
        report = train(photos, steps=6, held_out=0, validation=mixed)
    assert report.exit_code == 0
    assert math.isfinite(report.metrics["loss"])
    for name, reason in (("00.0.png", "truncated"), ("05.0.png", "too narrow; 32 pixels are")):
        (message,) = (message for message in caplog.messages if name in message)
        assert reason in message


def test_none_of_the_photos_to_measure_on_can_be_read(photos, folder):
    Path("bad").mkdir()
    Path("bad/photo.png").write_text("This is not a picture.\n")
    with pytest.raises(ArgumentError, match=r"^validation=bad: none of"):
        train(photos, held_out=0, validation="bad")
    assert not Path("run").exists()


class FullDisk:
    """Writes below the folder ``run`` are counted from 1; those that are full write half of it."""

    def __init__(self, monkeypatch, full=()):
        self.full = full
        self.writes = []
        self._open = Path.open
        monkeypatch.setattr(Path, "open", lambda *given, **named: self.open(*given, **named))

    def open(self, path, mode="r", **named):
        file = self._open(path, mode, **named)
        if "run" in path.parts and mode != "rb":
            write = file.write
            file = _Opened(file)
            file.write = lambda content: self.write(path.name, write, content)
        return file

    def write(self, name, write, content):
        self.writes.append(name.partition(".")[0] or "temporary")
        if len(self.writes) in self.full:
            write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(content)


class _Opened:
    """A file whose methods can be replaced."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


TWO_STEPS = {"steps": 2, "checkpoint": 1, "measure": 2, "pictures": 100}
FIRST_CHECKPOINT, SECOND_CHECKPOINT, LAST_CHECKPOINT = 2, 5, 10
NETWORK_SO_FAR, NETWORK = 9, 11
NO_SPACE = r"\(No space left on device\)"


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The tensors and the network of two steps that nothing came between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        Image.fromarray(photo_pixels(64, 80, 5)[:, :, ::-1] // 2).save("light.png")
        train(photos, **TWO_STEPS)
        return at_step(2), exported()


@pytest.fixture
def elsewhere(folder, monkeypatch):
    """The folder for temporary files."""
    (folder / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "elsewhere"))
    return folder / "elsewhere"


def test_what_two_steps_write(photos, folder, monkeypatch):
    disk = FullDisk(monkeypatch)
    train(photos, **TWO_STEPS)
    temporary = [number for number, name in enumerate(disk.writes, 1) if name == "temporary"]
    assert temporary == [
        FIRST_CHECKPOINT, SECOND_CHECKPOINT, NETWORK_SO_FAR, LAST_CHECKPOINT, NETWORK
    ]  # fmt: skip
    assert len(disk.writes) == 11
    assert {*disk.writes} == {"temporary", "events"}


@pytest.mark.reliability
@pytest.mark.parametrize("write", range(1, 12))
def test_disk_that_is_full_for_a_moment(
    photos, folder, monkeypatch, caplog, whole, elsewhere, write
):
    """Nothing is lost but what could not be written; and one line says so."""
    FullDisk(monkeypatch, {write})
    missing = {
        FIRST_CHECKPOINT: rf"^output=run: the checkpoint of step 0 cannot be written there "
        rf"{NO_SPACE}; put that right and start again with resume=true$",
        LAST_CHECKPOINT: rf"^output=run: the checkpoint of step 2 cannot be written there "
        rf"{NO_SPACE}; the network is run/network\.safetensors$",
        NETWORK: rf"^output=run: the network cannot be written there {NO_SPACE}; it is "
        r"/.*/elsewhere/photostyle_\w+/network\.safetensors$",
    }
    told = {
        SECOND_CHECKPOINT: "run: the checkpoint of step 1 cannot be written there (No space left "
        "on device); training goes on",
        NETWORK_SO_FAR: "run: the network cannot be written there (No space left on device); "
        "training goes on",
    }
    if write in missing:
        with pytest.raises(ArgumentError, match=missing[write]):
            train(photos, **TWO_STEPS)
        assert caplog.messages == []
    else:
        assert train(photos, **TWO_STEPS).exit_code == 0
        curves = "run/logs: no curves can be written there (No space left on device); training"
        (message,) = caplog.messages
        assert message == told.get(write, f"{curves} goes on without")
        assert_equal(at_step(2), whole[0])
    if write != FIRST_CHECKPOINT:
        (network,) = elsewhere.glob("*/*") if write == NETWORK else ["run/network.safetensors"]
        assert_equal(dict(load_network(network).net.named_parameters()), whole[1])
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("write", range(1, 12))
def test_disk_that_stays_full(photos, folder, monkeypatch, whole, elsewhere, write):
    """The run goes on from the last checkpoint that it could write, and ends alike."""
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, range(write, 100))
        with pytest.raises(ArgumentError, match=rf"^output=run: the .*{NO_SPACE}") as caught:
            train(photos, **TWO_STEPS)
    assert "\n" not in str(caught.value)
    networks = list(elsewhere.glob("*/*"))
    assert len(networks) == (write > FIRST_CHECKPOINT)
    for network in networks:
        assert str(caught.value).endswith(f"; it is {network}")
        assert_equal(dict(load_network(network).net.named_parameters()), whole[1])
    assert train(photos, **TWO_STEPS, resume=True).exit_code == 0
    assert_equal(at_step(2), whole[0])
    assert_equal(exported(), whole[1])


def test_full_disk_and_no_room_elsewhere(photos, folder, monkeypatch, whole):
    """The network is in the last checkpoint, too."""
    monkeypatch.setattr("tempfile.tempdir", str(folder / "nowhere"))
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, {NETWORK_SO_FAR, NETWORK})
        message = rf"the network cannot be written there {NO_SPACE}, nor to the temporary folder "
        with pytest.raises(ArgumentError, match=message + r"\(No such .*; put that right and exp"):
            train(photos, **TWO_STEPS)
    train(photos, **TWO_STEPS, resume=True)
    assert_equal(exported(), whole[1])


def test_full_disk_when_stopped(photos, folder, monkeypatch):
    """Both are said."""
    FullDisk(monkeypatch, range(LAST_CHECKPOINT, 100))
    message = r"step 2 cannot .*; the network cannot .*; interrupted; go on with resume=true$"
    with pytest.raises(ArgumentError, match=message):
        train(photos, Objective({2: interrupt}), **{**TWO_STEPS, "steps": 3})


def test_curves_go_on_when_there_is_room_again(photos, folder, monkeypatch):
    """Whatever part of a point the full disk took is no part of the file."""
    FullDisk(monkeypatch, {1, 4, 6, 8})  # the head, and the training values of three steps
    train(photos, steps=4, checkpoint=4, measure=4, pictures=100, held_out=0)
    curves, _ = scalars()
    assert list(curves["loss/style"]) == [1, 2, 3, 4]
    assert list(curves["training/learning_rate"]) == [4]


# --------------------------------------------------------------------------------------- no console


class BrokenStream:
    """A console that is gone."""

    encoding = "utf-8"

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        pass


@pytest.mark.parametrize(
    "stream",
    [
        None,
        BrokenStream(BrokenPipeError()),
        BrokenStream(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        BrokenStream(ValueError("I/O operation on closed file")),
    ],
    ids=["none", "pipe", "full", "closed"],
)
def test_no_console(photos, folder, monkeypatch, stream):
    monkeypatch.setattr("sys.stderr", stream)
    assert train(photos, steps=2, measure=1).exit_code == 0
    assert list(scalars()[0]["loss/style"]) == [1, 2]


# ---------------------------------------------------------------------------------- the same run


@pytest.fixture
def begun(photos, folder):
    """A run of three steps, and what makes it go on to the same end."""
    values = {"checkpoint": 3, "settings": {"style": "light.png", "init": "none.safetensors"}}
    train(photos, steps=3, **values)
    return values


@pytest.mark.parametrize("name", ["moved/dusk.png", "light.bmp"])
def test_resumed_with_the_style_elsewhere(photos, folder, begun, name):
    """By another name, or in another format: its pixels count."""
    Path("moved").mkdir()
    Image.open("light.png").save(name)
    Path("light.png").unlink()
    begun["settings"] = {"style": name}
    assert train(photos, style=name, steps=3, resume=True, **begun).exit_code == 0


def test_resumed_with_another_style(photos, folder, begun):
    """By the same name."""
    pixels = np.asarray(Image.open("light.png")).copy()
    pixels[10, 10, 1] += 1
    Image.fromarray(pixels).save("light.png")
    message = r"^style=light\.png: has another content than in this run; give the same, or another"
    with pytest.raises(ArgumentError, match=message):
        train(photos, steps=3, resume=True, **begun)
    assert checkpoints().newest().step == 3


def test_resumed_with_the_encoder_elsewhere(photos, folder):
    state = VGGFeatures(("relu2_2",)).state_dict()
    for name, factor in (("a.pth", 1), ("b.pth", 1), ("c.pth", 2)):
        torch.save({key.partition(".")[2]: factor * value for key, value in state.items()}, name)

    def go_on(name):
        objective = Objective(encoder=partial(VGGFeatures, weights=name))
        settings = {"encoder": {"weights": name}, "objective": {"encoder": {"weights": name}}}
        return train(photos, objective, steps=1, settings=settings, resume=True, held_out=0)

    go_on("a.pth")
    go_on("b.pth")
    with pytest.raises(ArgumentError, match=r"^encoder\.weights=c\.pth: has another content"):
        go_on("c.pth")


def test_resumed_with_the_photos_elsewhere(photos, folder, caplog):
    """Others are not refused, but told of."""
    shutil.copytree(photos, "moved")
    values = {"steps": 1, "held_out": 0, "resume": True}
    train(photos, **values)
    train("moved", **values)
    assert caplog.messages == []
    Path("moved/11.png").rename("moved/12.png")
    train("moved", **values)
    assert caplog.messages == [
        "data.root holds other photos than before; the run goes on with them"
    ]


def test_the_first_weights_count_at_the_start_alone(photos, folder):
    train(photos, steps=2, output="first", held_out=0)
    init = Path("first/network.safetensors")
    train(photos, steps=2, held_out=0, init=init, settings={"init": str(init)})
    init.unlink()
    values = {"steps": 3, "held_out": 0, "resume": True}
    assert train(photos, **values, init=init, settings={"init": str(init)}).steps == 3
    assert train(photos, **values, settings={"init": None}).steps == 3


def test_more_steps(photos, folder, begun):
    """The learning rate is the longer run's; weights, moments and averages are what they were."""
    before = at_step(3)
    begun["settings"] |= {"steps": 6, "schedule": {"steps": 6}}
    report = train(photos, steps=6, resume=True, **begun)
    assert (report.steps, report.exit_code) == (6, 0)
    assert_equal(at_step(3), before)
    schedule = Schedule(steps=6, learning_rate=2e-3, warmup=2)
    rates = list(scalars()[0]["training/learning_rate"].values())[3:]
    expected = [schedule.learning_rate_at(step) for step in (3, 4, 5)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_fewer_steps(photos, folder, begun):
    """Not fewer than were taken; as many export what there is."""
    message = r"^steps=2: the run has taken 3 already; give as many, or more$"
    with pytest.raises(ArgumentError, match=message):
        train(photos, steps=2, resume=True, **begun)
    train(photos, steps=8, resume=True, **begun, objective=Objective({2: interrupt}))
    report = train(photos, steps=5, resume=True, **begun)
    assert (report.steps, report.exit_code) == (5, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"style": None}, r"^style=None: required; give an image file"),
        ({"style": "nope.png"}, r"^style=nope\.png: no such file"),
        ({"size": 63}, r"^size=63: give a number at least 64"),
        ({"seed": -1}, r"^seed=-1: give a number at least 0"),
        ({"seed": 2**63}, r"^seed=9223372036854775808: too large a number"),
        ({"device": "tpu"}, r"^device=tpu: unknown; choose one of auto, cpu"),
        ({"precision": "int8"}, r"^precision=int8: unknown; choose one of auto, float32, bfloat16"),
        ({"resume": "maybe"}, r"^resume=maybe: give true or false"),
        (
            {"output": "light.png"},
            r"^output=light\.png: .* is a file, or a link to nothing; give a folder",
        ),
        ({"init": "nope"}, r"^init=nope: no such file; give a network file, or one of autumn"),
        ({"init": "dusk"}, r"^init=dusk: has network\.width=16; give the same"),
        ({"workers": -1}, r"^workers=-1: give a number at least 0"),
        ({"region_share": 0.5}, r"^region_share=0\.5: a network of one style has no regions"),
        ({"held_out": 12}, r"^held_out=12: give fewer than the 12 photos"),
        ({"validation": "nowhere"}, r"^validation=nowhere: give a folder of photos"),
        (
            {"objective": Objective(content_weight=0, style_weight=0)},
            r"^style_weight=0: give a weight above 0, to this or to another loss",
        ),
    ],
    ids=lambda value: value[1:30] if isinstance(value, str) else "",
)
def test_wrong_value(photos, folder, values, message):
    with pytest.raises(ArgumentError, match=message):
        train(photos, **values)
    assert [path.name for path in folder.iterdir()] == ["light.png"]


def test_output_of_another_run(photos, folder):
    train(photos, held_out=0, steps=2)
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    message = r"^output=run: holds a run; go on with resume=true, or give another folder"
    with pytest.raises(ArgumentError, match=message):
        train(photos, held_out=0, steps=2)
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def test_resumed_with_another_number_of_processes(photos, folder):
    train(photos, held_out=0, steps=2)
    newest = checkpoints().newest()
    newest.values["processes"] = 4
    checkpoints().save(newest)
    with pytest.raises(ArgumentError, match=r"^resume=true: the run has 4 processes, not 1"):
        train(photos, held_out=0, steps=2, resume=True)
