"""What the benchmarks share: timing, peak memory, the machine, a table."""

import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import torch


def median_seconds(function: Callable[[], object], seconds: float = 3.0, most: int = 30) -> float:
    """Median time of a call: some to warm up, then at least three within about ``seconds``."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds / 10:
        function()
        _synchronize()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        start = time.perf_counter()
        function()
        _synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_fresh_process(function: Callable, *arguments):
    """Call ``function`` in a new process, so that its peak memory is its own.

    There every array goes back to the system when it is freed, instead of to the allocator's pool,
    so that the peak is of what was in use at one time. It costs time: do not measure both at once.
    """
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def start_peak() -> int:
    """Forget the peak memory of this process (Linux); returns the bytes that it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory this process has had since `start_peak`."""
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def machine() -> str:
    """One line that says what was measured on, and when."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    parts = [
        f"{date.today()}",
        f"{processor}, {torch.get_num_threads()} threads",
        ", ".join(f"{name} {version(name)}" for name in ("torch", "numba") if version(name)),
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return "; ".join(parts)


def version(package: str) -> str | None:
    """Of a package, ``None`` where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
