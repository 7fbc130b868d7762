"""Results for a folder of pairs, measured beside simpler methods: numbers and pictures."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor
from tqdm import tqdm

from photostyle.data.image_io import load_image, load_photo
from photostyle.data.masks import WHOLE_SHARE, Masks
from photostyle.data.painted_masks import load_masks
from photostyle.data.photo import MIN_SIDE, Photo, to_pixels
from photostyle.evaluation.pairs import Pair, find_pairs
from photostyle.evaluation.report import (
    sheet_row,
    to_csv,
    to_json,
    write_contact_sheets,
    write_text,
)
from photostyle.evaluation.results import find_results, load_like, own_files, prepare_output
from photostyle.evaluation.scores import (
    COLOUR_TRANSFER,
    GLOBAL_TRANSFER,
    RESULTS,
    UNTOUCHED,
    Evaluation,
    Scores,
)
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import colour_transfer
from photostyle.ops.console import standard_error
from photostyle.ops.errors import check_flag, check_whole
from photostyle.ops.metrics import (
    StyleDistance,
    colour_map_residual,
    edge_ssim,
    flat_roughness,
    matting_loss,
    sharpness,
)
from photostyle.ops.transport import EXACT

logger = logging.getLogger(__name__)

_OWN_FILE = re.compile(r"evaluation\.(json|csv)|contact_sheet(_\d+)?\.png")


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
    or, of more than `ROWS_PER_PAGE` pairs, ``contact_sheet_1.png`` and so on.

    Args:
        results: folder of pictures named after the pairs, ``01.png`` for ``pairs/01``, in the
            content's aspect ratio and of any size. Pairs without one are left out, with a warning.
        pairs: folder as described in `evaluation.pairs`.
        output: folder for what is written; created if need be.
        baseline: file name of another method's result that lies in every pair's folder.
        size: long side in pixels at which all is measured; photos are never enlarged.
        overwrite: replace the files of an earlier evaluation.

    Raises:
        ArgumentError: ``pairs`` or ``baseline`` as `evaluation.pairs.find_pairs`; ``results`` is no
            folder, has nothing for any pair or two pictures for one; a picture cannot be read or
            has another aspect ratio than its content; ``size`` is no whole number or too small;
            ``output`` cannot be written to, or holds an evaluation and ``overwrite`` is false;
            ``overwrite`` is no bool.
    """
    check_whole("size", size, MIN_SIDE)
    check_flag("overwrite", overwrite)
    found = find_pairs(pairs, baseline)
    files = find_results(results, found)
    output = prepare_output(output, _OWN_FILE, "an evaluation", overwrite)
    missing = [pair.name for pair in found if pair.name not in files]
    if missing:
        logger.warning("%s holds no result for %s; left out", results, ", ".join(missing))

    style_distance = StyleDistance()
    scores, rows = {}, []
    scored = [pair for pair in found if pair.name in files]
    for pair in tqdm(scored, "evaluate", unit="pair", file=standard_error()):
        case = _Case.load(pair, files[pair.name], size)
        scores[case.name] = _score(case, style_distance)
        rows.append(sheet_row(case, scores[case.name]))
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
        write_text(output / "evaluation.json", to_json(evaluation, settings)),
        write_text(output / "evaluation.csv", to_csv(evaluation)),
        *write_contact_sheets(output, rows),
    ]
    for path in set(stale) - set(written):
        path.unlink()
    logger.info("scores and contact sheets are in %s", output)
    return evaluation


def _transfer(content: Tensor, style: Tensor, masks: Masks, **limits) -> Tensor:
    """The colour transfer in 8 bits, as results come from files: rounding costs matting loss."""
    maps = colour_transfer(content, style, masks.content, masks.style, curvature=0, **limits)
    return Photo(to_pixels(apply_affine(maps, content))).tensor()


def _score(case: _Case, style_distance: StyleDistance) -> dict[str, Scores]:
    masks = case.masks.content, case.masks.style
    return {
        method: Scores(
            style_distance(image, case.style, *masks),
            edge_ssim(case.content, image),
            matting_loss(case.content, image),
            flat_roughness(case.content, image),
            colour_map_residual(case.content, image, case.masks.content),
            sharpness(case.content, image),
        )
        for method, image in case.images.items()
    }
