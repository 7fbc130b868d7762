"""One command, two ways to judge results: figures, or people who do not know which is whose."""

import os
from collections.abc import Sequence

from photostyle.evaluation.blind import compare_blind
from photostyle.evaluation.evaluate_results import evaluate_results


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
        ArgumentError: as either of them.
    """
    options = {"size": size, "overwrite": overwrite}
    if blind is not None:
        options |= {"answers": answers, "seed": seed}
        return compare_blind(results, pairs, blind, output or "outputs/blind", **options)
    output = output or "outputs/evaluation"
    baseline = baseline and os.fspath(baseline)
    return str(evaluate_results(results, pairs, output=output, baseline=baseline, **options))
