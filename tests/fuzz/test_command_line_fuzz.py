"""Every key of every command takes an odd value for what it is, or refuses it in one line."""

import random

import pytest

from tests.fuzz.command_line import COMMANDS, VALUES, Call, bench, call, keys_of, some_word


@pytest.fixture
def in_folder(tmp_path):
    with bench(tmp_path):
        yield


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_its_own_words_are_right(command):
    """Or else nothing but these would be refused."""
    found = call(command, "hydra.verbose=false")
    assert found.code in (0, 130), found.err


@pytest.mark.slow
@pytest.mark.usefixtures("in_folder")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_key(command):
    rng = random.Random(command)
    words = [some_word([key], rng) for key in keys_of(command)]
    faults = [(found.word[:200], found.fault) for found in _calls(command, words) if found.fault]
    assert faults == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_folder")
def test_every_value():
    words = [f"{key}={value}" for value in VALUES for key in ("content", "strength")]
    faults = [(f.word[:200], f.fault) for f in _calls("colour_transfer", words) if f.fault]
    assert faults == []


def _calls(command, words):
    return (call(command, word) for word in words)


@pytest.mark.parametrize(
    ("code", "err", "fault"),
    [
        (0, "", False),
        (130, "interrupted\n", False),
        (2, "WARNING: b\nerror: a\n", False),
        (2, "", True),
        (2, "error: a\nb\n", True),
        (2, "error: a\nerror: b\n", True),
        (1, "error: a\n", True),
        (None, "Traceback\nKeyError: a\n", True),
    ],
)
def test_what_a_fault_is(code, err, fault):
    assert bool(Call("lut", "a=b", code, "", err).fault) == fault
