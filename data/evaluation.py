"""Results for a folder of pairs, measured beside simpler methods: numbers and pictures."""

import csv
import io
import json
import logging
import os
import re
from dataclasses import asdict, astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data.contact_sheet import cell, stack
from data.images import MIN_SIDE, Photo, atomic_file, load_image, load_photo, resize, to_pixels
from data.masks import WHOLE_SHARE, Masks, load_masks
from data.pairs import Pair, find_image, find_pairs
from ops.affine import apply_affine
from ops.colour_transfer import colour_transfer
from ops.errors import ArgumentError
from ops.metrics import (
    ENERGY_EPSILON,
    STYLE_LAYERS,
    StyleDistance,
    colour_map_residual,
    edge_ssim,
    energy,
    flat_roughness,
)
from ops.transport import EXACT

logger = logging.getLogger(__name__)

UNTOUCHED = "untouched"
GLOBAL_TRANSFER = "global colour transfer"
COLOUR_TRANSFER = "colour transfer"
RESULTS = "results"

METRICS = {
    "style_distance": "‖G(y) − G(s)‖ / ‖G(s)‖ (Frobenius) of the Gram matrices under each mask, "
    f"mean over the masks by area and over {', '.join(STYLE_LAYERS)} of VGG-16; lower is better",
    "edge_ssim": "SSIM of the Sobel magnitudes of luma of content and image, Gaussian window of "
    "σ = 1.5; 1: all edges are kept",
    "energy": "pᵀLp per pixel and channel, L the content's matting Laplacian at radius 1, "
    f"ε = {ENERGY_EPSILON:g}; lower is closer to a photo",
    "flat_roughness": "RMS, in levels of 255, of what a Gaussian of σ = 2 takes away, over the "
    "tenth of the content's pixels around which it varies least: noise, banding; lower is better",
    "colour_map_residual": "RMS distance, in ΔE*ab, to the nearest smooth map of the content's "
    "colours under each mask: haze, glows, blotches; lower is better, an untouched photo has 0",
}

TITLES = ("style distance", "edge SSIM", "energy", "roughness", "residual")

ASPECT_TOLERANCE = 0.02
"""A result's short side may differ by this share: other programs round or crop by some pixels."""

ROWS_PER_PAGE = 8
"""A contact sheet that a person can look at in one piece."""

_OWN_FILE = re.compile(r"evaluation\.(json|csv)|contact_sheet(_\d+)?\.png")


@dataclass(frozen=True)
class Scores:
    """What :data:`METRICS` defines, of one image or averaged over pairs."""

    style_distance: float
    edge_ssim: float
    energy: float
    flat_roughness: float
    colour_map_residual: float

    def formatted(self) -> tuple[str, ...]:
        """The numbers as a person reads them."""
        return (
            f"{self.style_distance:.3f}",
            f"{self.edge_ssim:.3f}",
            f"{self.energy:.2e}",
            f"{self.flat_roughness:.2f}",
            f"{self.colour_map_residual:.1f}",
        )


@dataclass(frozen=True)
class Evaluation:
    """The scores of every pair and method.

    Attributes:
        scores: by the pair's name, then by method; the same methods for every pair, in the same
            order, and at least one pair.
        baseline: the method that the results are counted against, if any.
    """

    scores: dict[str, dict[str, Scores]]
    baseline: str | None = None

    @property
    def wins(self) -> dict[str, int]:
        """In how many pairs the results are better than the baseline, by figure.

        ``all_three`` counts the pairs in which style distance, edge SSIM and residual are. Empty
        without a baseline.
        """
        if self.baseline is None:
            return {}
        pairs = [(pair[RESULTS], pair[self.baseline]) for pair in self.scores.values()]
        style = [ours.style_distance < theirs.style_distance for ours, theirs in pairs]
        edges = [ours.edge_ssim > theirs.edge_ssim for ours, theirs in pairs]
        smooth = [ours.flat_roughness < theirs.flat_roughness for ours, theirs in pairs]
        graded = [ours.colour_map_residual < theirs.colour_map_residual for ours, theirs in pairs]
        return {
            "style_distance": sum(style),
            "edge_ssim": sum(edges),
            "colour_map_residual": sum(graded),
            "all_three": sum(map(all, zip(style, edges, graded, strict=True))),
            "flat_roughness": sum(smooth),
        }

    @property
    def means(self) -> dict[str, Scores]:
        """The mean over the pairs, by method."""
        methods = next(iter(self.scores.values()))
        columns = {
            method: np.array([astuple(pair[method]) for pair in self.scores.values()])
            for method in methods
        }
        return {
            method: Scores(*map(float, values.mean(axis=0))) for method, values in columns.items()
        }

    def __str__(self) -> str:
        """A text table: a block for each pair, one for the mean, and the wins."""
        lines = [("pair", "method", *TITLES)]
        for pair, methods in {**self.scores, f"mean of {len(self.scores)}": self.means}.items():
            # The name stands beside the first of its methods only.
            names = [pair] + [""] * (len(methods) - 1)
            lines += [
                (name, method, *scores.formatted())
                for name, (method, scores) in zip(names, methods.items(), strict=True)
            ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pads = (str.ljust, str.ljust, *[str.rjust] * len(TITLES))
        text = "\n".join(
            "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True))
            for line in lines
        )
        if self.baseline is None:
            return text
        wins = self.wins
        return (
            f"{text}\n\n{RESULTS} better than {self.baseline}, of {len(self.scores)} pairs: style "
            f"distance {wins['style_distance']}, edge SSIM {wins['edge_ssim']}, residual "
            f"{wins['colour_map_residual']}, all three {wins['all_three']}; roughness "
            f"{wins['flat_roughness']}"
        )


@dataclass(frozen=True, eq=False)
class _Case:
    """A pair at working size, (1, 3, H, W) in [0, 1] each, and the images to score by method."""

    name: str
    content: Tensor
    style: Tensor
    masks: Masks
    images: dict[str, Tensor]

    @classmethod
    def load(cls, pair: Pair, result: Path, size: int) -> Self:
        photo = load_photo(pair.content, argument="pairs")
        content = photo.tensor(size)
        style = load_image(pair.style, size, argument="pairs")
        sizes = content.shape[2:], style.shape[2:]
        masks = load_masks(pair.content_mask, pair.style_mask, *sizes)
        images = {
            UNTOUCHED: content,
            GLOBAL_TRANSFER: _transfer(content, style, Masks.whole(*sizes), gains=EXACT),
            COLOUR_TRANSFER: _transfer(content, style, masks.with_whole(WHOLE_SHARE["painted"])),
        }
        if pair.baseline is not None:
            images[pair.baseline.name] = load_like(photo, content, pair.baseline, "baseline")
        images[RESULTS] = load_like(photo, content, result, "results")
        return cls(pair.name, content, style, masks, images)


def evaluate_results(
    results: str | os.PathLike,
    pairs: str | os.PathLike,
    *,
    output: str | os.PathLike,
    baseline: str | None = None,
    size: int = 512,
    overwrite: bool = False,
) -> Evaluation:
    """Score results for pairs of photos, beside the untouched content and two colour transfers.

    Writes ``evaluation.json`` (settings, definitions, versions, wins, means and scores),
    ``evaluation.csv`` (a line for each pair and method) and contact sheets, ``contact_sheet.png``
    or, of more than :data:`ROWS_PER_PAGE` pairs, ``contact_sheet_1.png`` and so on.

    Args:
        results: folder of pictures named after the pairs, ``01.png`` for ``pairs/01``, in the
            content's aspect ratio and of any size. Pairs without one are left out, with a warning.
        pairs: folder as described in :mod:`data.pairs`.
        output: folder for what is written; created if need be.
        baseline: file name of another method's result that lies in every pair's folder.
        size: long side in pixels at which all is measured; photos are never enlarged.
        overwrite: replace the files of an earlier evaluation.

    Raises:
        ArgumentError: ``pairs`` or ``baseline`` as :func:`data.pairs.find_pairs`; ``results`` is no
            folder, has nothing for any pair or two pictures for one; a picture cannot be read or
            has another aspect ratio than its content; ``size`` is no whole number or too small;
            ``output`` cannot be written to, or holds an evaluation and ``overwrite`` is false;
            ``overwrite`` is no bool.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < MIN_SIDE:
        raise ArgumentError("size", size, f"give a whole number of pixels, at least {MIN_SIDE}")
    if not isinstance(overwrite, bool):
        raise ArgumentError("overwrite", overwrite, "give true or false")
    found = find_pairs(pairs, baseline)
    files = find_results(results, found)
    output = prepare_output(output, _OWN_FILE, "an evaluation", overwrite)
    missing = [pair.name for pair in found if pair.name not in files]
    if missing:
        logger.warning("%s holds no result for %s; left out", results, ", ".join(missing))

    style_distance = StyleDistance()
    scores, rows = {}, []
    for pair in tqdm([pair for pair in found if pair.name in files], "evaluate", unit="pair"):
        case = _Case.load(pair, files[pair.name], size)
        scores[case.name] = _score(case, style_distance)
        rows.append(_sheet_row(case, scores[case.name]))
    evaluation = Evaluation(scores, baseline)

    settings = {
        "results": str(results),
        "pairs": str(pairs),
        "baseline": baseline,
        "size": size,
        "number_of_pairs": len(scores),
        "pairs_without_result": missing,
    }
    stale = own_files(output, _OWN_FILE)
    written = [
        _write(output / "evaluation.json", _to_json(evaluation, settings)),
        _write(output / "evaluation.csv", _to_csv(evaluation)),
        *_write_sheets(output, rows),
    ]
    for path in set(stale) - set(written):
        path.unlink()
    logger.info("scores and contact sheets are in %s", output)
    return evaluation


# ------------------------------------------------------------------------------------------ files


def find_results(
    folder: str | os.PathLike, pairs: list[Pair], *, argument: str = RESULTS
) -> dict[str, Path]:
    """The result of each pair that has one, by the pair's name."""
    found = {pair.name: find_image(folder, pair.name, argument=argument) for pair in pairs}
    if not any(found.values()):
        expected = f"holds no result; name them after their pairs, {pairs[0].name}.png and so on"
        raise ArgumentError(argument, folder, expected)
    return {name: path for name, path in found.items() if path is not None}


def prepare_output(
    folder: str | os.PathLike, own_file: re.Pattern, what: str, overwrite: bool
) -> Path:
    """Make the folder, unless it holds ``what`` in files of our own names."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ArgumentError("output", folder, "is a file; give a folder") from error
    except OSError as error:
        expected = f"cannot be created: {error.strerror}"
        raise ArgumentError("output", folder, expected) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ArgumentError("output", folder, "no permission to write to this folder")
    if own_files(folder, own_file) and not overwrite:
        expected = f"holds {what}; give another folder or overwrite=true"
        raise ArgumentError("output", folder, expected)
    return folder


def own_files(folder: Path, own_file: re.Pattern) -> list[Path]:
    """The files of a folder whose names match."""
    return [path for path in folder.iterdir() if own_file.fullmatch(path.name)]


def load_like(photo: Photo, content: Tensor, path: Path, argument: str) -> Tensor:
    """A picture resized, with antialiasing, to the content (1, 3, H, W) at working size."""
    pixels = load_photo(path, argument=argument).pixels
    if not _same_shape(pixels.shape[:2], photo.pixels.shape[:2]):
        expected = (
            f"is {pixels.shape[1]} x {pixels.shape[0]}, which is not the shape of its content "
            f"({photo.pixels.shape[1]} x {photo.pixels.shape[0]}); give the whole picture"
        )
        raise ArgumentError(argument, path, expected)
    height, width = content.shape[2:]
    return Photo(resize(pixels, (width, height))).tensor()


def _same_shape(size: tuple[int, int], content_size: tuple[int, int]) -> bool:
    """Whether two (height, width) have one aspect ratio, but for rounding or cropped pixels."""
    height, width = size
    content_height, content_width = content_size
    # The short side is where rounding shows.
    if content_height <= content_width:
        side, expected = height, width * content_height / content_width
    else:
        side, expected = width, height * content_width / content_height
    return abs(side - expected) <= max(1, ASPECT_TOLERANCE * expected)


def _write(path: Path, text: str) -> Path:
    with atomic_file(path) as file:
        file.write(text.encode())
    return path


def _to_json(evaluation: Evaluation, settings: dict) -> str:
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


def _to_csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pair", "method", *(field.name for field in fields(Scores))])
    for pair, methods in evaluation.scores.items():
        for method, scores in methods.items():
            writer.writerow([pair, method, *astuple(scores)])
    return text.getvalue()


# ---------------------------------------------------------------------------------------- scoring


def _transfer(content: Tensor, style: Tensor, masks: Masks, **limits) -> Tensor:
    """The colour transfer in 8 bits, since results come from files and rounding costs energy."""
    maps = colour_transfer(content, style, masks.content, masks.style, **limits)
    return Photo(to_pixels(apply_affine(maps, content))).tensor()


def _score(case: _Case, style_distance: StyleDistance) -> dict[str, Scores]:
    masks = case.masks.content, case.masks.style
    return {
        method: Scores(
            style_distance(image, case.style, *masks),
            edge_ssim(case.content, image),
            energy(case.content, image),
            flat_roughness(case.content, image),
            colour_map_residual(case.content, image, case.masks.content),
        )
        for method, image in case.images.items()
    }


# ---------------------------------------------------------------------------------- contact sheet


def _sheet_row(case: _Case, scores: dict[str, Scores]) -> Image.Image:
    """Content, style, result and what it is compared with, side by side."""
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


def _write_sheets(folder: Path, rows: list[Image.Image]) -> list[Path]:
    """Write the rows to one sheet, or to several numbered ones."""
    pages = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
    numbers = [""] if len(pages) == 1 else [f"_{number + 1}" for number in range(len(pages))]
    paths = [folder / f"contact_sheet{number}.png" for number in numbers]
    for path, page in zip(paths, pages, strict=True):
        with atomic_file(path) as file:
            stack(page, axis=0).save(file, format="PNG")
    return paths
