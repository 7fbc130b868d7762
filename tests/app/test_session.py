"""What the page does for one person: the command line's pictures, and messages for what is wrong.

And where the server refuses to start.
"""

import errno
import os
import shlex
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photostyle import stylize
from photostyle.app import Session, Settings, __main__
from photostyle.app.regions import REGIONS
from photostyle.app.session import PHOTOS
from photostyle.app.settings import PRESETS
from photostyle.data.masks import COLOURS
from photostyle.ops import ArgumentError
from photostyle.ops.losses import LossTerms
from photostyle.ops.regions import describe
from photostyle.optimize.image_optimizer import Step

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def settings():
    return Settings(max_pixels=100_000, picture_every=2, size=64, device="cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two photos, one of them with metadata, and files that are none."""
    monkeypatch.chdir(tmp_path)
    for name, example in (("a.jpg", "pavilion"), ("b.png", "sunset")):
        with Image.open(EXAMPLES / f"{example}.jpg") as image:
            exif = Image.Exif()
            exif[0x010F] = "Maker"
            image.resize((96, 72)).save(name, exif=exif)
    Path("text.jpg").write_text("This is not a picture.\n")
    Image.new("RGB", (400, 300)).save("large.png")
    return tmp_path


@pytest.fixture
def session(settings, folder):
    session = Session(settings)
    session.take("content", "a.jpg")
    session.take("style", "b.png")
    yield session
    session.close()


def written_by_command_line(command, line):
    """The file that a shown command writes in the current folder."""
    words = shlex.split(line)
    assert words[:2] == ["python", "stylize.py"]
    outcome = command(stylize.main, *words[2:], "output=expected.jpg", "overwrite=true")
    assert outcome.code == 0, outcome.err
    return Path("expected.jpg").read_bytes()


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_one_pass_is_the_command_line_s(session, command, strength):
    session.one_pass()
    file = session.write(strength)
    assert file.name == "a_b.jpg"
    assert file.read_bytes() == written_by_command_line(command, session.command(strength))
    assert b"Maker" in file.read_bytes()


@pytest.mark.parametrize("name", ["null", "~", "~root", "true", "1.5", "[a]", "'a'", "${a}, b.jpg"])
def test_names_that_mean_something_else(session, command, name):
    Path("a.jpg").rename(name)
    session.take("content", name)
    session.one_pass()
    assert session.write(1.0).read_bytes() == written_by_command_line(command, session.command(1.0))


def check_lut(session, command, strength):
    """The file and its residual are the command line's, and so is what the command names it."""
    saved = session.write_lut(strength)
    line = session.command(strength, lut=True)
    assert f"lut={saved.path.name}" in shlex.split(line)
    outcome = command(stylize.main, *shlex.split(line)[2:], "output=other.jpg", "overwrite=true")
    assert outcome.code == 0, outcome.err
    assert saved.path.read_bytes() == Path(saved.path.name).read_bytes()
    assert f"residual {saved.residual:.2f} " in outcome.out


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_lut_of_one_pass_is_the_command_line_s(session, command, strength):
    session.one_pass()
    check_lut(session, command, strength)


def test_the_lut_of_a_transparent_photo_is_the_command_line_s(session, command):
    """What is not seen does not count."""
    with Image.open("a.jpg") as image:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save("clear.png")
    session.take("content", "clear.png")
    session.one_pass()
    check_lut(session, command, 1.0)


def test_a_network_of_one_style_is_the_command_line_s(session, command):
    session.choose("dusk")
    session.drop("style")
    assert session.is_ready
    session.one_pass()
    file = session.write(1.0)
    assert file.name == "a_dusk.jpg"
    assert file.read_bytes() == written_by_command_line(command, session.command(1.0))
    check_lut(session, command, 1.0)


def test_the_result_of_another_network_is_forgotten(session):
    """Be there all that the new one needs or not: files are called after what is chosen."""
    session.choose("dusk")
    session.one_pass()
    session.choose("dusk")
    assert session.result is not None
    session.drop("style")
    session.one_pass()
    session.choose("universal")
    assert not session.is_ready
    with pytest.raises(ArgumentError, match=r"^content=None: there is no result yet"):
        session.write(1.0)


def test_a_photo_that_is_dropped_while_the_optimiser_waits(session):
    session.ready_to_refine()
    session.drop("style")
    with pytest.raises(ArgumentError, match=r"^style=None: required; drop a photo or pick"):
        next(session.refine("strict"))


def test_the_optimiser_is_the_command_line_s(session, command):
    session.ready_to_refine()
    steps = list(session.refine("strict"))
    assert [step.number for step in steps][:3] == [2, 4, 6]
    assert "photorealism=strict" in session.command(1.0)
    expected = written_by_command_line(command, session.command(0.5))
    assert session.write(0.5).read_bytes() == expected
    check_lut(session, command, 0.5)


def test_painted_regions_are_the_command_line_s(session, command, folder):
    """The masks that it names are those that can be had."""
    before = session.one_pass().picture(1.0)
    height, width = session.regions.overlays()["content"].shape[:2]
    strokes = np.zeros((2 * height, 2 * width, 4), np.uint8)
    strokes[:height] = [*COLOURS[REGIONS.index("cyan")], 255]
    session.regions.paint("content", strokes)
    session.regions.paint("style", strokes)
    after = session.one_pass().picture(1.0)
    assert np.abs(after.astype(int) - before).max() > 4
    for file in session.mask_files.values():
        mask = np.asarray(Image.open(file))
        assert (mask[: len(mask) // 2 - 1] == COLOURS[REGIONS.index("cyan")]).all()
        assert (mask[len(mask) // 2 + 1 :] != COLOURS[REGIONS.index("cyan")]).any(-1).all()
        (folder / file.name).write_bytes(file.read_bytes())
    assert session.write(1.0).read_bytes() == written_by_command_line(command, session.command(1.0))


def test_a_faint_stroke_paints_nothing(session):
    overlay = session.regions.overlays()["content"]
    session.regions.paint("content", np.full((*overlay.shape[:2], 4), 100, np.uint8))
    assert not session.regions.painted
    assert (session.regions.overlays()["content"] == overlay).all()


@pytest.mark.parametrize("region", ["red", "cyan"])  # there are five automatic ones at most
def test_a_merge_of_nothing_leaves_the_regions_automatic(session, region):
    session.regions.merge(region, "red")
    assert not session.regions.painted
    assert session.mask_files == {}


def test_merged_regions(session):
    overlay = session.regions.overlays()["content"]
    first = session.regions.overlays()["content"]
    for name in REGIONS[1:]:
        session.regions.merge(name, "red")
    merged = session.regions.overlays()
    expected = (np.array(COLOURS[0], int) + session.photo("content")) // 2
    assert (merged["content"] == expected).all()
    assert not (first == merged["content"]).all()
    assert session.regions.painted
    session.regions.reset()
    assert not session.regions.painted
    assert (session.regions.overlays()["content"] == overlay).all()


def test_names_of_regions(session):
    """Each is its colour's until it gets one, which it keeps when the photos change."""
    assert session.names["red"] == "red"
    session.rename("red", " sky ")
    session.rename("blue", "red")
    session.take("style", "a.jpg")
    assert session.names == dict(zip(REGIONS, ("sky", "green", "red", *REGIONS[3:]), strict=True))
    session.rename("blue", "")
    assert session.names["blue"] == "blue"


def test_a_photo_that_stays_is_not_looked_at_again(session, monkeypatch):
    looked_at = []

    def counted(image, opacity, **options):
        looked_at.append(image)
        return describe(image, opacity, **options)

    monkeypatch.setattr("photostyle.app.upload.describe", counted)
    session.one_pass()
    session.regions.overlays()
    session.one_pass()
    assert len(looked_at) == 2
    for argument, photo in (("style", "a.jpg"), ("content", "b.png")):
        session.take(argument, photo)
        session.one_pass()
    assert len(looked_at) == 4


def test_a_region_that_the_style_lacks_is_named(session):
    height, width = session.regions.overlays()["content"].shape[:2]
    assert session.unmatched() == []
    strokes = np.zeros((height, width, 4), np.uint8)
    strokes[: height // 2] = [*COLOURS[REGIONS.index("cyan")], 255]
    session.regions.paint("content", strokes)
    assert session.unmatched() == ["cyan"]
    session.rename("cyan", "lake")
    assert session.unmatched() == ["lake"]


def test_strength_0_is_the_photo(session):
    result = session.one_pass()
    assert (result.picture(0.0) == session.photo("content")).all()
    full = result.picture(1.0).astype(float)
    mean = (session.photo("content") + full) / 2
    inside = (full > 0) & (full < 255)  # what has not been clamped
    assert np.abs(result.picture(0.5) - mean)[inside].max() <= 1


def test_a_step_is_shown_as_its_result_would_be(session):
    """At half its strength, too, where what is beyond white is cut before it is blended."""
    session.ready_to_refine()
    shape = session.photo("content").shape
    image = torch.linspace(-0.5, 1.5, shape[0] * shape[1] * 3).reshape(1, 3, *shape[:2])
    step = Step(1, 1, size=max(shape), terms=LossTerms({}), image=image)
    full = session.picture(step, 1.0).astype(float)
    mean = (session.photo("content") + full) / 2
    assert np.abs(session.picture(step, 0.5) - mean).max() <= 1


def test_the_optimiser_stopped_keeps_the_best_so_far(session):
    session.ready_to_refine()
    numbers = []
    for step in session.refine("matting"):
        numbers.append(step.number)
        assert session.picture(step, 1.0).shape == session.photo("content").shape
        session.stop()
    assert numbers[-1] < step.total
    assert session.result.stopped == "interrupted"
    assert session.write(1.0).is_file()


def test_the_optimiser_ends_when_nobody_looks(session):
    before = threading.active_count()
    session.ready_to_refine()
    steps = session.refine("matting")
    next(steps)
    steps.close()
    assert threading.active_count() <= before


def test_stopped_while_it_waits(session):
    session.ready_to_refine()
    session.stop()
    assert len(list(session.refine("matting"))) <= 1
    assert session.result.stopped == "interrupted"


@pytest.mark.parametrize(
    ("argument", "name", "message"),
    [
        ("content", "text.jpg", "content=text.jpg: not a picture"),
        ("style", "text.jpg", "style=text.jpg: not a picture"),
        ("content", "large.png", "content=large.png: 400 x 300 pixels are too many; .* 100,000"),
    ],
)
def test_what_is_no_photo_is_refused(session, argument, name, message):
    """By the file's name alone, and what was there stays."""
    with pytest.raises(ArgumentError, match=f"^{message}"):
        session.take(argument, name)
    assert session.one_pass() is session.result


def test_a_photo_that_cannot_be_copied(session, monkeypatch):
    """The one before stays, file and all."""

    def full(source, target):
        Path(target).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    session.one_pass()
    before = session.write(1.0).read_bytes()
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ArgumentError, match=r"^content=b\.png: cannot be kept: No space left"):
        session.take("content", "b.png")
    assert session.write(1.0).read_bytes() == before


def test_a_result_that_cannot_be_written(session, folder):
    name = f"{'n' * 180}.jpg"
    (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    for argument in ("content", "style"):
        session.take(argument, name)
    session.one_pass()
    with pytest.raises(ArgumentError, match=r"^output=n.*: cannot be written: File name too long"):
        session.write(1.0)


def test_what_is_missing_is_named(settings, folder):
    session = Session(settings)
    assert not session.is_ready
    for write in (session.write, session.write_lut):
        with pytest.raises(ArgumentError, match="no result yet"):
            write(1.0)
    with pytest.raises(ArgumentError, match=r"^content=None: required"):
        session.one_pass()
    session.take("content", "a.jpg")
    for call in (session.one_pass, lambda: session.regions, session.ready_to_refine):
        with pytest.raises(ArgumentError, match=r"^style=None: required"):
            call()
    session.close()


def test_what_does_not_exist_is_refused(session):
    with pytest.raises(ArgumentError, match="photorealism=soft: unknown; choose one of strict"):
        list(session.refine("soft"))
    with pytest.raises(ArgumentError, match="region=pink: unknown"):
        session.regions.merge("pink", "red")
    with pytest.raises(ArgumentError, match="region=pink: unknown"):
        session.rename("pink", "sky")
    with pytest.raises(ArgumentError, match="name=green: another region has this name"):
        session.rename("red", "green")
    with pytest.raises(ArgumentError, match=r"name=ooo.*: give at most 40 letters"):
        session.rename("red", 41 * "o")
    session.choose("dusk")
    with pytest.raises(ArgumentError, match="network=dusk: has a style of its own"):
        session.ready_to_refine()


def test_a_new_photo_forgets_what_was_of_the_old_one(session):
    session.regions.merge("green", "red")
    session.one_pass()
    session.take("content", "b.png")
    assert session.result is None
    assert not session.regions.painted
    assert session.mask_files == {}


def test_nothing_stays(settings, folder):
    session = Session(settings, folder)
    session.take("content", "a.jpg")
    session.take("style", "b.png")
    session.one_pass()
    files = {session.write(1.0)}
    assert all(file.is_relative_to(folder) for file in files)
    session.close()
    assert not any(file.parent.exists() for file in files)


def test_settings_are_those_of_the_command_line(settings):
    """No default is written twice."""
    assert settings.words == ("size=64", "device=cpu")
    assert settings.options.size == 64
    assert settings.options.quality == 95
    with pytest.raises(ArgumentError, match="size=9: give a number at least 32"):
        Settings(max_pixels=100, size=9)
    with pytest.raises(ArgumentError, match="picture_every=0"):
        Settings(max_pixels=100, picture_every=0)
    assert {f"{preset}.yaml" for preset in PRESETS} < {
        file.name for file in (EXAMPLES.parent / "conf" / "photorealism").iterdir()
    }
    assert len(REGIONS) == len(COLOURS)
    assert PHOTOS == ("content", "style")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["host=0.0.0.0"], "error: user=None: required with host=0.0.0.0; give user and password"),
        (["host=0.0.0.0", "user=me"], "error: password=None: required with host=0.0.0.0"),
        (["host=3", "user=me", "password=x"], "error: host=3: give a name or an IPv4 address"),
        (["host=::1"], "error: host=::1: give a name or an IPv4 address; IPv6 is not served"),
        (
            ["password=secret"],
            "error: user=None: user and password go together; give both or neither",
        ),
        (["port=70000"], "error: port=70000: give a number from 1 to 65535"),
        (["people=0"], "error: people=0: give a number at least 1"),
        (["max_megabytes=0"], "error: max_megabytes=0: give a number at least 1"),
        (["size=9"], "error: size=9: give a number at least 32"),
        (["host=192.0.2.1", "user=me", "password=x"], "error: port=7860: cannot be used at 192.0"),
        (["examples=none"], "error: examples=none: "),
    ],
)
def test_wrong_settings_of_the_server(command, monkeypatch, words, message):
    monkeypatch.delenv("PHOTOSTYLE_PASSWORD", raising=False)
    outcome = command(__main__.main, *words)
    assert outcome.code == 2
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1


def test_a_port_that_is_in_use(command):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = command(__main__.main, f"port={port}")
    assert outcome.code == 2
    expected = f"error: port={port}: cannot be used at 127.0.0.1: Address already in use"
    assert outcome.err.startswith(expected)
    assert outcome.err.count("\n") == 1


def test_without_gradio(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "photostyle.app.page", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcome = command(__main__.main, f"port={port}")
    assert outcome.code == 2
    assert outcome.err.startswith("error: gradio=None: not installed; do so with: pip install")
