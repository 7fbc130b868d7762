"""Read damaged files by the thousand: ``python -m tests.fuzz --reader photo --count 50000``."""

import argparse
import os
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.watch import fuzz


def main() -> int:
    """Prints a table; returns 1 where there were faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", action="append", choices=READERS, help="all, where left out")
    parser.add_argument("--count", type=int, default=10_000, help="files of each reader")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--kept", type=Path, default=Path("outputs/fuzz"), help="folder for faults")
    options = parser.parse_args()
    print("| reader | mutants | tracebacks | slowest call | peak memory |")
    print("|---|---|---|---|---|")
    faults = 0
    for name in options.reader or READERS:
        [found] = fuzz(
            [READERS[name]],
            options.count,
            seed=options.seed,
            processes=options.processes,
            kept=options.kept,
        )
        faults += len(found.faults)
        figures = f"{found.slowest:.2f} s | {found.memory / 1e6:.0f} MB"
        print(f"| {name} | {found.count} | {len(found.faults)} | {figures} |", flush=True)
    if faults:
        print(f"\nwhat was read, and what became of it: {options.kept}")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
