"""``method=feedforward`` with a film, and colours that keep still over time.

The network is tiny and not trained: what it does to a picture is arbitrary, but not small.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photostyle import stylize
from photostyle.data.film_frame import BT709, FilmFrame
from photostyle.feedforward import StyleNetwork, TransformNet, UniversalNet
from photostyle.feedforward.steady_colours import CUT, INTERVAL, SteadyColours
from photostyle.ops import GuidedFilter

av = pytest.importorskip("av", reason="films need PyAV, the extra 'video'")

WIDTH, HEIGHT, RATE, SIZE = 96, 64, 24, 64

pytestmark = pytest.mark.usefixtures("no_network")


# --------------------------------------------------------------------------------- steady colours


def scene(seed, brightness=1.0):
    """(3, H, W), float32 in [0, 1]: smooth colours and grain."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x / WIDTH, y / HEIGHT, 0.5 + 0.4 * np.sin((x + 20 * seed) / 9)]
    grain = np.random.default_rng(seed).normal(0, 0.04, (3, HEIGHT, WIDTH))
    tint = np.random.default_rng(seed).uniform(0.4, 1, (3, 1, 1))
    return (brightness * tint * (np.stack(planes) + grain)).clip(0, 1).astype(np.float32)


def frame(image, time):
    kr, kb = BT709
    red, green, blue = 255 * image
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = luma, 128 + (blue - luma) / (2 - 2 * kb), 128 + (red - luma) / (2 - 2 * kr)
    planes = tuple(np.rint(plane).clip(0, 255).astype(np.uint8) for plane in planes)
    return FilmFrame(planes, 8, BT709, True, time)


class Darker:
    """Halves the brightness, differently each time it is called; counts the calls."""

    def __init__(self, wobble=0.0):
        self.wobble = wobble
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return image * (0.5 + self.wobble * (-1) ** self.calls)


def added(colours, image, count, start=0):
    return [colours(frame(image, (start + number) / RATE)).copy() for number in range(count)]


def test_it_does_what_the_network_does():
    image = scene(0)
    table = SteadyColours(Darker(), SIZE)(frame(image, 0.0))
    # At the table's entries, where the frame has colours: halved.
    assert table.shape == (9, 9, 9, 3)
    np.testing.assert_allclose(table[2, 2, 3], [-1 / 8, -1 / 8, -3 / 16], atol=0.01)


def test_a_still_scene_stays_the_same():
    tables = added(SteadyColours(Darker(), SIZE), scene(0), 60)
    for table in tables[1:]:
        np.testing.assert_array_equal(table, tables[0])


def test_what_flickers_is_averaged():
    """The network's results are 0.1 apart; from frame to frame there are hundredths left of it."""
    tables = added(SteadyColours(Darker(0.05), SIZE), scene(0), 200)
    steps = [np.abs(b - a).max() for a, b in itertools.pairwise(tables)]
    alone = [SteadyColours(Darker(wobble), SIZE)(frame(scene(0), 0.0)) for wobble in (0.05, -0.05)]
    apart = np.abs(alone[1] - alone[0]).max()
    assert max(steps[24:]) < 0.05 * apart
    assert np.abs(tables[-1] - np.mean(alone, 0)).max() < 0.15 * apart


def test_the_network_is_asked_now_and_then():
    network = Darker()
    added(SteadyColours(network, SIZE), scene(0), 3 * RATE)
    assert network.calls == 3 / INTERVAL


def test_a_cut_starts_anew():
    colours = SteadyColours(Darker(), SIZE)
    added(colours, scene(0), 40)
    assert colours.cuts == 0
    after = added(colours, scene(3, 0.6), 5, 40)
    assert colours.cuts == 1
    fresh = SteadyColours(Darker(), SIZE)(frame(scene(3, 0.6), 0.0))
    np.testing.assert_array_equal(after[0], fresh)


def test_motion_is_no_cut():
    """All moves by a quarter of the picture, and colours stay."""
    colours = SteadyColours(Darker(), SIZE)
    for number in range(8):
        colours(frame(np.roll(scene(0), number * WIDTH // 4, 2), number / RATE))
    assert colours.cuts == 0


@pytest.mark.parametrize(("change", "cuts"), [(0.8, 0), (1.2, 1)])
def test_the_threshold_of_a_cut(change, cuts):
    """Grey frames, whose luma alone moves: by the mean over three planes, a third of it."""
    colours = SteadyColours(Darker(), SIZE)
    grey = np.linspace(0.2, 0.6, WIDTH, dtype=np.float32) * np.ones((3, HEIGHT, 1), np.float32)
    colours(frame(grey, 0.0))
    colours(frame(grey + 3 * change * CUT, 1 / RATE))
    assert colours.cuts == cuts


def test_black_frames_stay_black_and_say_nothing():
    """Before a scene, and in the middle of it, as in a fade."""

    def brighter(image):
        return (image + 0.3).clamp(0, 1)

    black, image = np.zeros((3, HEIGHT, WIDTH), np.float32), scene(0)
    colours = SteadyColours(brighter, SIZE)
    assert max(np.abs(table).max() for table in added(colours, black, 24)) == 0
    expected = SteadyColours(brighter, SIZE)(frame(image, 0.0))
    np.testing.assert_allclose(colours(frame(image, 1.0)), expected, atol=1e-6)
    for step in range(1, 13):
        colours(frame(image * (1 - step / 12), 1 + step / RATE))
    assert colours.cuts == 1
    faded = colours(frame(black, 1 + 13 / RATE)).copy()
    np.testing.assert_allclose(added(colours, black, 24, 40)[-1], faded, atol=1e-3)


# -------------------------------------------------------------------------------- from file to file


def tiny(guided_filter: GuidedFilter | None = GuidedFilter(radius=3)) -> StyleNetwork:  # noqa: B008
    torch.manual_seed(0)
    net = TransformNet(4, 1, style=0.5 + 0.1 * torch.randn(1, 3, 64, 64))
    torch.nn.init.normal_(net.output.weight, std=0.02)
    return StyleNetwork(net.eval(), guided_filter, "tiny, of tests")


def make_film(path, scenes=(0, 0), frames=12, sound=True):
    """Each scene has its frames, which move a little."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", RATE, {"crf": "6"}, time_base=Fraction(1, RATE))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        tone = film.add_stream("aac", 48000) if sound else None
        for number in range(frames * len(scenes)):
            moved = np.roll(scene(scenes[number // frames]), number % frames, 2)
            levels = np.rint(255 * moved).astype(np.uint8).transpose(1, 2, 0)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
        if sound:
            for number in range(2 * frames * len(scenes)):
                samples = np.full((2, 1024), 0.1 * (number % 3), np.float32)
                samples = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                samples.sample_rate, samples.pts = 48000, 1024 * number
                samples.time_base = Fraction(1, 48000)
                film.mux(tone.encode(samples))
            film.mux(tone.encode(None))


def pictures(path):
    with av.open(str(path)) as film:
        return np.stack([f.to_ndarray(format="rgb24") for f in film.decode(video=0)]).astype(int)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with networks, a film and a style photo."""
    monkeypatch.chdir(tmp_path)
    tiny().save("tiny.safetensors")
    tiny(None).save("painter.safetensors")
    torch.manual_seed(0)
    StyleNetwork(UniversalNet(4, 1).eval(), GuidedFilter(3), "any").save("any.safetensors")
    make_film("clip.mp4")
    style = np.rint(255 * scene(5)).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(style).save("warm.png")
    return tmp_path


@pytest.fixture
def run(folder, command):
    """``run(key=value)`` -> exit code and output; ``None`` leaves a key out."""

    def call(**values):
        values = {
            "method": "feedforward", "content": "clip.mp4", "network": "tiny.safetensors",
            "size": SIZE, "device": "cpu", "precision": "float32",
        } | values  # fmt: skip
        words = (f"{key}={value}" for key, value in values.items() if value is not None)
        return command(stylize.main, *words)

    return call


def test_a_film(run):
    code, out, err = run()
    assert (code, out.startswith("clip_tiny.mp4: 24 frames, 0 cuts, ")) == (0, True)
    assert "24/24" in err
    assert "frame/s" in err
    before, after = pictures("clip.mp4"), pictures("clip_tiny.mp4")
    assert after.shape == before.shape
    assert np.abs(after - before).mean() > 5
    with av.open("clip_tiny.mp4") as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]


def test_strength_0_is_the_film_itself(run):
    assert run(strength=0, quality=100).code == 0
    # The encoder's loss; measured 1.2.
    assert np.abs(pictures("clip_tiny.mp4") - pictures("clip.mp4")).mean() < 2


def test_cuts_are_told(run):
    make_film("cut.mkv", (0, 3, 0))
    assert "36 frames, 2 cuts" in run(content="cut.mkv", output="out.mkv").out


def test_any_style_and_its_statistics(run):
    style = {"network": "any.safetensors", "style": "warm.png", "masks": "none"}
    assert run(**style, save_style="warm.safetensors").code == 0
    assert Path("clip_warm.mp4").is_file()
    of_file = {"network": "any.safetensors", "style": "warm.safetensors", "output": "again.mp4"}
    assert run(**of_file).code == 0
    difference = np.abs(pictures("again.mp4") - pictures("clip_warm.mp4"))
    assert difference.mean() < 0.05  # rounding, of which the codec makes some levels here and there
    goal = np.asarray(Image.open("warm.png")).mean((0, 1))
    before, after = (pictures(name).mean((0, 1, 2)) for name in ("clip.mp4", "clip_warm.mp4"))
    assert np.abs(after - goal).mean() < 0.3 * np.abs(before - goal).mean()


ANY = {"network": "any.safetensors", "style": "warm.png"}
BAD = {
    "no such film": ({"content": "no.mp4"}, "content=no.mp4: no such file"),
    "no film": ({"content": "text.mp4"}, "content=text.mp4: no film that can be read"),
    "suffix": ({"output": "out.png"}, "output=out.png: a film: end its name in one of .mp4"),
    "exists": ({"output": "text.mp4"}, "output=text.mp4: exists; give another name or overwrite"),
    "itself": ({"output": "clip.mp4", "overwrite": "true"}, "output=clip.mp4: is the file of cont"),
    "painted mask": (ANY | {"content_mask": "warm.png"}, "content_mask=warm.png: a film has no"),
    "mask of style": (ANY | {"style_mask": "warm.png"}, "style_mask=warm.png: a film has no regi"),
    "share": (ANY | {"whole_share": 0.5}, "whole_share=0.5: a film has no regions; leave it out"),
    "workers": ({"workers": 2}, "workers=2: is for photos; leave it out for a film"),
    "batch_size": ({"batch_size": 2}, "batch_size=2: is for photos; leave it out for a film"),
    "masks": (ANY | {"masks": "auto"}, "masks=auto: a film has one style for the whole picture"),
    "painter": ({"network": "painter.safetensors"}, "network=painter.safetensors: makes paintings"),
    "working size": ({"full_resolution": "false"}, "full_resolution=False: a film keeps its own"),
    "pixels": ({"max_pixels": 6000}, "content=clip.mp4: 96 x 64 pixels are too many; raise max_"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_go_with_a_film(run, case):
    values, message = BAD[case]
    Path("text.mp4").write_text("no film")
    before = sorted(os.listdir())
    code, out, err = run(**values)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_numbers_that_are_no_colours_are_no_film(run, monkeypatch):
    def forward(net, photo, weights=None):
        return torch.full_like(photo, torch.nan)

    monkeypatch.setattr(TransformNet, "forward", forward)
    before = sorted(os.listdir())
    code, out, err = run()
    assert (code, out) == (2, "")
    expected = "error: network=tiny.safetensors: gives no picture: numbers that are not finite"
    assert err.splitlines()[-1] == expected
    assert sorted(os.listdir()) == before


def test_no_pyav(run, monkeypatch):
    monkeypatch.setattr("photostyle.data.video.find_spec", lambda name: None)
    code, _, err = run()
    assert (code, err) == (
        2, "error: content=clip.mp4: films need PyAV: pip install 'photostyle[video]'\n",
    )  # fmt: skip


def test_a_folder_passes_over_films(run):
    Path("trip").mkdir()
    Image.open("warm.png").save("trip/a.png")
    make_film("trip/b.mp4", (0,), 2, sound=False)
    code, out, _ = run(content="trip", output="out")
    assert code == 0
    assert "passed over: 1 .mp4" in out
    assert os.listdir("out") == ["a.png"]


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_on_the_way(folder, number):
    """No result; but for a kill that leaves no time, nothing else either."""
    make_film("long.mp4", (0,), 4000, sound=False)
    before = {*os.listdir()}
    words = ["method=feedforward", "content=long.mp4", "network=tiny.safetensors", "device=cpu"]
    code = "import sys; from photostyle import stylize; stylize.main()"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not {*os.listdir()} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    left = {*os.listdir()} - before
    if number == signal.SIGKILL:
        assert process.returncode == -number
        assert all(name.endswith(".tmp") for name in left)
    else:
        assert (process.returncode, left) == (130, set())
        assert err.decode().endswith("interrupted\n")
