"""The command line: what it writes, and one line and exit code 2 for every wrong value.

Most tests call ``stylize.main`` in this process, which spares them seconds of imports; a few start
a real one.
"""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import namedtuple
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hydra.errors import InstantiationException
from PIL import Image, ImageCms
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from photostyle import stylize
from photostyle.ops import LossTerms, StyleObjective
from photostyle.ops.matting.laplacian import MattingLaplacian

EXAMPLES = Path(__file__).parents[1] / "examples"
WIDTH, HEIGHT = 96, 72
# A long side of 48 pixels, shallow layers and a step or two: a run takes less than a second.
FAST = {
    "size": 48,
    "optimizer.steps": "[1]",
    "objective.style_layers": "[colours,relu1_1,relu2_1]",
    "objective.layer_weights": "null",
    "objective.content_layers": "[relu2_2]",
    "device": "cpu",
    "backend": "cpu",
    "masks": "none",
}
THREE_SCALES = {"optimizer.steps": "[2,1,1]"}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Usage = namedtuple("Usage", "total used free")

pytestmark = pytest.mark.usefixtures("no_network")


def photo_pixels(width, height, seed):
    """Smooth colours and some grain, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (np.stack(planes, -1) + grain).clip(0, 255).astype(np.uint8)


def png_header(width, height):
    """A PNG file of 1-bit pixels that promises width x height of them and holds none."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def bmp_header(width, height):
    """A BMP file of 24-bit pixels that promises width x height of them and holds none."""
    information = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + information


def encoded(image, file_format):
    file = BytesIO()
    image.save(file, format=file_format)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two photos, a pair of masks and all sorts of other files."""
    monkeypatch.chdir(tmp_path)
    content = Image.fromarray(photo_pixels(WIDTH, HEIGHT, 0))
    content.save("content.png")
    style = Image.fromarray(photo_pixels(64, 80, 5)[:, :, ::-1] // 2)
    style.save("style.png")
    for name, (width, height) in (("content", (WIDTH, HEIGHT)), ("style", (64, 80))):
        labels = np.zeros((height, width, 3), np.uint8)
        labels[:, width // 3 :, 0] = 255
        Image.fromarray(labels).save(f"{name}_mask.png")
    Path("folder").mkdir()
    Path("empty.png").touch()
    Path("text.png").write_text("This is not a picture.\n")
    for name, file_format in (("truncated.png", "PNG"), ("truncated.jpg", "JPEG")):
        file = encoded(content, file_format)
        Path(name).write_bytes(file[: len(file) // 2])
    content.crop((0, 0, 12, 40)).save("tiny.png")
    Path("bomb.png").write_bytes(png_header(20_000, 10_001))
    Path("bomb.bmp").write_bytes(bmp_header(30_000, 30_000))
    return tmp_path


@pytest.fixture
def run(folder, command):
    """Call ``stylize.main`` as the command line does: ``run(key=value)`` -> exit code and output.

    Values of ``content`` and so on replace those of the photos in the folder and of FAST; ``None``
    leaves the key out. Keys with dots go into a dict.
    """

    def call(*arguments, **values):
        values = {"content": "content.png", "style": "style.png", "output": "out.png"} | values
        for argument in arguments:
            if isinstance(argument, dict):
                values |= argument
        given = dict(values)
        words = [argument for argument in arguments if isinstance(argument, str)]
        if values.get("method", "optimize") == "optimize":
            values = FAST | values
            if "masks" not in given and values.keys() & {"content_mask", "style_mask"}:
                del values["masks"]
        words += [f"{key}={value}" for key, value in values.items() if value is not None]
        return command(stylize.main, *words)

    return call


def files(folder):
    """Everything in a folder, with contents."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


# ------------------------------------------------------------------------------------- bad values

OTHER_METHOD = "no photo of that name; give one, or method=feedforward"

BAD = {
    # Photos.
    "missing content": ({"content": "nope.png"}, "content=nope.png: no such file"),
    "missing style": ({"style": "nope.png"}, "style=nope.png: no such file"),
    "folder as content": ({"content": "folder"}, f"content=folder: {OTHER_METHOD}"),
    "folder as style": ({"style": "folder"}, "style=folder: is a folder"),
    "empty file": ({"content": "empty.png"}, "content=empty.png: the file is empty"),
    "text file": ({"style": "text.png"}, "style=text.png: not a picture that can be read"),
    "truncated PNG": ({"content": "truncated.png"}, "content=truncated.png: truncated or damaged"),
    "truncated JPEG": ({"style": "truncated.jpg"}, "style=truncated.jpg: truncated or damaged"),
    "less than 16 pixels": ({"content": "tiny.png"}, "content=tiny.png: 12 x 40 pixels are too"),
    "style of less than 16 pixels": ({"style": "tiny.png"}, "style=tiny.png: 12 x 40 pixels are"),
    "max_pixels": (
        {"max_pixels": 6000},
        "content=content.png: 96 x 72 pixels are too many; give at most 6,000",
    ),
    "pixel bomb, PNG": ({"content": "bomb.png"}, "content=bomb.png: 20000 x 10001 pixels are too"),
    "pixel bomb, BMP": ({"style": "bomb.bmp"}, "style=bomb.bmp: 30000 x 30000 pixels are too many"),
    # Masks.
    "masks": ({"masks": "yes"}, "masks=yes: unknown; choose one of auto, none"),
    "masks_dir is a file": ({"masks_dir": "text.png"}, "masks_dir=text.png: "),
    "content mask only": ({"content_mask": "content_mask.png"}, "style_mask=None: masks come in"),
    "style mask only": ({"style_mask": "style_mask.png"}, "content_mask=None: masks come in pairs"),
    "mask that is no picture": (
        {"content_mask": "text.png", "style_mask": "style_mask.png"},
        "content_mask=text.png: not a picture",
    ),
    "missing mask": (
        {"content_mask": "content_mask.png", "style_mask": "nope.png"},
        "style_mask=nope.png: no such file",
    ),
    "masks beside painted ones": (
        {"masks": "none", "content_mask": "content_mask.png", "style_mask": "style_mask.png"},
        "masks=none: says what to do without content_mask; leave one of them out",
    ),
    "a share beside no masks": (
        {"masks": "none", "whole_share": 0.5},
        "whole_share=0.5: masks=none leaves no regions to weigh; leave one of them out",
    ),
    "masks onto those that are given": (
        {
            "content_mask": "content_mask.png",
            "style_mask": "style_mask.png",
            "masks_dir": ".",
            "overwrite": "true",
        },
        "masks_dir=content_mask.png: is the file of content_mask; give another name",
    ),
    "mask of another photo": (
        {"content_mask": "style_mask.png", "style_mask": "style_mask.png"},
        "content_mask=style_mask.png: has 64 x 80 pixels and the content, at working size, 48 x 36",
    ),
    "mask that is a photo": (
        {"content_mask": "content.png", "style_mask": "style.png"},
        "content_mask=content.png: each part must be filled with one plain colour",
    ),
    # Output.
    "output in no folder": ({"output": "no/out.png"}, "output=no/out.png: there is no folder no"),
    "output is a folder": ({"output": "folder"}, "output=folder: is a folder"),
    "unknown suffix": ({"output": "out.gif"}, "output=out.gif: end its name in one of .jpg"),
    "no suffix": ({"output": "out"}, "output=out: end its name in one of .jpg"),
    "missing style, output exists": (
        {"style": "nope.png", "output": "empty.png"},
        "style=nope.png: no such file",
    ),
    "output exists": ({"output": "empty.png"}, "output=empty.png: exists; give another name or"),
    "default output exists": (
        {"output": None, "content": "content.png", "style": "style.png"},
        "output=content_style.png: exists; give another name or overwrite=true",
    ),
    "log_dir is a file": ({"log_dir": "text.png"}, "log_dir=text.png:"),
    "log_dir below a file": ({"log_dir": "text.png/a/b"}, "log_dir=text.png/a/b:"),
    "intermediate_dir is a file": ({"intermediate_dir": "text.png"}, "intermediate_dir=text.png:"),
    # Names.
    "style layer": ({"objective.style_layers": "[relu9_1]"}, "layers=relu9_1: unknown in vgg16;"),
    "content layer": (
        {"objective.content_layers": "[fc6]", "objective.content_weight": 1},
        "layers=fc6: unknown in vgg16; choose",
    ),
    "layers that are no list": (
        {"objective.style_layers": "relu1_1"},
        "style_layers=relu1_1: give a list",
    ),
    "no layers": ({"objective.style_layers": "[]"}, "style_layers=[]: give a list of at least one"),
    "encoder": ({"encoder": "resnet"}, "encoder=resnet: unknown; choose one of vgg"),
    "encoder by name": (
        {"encoder.model": "resnet"},
        "encoder.model=resnet: unknown; choose one of",
    ),
    "missing weights": ({"encoder.weights": "no.pth"}, "weights=no.pth: no such file"),
    "weights that are none": ({"encoder.weights": "text.png"}, "weights=text.png: no"),
    "optimizer": ({"optimizer": "sgd"}, "optimizer=sgd: unknown; choose one of adam, lbfgs"),
    "optimizer by name": ({"optimizer.name": "sgd"}, "optimizer=sgd: unknown; choose one of lbfgs"),
    "objective": ({"objective": "histogram"}, "objective=histogram: unknown; choose one of gram,"),
    "gains": (
        {"photorealism.colour_gains": "[2,3]"},
        "colour_gains=[2, 3]: give two numbers, [least",
    ),
    "gain of text": ({"photorealism.feature_gains": "a"}, "feature_gains=a: give two numbers"),
    "layer weights": (
        {"objective.layer_weights": "[1]"},
        "layer_weights=[1]: give a list of 3 num",
    ),
    "gains of the closed form": (
        {"method": "colour_transfer", "gains": "[2,3]"},
        "gains=[2, 3]: give two numbers, [least, greatest], with 1 between them",
    ),
    "whole share": ({"whole_share": 1.5}, "whole_share=1.5: give a number from 0 to 1"),
    "strength": ({"strength": -0.1}, "strength=-0.1: give a number from 0 to 1"),
    "photorealism": ({"photorealism": "maybe"}, "photorealism=maybe: unknown; choose one of"),
    "method": ({"method": "magic"}, "method=magic: unknown; choose one of colour_transfer, f"),
    "init": ({"init": "zeros"}, "init=zeros: unknown; choose one of colour_transfer, content"),
    "device": ({"device": "tpu"}, "device=tpu: unknown; choose one of auto, cpu, cuda, cuda:N"),
    "device number": ({"device": "cuda:x"}, "device=cuda:x: unknown; choose one of auto, cpu"),
    "GPU that is not there": ({"device": "cuda:99"}, "device=cuda:99: PyTorch sees"),
    "backend": ({"backend": "numpy"}, "backend=numpy: unknown; choose one of auto, cuda, cpu"),
    # Numbers.
    "negative transport weight": (
        {"photorealism.transport_weight": -1},
        "photorealism.transport_weight=-1: give a number at least 0",
    ),
    "negative style weight": ({"objective.style_weight": -1}, "style_weight=-1: give a number at"),
    "weight that is no number": ({"objective.content_weight": "much"}, "content_weight=much: give"),
    "infinite weight": (
        {"objective.total_variation_weight": "inf"},
        "total_variation_weight=inf: give a num",
    ),
    "negative matting weight": (
        {"photorealism.matting_weight": -0.5},
        "matting_weight=-0.5: give a",
    ),
    "matting radius": (
        {"photorealism.matting_radius": 0},
        "photorealism.matting_radius=0: give a number at least 1",
    ),
    "matting ridge": (
        {"photorealism.matting_ridge": -1},
        "photorealism.matting_ridge=-1: give a number",
    ),
    "precision": ({"precision": "float16"}, "precision=float16: unknown; choose one of auto, flo"),
    "radius": ({"photorealism.guided_filter.radius": 0}, "radius=0: give a number at least 1"),
    "ridge": ({"photorealism.guided_filter.ridge": 0}, "ridge=0: give a number above 0"),
    "ridge that is no number": (
        {"photorealism.guided_filter.ridge": "x"},
        "ridge=x: give a number",
    ),
    "size 0": ({"size": 0}, "size=0: give a number at least 32"),
    "size too small": ({"size": 31}, "size=31: give a number at least 32"),
    "size that is no number": ({"size": "abc"}, "size=abc: give a whole number of at least"),
    "size that is not whole": ({"size": 99.5}, "size=99.5: give a whole number"),
    "quality 0": ({"quality": 0}, "quality=0: give a number from 1 to 100"),
    "quality 101": ({"quality": 101}, "quality=101: give a number from 1 to 100"),
    "seed": ({"seed": "abc"}, "seed=abc: give a whole number"),
    "negative seed": ({"seed": -1}, "seed=-1: give a number at least 0"),
    "intermediate_every": ({"intermediate_every": 0}, "intermediate_every=0: give a number at"),
    "learning rate": ({"optimizer.learning_rate": -1}, "learning_rate=-1: give a number at least"),
    "steps of no scale": ({"optimizer.steps": "[]"}, "steps=[]: give one number for each of"),
    "no steps": ({"optimizer.steps": "[0]"}, "steps=0: give a number at least 1"),
    "overwrite": ({"overwrite": "maybe"}, "overwrite=maybe: give true or false"),
    "full_resolution": ({"full_resolution": 2}, "full_resolution=2: give true or false"),
    # What another method takes.
    "pattern": ({"content": "*.png"}, f"content=*.png: {OTHER_METHOD} for a folder, a pattern"),
    "film": ({"content": "a.mp4"}, f"content=a.mp4: {OTHER_METHOD} for a folder, a pattern"),
    "shards": ({"content": "{0..9}.tar"}, f"content={{0..9}}.tar: {OTHER_METHOD} for a folder, a"),
    "folder, colours": (
        {"method": "colour_transfer", "content": "."},
        f"content=.: {OTHER_METHOD} for a folder, a pattern, shards or a film",
    ),
    "statistics": (
        {"style": "a.safetensors"},
        f"style=a.safetensors: {OTHER_METHOD} for what save_style wrote",
    ),
    # Keys.
    "no content": ({"content": None}, "content=???: required; give it as content=VALUE"),
    "no style": ({"style": None}, "style=???: required; give it as style=VALUE"),
    "null content": ({"content": "null"}, "content=None: required; give an image file"),
    "unknown key": (
        {"colour": "red"},
        "colour: there is no such argument here; --cfg job lists all",
    ),
    "unknown key of a group": ({"optimizer.momentum": 0.9}, "optimizer.momentum"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_value(run, folder, case):
    """Exit code 2, one line on stderr that names it, and nothing written."""
    values, message = BAD[case]
    if case == "default output exists":
        Path("content_style.png").touch()
    before = files(folder)
    code, out, err = run(values)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err
    assert "Traceback" not in err
    assert files(folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "cuda"}, "device=cuda: PyTorch sees 0 GPUs here; use device=cpu"),
        ({"backend": "cuda"}, "backend=cuda: "),
    ],
    ids=["device", "backend"],
)
def test_no_gpu(run, folder, values, message):
    before = files(folder)
    code, _, err = run(values)
    assert code == 2
    (error,) = [line for line in err.splitlines() if not line.startswith("INFO: ")]
    assert error.startswith(f"error: {message}")
    assert files(folder) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "folder/out.png"}, "output=folder/out.png: no permission to write"),
        ({"log_dir": "folder/log"}, "log_dir=folder/log: no permission to write"),
        ({"intermediate_dir": "folder"}, "intermediate_dir=folder: no permission to write"),
    ],
    ids=["output", "log_dir", "intermediate_dir"],
)
def test_folder_that_must_not_be_written_to(run, folder, monkeypatch, values, message):
    # An administrator may write to any folder, so the system's answer is replaced.
    access = os.access

    def denied(path, mode, **options):
        protected = Path(path).resolve() == folder / "folder" and mode & os.W_OK
        return not protected and access(path, mode, **options)

    monkeypatch.setattr(os, "access", denied)
    before = files(folder)
    code, _, err = run(values)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert files(folder) == before


@pytest.mark.parametrize("argument", ["output", "masks_dir", "log_dir", "intermediate_dir"])
@pytest.mark.parametrize("name", ["n" * 300, "circle"])
def test_path_out_of_reach(run, folder, argument, name):
    Path("circle.png").symlink_to("circle.png")
    before = set(folder.rglob("*"))
    code, out, err = run({argument: f"{name}.png"})
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {argument}={name}.png: cannot be reached: ")
    assert err.count("\n") == 1
    assert set(folder.rglob("*")) == before


def test_no_room_for_the_result(run, folder, monkeypatch):
    """Told before the work; of another format or at working size it may well fit."""
    photo = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(photo).save("large.png")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 400_000))
    values = {"method": "colour_transfer", "content": "large.png", "masks": "none"}
    code, out, err = run(values)
    assert (code, out) == (2, "")
    size = Path("large.png").stat().st_size / 1e6
    expected = f"0.4 MB are free there, at least {size:.1f} MB are needed"
    assert err == f"error: output=out.png: {expected}\n"
    assert run(values, output="out.jpg").code == 0
    assert run(values, full_resolution="false").code == 0


@pytest.mark.parametrize("full_resolution", ["true", "false"])
def test_numbers_that_are_no_colours_are_no_result(run, folder, monkeypatch, full_resolution):
    def colour_transfer(content, *_, **__):
        return torch.full((1, 3, 4, *content.shape[2:]), torch.nan)

    monkeypatch.setattr("photostyle.optimize.transfer_colours.colour_transfer", colour_transfer)
    values = {"method": "colour_transfer", "full_resolution": full_resolution, "size": 48}
    before = files(folder)
    code, out, err = run(**values, masks="none")
    assert (code, out) == (2, "")
    expected = "error: content=content.png: gives no picture: numbers that are not finite"
    assert err.splitlines()[-1] == expected
    assert files(folder) == before


@pytest.mark.reliability
@pytest.mark.parametrize("method", ["optimize", "colour_transfer"])
def test_disk_that_is_full_at_last(run, folder, disk, monkeypatch, method):
    """The result is somewhere else."""
    Path("results").mkdir()
    Path("elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "elsewhere")
    assert run(method=method).code == 0
    disk.fills("results", writes=2)
    code, out, err = run(method=method, output="results/out.png")
    assert (code, out) == (2, "")
    reason = "cannot be written: No space left on device"
    where = "the result is in elsewhere/out_rescued.png"
    assert err.splitlines()[-1] == f"error: output=results/out.png: {reason}; {where}"
    np.testing.assert_array_equal(pixels("elsewhere/out_rescued.png"), pixels("out.png"))
    assert os.listdir("results") == []


@pytest.mark.reliability
def test_disk_that_is_full_on_the_way(run, folder, disk):
    """What is shown of the steps is left out, with a warning each."""
    values = {"optimizer.steps": "[3]", "intermediate_every": 1}
    assert run(values).code == 0
    disk.fills("log", "pictures", writes=5)
    values |= {"log_dir": "log", "intermediate_dir": "pictures", "output": "full.png"}
    code, _, err = run(values)
    assert code == 0
    for where in ("log_dir=log", "intermediate_dir=pictures"):
        warning = f"WARNING: {where}: nothing more can be written there (No space left on device)"
        assert err.count(warning) == 1
    assert "Traceback" not in err
    np.testing.assert_array_equal(pixels("full.png"), pixels("out.png"))


@pytest.mark.reliability
@pytest.mark.slow
def test_disk_that_fills_at_any_moment(run, folder, disk, monkeypatch):
    """Whenever that is, the result is whole, in its place or where the error says."""
    monkeypatch.setattr(tempfile, "tempdir", "elsewhere")
    values = {"optimizer.steps": "[3]", "intermediate_every": 1}
    assert run(values).code == 0
    values |= {"log_dir": "log", "intermediate_dir": "pictures", "output": "results/out.png"}
    codes = []
    while 0 not in codes:
        for name in ("results", "elsewhere", "log", "pictures"):
            shutil.rmtree(name, ignore_errors=True)
        Path("results").mkdir()
        Path("elsewhere").mkdir()
        disk.fills("results", "log", "pictures", writes=len(codes))
        code, _, err = run(values)
        codes.append(code)
        found = "results/out.png" if code == 0 else "elsewhere/out_rescued.png"
        assert code == 0 or err.splitlines()[-1].endswith(f"the result is in {found}")
        np.testing.assert_array_equal(pixels(found), pixels("out.png"))
        assert len(codes) < 40
    assert codes == [2] * (len(codes) - 1) + [0]
    assert len(codes) > 8


@pytest.mark.parametrize("log", ["log_dir", "intermediate_dir"])
def test_nothing_is_logged_of_a_run_that_does_not_start(run, folder, log):
    before = files(folder)
    code, _, err = run({log: "log", "init": "zeros"})
    assert code == 2
    assert err.count("\n") == 1
    assert files(folder) == before


def test_a_word_without_equals_sign(run, folder):
    before = files(folder)
    code, _, err = run("photo.jpg")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "photo.jpg" in err
    assert files(folder) == before


def test_a_defect_of_ours_keeps_its_traceback(run, folder, monkeypatch):
    """Not exit code 2: what is no fault of the user's is not reported as one."""

    def broken(**_):
        raise RuntimeError("a defect")

    monkeypatch.setattr("photostyle.optimize.stylize_photo.stylize_photo", broken)
    monkeypatch.setattr(sys, "argv", ["stylize.py", "content=content.png", "style=style.png"])
    with pytest.raises(InstantiationException) as caught:
        stylize.main()
    assert isinstance(caught.value.__cause__, RuntimeError)


# ------------------------------------------------------------------------------------- good values


def test_writes_the_photo_at_its_own_size(run, folder):
    before = set(files(folder))
    code, out, err = run(THREE_SCALES)
    assert code == 0
    assert set(files(folder)) - before == {Path("out.png")}
    result, content = pixels("out.png").astype(int), pixels("content.png")
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert out.startswith(f"out.png: {WIDTH} x {HEIGHT}, ")
    losses = r"^losses: style \S+  edges \S+  matting \S+  total \S+$"
    assert re.search(losses, out, re.MULTILINE)
    assert "Traceback" not in err
    # It took on the colours of the style, which is half as bright and has red and blue exchanged.
    style = pixels("style.png").mean((0, 1))
    assert np.abs(result.mean((0, 1)) - style).max() < 20
    assert np.abs(content.mean((0, 1)) - style).max() > 40


def test_working_size(run, folder):
    code, out, _ = run(full_resolution="false")
    assert code == 0
    assert pixels("out.png").shape == (36, 48, 3)
    assert out.startswith("out.png: 48 x 36, ")


def test_small_photos_are_not_enlarged(run, folder):
    Image.fromarray(photo_pixels(40, 33, 0)).save("small.png")
    code, _, _ = run(content="small.png", style="small.png", size=512, full_resolution="false")
    assert code == 0
    assert pixels("out.png").shape == (33, 40, 3)


@pytest.mark.parametrize(
    ("content", "output", "file_format"),
    [
        ("a.photo.png", "a.photo_style.png", "PNG"),
        ("b.JPG", "b_style.JPG", "JPEG"),
        ("c.download", "c_style.jpg", "JPEG"),
    ],
)
def test_default_output(run, folder, content, output, file_format):
    """In the content's own format; a suffix that stands for none becomes .jpg."""
    Image.open("content.png").save(Path("folder", content), format=file_format)
    code, out, _ = run(content=f"folder/{content}", output=None)
    assert code == 0
    assert out.startswith(f"{output}: ")
    with Image.open(output) as image:
        assert image.format == file_format
        assert image.size == (WIDTH, HEIGHT)


def test_overwrite(run, folder):
    Path("out.png").write_text("old")
    code, _, _ = run(overwrite="true")
    assert code == 0
    assert pixels("out.png").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("init", ["colour_transfer", "noise"])
def test_same_seed_same_file(run, folder, init):
    for name, seed in (("a.png", 3), ("b.png", 3), ("c.png", 4)):
        code, _, _ = run(output=name, seed=seed, init=init)
        assert code == 0
    a, b, c = (Path(name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b
    assert (a == c) == (init == "colour_transfer")  # which has no random number


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        "photo (1), a=b.png",
        "Größe 日本.png",
        "'it's.png",
        'say "hi" \\.png',
        "[a]{b}:@!.png",
        "100% #1 $HOME ~.png",
    ],
)
def test_any_file_name(run, folder, name):
    for key in ("content", "style", "content_mask", "style_mask"):
        Path(key).mkdir()
        Path(f"{key}.png").rename(Path(key, name))
    values = {key: f"{key}/{name}" for key in ("content", "style", "content_mask", "style_mask")}
    values |= {"log_dir": f"log/{name}", "intermediate_dir": f"pictures/{name}"}
    code, out, err = run(values, output=name, intermediate_every=1)
    assert (code, "error" in err) == (0, False)
    assert out.startswith(f"{name}: ")
    assert pixels(name).shape == (HEIGHT, WIDTH, 3)
    assert list(Path("log", name).iterdir())
    assert list(Path("pictures", name).iterdir())


def test_quoted_values_are_understood(run, folder):
    code, _, _ = run(content="'content.png'", output='"out.png"')
    assert code == 0
    assert Path("out.png").is_file()


def test_alpha_and_profile_are_kept(run, folder):
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image = Image.open("content.png")
    image.putalpha(Image.fromarray(alpha))
    image.save("alpha.png", icc_profile=SRGB)
    assert run(content="alpha.png").code == 0
    with Image.open("out.png") as result:
        assert result.mode == "RGBA"
        assert result.info["icc_profile"] == SRGB
        np.testing.assert_array_equal(np.asarray(result)[..., 3], alpha)
    # At the working size it is resized with the photo.
    assert run(content="alpha.png", output="small.png", full_resolution="false").code == 0
    assert pixels("small.png").shape == (36, 48, 4)
    assert np.abs(pixels("small.png")[..., 3].astype(int) - alpha[::2, ::2]).max() < 8


def test_masks_change_the_result(run, folder):
    assert run(output="whole.png").code == 0
    masks = {"content_mask": "content_mask.png", "style_mask": "style_mask.png"}
    assert run(masks, output="masks.png").code == 0
    assert not np.array_equal(pixels("whole.png"), pixels("masks.png"))


def test_pictures_of_an_earlier_run(run, folder):
    """Refused before the work; with overwrite=true none of them stays."""
    Path("pictures").mkdir()
    for name in ("step_0001.png", "step_0999.png", "steps.png"):
        Path("pictures", name).write_bytes(b"x")
    values = {"intermediate_dir": "pictures", "intermediate_every": 1}
    code, _, err = run(values)
    assert code == 2
    assert "error: intermediate_dir=pictures: holds another run's pictures; give" in err
    assert not Path("out.png").exists()
    assert run(values, overwrite="true").code == 0
    names = {path.name for path in Path("pictures").iterdir()}
    assert "step_0999.png" not in names
    assert {"step_0001.png", "steps.png"} <= names
    assert pixels("pictures/step_0001.png").ndim == 3


def test_an_output_that_is_an_input(run, folder):
    before = Path("style.png").read_bytes()
    code, _, err = run(output="style.png", overwrite="true")
    assert code == 2
    assert "error: output=style.png: is the file of style; give another name" in err
    assert Path("style.png").read_bytes() == before


def test_log_and_pictures(run, folder):
    code, _, err = run(
        THREE_SCALES, log_dir="runs/a", intermediate_dir="pictures/a", intermediate_every=2
    )
    assert code == 0
    log = EventAccumulator("runs/a")
    log.Reload()
    tags = log.Tags()
    names = ("style", "edges", "matting")
    assert set(tags["scalars"]) == {*(f"loss/{name}" for name in names), "loss/total", "size"}
    assert tags["images"] == ["result"]
    steps = [event.step for event in log.Scalars("loss/total")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4
    assert [event.step for event in log.Images("result")] == steps[1::2]
    parts = [log.Scalars(f"loss/{name}") for name in names]
    for index, event in enumerate(log.Scalars("loss/total")):
        assert event.value == pytest.approx(sum(part[index].value for part in parts), rel=1e-5)
    # Each picture has the size of the scale that it is of.
    names = [f"step_{step:04d}.png" for step in steps[1::2]]
    assert sorted(path.name for path in Path("pictures/a").iterdir()) == names
    for name, event in zip(names, log.Scalars("size")[1::2], strict=True):
        assert max(pixels(Path("pictures/a", name)).shape) == event.value
    # The progress bar tells the same.
    assert f"{steps[-1]}/{steps[-1]}" in err
    assert "total" in err


def test_photorealism_off(run, folder):
    """A painting has no photo to go back to, so it has the working size."""
    code, out, err = run(photorealism="off")
    assert code == 0
    assert pixels("out.png").shape == (36, 48, 3)
    assert "matting" not in out
    assert "working size" in err


def test_bfloat16_is_close(run, folder):
    """Not the same bits: the search takes another path to the same picture."""
    for precision in ("float32", "bfloat16", "auto"):
        assert run(precision=precision, output=f"{precision}.png").code == 0
    exact, coarse, auto = (pixels(f"{name}.png") for name in ("float32", "bfloat16", "auto"))
    assert not np.array_equal(exact, coarse)
    assert np.abs(exact.astype(int) - coarse).mean() < 4
    assert any(np.array_equal(auto, other) for other in (exact, coarse))


@pytest.mark.parametrize(
    "values",
    [
        {"objective": "mean_std"},
        {"optimizer": "adam"},
        {"init": "content"},
        {"init": "style"},
        {"backend": "auto"},
        {"backend": "reference"},
    ],
    ids=str,
)
def test_choices(run, folder, values):
    code, _, _ = run(values, **{"optimizer.steps": "[2]"})
    assert code == 0
    result = pixels("out.png")
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert not np.array_equal(result, pixels("content.png"))


def test_another_encoder_from_a_file(run, folder):
    torch.manual_seed(0)
    with torch.device("meta"):
        model = torchvision.models.vgg11(weights=None)
    first = model.features[:6].to_empty(device="cpu")
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(
        {f"features.{key}": value for key, value in first.state_dict().items()}, "my, vgg11.pth"
    )
    layers = {"objective.style_layers": "[relu1_1]", "objective.content_layers": "[relu2_1]"}
    code, _, err = run({"encoder.model": "vgg11", "encoder.weights": "my, vgg11.pth", **layers})
    assert (code, "error" in err) == (0, False)
    assert pixels("out.png").shape == (HEIGHT, WIDTH, 3)


def test_shows_its_configuration(run, folder):
    before = files(folder)
    shown = run("--cfg", "job", "--resolve")
    assert shown.code == 0
    assert "size: 48" in shown.out
    assert files(folder) == before


def test_loss_that_is_not_finite(run, folder, monkeypatch):
    """The best picture so far is written, and the exit code is not that of success."""
    forward = StyleObjective.forward
    calls = []

    def breaks_down(self, image, targets):
        terms = forward(self, image, targets)
        calls.append(image)
        if len(calls) < 4:
            return terms
        return terms + LossTerms({"style": torch.tensor(float("nan"))})

    monkeypatch.setattr(StyleObjective, "forward", breaks_down)
    code, out, err = run({"optimizer.steps": "[9]"})
    assert code == 1
    assert pixels("out.png").shape == (HEIGHT, WIDTH, 3)
    assert "not finite at step 4" in out
    assert "not finite at step 4" in err


def test_automatic_masks(run, folder):
    """They are the default, and written on request."""
    assert run({"masks": None, "masks_dir": "masks"}).code == 0
    automatic = pixels("out.png")
    assert run({"masks": "auto", "output": "auto.png"}).code == 0
    assert np.array_equal(automatic, pixels("auto.png"))
    names = {
        f"{photo}_{kind}.png" for photo in ("content", "style") for kind in ("mask", "overlay")
    }
    assert {path.name for path in Path("masks").iterdir()} == names
    # To be edited at the photos' own sizes.
    for photo in ("content", "style"):
        assert pixels(f"masks/{photo}_mask.png").shape == pixels(f"{photo}.png").shape
    assert run({"output": "none.png"}).code == 0
    assert (automatic != pixels("none.png")).any()


def test_edited_masks_are_not_overwritten(run, folder):
    Path("masks").mkdir()
    shutil.copy("style_mask.png", "masks/style_mask.png")
    before = files(folder)
    values = {"masks": "auto", "masks_dir": "masks"}
    code, out, err = run(values)
    assert (code, out) == (2, "")
    expected = "style_mask.png exists there; give another folder or overwrite=true"
    assert err == f"error: masks_dir=masks: {expected}\n"
    assert files(folder) == before
    assert run(values, overwrite="true").code == 0
    assert Path("masks/style_mask.png").read_bytes() != Path("style_mask.png").read_bytes()


def test_strength(run, folder):
    """0 is the photo itself, to the bit; between, a blend."""
    photo = np.asarray(Image.open("content.png").convert("RGB")).astype(int)
    for method in ("optimize", "colour_transfer"):
        for strength in (0, 0.5, 1):
            name = f"{method}_{strength}.png"
            assert run(method=method, strength=strength, output=name).code == 0
        none, half, full = (pixels(f"{method}_{value}.png").astype(int) for value in (0, 0.5, 1))
        assert np.array_equal(none, photo)
        assert np.abs(full - photo).mean() > 5
        # But for what the full strength has cut off beyond black and white.
        inside = (full > 0) & (full < 255)
        assert np.abs(half - (full + photo) / 2)[inside].max() <= 1
    assert run(strength=0.5, full_resolution="false", output="small.png").code == 0
    assert pixels("small.png").shape == (36, 48, 3)


def test_colour_transfer(run, folder):
    """The closed form: no training, no steps; masks as the optimiser has them."""
    code, out, _ = run(method="colour_transfer", masks="none")
    assert code == 0
    assert re.fullmatch(rf"out\.png: {WIDTH} x {HEIGHT}, \d+\.\d s\n", out)
    result, style = pixels("out.png"), np.asarray(Image.open("style.png"))
    moved = np.abs(result.mean((0, 1)) - style.mean((0, 1)))
    photo = np.asarray(Image.open("content.png").convert("RGB"))
    assert (moved < 0.2 * np.abs(photo.mean((0, 1)) - style.mean((0, 1))) + 2).all()
    painted = {"content_mask": "content_mask.png", "style_mask": "style_mask.png"}
    assert run(painted, method="colour_transfer", output="painted.png").code == 0
    assert run(method="colour_transfer", masks="auto", output="auto.png").code == 0
    assert (pixels("painted.png") != result).any()
    assert (pixels("auto.png") != result).any()
    assert run(painted, method="colour_transfer", whole_share=1, output="w.png").code == 0
    assert np.abs(pixels("w.png").astype(int) - result).max() <= 1


def test_interrupted_in_this_process(run, folder, monkeypatch):
    guided_filter = MattingLaplacian.guided_filter
    calls = []

    def interrupts(self, p):
        calls.append(p)
        if len(calls) == 12:  # after a few steps
            raise KeyboardInterrupt
        return guided_filter(self, p)

    monkeypatch.setattr(MattingLaplacian, "guided_filter", interrupts)
    code, out, err = run({"optimizer.steps": "[50]"})
    assert code == 130
    assert pixels("out.png").shape == (HEIGHT, WIDTH, 3)
    assert "ended early (interrupted)" in out
    assert "interrupted; writing the best picture so far" in err


def test_interrupted_before_there_is_anything_to_write(run, folder, monkeypatch):
    def interrupts(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("photostyle.optimize.stylize_photo.stylize_photo", interrupts)
    before = files(folder)
    code, out, err = run()
    assert (code, out, err) == (130, "", "interrupted\n")
    assert files(folder) == before


# ----------------------------------------------------------------------------------- real processes


def start(**values):
    words = {**FAST, "content": "content.png", "style": "style.png", "output": "out.png", **values}
    return subprocess.Popen(
        [sys.executable, stylize.__file__, *(f"{key}={value}" for key, value in words.items())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.slow
def test_process_with_a_wrong_value(folder):
    before = files(folder)
    process = start(content="nope.png")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert re.fullmatch(r"error: content=nope\.png: no such file; .*\n", err)
    assert files(folder) == before


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&- 2>&-", ">/dev/full 2>/dev/full", "| true"])
def test_process_that_cannot_print(folder, streams):
    words = f"{sys.executable} {stylize.__file__} method=feedforward content=trip style=style.png"
    Path("trip").mkdir()
    shutil.copy("content.png", "trip")
    script = f"set -o pipefail; {words} output=out size=48 device=cpu {streams}"
    process = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stdout) == (0, "")
    assert "Traceback" not in process.stderr
    assert pixels("out/content.png").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_process_that_cannot_print_a_name(folder, encoding):
    """One in Cyrillic, then a byte that is no UTF-8."""
    name = os.fsdecode("фото".encode() + b"\xe9")
    shutil.copy("content.png", f"{name}.png")
    words = ["method=colour_transfer", f"content={name}.png", "style=style.png", "device=cpu"]
    process = subprocess.run(
        [sys.executable, stylize.__file__, *words, f"output={name}_out.png", "masks=none"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        timeout=120,
    )
    assert process.returncode == 0
    shown = name.encode(encoding, "backslashreplace")
    assert process.stdout.startswith(shown + b"_out.png: 96 x 72, ")
    assert pixels(f"{name}_out.png").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], 2 * [signal.SIGHUP]],
    ids=["Ctrl-C", "a polite kill", "a console that is closed"],
)
def test_signal(folder, numbers):
    """In the middle: the best picture so far, complete."""
    # Where these tests run in the background of a shell, they are ignored, and that is handed down.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        process = start(
            optimizer="adam",
            **{"optimizer.steps": "[100000]"},
            intermediate_dir="pictures",
            intermediate_every=3,
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob("pictures/step_*.png")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not Path("out.png").exists()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.05)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    with Image.open("out.png") as image:
        image.load()
        assert image.size == (WIDTH, HEIGHT)
    assert f"out.png: {WIDTH} x {HEIGHT}, " in out
    assert "ended early (interrupted); this is the best picture so far" in out
    assert "interrupted; writing the best picture so far" in err
    assert "Traceback" not in err
    assert not list(folder.glob(".*.tmp"))


def test_nohup(folder, command):
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command(stylize.main, "content=nope.png", "style=style.png").code == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, handler)
