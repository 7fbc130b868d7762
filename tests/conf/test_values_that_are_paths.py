"""Paths arrive as they are typed, whatever they are called."""

import os
import pwd
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from photostyle import conf, evaluate, stylize, train
from photostyle.conf.paths import PATHS, quote_path

NO_PATHS = {
    "batch_size", "device", "masks", "optimizer.steps", "quality", "size", "user", "whole_share",
    "workers",
}  # fmt: skip
"""Keys that may be null or must be given, and are no paths."""

NAMES = [
    "${size}.png", "${", "a${content}b${oc.env:HOME}.png", "$HOME.png", r"\${a}", r"\\${a}.png",
    "back\\slash\\", 'say "hi" \\.png', r"\".png", "'it's.png", "'both'", '"both"', "'a','b'",
    "true", "1e5", "NULL", "a b=c, d.png", " [a]{b}:@!(1) ", "choice(1,2)", "~a.png", "two\nlines",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def calls(monkeypatch):
    """What the functions behind the entry points are called with."""
    calls = []

    class Report:
        exit_code = 0
        is_main_process = True

    def called(**arguments):
        calls.append(arguments)
        return Report()

    for function in (
        "feedforward.stylize_photos.stylize_photos",
        "feedforward.train_network",
        "evaluation.evaluate.evaluate",
    ):
        monkeypatch.setattr(f"photostyle.{function}", called)
    return calls


def leaves(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_all_paths_are_known():
    """A key that may be null, or must be given, is a path or known to be none."""
    keys = set()
    folder = str(Path(conf.__file__).parent.resolve())
    with initialize_config_dir(folder, version_base="1.3"):
        for name, *words in (
            ["stylize", "method=optimize"],
            ["stylize", "method=colour_transfer"],
            ["stylize", "method=feedforward"],
            ["stylize", "method=lut"],
            ["train", "kind=one_style"],
            ["train", "kind=universal"],
            ["evaluate"],
            ["app"],
        ):
            values = OmegaConf.to_container(compose(name, words))
            keys |= {key for key, value in leaves(values) if value in (None, "???")}
    assert keys == PATHS | NO_PATHS


@pytest.mark.parametrize("key", sorted(PATHS))
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_every_key(monkeypatch, key, prefix):
    monkeypatch.setenv("HOME", "/home/me")
    word = quote_path(f"{prefix}{key}=~/photo (1).jpg")
    assert OverridesParser.create().parse_override(word).value() == "/home/me/photo (1).jpg"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", [[], ["-m"]], ids=["single", "multirun"])
def test_names_of_files(tmp_path, monkeypatch, command, calls, name, option):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    words = [*option, "method=feedforward", f"content={name}", f"style={name}", f"++output={name}"]
    assert command(stylize.main, *words).code == 0
    (arguments,) = calls
    given = (arguments["content"], arguments["style"].style, arguments["output"])
    assert tuple(map(str, given)) == (name, name, name)


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("null", None),
        ("./null", "./null"),
        ("'null'", "null"),
        ("'a, b'", "a, b"),
        (r"'it\'s'", "it's"),
        ('"~/a"', "/home/me/a"),
        ("~/a", "/home/me/a"),
        ("~", "/home/me"),
        ("./~", "./~"),
        ("~root/a", f"{pwd.getpwuid(0).pw_dir}/a"),
        ("~nobody at all/a", "~nobody at all/a"),
        ("a/~/b", "a/~/b"),
    ],
)
def test_what_is_read(monkeypatch, command, calls, typed, path):
    monkeypatch.setenv("HOME", "/home/me")
    words = ["method=feedforward", "content=a.jpg", "style=b.jpg", f"output={typed}"]
    assert command(stylize.main, *words).code == 0
    assert calls[0]["output"] == path


def test_a_list(monkeypatch, command, calls):
    monkeypatch.setenv("HOME", "/home/me")
    words = ["results=a", "pairs=b", "answers=[~/1.csv,'2, 3.csv',${x} (1).csv]"]
    assert command(evaluate.main, *words).code == 0
    assert [*map(str, calls[0]["answers"])] == ["/home/me/1.csv", "2, 3.csv", "${x} (1).csv"]
    assert command(evaluate.main, "results=a", "pairs=b", "answers=[]").code == 0
    assert calls[1]["answers"] == []


def test_settings_of_a_run(command, calls):
    """They are written to a file as texts."""
    words = ["style=${x}.png", "data.root=photos", "init=${y}"]
    assert command(train.main, *words).code == 0
    (arguments,) = calls
    assert os.fspath(arguments["style"]) == "${x}.png"
    settings = arguments["settings"]
    assert (settings["style"], settings["init"]) == ("${x}.png", "${y}")


def test_a_file_that_is_not_there(tmp_path, monkeypatch, command):
    """Its name in the message is the one that was typed."""
    monkeypatch.chdir(tmp_path)
    words = ["method=feedforward", "content=${x}.png", "network=dusk", "device=cpu"]
    code, _, err = command(stylize.main, *words)
    assert code == 2
    assert err.startswith("error: content=${x}.png: no such file; ")
