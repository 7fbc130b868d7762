"""L·p by every implementation: time and peak memory, beside the explicit sparse matrix.

python -m benchmarks.product [--sizes 256 512 ...] [--radii 1 3 8]
"""

import argparse
import sys
import time

import numpy as np
import pymatting
import torch

from benchmarks.common import (
    in_fresh_process,
    machine,
    median_seconds,
    peak_bytes,
    start_peak,
    table,
)
from photostyle.ops import MattingLaplacian

EPSILON = 1e-7
CHANNELS = 3
# (2·2r+1)² entries of 12 bytes per row, and building takes several times that. Beyond this many
# bytes for the matrix alone a measurement is left out.
MATRIX_LIMIT = 2e9
# Pixels times window area: the definition's work. Beyond this a measurement is left out.
REFERENCE_LIMIT = 40e6


def matrix_bytes(height: int, width: int, radius: int) -> float:
    return height * width * (4 * radius + 1) ** 2 * 12.0


def random_photo(height: int, width: int) -> np.ndarray:
    """(H, W, 3) float64: smooth colours with noise, so that windows are neither flat nor white."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth[0].permute(1, 2, 0).numpy() + rng.normal(0, 0.02, (height, width, 3))
    return noisy.clip(0, 1)


def measure_matrix(height: int, width: int, radius: int) -> dict:
    """Seconds to build and to apply the sparse matrix, and its peak memory in bytes."""
    pymatting.cf_laplacian(random_photo(16, 16), EPSILON, 1)  # compiles
    guide = random_photo(height, width)
    p = np.random.default_rng(1).standard_normal((height * width, CHANNELS))
    before = start_peak()
    start = time.perf_counter()
    matrix = pymatting.cf_laplacian(guide, EPSILON, radius).tocsr()
    build = time.perf_counter() - start
    output = matrix @ p
    peak = peak_bytes() - before - output.nbytes
    return {"seconds": median_seconds(lambda: matrix @ p), "build": build, "bytes": peak}


def measure_operator(backend: str, height: int, width: int, radius: int) -> dict:
    """Seconds to set up and to apply the operator, and its peak memory in bytes."""
    device = "cuda" if backend == "cuda" else "cpu"
    small = torch.rand(1, 3, 32, 32, device=device)
    MattingLaplacian(small, radius, EPSILON, backend).product(small)  # compiles
    guide = torch.from_numpy(random_photo(height, width)).permute(2, 0, 1)[None]
    guide = guide.to(device, torch.float32).contiguous()
    p = torch.randn(1, CHANNELS, height, width, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device == "cuda" else start_peak()
    start = time.perf_counter()
    operator = MattingLaplacian(guide, radius, EPSILON, backend)
    if device == "cuda":
        torch.cuda.synchronize()
    build = time.perf_counter() - start
    output = operator.product(p)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()
    peak -= before + output.numel() * output.element_size()
    return {"seconds": median_seconds(lambda: operator.product(p)), "build": build, "bytes": peak}


def measure(function, *arguments) -> dict:
    """Times from this process, memory from one of its own."""
    memory = in_fresh_process(function, *arguments)["bytes"]
    return function(*arguments) | {"bytes": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = ["384x512", "256", "512", "1024", "2048", "4096"]
    parser.add_argument("--sizes", nargs="+", default=sizes)
    parser.add_argument("--radii", nargs="+", type=int, default=[1, 3, 8])
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        height, width = map(int, size.split("x") if "x" in size else (size, size))
        for radius in arguments.radii:
            shape = height, width, radius
            results = {}
            if height * width * (2 * radius + 1) ** 2 <= REFERENCE_LIMIT:
                results["reference"] = measure(measure_operator, "reference", *shape)
            results["cpu"] = measure(measure_operator, "cpu", *shape)
            if torch.cuda.is_available():
                results["cuda"] = measure(measure_operator, "cuda", *shape)
            if matrix_bytes(*shape) <= MATRIX_LIMIT:
                results["SciPy CSR"] = measure(measure_matrix, *shape)
            matrix = results.get("SciPy CSR", {}).get("seconds")
            for name, result in results.items():
                rows.append(
                    [
                        f"{height} x {width}",
                        radius,
                        name,
                        f"{result['seconds'] * 1e3:.2f}",
                        f"{result['build'] * 1e3:.0f}",
                        f"{result['bytes'] / (height * width):.0f}",
                        f"{result['seconds'] / matrix:.2f}" if matrix else "-",
                    ]
                )
                print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    print(f"{machine()}\n")
    header = ["size", "radius", "implementation", "L·p, ms", "set-up, ms", "bytes/pixel", "of CSR"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
