"""An evaluation as files: JSON, CSV and contact sheets."""

import csv
import io
import json
from dataclasses import asdict, astuple, fields
from importlib.metadata import version
from pathlib import Path

from PIL import Image
from torch import Tensor

from photostyle.data.paths import atomic_file, written
from photostyle.evaluation.contact_sheet import cell, stack
from photostyle.evaluation.scores import METRICS, TITLES, UNTOUCHED, Evaluation, Scores

ROWS_PER_PAGE = 8
"""A contact sheet that a person can look at in one piece."""


def write_text(path: Path, text: str) -> Path:
    """Write a text file, complete or not at all; returns its path.

    Bytes of file names that are no text are written as the escapes that JSON has for them.

    Raises:
        ArgumentError: it cannot be written.
    """
    with written("output", path), atomic_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))
    return path


def write_picture(path: Path, picture: Image.Image) -> Path:
    """As `write_text`, a PNG file."""
    with written("output", path), atomic_file(path) as file:
        picture.save(file, format="PNG")
    return path


def to_json(evaluation: Evaluation, settings: dict) -> str:
    """Settings, definitions, versions, wins, means and scores."""
    document = {
        "settings": settings,
        "metrics": METRICS,
        "versions": {name: version(name) for name in ("torch", "scikit-image", "pillow")},
        "wins": evaluation.wins,
        "mean": {method: asdict(scores) for method, scores in evaluation.means.items()},
        "pairs": {
            pair: {method: asdict(scores) for method, scores in methods.items()}
            for pair, methods in evaluation.scores.items()
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_csv(evaluation: Evaluation) -> str:
    """A line for each pair and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pair", "method", *(field.name for field in fields(Scores))])
    for pair, methods in evaluation.scores.items():
        for method, scores in methods.items():
            writer.writerow([pair, method, *astuple(scores)])
    return text.getvalue()


def sheet_row(case, scores: dict[str, Scores]) -> Image.Image:
    """Content, style, result and what it is compared with, side by side.

    Args:
        case: a pair and its images by method.
        scores: of these methods.
    """
    # The baseline, or else the best of the simple methods, is the last before the results.
    *_, other, results = case.images
    cells = [
        _cell(case.content, f"{case.name}  content", scores[UNTOUCHED].formatted()),
        _cell(case.style, f"{case.name}  style", TITLES),
        _cell(case.images[results], f"{case.name}  {results}", scores[results].formatted()),
        _cell(case.images[other], f"{case.name}  {other}", scores[other].formatted()),
    ]
    return stack(cells, axis=1)


def _cell(image: Tensor, title: str, numbers: tuple[str, ...]) -> Image.Image:
    return cell(image, title, "   ".join(numbers))


def write_contact_sheets(folder: Path, rows: list[Image.Image]) -> list[Path]:
    """Write the rows to one sheet, or to several numbered ones."""
    pages = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
    numbers = [""] if len(pages) == 1 else [f"_{number + 1}" for number in range(len(pages))]
    paths = [folder / f"contact_sheet{number}.png" for number in numbers]
    return [
        write_picture(path, stack(page, axis=0)) for path, page in zip(paths, pages, strict=True)
    ]
