"""Two runs of the same command at the same time: ``python -m tests.fuzz.at_once --count 20``.

Neither fails but for one line that says why, every file is whole and that of a single run, and
nothing else is there in the end.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.small_runs import (
    completed,
    contents,
    make_files,
    optimize,
    start,
    stylize,
    temporary_files,
    train,
)


@dataclass
class AtOnce:
    """What became of pairs of runs.

    Attributes:
        pairs: how many.
        both: pairs of which both did their work; of the others one was told why not.
        defects: pairs of which neither did, or one ended in another way, or both trained.
        different: pairs whose files were not those of a single run.
        leftovers: files that should not be there.
    """

    pairs: int = 0
    both: int = 0
    defects: int = 0
    different: int = 0
    leftovers: int = 0


def at_once(
    call: Callable[[str], object], count: int, finals: str, *, alone: bool = False
) -> AtOnce:
    """Run pairs at the same time.

    Args:
        call: of a folder for its output.
        count: of pairs.
        finals: a pattern of the files that a single run leaves.
        alone: whether it is a defect when both work.
    """
    Path("whole").mkdir()
    completed(call, "whole")
    expected = contents("whole", finals)
    found = AtOnce()
    for _ in range(count):
        Path("run").mkdir()
        processes = [start(call, "run", log=f"log{number}.txt") for number in range(2)]
        codes = [process.wait() for process in processes]
        told = [process.said.splitlines()[-1] for process in processes]
        found.pairs += 1
        found.both += codes == [0, 0]
        ends = zip(codes, told, strict=True)
        fine = all(code == 0 or (code == 2 and line.startswith("error: ")) for code, line in ends)
        found.defects += 0 not in codes or not fine or (alone and codes == [0, 0])
        there = contents("run", finals)
        # A result that another run was faster with is kept under another name.
        rescued = {name for name in there if "_rescued" in name}
        found.different += {name: there[name] for name in there.keys() - rescued} != expected
        found.leftovers += temporary_files("run") + Path("run/.lock").exists()
        shutil.rmtree("run")
    return found


KINDS = {
    "photos of a folder": (lambda output: stylize("photos", output), "*.png"),
    "optimiser": (lambda output: optimize(f"{output}/result"), "*.png"),
    "training": (lambda output: train(output, resume=False), "*.safetensors"),
    "training, resume=true": (train, "*.safetensors"),
    "shards": (lambda output: stylize("shards", output), "*.tar"),
}
"""What is called, and which files there are in the end."""


def main() -> int:
    """Prints a table; returns 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.at_once", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="pairs of each kind")
    parser.add_argument("--kind", action="append", choices=KINDS, help="all, where left out")
    options = parser.parse_args()
    wrong = 0
    print("| run | pairs | both worked | defects | different | leftovers |")
    print("|---|---|---|---|---|---|")
    for kind in options.kind or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            make_files(Path(folder))
            call, finals = KINDS[kind]
            found = at_once(call, options.count, finals, alone=kind.startswith("training"))
            os.chdir("/")
        row = (kind, found.pairs, found.both, found.defects, found.different, found.leftovers)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        wrong += found.defects + found.different + found.leftovers
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
