"""Kill runs at random moments: ``python -m tests.fuzz.kills --count 100``.

A killed run is started again until it ends by itself. Then its files are those of a run that was
never killed, to the bit, and nothing else is there; and at each kill every file is whole.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from tests.fuzz.small_runs import (
    completed,
    contents,
    make_files,
    start,
    stylize,
    temporary_files,
    train,
)


@dataclass
class Killed:
    """What became of runs.

    Attributes:
        kills, runs: how many.
        in_writing: kills while a file was being written.
        broken: kills after which a file was not whole.
        different: runs whose files were not those of one that was never killed.
        leftovers: temporary files after the last run.
    """

    kills: int = 0
    runs: int = 0
    in_writing: int = 0
    broken: int = 0
    different: int = 0
    leftovers: int = 0


def kill(call: Callable[[str], object], pattern: str, count: int, rng: random.Random) -> Killed:
    """Kill runs so many times.

    Args:
        call: of a folder for its output.
        pattern: of the files that it writes.
        count: kills.
        rng: of the moments.
    """
    seconds = completed(call, "whole")
    expected = contents("whole", pattern)
    found = Killed()
    while found.kills < count:
        while found.kills < count:
            process = start(call, "run")
            time.sleep(rng.uniform(0, seconds))
            process.kill()
            code = process.wait()
            if code >= 0:
                assert code == 0, process.said
                break
            found.kills += 1
            found.in_writing += temporary_files("run") > 0
            found.broken += not are_whole("run", pattern, expected)
        completed(call, "run")
        found.runs += 1
        found.different += contents("run", pattern) != expected
        found.leftovers += temporary_files("run") + Path("run/.lock").exists()
        shutil.rmtree("run")
    return found


def are_whole(folder: str, pattern: str, expected: dict[str, object]) -> bool:
    """Whether all files can be read, and are those expected of their names."""
    try:
        there = contents(folder, pattern)
    except SafetensorError:
        return False
    # A network is replaced by better ones.
    names = {name for name in there.keys() & expected.keys() if name != "network.safetensors"}
    return all(there[name] == expected[name] for name in names)


KINDS = {
    "training": (train, "*.safetensors"),
    "photos of a folder": (lambda output: stylize("photos", output), "*.png"),
    "shards": (lambda output: stylize("shards", output), "*.tar"),
}
"""What is called, and the files that it writes."""


def main() -> int:
    """Prints a table; returns 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kind", action="append", choices=KINDS, help="all, where left out")
    options = parser.parse_args()
    wrong = 0
    print("| run | kills | while writing | runs | broken | different | leftovers |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.kind or KINDS:
        call, pattern = KINDS[kind]
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            make_files(Path(folder))
            rng = random.Random(options.seed)
            found = kill(call, pattern, options.count, rng)
            os.chdir("/")
        row = (kind, found.kills, found.in_writing, found.runs)
        faults = (found.broken, found.different, found.leftovers)
        print(f"| {' | '.join(map(str, (*row, *faults)))} |", flush=True)
        wrong += sum(faults)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
