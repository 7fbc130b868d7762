"""Blind comparisons: what judges get, what they do not, and how their answers are counted."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from photostyle.evaluation import blind
from photostyle.evaluation.blind import COLUMNS, compare_blind, score_answers, write_sheets
from photostyle.evaluation.evaluate import evaluate
from photostyle.ops import ArgumentError

NAMES = ("a", "b", "c", "d", "e")
OPTIONS = {"size": 48, "seed": 3}


def save(path, colour, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folders(tmp_path):
    """Pairs; ours is red, the other result green."""
    for name in NAMES:
        save(tmp_path / "pairs" / name / "content.png", (90, 90, 90))
        save(tmp_path / "pairs" / name / "style.png", (20, 20, 120))
        save(tmp_path / "pairs" / name / "peer.png", (0, 200, 0))
        save(tmp_path / "ours" / f"{name}.png", (200, 0, 0))
        save(tmp_path / "theirs" / f"{name}.png", (0, 200, 0), (120, 80))
    return tmp_path


def sheets(folders, **options):
    arguments = {"other": folders / "theirs", "output": folders / "blind", **OPTIONS, **options}
    other = arguments.pop("other")
    return write_sheets(folders / "ours", folders / "pairs", other, **arguments)


def key_of(folders):
    return json.loads((folders / "blind" / "key.json").read_text())


def fill_in(folders, name, rows, half=1):
    """``rows``: by pair, (ours, theirs or tie, style and artefacts of ours, of theirs)."""
    path = folders / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, sheet in [*key_of(folders).items()][5 * half - 5 : 5 * half]:
            choice, ours, theirs = rows[sheet["pair"]]
            a, b = (ours, theirs) if sheet["results"] == "A" else (theirs, ours)
            first = sheet["results"]
            second = "B" if first == "A" else "A"
            writer.writerow(
                {
                    "sheet": number,
                    "preferred": {"ours": first, "theirs": second}.get(choice, choice),
                    "style_A": a[0],
                    "style_B": b[0],
                    "artefacts_A": a[1],
                    "artefacts_B": b[1],
                    "worst_A": "halo, at the roof",
                }
            )
    return path


ALIKE = dict.fromkeys(NAMES, ("tie", (3, 3), (3, 3)))


@pytest.mark.parametrize("other", ["folder", "file"])
def test_sheets_show_both_results_where_the_key_says(folders, other):
    paths = sheets(folders, other=folders / "theirs" if other == "folder" else "peer.png")
    assert [path.name for path in paths] == [f"sheet_{n:02d}.png" for n in range(1, 11)]
    key = key_of(folders)
    for half in ([*key.values()][:5], [*key.values()][5:]):
        assert {sheet["pair"] for sheet in half} == set(NAMES)
    shown = {(sheet["pair"], sheet["results"]) for sheet in key.values()}
    assert shown == {(name, side) for name in NAMES for side in "AB"}
    for number, path in enumerate(paths, 1):
        pixels = np.asarray(Image.open(path)).astype(int)
        lower = pixels[len(pixels) // 2 :]
        left, right = lower[:, : lower.shape[1] // 2], lower[:, lower.shape[1] // 2 :]
        sides = {"A": left, "B": right}
        red = {side: (part == (200, 0, 0)).all(2).any() for side, part in sides.items()}
        green = {side: (part == (0, 200, 0)).all(2).any() for side, part in sides.items()}
        first = key[str(number)]["results"]
        assert red == {"A": first == "A", "B": first == "B"}
        assert green == {"A": first == "B", "B": first == "A"}


def test_the_order_is_random_and_repeatable(folders):
    sheets(folders)
    first = key_of(folders)
    sheets(folders, overwrite=True)
    assert key_of(folders) == first
    orders = set()
    for seed in range(6):
        sheets(folders, overwrite=True, seed=seed)
        orders.add(json.dumps(key_of(folders)))
    assert len(orders) == 6


def test_new_sheets_never_stand_beside_an_old_key(folders, monkeypatch):
    sheets(folders)
    write, written = blind.write_picture, []

    def interrupted(path, picture):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, picture)

    monkeypatch.setattr(blind, "write_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sheets(folders, overwrite=True, seed=1)
    assert written
    left = {*os.listdir(folders / "blind")}
    assert not {"key.json", "answers_1.csv", "answers_2.csv"} & left


def test_a_picture_that_does_not_fit_leaves_an_earlier_comparison_alone(folders):
    sheets(folders)
    fill_in(folders, "blind/answers_1.csv", ALIKE)
    before = {path.name: path.read_bytes() for path in (folders / "blind").iterdir()}
    save(folders / "theirs" / f"{NAMES[-1]}.png", (0, 200, 0), (80, 120))
    with pytest.raises(ArgumentError, match=rf"^blind=.*theirs.{NAMES[-1]}\.png: is 80 x 120"):
        sheets(folders, overwrite=True)
    assert {path.name: path.read_bytes() for path in (folders / "blind").iterdir()} == before


def test_what_lies_beside_the_sheets(folders):
    sheets(folders)
    assert "1 (not at all) to 5 (fully)" in (folders / "blind" / "question.txt").read_text()
    for half, expected in ((1, "1 2 3 4 5"), (2, "6 7 8 9 10")):
        with (folders / "blind" / f"answers_{half}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["sheet"] for row in rows] == expected.split()
        assert list(rows[0]) == list(COLUMNS)
    with pytest.raises(
        ArgumentError, match=r"^output=.*: holds a blind comparison; .*overwrite=tr"
    ):
        sheets(folders)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "abc"}, "^size=abc: give a whole number of at least 16"),
        ({"size": -5}, "^size=-5: give a number at least 16"),
        ({"seed": 1.5}, "^seed=1.5: give a whole number"),
        ({"overwrite": "maybe"}, "^overwrite=maybe: give true or false"),
    ],
)
def test_options_that_are_refused(folders, options, message):
    """Before anything is written, or replaced."""
    with pytest.raises(ArgumentError, match=message):
        sheets(folders, **options)
    assert not (folders / "blind").exists()


def test_answers_to_no_question(folders):
    with pytest.raises(ArgumentError, match=r"^answers=\['a.csv'\]: .* give blind, too"):
        evaluate(folders / "ours", folders / "pairs", folders / "out", answers=["a.csv"])
    assert not (folders / "out").exists()


def test_scores(folders):
    sheets(folders)
    for_us = dict.fromkeys(NAMES, ("ours", (4, 5), (2, 1)))
    split = {**for_us, "a": ("theirs", (2, 2), (4, 4)), "b": ("tie", (3, 3), (3, 3))}
    against = {**split, "c": ("theirs", (1, 1), (5, 5)), "b": ("theirs", (1, 1), (5, 5))}
    judges = ((for_us, 1), (split, 2), (against, 1))
    files = [fill_in(folders, f"{i}.csv", *judge) for i, judge in enumerate(judges)]
    verdict = score_answers(folders / "blind", files)
    assert verdict.judges == 3
    assert verdict.preferred == {
        "a": (1, 2, 0),
        "b": (1, 1, 1),
        "c": (2, 1, 0),
        "d": (3, 0, 0),
        "e": (3, 0, 0),
    }
    assert verdict.majority == (3, 1, 1)
    assert sum(verdict.sides) == 14
    assert verdict.style == pytest.approx((49 / 15, 41 / 15))
    assert verdict.artefacts == pytest.approx((60 / 15, 32 / 15), abs=0.5)
    text = compare_blind(None, None, None, folders / "blind", answers=[str(f) for f in files])
    assert "3 judges, 5 pairs: results preferred in 3, other in 1, neither in 1" in text
    assert compare_blind(None, None, None, folders / "blind", answers=str(files[0])).count(
        "1 judge"
    )


@pytest.mark.parametrize("side", ["A", "B"])
def test_what_judges_have_for_a_side_cancels_out(folders, side):
    sheets(folders)
    files = [fill_in(folders, f"{half}.csv", ALIKE, half) for half in (1, 2)]
    for path in files:
        path.write_text(path.read_text().replace(",tie,", f",{side},"))
    verdict = score_answers(folders / "blind", files)
    assert set(verdict.preferred.values()) == {(1, 1, 0)}
    assert verdict.majority == (0, 0, 5)
    assert verdict.sides == {"A": (10, 0), "B": (0, 10)}[side]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",tie,", ",C,", r"sheet 1: preferred must be A, B or tie, not C"),
        (",tie,", ",,", r"sheet 1: preferred must be A, B or tie, not "),
        (",3,", ",6,", r"sheet 1: style_A must be a number from 1 to 5, not 6"),
        (",3,", ",x,", r"sheet 1: style_A must be a number from 1 to 5, not x"),
        (",3,", ",nan,", r"sheet 1: style_A must be a number from 1 to 5, not nan"),
        ("\n5,", "\n99,", r"has no line for sheet 5"),
        ("sheet", "page", r"has no line for sheet 1"),
    ],
)
def test_answers_that_cannot_be_counted(folders, old, new, message):
    sheets(folders)
    path = fill_in(folders, "answers.csv", ALIKE)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ArgumentError, match=rf"^answers={path}: {message}"):
        score_answers(folders / "blind", [path])


def test_missing_files(folders):
    with pytest.raises(ArgumentError, match=r"^output=.*: holds no key of a blind comparison"):
        score_answers(folders, [folders / "a.csv"])
    sheets(folders)
    with pytest.raises(ArgumentError, match=r"^answers=.*a\.csv: cannot be read"):
        score_answers(folders / "blind", [folders / "a.csv"])
    with pytest.raises(ArgumentError, match=r"^answers=\[\]: give at least one file"):
        score_answers(folders / "blind", [])
    (folders / "theirs" / "b.png").unlink()
    with pytest.raises(ArgumentError, match=r"^blind=.*theirs: holds no result for b"):
        sheets(folders, overwrite=True)
    with pytest.raises(ArgumentError, match=r"^blind=nobody\.png: no such file in "):
        sheets(folders, other="nobody.png", overwrite=True)
    with pytest.raises(ArgumentError, match=r"^blind=a/nobody: no such folder, nor a file's name"):
        sheets(folders, other="a/nobody", overwrite=True)


@pytest.mark.parametrize("key", ["[]", "{}[", '{"1": []}', '{"1": {"pair": "a", "results": "C"}}'])
def test_a_damaged_key(folders, key):
    sheets(folders)
    (folders / "blind" / "key.json").write_text(key)
    with pytest.raises(ArgumentError, match=r"^output=.*: holds no key of a blind comparison"):
        score_answers(folders / "blind", [folders / "blind" / "answers_1.csv"])


def test_fewer_sheets_than_before(folders):
    """Of the earlier comparison none is left for the judges."""
    sheets(folders)
    for name in "bcde":
        (folders / "ours" / f"{name}.png").unlink()
    sheets(folders, overwrite=True)
    left = sorted(path.name for path in (folders / "blind").glob("*.png"))
    assert left == ["sheet_01.png", "sheet_02.png"]
