"""Stylise every pair of a folder with the optimiser, as stylize.py does, and time each.

python -m benchmarks.optimizer_pairs PAIRS RESULTS [--without-masks] [OVERRIDE ...]

PAIRS holds NN/content.png, NN/style.png and optional masks; RESULTS/NN.png are written at the
working size, for evaluate.py. Overrides are those of stylize.py.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import machine
from photostyle.evaluation.pairs import find_pairs

ROOT = Path(__file__).parents[1]


def stylize(pair, output: Path, with_masks: bool, overrides: list[str]) -> float:
    """Seconds of the whole command, start-up and files included."""
    command = [
        sys.executable, str(ROOT / "stylize.py"), f"content={pair.content}", f"style={pair.style}",
        f"output={output}", "full_resolution=false", *overrides,
    ]  # fmt: skip
    if with_masks and pair.content_mask:
        command += [f"content_mask={pair.content_mask}", f"style_mask={pair.style_mask}"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(re.split(r"[\r\n]", done.stderr.strip())[-1])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--without-masks", action="store_true", help="for masks=auto or none")
    arguments, overrides = parser.parse_known_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    seconds = []
    for pair in find_pairs(arguments.pairs):
        output = arguments.results / f"{pair.name}.png"
        if output.exists() and "overwrite=true" not in overrides:
            continue  # a run that was interrupted goes on
        seconds.append(stylize(pair, output, not arguments.without_masks, overrides))
        print(f"{pair.name}\t{seconds[-1]:.1f} s", flush=True)
    if seconds:
        print(
            f"{machine()}\n{len(seconds)} pairs: median {statistics.median(seconds):.1f} s, ",
            end="",
        )
        print(f"from {min(seconds):.1f} to {max(seconds):.1f} s")


if __name__ == "__main__":
    main()
