"""The tests that need a GPU, and the kernels under compute-sanitizer.

python -m benchmarks.gpu_tests
"""

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time

from benchmarks.findings import Findings, parser, report
from benchmarks.limited import end_of, run_limited

PYTEST = [sys.executable, "-m", "pytest", "--quiet", "-m", "gpu"]
# Most of the time kernels are compiled. pytest-benchmark would warn, and warnings are errors.
PROCESSES = ["--numprocesses", "8", "-p", "no:benchmark"]
FILE = "tests/ops/test_cuda.py"
# Calls of CUDA that fail and are tried in another way are PyTorch's and CuPy's matter.
SANITIZERS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
SANITIZED = "parity or gradient or non_contiguous or half_precision"
"""Tests of small photos: under the sanitizer everything is many times slower."""
KERNELS = ("window", "fused_radius_1")
"""Parts of the names of our kernels; PyTorch's are not checked."""
NO_TESTS = 5
"""Exit code of pytest."""
TAIL = 3000
"""Bytes of a failed check's output."""


def find_sanitizer() -> str | None:
    """Where CUDA's toolkit puts it, if it is not on the path."""
    return shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")


def checks(small: bool) -> dict[str, tuple[list[str], float]]:
    """Each check's command line and its time limit in seconds."""
    words = PYTEST + (PROCESSES if importlib.util.find_spec("xdist") else [])
    found = {"pytest, tests/ops": ([*words, "--continue-on-collection-errors", "tests/ops"], 120)}
    if importlib.util.find_spec("hydra"):
        found["pytest, the other folders"] = ([*PYTEST, "tests", "--ignore", "tests/ops"], 60)
    sanitizer = find_sanitizer()
    for tool, own in SANITIZERS.items() if sanitizer else ():
        words = [sanitizer, "--tool", tool, *own, "--error-exitcode", "9"]
        # PyTorch may take long to load.
        words += ["--launch-timeout", "60"]
        words += [word for kernel in KERNELS for word in ("--kernel-name", f"kns={kernel}")]
        found[tool] = ([*words, *PYTEST[:-1], "gpu and not slow", "-k", SANITIZED, FILE], 100)
    if small:
        found = {"pytest, one file": ([*PYTEST, "-k", "auto", FILE], 60)}
    return found


def measure(findings: Findings, options) -> None:
    add = findings.table("Tests", ["check", "outcome", "seconds", "last lines"])
    if not importlib.util.find_spec("hydra"):
        add("pytest, the other folders", "left out: Hydra is not installed", "", "")
    if not find_sanitizer():
        add("memcheck, racecheck", "left out: compute-sanitizer is not installed", "", "")
    failed = False
    for name, (words, limit) in checks(options.small).items():
        outcome, seconds, printed = run(words, limit, required=not options.small)
        add(name, outcome, f"{seconds:.0f}", "; ".join(printed.splitlines()[-2:]))
        if outcome.startswith("failed"):
            failed = True
            print(printed, flush=True)
    if failed:
        sys.exit(1)


def run(words: list[str], limit: float, *, required: bool) -> tuple[str, float, str]:
    """How a check ended, after how many seconds, and the end of what it printed."""
    environment = {"REQUIRE_CUDA": str(int(required))}
    if "--tool" in words:
        # One block for each tensor: what is read beyond its end is not another tensor's.
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        code = run_limited(words, limit, output, **environment)
        printed = end_of(output, TAIL)
    outcomes = {0: "passed", NO_TESTS: "no tests there", None: f"failed: stopped after {limit} s"}
    outcome = outcomes.get(code, f"failed, exit code {code}")
    return outcome, time.monotonic() - start, printed


def main() -> None:
    # An end by force ends the check that is running, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    report(measure, parser(__doc__).parse_args())


if __name__ == "__main__":
    main()
