"""The command line: one line and exit code 2 for every wrong value, and runs that are killed.

Most tests call ``train.main`` in this process, which spares them seconds of imports; a few start
real ones.
"""

import json
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from safetensors.torch import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from photostyle import conf, train
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    TransformNet,
    load_network,
    train_network,
)
from photostyle.feedforward.checkpoint import Checkpoints
from photostyle.ops import GuidedFilter
from photostyle.ops.features import EMBEDDED_WEIGHTS

WIDTH, HEIGHT = 96, 80
# Small crops, shallow layers and a small network: a step takes a twentieth of a second.
FAST = {
    "style": "light.png",
    "data.root": "photos",
    "output": "run",
    "steps": 4,
    "crop": 64,
    "batch_size": 2,
    "size": 64,
    "data.workers": 1,
    "data.held_out": 2,
    "network.width": 4,
    "network.blocks": 1,
    "objective.style_layers": "[relu1_1,relu2_1]",
    "objective.layer_weights": "null",
    "objective.content_layers": "[relu2_2]",
    "device": "cpu",
    "backend": "cpu",
}


def photo_pixels(width, height, seed):
    """Smooth colours and some grain, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width, y * 200 / height, 100 + 80 * np.sin((x + seed) / 9)]
    grain = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (np.roll(np.stack(planes, -1), seed, 2) + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the photo of the style, a folder of photos and other files."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo_pixels(64, 80, 5)[:, :, ::-1] // 2).save("light.png")
    for name in ("photos", "empty", "small", "bad"):
        Path(name).mkdir()
    for i in range(12):
        Image.fromarray(photo_pixels(WIDTH, HEIGHT, i)).save(f"photos/{i:02d}.png")
    Image.fromarray(photo_pixels(50, 40, 0)).save("small/photo.png")
    Path("bad/photo.jpg").write_text("This is not a picture.\n")
    Path("text.png").write_text("This is not a picture.\n")
    Path("text.tar").write_text("This is not an archive.\n")
    content = Path("light.png").read_bytes()
    Path("truncated.png").write_bytes(content[: len(content) // 2])
    return tmp_path


def words(values):
    return [f"{key}={value}" for key, value in {**FAST, **values}.items() if value is not None]


@pytest.fixture
def run(folder, command):
    """Call ``train.main`` as the command line does: ``run({key: value})`` -> code, out and err.

    Values replace those of FAST; ``None`` leaves the key out.
    """

    def call(values=None, *arguments, **more):
        return command(train.main, *words({**(values or {}), **more}), *arguments)

    return call


def files(folder):
    """Everything in a folder, with contents."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def last_checkpoint(output="run"):
    """The newest checkpoint's tensors, and its step."""
    path = max(Path(output, "checkpoints").glob("step_*.safetensors"))
    return load(path.read_bytes()), int(path.stem.removeprefix("step_"))


def assert_same_run(ours, theirs):
    """Bit for bit: the last checkpoints, and the networks."""
    (our_tensors, our_step), (their_tensors, their_step) = map(last_checkpoint, (ours, theirs))
    assert our_step == their_step
    assert set(our_tensors) == set(their_tensors)
    for name, tensor in their_tensors.items():
        assert torch.equal(our_tensors[name], tensor), name
    networks = [load_network(Path(output, "network.safetensors")) for output in (ours, theirs)]
    assert networks[0].metrics == networks[1].metrics
    states = [network.net.state_dict() for network in networks]
    for name, tensor in states[1].items():
        assert torch.equal(states[0][name], tensor), name


# ------------------------------------------------------------------------------------- bad values

BAD = {
    # The style.
    "missing style": ({"style": "nope.png"}, "style=nope.png: no such file"),
    "folder as style": ({"style": "photos"}, "style=photos: is a folder"),
    "style that is no picture": ({"style": "text.png"}, "style=text.png: not a picture"),
    "truncated style": ({"style": "truncated.png"}, "style=truncated.png: truncated or damaged"),
    "no style": ({"style": None}, "style=???: required; give it as style=VALUE"),
    "null style": ({"style": "null"}, "style=None: required; give an image file"),
    # The photos.
    "no data.root": ({"data.root": None}, "data.root=???: required; give it as data.root=VALUE"),
    "null data.root": ({"data.root": "null"}, "data.root=None: give a folder of photos"),
    "missing folder": ({"data.root": "nowhere"}, "data.root=nowhere: no such file or folder"),
    "no photos": ({"data.root": "empty"}, "data.root=empty: holds neither photos"),
    "photo as folder": ({"data.root": "light.png"}, "data.root=light.png: light.png is no tar"),
    "shard that is none": ({"data.root": "text.tar"}, "data.root=text.tar: text.tar is no tar"),
    "missing shards": ({"data.root": "s/{0..3}.tar"}, "data.root=s/{0..3}.tar: no such file or"),
    "no photo that can be read": (
        {"data.root": "bad", "data.held_out": 0},
        "data.root=bad: none of 1 photos can be read",
    ),
    "photos too small": (
        {"data.root": "small", "data.held_out": 0},
        "data.root=small: the photos' short side is 40 pixels (median of 1); give larger photos",
    ),
    "all held out": ({"data.held_out": 12}, "data.held_out=12: give fewer than the 12 photos"),
    "negative held_out": ({"data.held_out": -1}, "data.held_out=-1: give a number at least 0"),
    "missing validation": (
        {"data.validation": "no"},
        "data.validation=no: give a folder of photos",
    ),
    "validation without photos": ({"data.validation": "empty"}, "data.validation=empty: give a"),
    "unreadable validation": (
        {"data.validation": "bad"},
        "data.validation=bad: none of 1 validation",
    ),
    "min_scale 0": ({"data.min_scale": 0}, "data.min_scale=0: give a number above 0"),
    "min_scale": ({"data.min_scale": 1.5}, "data.min_scale=1.5: give a number from 0 to 1"),
    # Sizes.
    "crop too small": ({"crop": 63}, "crop=63: give a number at least 64"),
    "crop 0": ({"crop": 0}, "crop=0: give a number at least 64"),
    "crop that is no number": ({"crop": "large"}, "crop=large: give a whole number"),
    "crop larger than the photos": (
        {"crop": 81},
        "crop=81: the photos' short side is 80 pixels (median of 10); give at most 80",
    ),
    "size too small": ({"size": 63}, "size=63: give a number at least 64"),
    "size that is no number": ({"size": "abc"}, "size=abc: give a whole number"),
    "batch_size 0": ({"batch_size": 0}, "batch_size=0: give a number at least 1"),
    "negative batch_size": ({"batch_size": -1}, "batch_size=-1: give a number at least 1"),
    "batch_size that is not whole": ({"batch_size": 1.5}, "batch_size=1.5: give a whole number"),
    "negative workers": ({"data.workers": -1}, "data.workers=-1: give a number at least 0"),
    # The schedule.
    "steps 0": ({"steps": 0}, "steps=0: give a number at least 1"),
    "negative steps": ({"steps": -1}, "steps=-1: give a number at least 1"),
    "steps that are no number": ({"steps": "many"}, "steps=many: give a whole number"),
    "learning rate": ({"schedule.learning_rate": -1}, "schedule.learning_rate=-1: give a number"),
    "warmup": ({"schedule.warmup": -1}, "schedule.warmup=-1: give a number at least 0"),
    "EMA decay": ({"schedule.ema_decay": 2}, "schedule.ema_decay=2: give a number from 0 to 1"),
    "accumulation": (
        {"schedule.gradient_accumulation": 0},
        "schedule.gradient_accumulation=0: give a number at least 1",
    ),
    "gradient norm": ({"schedule.max_gradient_norm": -1}, "schedule.max_gradient_norm=-1: give a"),
    **{
        f"interval of {name}": ({f"intervals.{name}": 0}, f"intervals.{name}=0: give a number at")
        for name in ("log", "pictures", "validation", "checkpoint", "keep")
    },
    # Names and weights.
    "seed": ({"seed": -1}, "seed=-1: give a number at least 0"),
    "seed that is no number": ({"seed": "abc"}, "seed=abc: give a whole number"),
    "device": ({"device": "tpu"}, "device=tpu: unknown; choose one of auto, cpu"),
    "precision": ({"precision": "fp8"}, "precision=fp8: unknown; choose one of auto, float32, bf"),
    "backend": ({"backend": "numpy"}, "backend=numpy: unknown; choose one of auto, cuda, cpu"),
    "resume": ({"resume": "maybe"}, "resume=maybe: give true or false"),
    "width": ({"network.width": 0}, "width=0: give a number from 1 to 1024"),
    "blocks": ({"network.blocks": -1}, "blocks=-1: give a number from 0 to 1024"),
    "base": ({"network.base": "style"}, "base=style: unknown; choose one of colour_transfer, con"),
    "layer": ({"objective.style_layers": "[relu9_1]"}, "layers=relu9_1: unknown in vgg16; choose"),
    "style weight": ({"objective.style_weight": -1}, "style_weight=-1: give a number at least 0"),
    "no weights": (
        {
            "objective.style_weight": 0,
            "photorealism.edges_weight": 0,
            "objective.content_weight": 0,
            "photorealism.matting_weight": 0,
        },
        "style_weight=0: give a weight above 0, to this or to another loss",
    ),
    "matting weight": ({"photorealism.matting_weight": -1}, "matting_weight=-1: give a number"),
    "matting radius": ({"photorealism.matting_radius": 0}, "matting_radius=0: give a number at"),
    "matting ridge": ({"photorealism.matting_ridge": 0}, "matting_ridge=0: give a number above 0"),
    "radius": ({"photorealism.guided_filter.radius": 0}, "radius=0: give a number at least 1"),
    "ridge": ({"photorealism.guided_filter.ridge": 0}, "ridge=0: give a number above 0"),
    # Output and keys.
    "output is a file": ({"output": "text.png"}, "output=text.png: "),
    "output below a file": ({"output": "text.png/a"}, "output=text.png/a: "),
    "encoder": ({"encoder": "resnet"}, "encoder=resnet: unknown; choose one of vgg"),
    "architecture": ({"architecture@network": "gan"}, "architecture=gan: unknown; choose one of "),
    "unknown key": ({"learning_rate": 1}, "learning_rate: there is no such argument here"),
    "unknown key of a group": ({"schedule.momentum": 1}, "schedule.momentum"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_value(run, folder, case):
    """Exit code 2, one line on stderr that names it, and nothing written."""
    values, message = BAD[case]
    before = files(folder)
    code, out, err = run(values)
    *warnings, line = err.splitlines()
    assert code == 2
    assert out == ""
    assert line.startswith("error: ")
    assert message in line
    assert all(warning.startswith(("INFO: ", "WARNING: ")) for warning in warnings)
    assert warnings == [] or case == "unreadable validation"
    assert files(folder) == before


def test_output_of_another_run(run, folder):
    assert run(steps=1).code == 0
    before = files(folder)
    for values in ({}, {"steps": 2}):
        code, out, err = run(values)
        assert (code, out) == (2, "")
        assert err == (
            "error: output=run: holds a run; go on with resume=true, or give another folder\n"
        )
        assert files(folder) == before


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"seed": 1}, ["seed is 1, was 0"]),
        ({"network.width": 5}, ["network.width is 5, was 4"]),
        ({"schedule.ema_decay": 0.5}, ["schedule.ema_decay is 0.5, was 0.9"]),
        ({"objective.style_layers": "[relu1_1]"}, ["objective.style_layers is ['relu1_1'], was"]),
        (
            {"photorealism": "off"},
            ["photorealism.guided_filter.radius is None, was 4", "matting_weight is 0.0, was 3"],
        ),
        ({"batch_size": 1}, ["batch_size is 1, was 2"]),
        ({"precision": "bfloat16"}, ["precision is bfloat16, was auto"]),
        ({"intervals.validation": 1}, ["intervals.validation is 1, was 500"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_resumed_with_another_config(run, folder, values, named):
    assert run(steps=2).code == 0
    before = files(folder)
    code, out, err = run({"steps": 2, "resume": "true", **values})
    assert (code, out) == (2, "")
    assert err.startswith("error: resume=true: the run has another configuration: ")
    assert err.count("\n") == 1
    for name in named:
        assert name in err
    # Not what the caller did not set.
    assert "training" not in err
    assert "resume is" not in err
    assert files(folder) == before


def test_resumed_on_another_machine(run, folder):
    """What does not change the result may be another."""
    assert run(steps=2).code == 0
    Path("photos").rename("moved")
    Path("light.png").rename("moved.png")
    Path("vgg.safetensors").write_bytes(EMBEDDED_WEIGHTS.read_bytes())
    values = {
        "style": folder / "moved.png",
        "encoder.weights": "vgg.safetensors",
        "data.root": "moved",
        "data.workers": 2,
        "device": "auto",
        "backend": "reference",
        "intervals.log": 1,
        "intervals.checkpoint": 1,
        "intervals.keep": 1,
        "intervals.pictures": 1,
    }
    code, out, err = run({"steps": 2, "resume": "true", **values})
    assert code == 0
    assert out.startswith("run/network.safetensors: 2 steps")
    assert "WARNING" not in err


def test_resumed_with_another_style(run, folder):
    """The photo counts, not its name."""
    assert run(steps=2).code == 0
    Path("photos/03.png").replace("light.png")
    before = files(folder)
    code, out, err = run(steps=2, resume="true")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "error: style=light.png: has another content than in this run; give the same, or another "
        "output"
    )
    assert files(folder) == before


def test_resumed_for_more_steps(run, folder):
    assert run(steps=2).code == 0
    code, out, _ = run(steps=3, resume="true")
    assert code == 0
    assert out.startswith("run/network.safetensors: 3 steps")
    assert load_network("run/network.safetensors").config["steps"] == 3
    code, out, err = run(steps=1, resume="true")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "error: steps=1: the run has taken 3 already; give as many, or more"
    )


# ------------------------------------------------------------------------------------- good values


def test_defaults():
    """As documented, and taken by the functions that they are for."""
    with initialize_config_dir(str(Path(conf.__file__).parent), version_base="1.3"):
        config = compose("train", ["style=a.png", "data.root=photos"])
    training = instantiate(config.training)
    assert training.func is train_network
    values = training.keywords
    assert isinstance(values["schedule"], Schedule)
    assert isinstance(values["intervals"], Intervals)
    assert values["schedule"].steps == 2000
    assert values["guided_filter"] == GuidedFilter(4, 1e-3)
    assert (values["style"], values["output"], values["validation"]) == ("a.png", None, None)
    assert values["options"] == RunOptions()
    weights = {"content": 0, "style": 200, "edges": 10, "matting": 3000, "total_variation": 0}
    assert values["objective"].weights == weights
    assert values["objective"].layer_weights == [2 / 3, 1 / 6, 1 / 12, 1 / 12]
    assert values["photos"].keywords == {
        "root": "photos",
        "held_out": 16,
        "min_scale": 0.5,
        "workers": 2,
        "crop": 256,
        "batch_size": 4,
    }
    net = values["network"]()
    assert isinstance(net, TransformNet)
    assert net.architecture == TransformNet().architecture


@pytest.mark.parametrize("name", ["off", "matting", "one_pass"])
def test_photorealism(run, folder, name):
    values = {"photorealism": name, "network.base": "none"}
    code, out, err = run(values, **{"intervals.validation": 2})
    assert (code, "error" in err) == (0, False)
    network = load_network("run/network.safetensors")
    assert (network.guided_filter is None) == (name == "off")
    assert f"loss {network.metrics['loss']:.3f}" in out


def test_writes_a_network(run, folder):
    code, out, err = run()
    assert code == 0
    assert out.startswith("run/network.safetensors: 4 steps; validation: loss ")
    assert out.count("\n") == 1
    assert "4/4" in err
    assert "Traceback" not in err
    expected = ["checkpoints", "logs", "network.safetensors"]
    assert sorted(path.name for path in Path("run").iterdir()) == expected
    assert not list(Path("run").rglob(".*"))
    network = load_network("run/network.safetensors")
    assert network.name == "light"
    # The whole configuration, each value once, resolved.
    assert network.config["schedule"]["steps"] == 4
    assert network.config["network"]["width"] == 4
    assert "training" not in network.config
    # But no files of this machine.
    assert not {"style", "output"} & {*network.config}
    assert not {"root", "photos"} & {*network.config["data"]}
    assert "${" not in json.dumps(network.config)


def test_default_output(run, folder):
    code, out, _ = run(output=None, steps=1)
    assert code == 0
    assert out.startswith("outputs/light/network.safetensors: 1 steps")


@pytest.mark.parametrize("name", ["a b", "photo (1), a=b", "Größe 日本", "[a]{b}:@!"])
def test_any_file_name(run, folder, name):
    Path("light.png").rename(f"{name}.png")
    Path("photos").rename(name)
    values = {"style": f"{name}.png", "data.root": name, "output": f"out/{name}", "steps": 1}
    code, _, err = run(values)
    assert (code, "error" in err) == (0, False)
    assert load_network(Path("out", name, "network.safetensors")).name == name


def test_what_cannot_be_trained_ends_with_1(run, folder):
    code, out, err = run({"photorealism.matting_weight": 1e300, "steps": 50})
    assert code == 1
    assert "ended early: the loss matting is not finite in 10 steps in a row; try a lower" in out
    assert "Traceback" not in err
    assert load_network("run/network.safetensors").net.width == 4


@pytest.mark.reliability
def test_stopped_and_resumed(run, folder, monkeypatch):
    """SIGTERM in this process; the exit code says so, and the same command goes on."""
    move = torch.optim.Adam.step
    calls = []

    def interrupts(self, *arguments, **values):
        calls.append(self)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)
        return move(self, *arguments, **values)

    assert run(output="whole").code == 0
    monkeypatch.setattr(torch.optim.Adam, "step", interrupts)
    code, out, err = run(resume="true")
    assert code == 130
    assert "run/network.safetensors: 2 steps" in out
    assert "ended early: interrupted; go on with resume=true" in out
    assert "stopping after this step; once more to stop at once" in err
    code, _, err = run(resume="true")
    assert code == 0
    assert "going on from step 2" in err
    assert_same_run("run", "whole")


# ---------------------------------------------------------------------------------- real processes


@pytest.fixture
def one_thread():
    """As in the processes that are started: with another number sums come out different."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def started(values, command=()):
    """A process with its own session; it, and what it has started, is gone in the end."""
    line = [sys.executable, *command, train.__file__, *words(values)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Where these tests run in the background of a shell, they are ignored, and that is handed down.
    numbers = signal.SIGINT, signal.SIGHUP
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env=environment,
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for other in session(process.pid):
            os.kill(other, signal.SIGKILL)
        process.communicate()


def session(number):
    """The processes of a session, but for those that have ended and wait for their parent."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session_number, *_ = stat.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue  # it has ended since
        if int(session_number) == number and state != "Z":
            processes.append(int(stat.parent.name))
    return processes


def wait_for(condition, process=None, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_reached(step, output="run"):
    return lambda: any(
        path.name >= f"step_{step:08d}" for path in Path(output).glob("checkpoints/step_*")
    )


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


@pytest.mark.slow
def test_process_with_a_wrong_value(folder):
    before = files(folder)
    with started({"data.root": "empty"}) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("error: data.root=empty: holds neither photos")
    assert err.count("\n") == 1
    assert files(folder) == before


@pytest.mark.reliability
@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_all(folder, number):
    """As a terminal sends Ctrl-C, or that it is closed, and a batch system its signal: to the
    workers, too."""
    with started({"steps": 100_000, "intervals.checkpoint": 1}) as process:
        wait_for(has_reached(3), process)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=240)
        wait_for(lambda: not session(process.pid), seconds=60)
    assert process.returncode == 130
    assert "ended early: interrupted; go on with resume=true" in out
    assert "Traceback" not in err
    _, step = last_checkpoint()
    assert f"run/network.safetensors: {step} steps" in out
    assert load_network("run/network.safetensors").net.width == 4
    assert not list(folder.rglob(".*.tmp"))


@pytest.mark.reliability
@pytest.mark.slow
@needs_proc
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(1800)
def test_killed_ten_times(run, folder):
    """SIGKILL at ten moments, and yet the same weights, bit for bit, as if never killed."""
    values = {
        "steps": 60,
        "resume": "true",
        "intervals.checkpoint": 3,
        "intervals.validation": 20,
        "intervals.log": 1,
        "schedule.warmup": 5,
    }
    assert run(values, output="whole").code == 0
    rng = random.Random(0)
    for kill in range(10):
        with started(values) as process:
            # Sometimes while it starts, else after some progress and within some steps.
            if kill in (3, 7):
                time.sleep(rng.uniform(0.5, 3))
            else:
                wait_for(has_reached(4 * kill), process)
                time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.wait()
            wait_for(lambda: not session(process.pid), seconds=60)
            newest = Checkpoints("run/checkpoints", 3).newest()
            assert newest is not None
    assert newest.step < 60
    code, out, err = run(values)
    assert code == 0, err
    assert out.startswith("run/network.safetensors: 60 steps")
    assert "is damaged" not in err
    assert_same_run("run", "whole")
    assert not list(folder.rglob(".*.tmp"))
    log = EventAccumulator("run/logs", size_guidance={"scalars": 0})
    log.Reload()
    assert [event.step for event in log.Scalars("loss/style")] == list(range(1, 61))
    assert [event.step for event in log.Scalars("validation/loss")] == [20, 40, 60]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(600)
def test_two_processes(run, folder):
    """With two photos each they compute what one with four does."""
    values = {"steps": 10, "data.held_out": 0, "intervals.checkpoint": 5, "intervals.log": 1}
    assert run(values, batch_size=4, output="one").code == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    with started({**values, "batch_size": 2}, command=torchrun) as process:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert "Traceback" not in err
    (one, _), (two, step) = last_checkpoint("one"), last_checkpoint()
    assert step == 10
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = [load_network(Path(name, "network.safetensors"))(photo) for name in ("run", "one")]
    # Rounded to float16 in the files, the weights measured come out the same.
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    # The worst measured is 3.8e-7.
    for name in (name for name in one if name.startswith(("net.", "ema."))):
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    curves = []
    for output in ("run", "one"):
        log = EventAccumulator(f"{output}/logs")
        log.Reload()
        curves.append([event.value for event in log.Scalars("loss/style")])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    # Another number of processes would see other batches.
    code, out, err = run(values, batch_size=2, resume="true")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: resume=true: the run has 2 processes, not 1"


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process")
def test_no_space_for_a_checkpoint(run, folder):
    """Suddenly the process may not write files of that size: the last good one stays, and the
    network is made all the same."""
    values = {"steps": 40, "intervals.checkpoint": 1, "resume": "true"}
    with started(values) as process:
        wait_for(has_reached(2), process)
        size = min(path.stat().st_size for path in Path("run/checkpoints").glob("step_*"))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1] == (
        "error: output=run: the checkpoint of step 40 cannot be written there (File too large); "
        "the network is run/network.safetensors"
    )
    assert "cannot be written there (File too large); training goes on" in err
    assert "Traceback" not in err
    assert load_network("run/network.safetensors").net.width == 4
    newest = Checkpoints("run/checkpoints", 3).newest()
    assert 2 <= newest.step < 40
    assert not list(folder.rglob(".*.tmp"))
    code, out, err = run(values)
    assert (code, f"going on from step {newest.step}" in err) == (0, True)
    assert out.startswith("run/network.safetensors: 40 steps")


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_no_console(folder, redirection):
    """What a run says is lost, and nothing else."""
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    line = shlex.join([sys.executable, train.__file__, *words({"intervals.checkpoint": 1})])
    assert subprocess.run(f"{line} {redirection}", shell=True, timeout=240).returncode == 0
    assert last_checkpoint()[1] == 4
    assert load_network("run/network.safetensors").net.width == 4


@pytest.mark.reliability
@pytest.mark.slow
def test_a_reader_who_goes(folder):
    """As with | head -1, of both streams, once there is something to read."""
    with started({"intervals.checkpoint": 1, "steps": 10}) as process:
        wait_for(has_reached(1), process)
        process.stdout.close()
        process.stderr.close()
        assert process.wait(240) == 0
    assert last_checkpoint()[1] == 10
    assert load_network("run/network.safetensors").net.width == 4
