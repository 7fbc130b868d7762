"""Two results of each pair compared by people who do not know which is whose."""

import csv
import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from photostyle.data.image_io import load_image, load_photo
from photostyle.data.paths import is_folder
from photostyle.data.photo import MIN_SIDE
from photostyle.evaluation.contact_sheet import cell, stack
from photostyle.evaluation.pairs import Pair, find_pairs
from photostyle.evaluation.report import write_picture, write_text
from photostyle.evaluation.results import find_results, load_like, own_files, prepare_output
from photostyle.ops.console import standard_error
from photostyle.ops.errors import ArgumentError, check_flag, check_whole

SIDES = ("A", "B")
TIE = "tie"
COLUMNS = (
    "sheet", "preferred", "style_A", "style_B", "artefacts_A", "artefacts_B", "worst_A", "worst_B",
)  # fmt: skip
QUESTION = """\
Each sheet has a photo (content), a style photo, and two attempts, A and B, to give the photo the
style's light, colour and mood so that it still looks like a photo. Look at no other sheets than
those that your file of answers names, and fill in a line of a copy of it for each:

preferred: which of the two you would deliver to a client, A or B, or tie
style_A, style_B: how far it has taken the style's light and colour, 1 (not at all) to 5 (fully)
artefacts_A, artefacts_B: how free it is from artefacts, 1 (spoilt) to 5 (free)
worst_A, worst_B: the worst artefact of each, in a few words
"""
CELL_WIDTH = 640
_OWN_FILE = re.compile(r"sheet_\d+\.png|key\.json|answers_[12]\.csv|question\.txt")


def compare_blind(
    results: str | os.PathLike,
    pairs: str | os.PathLike,
    other: str | os.PathLike,
    output: str | os.PathLike,
    *,
    answers: str | Sequence[str | os.PathLike] | None = None,
    **options,
) -> str:
    """Write the sheets of a blind comparison, or, given ``answers``, say what the judges found.

    Args:
        results, pairs, other, output, options: see `write_sheets`.
        answers: a file or several, see `score_answers`.
    """
    if answers is not None:
        answers = [answers] if isinstance(answers, str | os.PathLike) else answers
        return str(score_answers(output, answers))
    sheets = write_sheets(results, pairs, other, output=output, **options)
    return (
        f"{output}: {len(sheets)} sheets. Every other judge gets question.txt, the first half of "
        "them and a copy of answers_1.csv, the rest the second half and answers_2.csv, nobody "
        "key.json. Then give the same command with answers=[FILE,FILE,...]"
    )


def write_sheets(
    results: str | os.PathLike,
    pairs: str | os.PathLike,
    other: str | os.PathLike,
    *,
    output: str | os.PathLike,
    size: int = 512,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Write what judges need: ``sheet_01.png`` ..., ``question.txt``, two empty files of answers.

    And ``key.json``, which they must not see: the pair of each sheet, and which side is whose. The
    first half of the sheets shows all pairs in random order, with the results on random sides, the
    second half in another order with the sides exchanged. Each is for half of the judges: of two
    pictures that are nearly the same they prefer that on one side, and most of them the same side;
    and who is shown a pair twice remembers it. ``answers_1.csv`` and ``answers_2.csv`` have a line
    for each sheet of their half.

    Args:
        results, pairs, size, overwrite: as in `evaluation.evaluate_results.evaluate_results`.
        other: another folder of results, or the name of a file that lies in every pair's folder.
        output: folder for what is written; created if need be.
        seed: of the order.

    Returns:
        The sheets, two for each pair.

    Raises:
        ArgumentError: as `evaluation.evaluate_results.evaluate_results`; and for fewer results in
            ``other``.
    """
    check_whole("size", size, MIN_SIDE)
    check_whole("seed", seed, 0)
    check_flag("overwrite", overwrite)
    of_folder = is_folder(other, "blind")
    found = find_pairs(pairs, None if of_folder else str(other), argument="blind")
    ours = find_results(results, found)
    found = [pair for pair in found if pair.name in ours]
    theirs = _other_results(other, found) if of_folder else {p.name: p.baseline for p in found}
    output = prepare_output(output, _OWN_FILE, "a blind comparison", overwrite)
    pictures = {
        pair.name: _pictures(pair, ours[pair.name], theirs[pair.name], size)
        for pair in tqdm(found, "sheets", unit="pair", file=standard_error())
    }
    shown = [*enumerate(_in_random_order([*pictures], seed), 1)]
    # All can be read, so an earlier comparison may go; its key would be taken for that of new ones.
    for name in ("key.json", "answers_1.csv", "answers_2.csv"):
        (output / name).unlink(missing_ok=True)
    sheets = [
        write_picture(output / f"sheet_{number:02d}.png", _sheet(pictures[pair], side, number))
        for number, (pair, side) in shown
    ]
    for path in {*own_files(output, _OWN_FILE)} - {*sheets}:  # of an earlier comparison
        path.unlink()
    key = {str(number): {"pair": pair, "results": side} for number, (pair, side) in shown}
    write_text(output / "key.json", json.dumps(key, indent=2) + "\n")
    write_text(output / "question.txt", QUESTION)
    lines = [f"{number}{',' * (len(COLUMNS) - 1)}" for number in key]
    for half, of_half in enumerate((lines[: len(found)], lines[len(found) :]), 1):
        write_text(output / f"answers_{half}.csv", "\n".join([",".join(COLUMNS), *of_half]) + "\n")
    return sheets


@dataclass(frozen=True)
class Verdict:
    """What judges say of the results and of the other ones.

    Attributes:
        judges: how many there are.
        preferred: by pair, how many judges prefer the results, the other ones, neither.
        sides: on how many sheets A and B were preferred, of all judges. With as many judges of
            either half these are alike, whatever the pictures, but for what judges have for a side.
        style, artefacts: mean grades, 1 to 5, of the results and of the other ones.
    """

    judges: int
    preferred: dict[str, tuple[int, int, int]]
    sides: tuple[int, int]
    style: tuple[float, float]
    artefacts: tuple[float, float]

    @property
    def majority(self) -> tuple[int, int, int]:
        """Pairs in which more judges prefer the results, more the other ones, or as many."""
        signs = np.sign([ours - theirs for ours, theirs, _ in self.preferred.values()])
        return tuple(int((signs == sign).sum()) for sign in (1, -1, 0))

    def __str__(self) -> str:
        lines = [
            f"{pair}: results {ours}, other {theirs}, tie {ties}"
            for pair, (ours, theirs, ties) in self.preferred.items()
        ]
        ours, theirs, ties = self.majority
        lines += [
            f"{self.judges} judges, {len(self.preferred)} pairs: results preferred in {ours}, "
            f"other in {theirs}, neither in {ties}",
            f"A preferred on {self.sides[0]} sheets, B on {self.sides[1]}",
            f"style: results {self.style[0]:.2f}, other {self.style[1]:.2f}",
            f"freedom from artefacts: results {self.artefacts[0]:.2f}, other "
            f"{self.artefacts[1]:.2f}",
        ]
        return "\n".join(lines)


def score_answers(folder: str | os.PathLike, answers: Sequence[str | os.PathLike]) -> Verdict:
    """Open the key of `write_sheets` and count.

    Args:
        folder: what it wrote.
        answers: a filled-in copy of ``answers_1.csv`` or ``answers_2.csv`` for each judge.

    Raises:
        ArgumentError: ``folder`` has no key; a file of answers cannot be read, lacks a sheet of its
            half, or has a preference other than A, B and tie or a grade that is not from 1 to 5.
    """
    sheets = _read_key(folder)
    if not answers:
        raise ArgumentError("answers", list(answers), "give at least one file")
    preferred = {pair: [0, 0, 0] for pair in sorted({pair for pair, _ in sheets.values()})}
    by_side = dict.fromkeys((*SIDES, TIE), 0)
    grades = {"style": [], "artefacts": []}
    for path in answers:
        for number, row in _read_answers(path, list(sheets)).items():
            pair, sides = sheets[number]
            by_side[row["preferred"]] += 1
            preferred[pair][[*sides, TIE].index(row["preferred"])] += 1
            for name, values in grades.items():
                values.append([row[f"{name}_{side}"] for side in sides])
    means = {name: tuple(map(float, np.mean(values, 0))) for name, values in grades.items()}
    preferred = {pair: tuple(counts) for pair, counts in preferred.items()}
    return Verdict(len(answers), preferred, (by_side["A"], by_side["B"]), **means)


def _in_random_order(pairs: list[str], seed: int) -> list[tuple[str, str]]:
    """All pairs and the side of the results, and then all once more, on the other side."""
    shuffle = random.Random(seed)
    first = [(pair, shuffle.choice(SIDES)) for pair in shuffle.sample(pairs, len(pairs))]
    other = {"A": "B", "B": "A"}
    second = [(pair, other[side]) for pair, side in shuffle.sample(first, len(first))]
    return first + second


def _read_key(folder: str | os.PathLike) -> dict[str, tuple[str, tuple[str, str]]]:
    """By the sheet's number: the pair, and the sides of the results and of the other ones."""
    sides = {"A": SIDES, "B": SIDES[::-1]}
    try:
        key = json.loads((Path(folder) / "key.json").read_text())
        return {number: (sheet["pair"], sides[sheet["results"]]) for number, sheet in key.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        expected = "holds no key of a blind comparison; write the sheets first"
        raise ArgumentError("output", folder, expected) from error


def _other_results(folder: str | os.PathLike, pairs: list[Pair]) -> dict[str, Path]:
    files = find_results(folder, pairs, argument="blind")
    missing = [pair.name for pair in pairs if pair.name not in files]
    if missing:
        raise ArgumentError("blind", folder, f"holds no result for {', '.join(missing)}")
    return files


def _pictures(pair: Pair, results: Path, other: Path, size: int) -> tuple[Tensor, ...]:
    """Content, style, the results' picture and the other one, (1, 3, h, w) in [0, 1] each."""
    photo = load_photo(pair.content, argument="pairs")
    content = photo.tensor(size)
    return (
        content,
        load_image(pair.style, size, argument="pairs"),
        load_like(photo, content, results, "results"),
        load_like(photo, content, other, "blind"),
    )


def _sheet(pictures: tuple[Tensor, ...], side: str, number: int) -> Image.Image:
    """``pictures`` as of `_pictures`, with the results on a side."""
    content, style, *both = pictures
    titles = f"{number}  content", "style", *SIDES
    shown = content, style, *(both if side == "A" else both[::-1])
    cells = [cell(*titled, width=CELL_WIDTH) for titled in zip(shown, titles, strict=True)]
    return stack([stack(cells[:2], axis=1), stack(cells[2:], axis=1)], axis=0)


def _read_answers(path: str | os.PathLike, numbers: list[str]) -> dict[str, dict]:
    """A judge's lines by the number of the sheet, of that half of ``numbers`` that the file has."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = {row.get("sheet"): row for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError("answers", path, f"cannot be read ({error})") from error
    halves = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    half = max(halves, key=lambda half: len(rows.keys() & {*half}))
    for number in half:
        if number not in rows:
            raise ArgumentError("answers", path, f"has no line for sheet {number}")
        row = rows[number]
        if row.get("preferred") not in (*SIDES, TIE):
            expected = f"sheet {number}: preferred must be A, B or tie, not {row.get('preferred')}"
            raise ArgumentError("answers", path, expected)
        for name in COLUMNS[2:6]:
            row[name] = _grade(path, number, name, row.get(name))
    return {number: rows[number] for number in half}


def _grade(path: str | os.PathLike, number: str, name: str, text: str | None) -> float:
    try:
        grade = float(text)
    except (TypeError, ValueError):
        grade = float("nan")
    if not 1 <= grade <= 5:
        expected = f"sheet {number}: {name} must be a number from 1 to 5, not {text}"
        raise ArgumentError("answers", path, expected)
    return grade
