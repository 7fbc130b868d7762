"""How far automatic masks agree with painted ones, and how long they take.

python -m benchmarks.automatic_masks PAIRS

Agreement is the share of pixels, averaged over both photos, that are right when each region takes
its one best label for both photos together. One region for everything is what there is to beat.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import machine, table
from photostyle.data import Masks, automatic_masks, load_image, load_masks
from photostyle.evaluation.pairs import find_pairs
from photostyle.ops.devices import keep_freed_memory

SIZE = 512


def agreement(automatic: Masks, painted: Masks) -> float:
    """From 0 to 1."""
    shares = torch.zeros(len(automatic.labels), len(painted.labels))
    for regions, labels in (
        (automatic.content, painted.content),
        (automatic.style, painted.style),
    ):
        shares += overlap(regions.argmax(0), labels.argmax(0), shares.shape) / 2
    return float(shares.max(1).values.sum())


def overlap(regions: Tensor, labels: Tensor, shape: torch.Size) -> Tensor:
    """The share of the pixels of each region and label."""
    counts = torch.bincount((regions * shape[1] + labels).flatten(), minlength=shape.numel())
    return counts.view(shape) / regions.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    keep_freed_memory()  # as the entry points do
    rows, seconds = [], []
    for pair in find_pairs(parser.parse_args().pairs):
        if pair.content_mask is None:
            continue
        content, style = (load_image(path, SIZE) for path in (pair.content, pair.style))
        sizes = tuple(content.shape[2:]), tuple(style.shape[2:])
        painted = load_masks(pair.content_mask, pair.style_mask, *sizes)
        start = time.perf_counter()
        automatic = automatic_masks(content, style)
        seconds.append(time.perf_counter() - start)
        values = agreement(automatic, painted), agreement(Masks.whole(*sizes), painted)
        rows.append([pair.name, len(painted.labels), len(automatic.labels), *values])
    means = [statistics.mean(row[i] for row in rows) for i in (3, 4)]
    rows.append(["mean", "", "", *means])
    for row in rows:
        row[3:] = [f"{value:.3f}" for value in row[3:]]
    print(f"{machine()}\n\n{table(['pair', 'labels', 'regions', 'agreement', 'of one'], rows)}\n")
    print(f"{statistics.median(seconds):.1f} s per pair, {max(seconds):.1f} s at most")


if __name__ == "__main__":
    main()
