"""Damaged files read one after the other, by processes that may not survive it."""

import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from photostyle.ops.errors import ArgumentError
from tests.fuzz.readers import Reader

SECONDS = 5
"""Of computing, for a file."""
HANGS = 60
"""Seconds on the clock."""
MEMORY = 1_500_000_000
"""Bytes beyond what a process has before it reads."""


@dataclass
class Findings:
    """What became of some files.

    Attributes:
        count: how many there were.
        faults: what was neither a result nor an `ArgumentError`, by the file's number.
        slowest: seconds of computing.
        memory: bytes that a process had at most, beyond what it had before it read.
    """

    count: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    slowest: float = 0
    memory: int = 0

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(
            self.count + other.count,
            self.faults | other.faults,
            max(self.slowest, other.slowest),
            max(self.memory, other.memory),
        )


Task = tuple[int, int]
"""Which reader, and the number of the damaged file."""


def mutant(reader: Reader, whole: list[bytes], seed: int, number: int) -> bytes:
    """The damaged file of a number."""
    return reader.mutant(whole, random.Random(f"{reader.name} {seed} {number}"))


def fuzz(
    readers: Sequence[Reader],
    count: int,
    *,
    seed: int = 0,
    processes: int = 1,
    kept: Path | None = None,
) -> list[Findings]:
    """Read damaged files, numbers 0 to ``count`` of each reader.

    Args:
        readers: of which files.
        count: how many.
        seed: of the damages.
        processes: how many read.
        kept: folder for the files that show a fault, each with a text that says which.
    """
    with TemporaryDirectory(prefix="fuzz_") as folder:
        whole = [reader.whole(Path(folder)) for reader in readers]
    tasks = [(index, number) for index in range(len(readers)) for number in range(count)]

    def watch(share: list[Task]) -> list[Findings]:
        return _watched(readers, whole, seed, share)

    with ThreadPoolExecutor(processes) as executor:
        shares = executor.map(watch, (tasks[first::processes] for first in range(processes)))
        findings = [sum(parts, Findings()) for parts in zip(*shares, strict=True)]
    if kept is not None:
        for reader, files, found in zip(readers, whole, findings, strict=True):
            _keep(kept, reader, files, seed, found.faults)
    return findings


def _keep(
    folder: Path, reader: Reader, whole: list[bytes], seed: int, faults: dict[int, str]
) -> None:
    for number, fault in faults.items():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{reader.name}_{seed}_{number}{reader.suffix}"
        file.write_bytes(mutant(reader, whole, seed, number))
        file.with_name(f"{file.name}.txt").write_text(fault)


def _watched(
    readers: Sequence[Reader], whole: list[list[bytes]], seed: int, tasks: list[Task]
) -> list[Findings]:
    """What becomes of some files; a process that does not survive one is followed by another."""
    findings = [Findings() for _ in readers]
    done = 0
    while done < len(tasks):
        context = get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_read, args=(readers, whole, seed, tasks[done:], sender))
        process.start()
        sender.close()
        alive = True
        while alive and done < len(tasks):
            index, number = tasks[done]
            try:
                fault, seconds, memory = receiver.recv()
            except EOFError:
                process.join()
                fault, seconds, memory = f"ended by {_cause(process.exitcode)}", 0, 0
                alive = False
            findings[index] += Findings(1, {number: fault} if fault else {}, seconds, memory)
            done += 1
        process.join()
    return findings


def _cause(exit_code: int) -> str:
    return signal.Signals(-exit_code).name if exit_code < 0 else f"an exit with {exit_code}"


def _read(
    readers: Sequence[Reader], whole: list[list[bytes]], seed: int, tasks: list[Task], sender
) -> None:
    """What a process does: one message for each file."""
    logging.disable()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    current = None
    with TemporaryDirectory(prefix="fuzz_") as folder:
        for index, number in tasks:
            reader = readers[index]
            path = Path(folder) / f"damaged{reader.suffix}"
            if index != current:
                current = index
                path.write_bytes(whole[index][0])
                _allow(resource.RLIM_INFINITY)
                reader.read(path)  # loads what is loaded when it is first needed
                before = _most_memory()
                _allow(_address_space() + MEMORY)
            path.write_bytes(mutant(reader, whole[index], seed, number))
            fault, seconds = _outcome(reader, path)
            sender.send((fault, seconds, _most_memory() - before))


def _outcome(reader: Reader, path: Path) -> tuple[str | None, float]:
    """What is wrong with how a file was read, and seconds of computing."""
    start, fault = time.process_time(), None
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        reader.read(path)
    except ArgumentError:
        pass
    except BaseException:
        fault = traceback.format_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return fault, time.process_time() - start


def _allow(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
