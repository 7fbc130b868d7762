"""One command, two ways to judge results: figures, or people who do not know which is whose."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from photostyle.data.held_files import locked
from photostyle.data.paths import check_folder
from photostyle.evaluation.blind import compare_blind
from photostyle.evaluation.evaluate_results import evaluate_results
from photostyle.ops.errors import ArgumentError


def evaluate(
    results: str | os.PathLike,
    pairs: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    baseline: str | os.PathLike | None = None,
    blind: str | os.PathLike | None = None,
    answers: str | Sequence[str | os.PathLike] | None = None,
    size: int = 512,
    seed: int = 0,
    overwrite: bool = False,
) -> str:
    """Measure results, or, given ``blind``, compare them blind with other ones.

    Args:
        results, pairs, baseline, size, overwrite: see `evaluate_results`.
        blind, answers, seed: see `compare_blind`; its ``other`` is ``blind``.
        output: folder for what is written; ``None`` for ``outputs/evaluation`` or
            ``outputs/blind``.

    Returns:
        What a person reads.

    Raises:
        ArgumentError: as either of them; and where another process is at work in ``output``.
    """
    for argument, value in (("results", results), ("pairs", pairs)):
        if value is None:
            raise ArgumentError(argument, None, "required; give a folder")
    if answers is not None and blind is None:
        expected = "are those of a blind comparison; give blind, too"
        raise ArgumentError("answers", answers, expected)
    options = {"size": size, "overwrite": overwrite}
    output = output or ("outputs/evaluation" if blind is None else "outputs/blind")
    with nullcontext() if answers is not None else _of_one_run(output):
        if blind is not None:
            options |= {"answers": answers, "seed": seed}
            return compare_blind(results, pairs, blind, output, **options)
        baseline = baseline and os.fspath(baseline)
        return str(evaluate_results(results, pairs, output=output, baseline=baseline, **options))


def _of_one_run(output: str | os.PathLike) -> AbstractContextManager:
    """Files that belong together are those of one run."""
    check_folder("output", output)
    return locked(output, "output")
