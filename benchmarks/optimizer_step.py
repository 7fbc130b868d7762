"""Seconds per step of the optimiser with and without photorealism.

python -m benchmarks.optimizer_step [--sizes 201x134 ...] [--device cpu]

The sizes are those of the original system's chart. A step is one evaluation of the objective and
its gradient, without masks; photorealism is the guided filter, forward and backward, and the
matting loss. The two kinds of step alternate, so that the machine's moods are shared.
"""

import argparse
import statistics
import sys
import time

import torch

from benchmarks.common import machine, table
from photostyle.ops import GuidedFilter, StyleObjective
from photostyle.ops.devices import convolution_dtype, keep_freed_memory

MATTING_WEIGHT = 3000


def step(x, objective, targets, laplacian) -> None:
    y = x if laplacian is None else laplacian.guided_filter(x)
    torch.autograd.grad(objective(y, targets).total, x)


def seconds_per_step(width: int, height: int, repeats: int, device: str) -> tuple[float, float]:
    """Median seconds without and with photorealism."""
    generator = torch.Generator().manual_seed(0)
    content, style = torch.rand(2, 1, 3, height, width, generator=generator).to(device)
    masks = torch.ones(1, height, width, device=device)
    variants = []
    for photorealism in (False, True):
        objective = StyleObjective(matting_weight=MATTING_WEIGHT * photorealism).to(device)
        objective.encoder.convolve_in(convolution_dtype("auto", torch.device(device)))
        targets = objective.targets(content, style, masks, masks)
        laplacian = GuidedFilter().laplacian(content) if photorealism else None
        variants.append((objective, targets, laplacian))
    x = content.clone().requires_grad_(True)
    times = ([], [])
    for repeat in range(repeats + 1):
        for variant, seconds in zip(variants, times, strict=True):
            start = time.perf_counter()
            step(x, *variant)
            if device != "cpu":
                torch.cuda.synchronize()
            if repeat:  # the first warms up
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["201x134", "251x167", "502x335", "904x603"])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the entry points do
    rows = []
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        without, with_ = seconds_per_step(width, height, arguments.repeats, arguments.device)
        added = 100 * (with_ / without - 1)
        rows.append([size, f"{without:.3f}", f"{with_:.3f}", f"{added:+.1f} %"])
        print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    print(f"{machine()}; device {arguments.device}\n")
    print(table(["size", "without, s", "with photorealism, s", "added"], rows))


if __name__ == "__main__":
    main()
