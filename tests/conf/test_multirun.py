"""Several jobs in one call: which are run, what they are called with, and the exit code."""

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from photostyle import evaluate, stylize, train
from photostyle.ops.errors import ArgumentError

PHOTO = ["method=feedforward", "content=photo.jpg"]

pytestmark = pytest.mark.usefixtures("no_network")


class Report:
    """Of a job; its exit code is the number in its output's name."""

    is_main_process = True

    def __init__(self, output):
        self.exit_code = int(output or 0)

    def __str__(self):
        return "a report"


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What the function behind ``method=feedforward`` is called with; the folder is empty."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def stylize_photos(**arguments):
        calls.append(arguments)
        if arguments["content"] == "wrong.jpg":
            raise ArgumentError("content", "wrong.jpg", "no such file")
        if arguments["content"] == "defect.jpg":
            raise RuntimeError("a defect")
        if arguments["content"] == "stop.jpg":
            signal.raise_signal(signal.SIGTERM)
        return Report(arguments["output"])

    monkeypatch.setattr("photostyle.feedforward.stylize_photos.stylize_photos", stylize_photos)
    return calls


def given(calls, key):
    return [call[key] for call in calls]


@pytest.mark.parametrize("option", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_a_comma_separates(command, calls, option):
    words = ["method=feedforward", "content=a.jpg,b (1).jpg", "network=dusk,null", option]
    code, out, err = command(stylize.main, *words)
    assert (code, err) == (0, "")
    assert out == 4 * "a report\n"
    expected = [("a.jpg", "dusk"), ("a.jpg", None), ("b (1).jpg", "dusk"), ("b (1).jpg", None)]
    assert [*zip(given(calls, "content"), given(calls, "network"), strict=True)] == expected
    assert not os.listdir()


def test_without_the_option_it_does_not(command, calls):
    assert command(stylize.main, *PHOTO, "network=a,b").code == 0
    assert given(calls, "network") == ["a,b"]


def test_commas_that_do_not_separate(command, calls):
    """Within quotes, and in the name of a file that exists."""
    Path("c,d.jpg").touch()
    assert command(stylize.main, "-m", *PHOTO, "network='a,b',c").code == 0
    assert given(calls, "network") == ["a,b", "c"]
    calls.clear()
    assert command(stylize.main, "-m", "method=feedforward", "content=c,d.jpg").code == 0
    assert given(calls, "content") == ["c,d.jpg"]


def test_paths_of_each_job(monkeypatch, command, calls):
    monkeypatch.setenv("HOME", "/home/me")
    names = ["~/a.jpg", "${size}", "b\\${x}\\", "it's", '"q" q', "true"]
    assert command(stylize.main, "-m", *PHOTO, f"network={','.join(names)}").code == 0
    assert [*map(str, given(calls, "network"))] == ["/home/me/a.jpg", *names[1:]]


def test_other_values(command, calls):
    words = [*PHOTO, "strength=0.5,1", "batch_size=range(1,3)"]
    assert command(stylize.main, "-m", *words).code == 0
    strengths = [options.strength for options in given(calls, "options")]
    assert strengths == [0.5, 0.5, 1, 1]
    assert given(calls, "batch_size") == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("contents", "outputs", "code"),
    [
        ("a.jpg", "0", 0),
        ("a.jpg", "0,1,0", 1),
        ("wrong.jpg,a.jpg", "1", 2),
        ("defect.jpg,a.jpg", "0", 1),
        ("wrong.jpg,defect.jpg,a.jpg", "0", 2),
    ],
)
def test_the_highest_exit_code(command, calls, contents, outputs, code):
    """And every job is run."""
    words = ["-m", "method=feedforward", f"content={contents}", f"output={outputs}"]
    assert command(stylize.main, *words).code == code
    assert len(calls) == len(contents.split(",")) * len(outputs.split(","))


def test_a_line_for_each_error(command, calls):
    """It names what tells the job from the others."""
    words = ["-m", "method=feedforward", "size=64", "content=a,wrong.jpg", "strength=0.5,1"]
    code, _, err = command(stylize.main, *words)
    assert code == 2
    line = 'error: content=wrong.jpg: no such file (content="wrong.jpg" strength={})\n'
    assert err == line.format(0.5) + line.format(1)


def test_a_defect_keeps_its_traceback(command, calls):
    _, out, err = command(stylize.main, "-m", "method=feedforward", "content=defect.jpg,b.jpg")
    assert out == "a report\n"
    assert err.startswith('error: a defect (content="defect.jpg")\nTraceback ')
    assert "RuntimeError: a defect" in err


@pytest.mark.parametrize(
    ("contents", "outputs"), [("a.jpg,stop.jpg,b.jpg", "0"), ("a.jpg", "0,130,1")]
)
def test_after_an_interruption_no_other_begins(command, calls, contents, outputs):
    """Be it the end of a job at once, or one that has saved what it had."""
    words = ["-m", "method=feedforward", f"content={contents}", f"output={outputs}"]
    code, _, err = command(stylize.main, *words)
    assert (code, err) == (130, "interrupted\n")
    assert len(calls) == 2
    assert not os.listdir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strength=0.5,1", "colour=red"], "colour: there is no such argument here; --cfg job li"),
        (
            ["method=magic,feedforward"],
            "method=magic: unknown; choose one of colour_transfer, feed",
        ),
        (["--cfg", "job"], "--cfg=job: does not go with --multirun"),
        (["--config-dir", "presets"], "--config-dir=presets: does not go with --multirun"),
    ],
)
def test_what_is_wrong_with_all(command, calls, words, message):
    """One line, and no job is begun."""
    code, out, err = command(stylize.main, "-m", *PHOTO, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert calls == []


def test_required_values(command, calls):
    code, _, err = command(stylize.main, "-m", "method=feedforward", "strength=0.5,1")
    line = "error: content=???: required; give it as content=VALUE (strength={})\n"
    assert (code, err) == (2, line.format(0.5) + line.format(1))


def test_a_folder_on_request(command, calls):
    """Hydra's own, for launchers that need one, and for jobs that are to have theirs."""
    words = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${strength}", "hydra.job.chdir=true"]
    assert command(stylize.main, "-m", *PHOTO, "strength=0.5,1", *words).code == 0
    assert sorted(path.name for path in Path("sweep").iterdir()) == ["0.5", "1", "multirun.yaml"]


def test_the_same_output(tmp_path, monkeypatch, command):
    """The second job's error is the ordinary one."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Image.linear_gradient("L").convert("RGB").save(f"{name}.png")
    words = ["method=colour_transfer", "content=a.png", "style=b.png", "masks=none", "device=cpu"]
    code, out, err = command(stylize.main, "-m", *words, "strength=0.5,1")
    assert code == 2
    assert out.startswith("a_b.png: 256 x 256, ")
    expected = "output=a_b.png: exists; give another name or overwrite=true (strength=1)"
    assert err.endswith(f"error: {expected}\n")
    assert sorted(os.listdir()) == ["a.png", "a_b.png", "b.png"]


def test_help(command, calls):
    """Instead of any job."""
    code, out, _ = command(stylize.main, "-m", *PHOTO, "--help")
    assert (code, calls) == (0, [])
    assert "method" in out


def test_training_and_evaluation(calls, monkeypatch, command):
    def called(**arguments):
        calls.append(arguments)
        return Report(None)

    monkeypatch.setattr("photostyle.feedforward.train_network", called)
    monkeypatch.setattr("photostyle.evaluation.evaluate.evaluate", called)
    words = ["-m", "style=a.jpg,b.jpg", "data.root=photos"]
    assert command(train.main, *words).code == 0
    assert given(calls, "style") == ["a.jpg", "b.jpg"]
    calls.clear()
    assert command(evaluate.main, "-m", "results=a,b", "pairs=c").code == 0
    assert given(calls, "results") == ["a", "b"]
    assert not os.listdir()
