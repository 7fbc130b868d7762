"""Words that fit no argument are one line, before any work."""

import re
from pathlib import Path

import pytest

from photostyle import __version__, evaluate, stylize, train
from photostyle.app import __main__ as page
from photostyle.conf.entry_point import FOLDER
from photostyle.conf.overrides import check_overrides

STYLIZE = ["content=photo.jpg", "style=dusk.jpg"]
UNKNOWN = r"there is no such argument here; (did you mean [\w.]+\? )?--cfg job lists all"

pytestmark = pytest.mark.usefixtures("no_network")


def refused(command, *words, main=stylize.main, given=STYLIZE):
    code, out, err = command(main, *given, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["size", "=", "64"], "size"),
        (["size=", "64"], "64"),
        (["size", "=64"], "size"),
        (["a/b=c.jpg"], None),
        (["/a=c.jpg"], "/a=c.jpg"),
        (["masks_dir=my", "masks"], "masks"),
        (["--size=64"], "--size=64"),
        (["--size", "64"], "--size"),
    ],
)
@pytest.mark.parametrize("several", [[], ["--multirun"]])
def test_words_that_are_no_arguments(command, words, wrong, several):
    err = refused(command, *several, *words)
    if wrong is None:  # a group could have such a name
        assert err.startswith("a/b: there is no such argument here")
    else:
        assert err == f"{wrong}: is no NAME=VALUE; no spaces around =, quotes around a value " + (
            "that has some"
        )


@pytest.mark.parametrize("main", [stylize.main, train.main, evaluate.main, page.main])
def test_help(command, main):
    code, out, err = command(main, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("python ")
    assert "\n--cfg job lists all arguments" in out


@pytest.mark.parametrize("main", [stylize.main, train.main, evaluate.main, page.main])
def test_version(command, main):
    assert command(main, "--version") == (0, f"photostyle {__version__}\n", "")


@pytest.mark.parametrize("value", ["3", "1.5", "nan", "true", "null", "[lbfgs]", "{name:adam}"])
def test_a_group_given_something_else_than_a_name(command, value):
    assert refused(command, f"optimizer={value}").endswith(": give the name of a choice")


@pytest.mark.parametrize("several", [[], ["--multirun"]])
def test_a_choice_that_there_is_not(command, several):
    err = refused(command, *several, "method=optimise")
    choices = "colour_transfer, feedforward, lut, optimize"
    assert err == f"method=optimise: unknown; choose one of {choices}"


@pytest.mark.parametrize(
    "word", ["strength=0,5", "method=lut,optimize", "optimizer.steps=[20,20],3"]
)
def test_a_comma_between_values(command, word):
    expected = "give one value; decimals have a point, lists brackets, and --multirun tries several"
    assert refused(command, word) == f"{word}: {expected}"


def test_a_long_name(command):
    err = refused(command, f"optimizer={'x' * 5000}")
    assert err.endswith("x: give the name of a choice")


def test_a_group_left_out(command):
    assert refused(command, "~optimizer") == "optimizer=None: give the name of a choice"


def test_a_group_of_a_package(command):
    err = refused(command, "architecture@network=3", main=train.main, given=["style=a.jpg"])
    assert err == "architecture=3: give the name of a choice"


@pytest.mark.parametrize("value", ["3", "abc", "[1,2]", "null", "{radius:3}"])
@pytest.mark.parametrize("key", ["objective.style_loss", "objective.encoder"])
def test_a_section_given_a_value(command, key, value):
    err = refused(command, f"{key}={value}")
    assert err.endswith(f": a section; give its arguments as {key}.NAME=VALUE")


def test_a_value_where_a_section_is_off(command):
    err = refused(command, "photorealism=off", "photorealism.guided_filter=3")
    assert err.startswith("photorealism.guided_filter=3: a section")


@pytest.mark.parametrize("key", ["size", "masks", "optimizer.steps"])
def test_a_value_given_a_section(command, key):
    assert refused(command, f"{key}={{a:1}}") == f"{key}={{'a': 1}}: give a value, no section"


@pytest.mark.parametrize(
    "word",
    [
        "size.more=1", "+size.more=1", "++optimizer.more=1", "+more=1", "optimizer.steps.0=1",
        "optimizer.steps.more=1", "photorealism.guided_filter._target_=os.getcwd",
        "optimizer._target_=os.getcwd", "method.content=a.jpg", "method._target_=os.getcwd",
        "options.size=64", "options=3", "files.content=a.jpg",
    ],
)  # fmt: skip
def test_keys_that_are_no_arguments(command, word):
    key = word.lstrip("+").partition("=")[0]
    assert re.fullmatch(f"{re.escape(key)}: {UNKNOWN}", refused(command, word))


@pytest.mark.parametrize(
    ("main", "word"),
    [
        (train.main, "training.schedule=3"),
        (train.main, "data.photos.root=a"),
        (evaluate.main, "evaluation.pairs=a"),
        (page.main, "app.settings=3"),
    ],
    ids=["train", "data", "evaluate", "app"],
)
def test_sections_that_hand_arguments_on(command, main, word):
    key = word.partition("=")[0]
    err = refused(command, word, main=main, given=[])
    assert re.fullmatch(f"{re.escape(key)}: {UNKNOWN}", err)


@pytest.mark.parametrize("key", ["results", "pairs"])
def test_a_folder_that_is_none(command, key):
    words = {"results": "a", "pairs": "b"} | {key: "null"}
    given = [f"{key}={value}" for key, value in words.items()]
    err = refused(command, main=evaluate.main, given=given)
    assert err == f"{key}=None: required; give a folder"


def test_an_argument_left_out(command):
    err = refused(command, "~strength")
    assert err == "~strength=None: give it a value; it cannot be left out"


@pytest.mark.parametrize("word", ["strength=nan", "strength=[0.5]", "size=1e3", "size=${nowhere}"])
def test_values_of_another_kind(command, word):
    refused(command, word)


@pytest.mark.parametrize("key", ["objective.matting_weight", "size", "seed", "max_pixels"])
def test_numbers_that_are_too_large(tmp_path, monkeypatch, command, key):
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "dusk.jpg"):
        Path(name).touch()
    value = f"1{'0' * 30}"
    assert refused(command, f"{key}={value}").startswith(f"{key}={value}: ")


def test_a_path_of_5000_characters(command):
    path = "x" * 5000
    err = refused(command, given=[f"content={path}", "style=dusk.jpg", "output=a.jpg"])
    assert err.startswith(f"content={path}: ")
    assert "File name too long" in err


@pytest.mark.parametrize(
    "word",
    [
        "strength=0.5,1", "seed=range(1000000000000)", "strength=interval(0,1)", "masks=auto,null",
        "photorealism=strict,loose", "photorealism=glob(*)", "photorealism=choice(strict,loose)",
        "optimizer.steps=[1,2],[3,4]", "photorealism.guided_filter=null", "++strength=1",
        "hydra.sweep.dir=a", "hydra/launcher=basic",
    ],
)  # fmt: skip
def test_what_fits(word):
    check_overrides(FOLDER, "stylize", [*STYLIZE, word])


def test_several_jobs(command):
    """No job is begun."""
    assert refused(command, "-m", "strength=0.5,1", "optimizer=lbfgs,3").startswith("optimizer=3: ")
    err = refused(command, "-m", "strength=0.5,1", "objective.style_loss=1,2")
    assert err.startswith("objective.style_loss=1: a section")
