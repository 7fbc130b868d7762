"""The matting Laplacian on a GPU: how near it is to the limit that memory sets, and what others do.

python -m benchmarks.gpu_operator [--sizes 512 4096 ...] [--radii 1 3 8] [--batches 1 16]

Bandwidth is measured first, by copying 1 GiB on the device. The share of L p, P p or the loss is
that of the bytes counted in docs/gpu.md, in the time that it takes on the device: before each call
the device gets something else to do, so that it does not wait for Python, and its cache keeps
nothing of the call before. How long Python takes has a column of its own. Beside it are cuSPARSE
with the explicit matrix, where that fits, the definition in plain PyTorch, and a guided filter by
box filters; all are compared with ours.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.explicit_matrix import laplacian_csr
from benchmarks.findings import Findings, parser, report
from benchmarks.gpu_machine import gpu_machine
from photostyle.ops import MattingLaplacian

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MATRIX = f"explicit matrix, {'cuSPARSE' if DEVICE == 'cuda' else 'PyTorch'}"
EPSILON = 1e-7
FUSED_BYTES = 36
"""Per pixel with three channels in float32, at r = 1: guide and p read once, the result written."""
TILED_BYTES = 200
"""At any other r: statistics and models come and go, too."""
WARM_SECONDS = 0.05
BUSY_BYTES = 2**30
"""Set to zero before each call; on an H100 for 0.4 ms."""
MODES = {"product": "L p", "guided_filter": "P p", "matting_loss": "matting_loss"}
# A matrix in CSR has 25 entries of 8 bytes per pixel at r = 1, twice while it is made, and its
# product is not in place; the definition needs 400 bytes. Beyond these many they are left out.
MATRIX_BYTES = 50e9
REFERENCE_BYTES = 4e9
BOX_PIXELS = 2**24
RIDGE = 1e-3
FULL = {"sizes": [512, 1024, 2048, 4096, 8192], "radii": [1, 3, 8], "batches": [1, 16]}
SMALL = {"sizes": [32], "radii": [1, 3], "batches": [1, 2]}


def call_seconds(calls: list[Callable[[], object]], seconds: float = 0.2, most: int = 30) -> float:
    """Median seconds of a call, over calls that take turns: what fits into ``seconds``, 5 at
    least. On a GPU by CUDA events."""
    for call in calls:  # compiles
        call()
    _synchronize()
    start, rounds = time.perf_counter(), 0
    while not rounds or time.perf_counter() - start < WARM_SECONDS:  # until the clock is up
        for call in calls:
            call()
        _synchronize()
        rounds += 1
    once = (time.perf_counter() - start) / rounds / len(calls)
    repeats = max(5, min(most, int(seconds / once)))
    turns = itertools.islice(itertools.cycle(calls), repeats)
    return statistics.median((_by_events if DEVICE == "cuda" else _by_clock)(turns))


def _by_events(calls) -> list[float]:
    busy = torch.empty(BUSY_BYTES, dtype=torch.uint8, device=DEVICE)
    events = []
    for call in calls:
        busy.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1000 for start, end in events]


def _by_clock(calls) -> list[float]:
    times = [time.perf_counter()]
    for call in calls:
        call()
        times.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(times)]


def _synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(count: int) -> float:
    """Bytes per second, read and written, of a copy of ``count`` floats."""
    source = torch.rand(count, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / call_seconds([lambda: target.copy_(source)])


def host_seconds(call: Callable[[], object], count: int = 20) -> float:
    """Of a call until it returns, which is before the device is done."""
    _synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    seconds = (time.perf_counter() - start) / count
    _synchronize()
    return seconds


def operator_row(size: int, radius: int, batch: int, bandwidth: float) -> list[str]:
    """Milliseconds of each mode and of what is done once per guide, and shares of the bandwidth."""
    counted = FUSED_BYTES if radius == 1 else TILED_BYTES
    row = [f"{batch} x {size} x {size}", str(radius), str(counted)]
    try:
        seconds = operator_seconds(size, radius, batch)
    except torch.cuda.OutOfMemoryError:
        return [*row, "does not fit", *[""] * (2 * len(MODES) + 1)]
    for mode in MODES:
        share = counted * batch * size * size / seconds[mode] / bandwidth
        row += [f"{1000 * seconds[mode]:.3f}", f"{100 * share:.0f} %"]
    return [*row, f"{1000 * seconds['set-up']:.3f}", f"{1e6 * seconds['host']:.0f}"]


def operator_seconds(size: int, radius: int, batch: int) -> dict[str, float]:
    """Of each of `MODES` and of the set-up on the device, and of L p in Python."""
    guide, p = torch.rand(2, batch, 3, size, size, device=DEVICE)
    operator = MattingLaplacian(guide, radius, EPSILON)
    calls = {mode: lambda mode=mode: getattr(operator, mode)(p) for mode in MODES}
    seconds = {mode: call_seconds([call]) for mode, call in calls.items()}
    seconds["set-up"] = call_seconds([lambda: MattingLaplacian(guide, radius, EPSILON)])
    return seconds | {"host": host_seconds(calls["product"])}


def peer_rows(height: int, width: int) -> list[list[str]]:
    """L p at r = 1 by the operator, by the explicit matrix and by the definition.

    Milliseconds, times ours, and the relative difference (L2) from ours.
    """
    guide, p = torch.rand(2, 1, 3, height, width, device=DEVICE)
    operator = MattingLaplacian(guide, 1, EPSILON)
    peers = {}
    if height * width * 25 * 16 < MATRIX_BYTES:
        peers[MATRIX] = lambda: sparse_product(guide, p)
    if height * width * 400 < REFERENCE_BYTES:
        reference = MattingLaplacian(guide, 1, EPSILON, "reference")
        peers["plain PyTorch"] = lambda: lambda: reference.product(p)
    return compared(f"{width} x {height}", lambda: operator.product(p), peers)


def sparse_product(guide: Tensor, p: Tensor) -> Callable[[], Tensor]:
    """A call of L p with the matrix, (1, K, H, W); without a GPU by PyTorch."""
    pointers, columns, values = laplacian_csr(guide, EPSILON)
    shape = (len(pointers) - 1,) * 2
    vectors = p[0].flatten(1).T
    if DEVICE == "cpu":
        matrix = torch.sparse_csr_tensor(pointers, columns, values, shape)
        return lambda: (matrix @ vectors).T.reshape(p.shape)
    import cupy
    import cupyx.scipy.sparse

    parts = (cupy.from_dlpack(part) for part in (values, columns, pointers))
    matrix = cupyx.scipy.sparse.csr_matrix(tuple(parts), shape)
    vectors = cupy.asfortranarray(cupy.from_dlpack(p[0].flatten(1)).T)
    return lambda: torch.from_dlpack(matrix @ vectors).T.reshape(p.shape)


def filter_rows(size: int, radius: int) -> list[list[str]]:
    """The guided filter with all that it does once per guide, beside one by box filters.

    They differ where a window leaves the image, so they are compared further in.
    """
    guide, p = torch.rand(2, 1, 3, size, size, device=DEVICE)
    inner = (..., *(slice(2 * radius, -2 * radius),) * 2)

    def ours() -> Tensor:
        return MattingLaplacian.with_ridge(guide, radius, RIDGE).guided_filter(p)[inner]

    def box() -> Tensor:
        return box_guided_filter(guide, p, radius, RIDGE)[inner]

    peers = {"guided filter by box filters, PyTorch": lambda: box}
    return compared(f"{size} x {size}, r = {radius}", ours, peers)


def box_guided_filter(guide: Tensor, p: Tensor, radius: int, ridge: float) -> Tensor:
    """He et al. (2013), a colour guide, by box filters over the part of a window in the image.

    Args:
        guide: (B, 3, H, W), values in [0, 1].
        p: (B, K, H, W).
        radius: of the windows.
        ridge: ε/|w|.
    """

    def mean(x: Tensor) -> Tensor:
        side = 2 * radius + 1
        for kernel, padding in (((1, side), (0, radius)), ((side, 1), (radius, 0))):
            x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
        return x

    rows, columns = torch.triu_indices(3, 3)
    mean_guide, mean_p = mean(guide), mean(p)
    upper = mean(guide[:, rows] * guide[:, columns]) - mean_guide[:, rows] * mean_guide[:, columns]
    xx, xy, xz, yy, yz, zz = upper.unbind(1)
    x, y, z = (
        torch.stack(row, 1)
        for row in ((xx + ridge, xy, xz), (xy, yy + ridge, yz), (xz, yz, zz + ridge))
    )
    cofactors = [torch.linalg.cross(*pair, dim=1) for pair in ((y, z), (z, x), (x, y))]
    determinant = (x * cofactors[0]).sum(1, keepdim=True)
    results = []
    for channel in range(p.shape[1]):
        q, mean_q = p[:, channel, None], mean_p[:, channel, None]
        covariance = mean(guide * q) - mean_guide * mean_q
        a = sum(covariance[:, i, None] * cofactors[i] for i in range(3)) / determinant
        b = mean_q - (a * mean_guide).sum(1, keepdim=True)
        results.append((mean(a) * guide).sum(1, keepdim=True) + mean(b))
    return torch.cat(results, 1)


def compared(name: str, ours: Callable[[], Tensor], peers: dict[str, Callable]) -> list[list[str]]:
    """A row for ours and for each of the peers, functions that return the call to time."""
    expected, seconds = ours(), call_seconds([ours])
    rows = [[name, "this operator", f"{1000 * seconds:.3f}", "1", "0"]]
    for peer, prepare in peers.items():
        try:
            call = prepare()
            difference = (call() - expected).norm() / expected.norm()
            taken = call_seconds([call], most=10)
        except Exception as error:
            if "memory" not in f"{type(error).__name__} {error}".lower():
                raise
            rows.append([name, peer, "does not fit", "-", "-"])
        else:
            times = f"{taken / seconds:.1f}"
            rows.append([name, peer, f"{1000 * taken:.3f}", times, f"{difference:.1e}"])
        finally:
            call = None
            free_memory()
    return rows


def free_memory() -> None:
    """PyTorch's and CuPy's, of which neither gives the other what it has kept."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    if cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()


PEER_HEADER = ["size", "by", "ms", "times ours", "relative difference"]


def measure(findings: Findings, options) -> None:
    default = SMALL if options.small else FULL
    sizes, radii, batches = (getattr(options, key) or default[key] for key in default)
    bandwidth = copy_bandwidth(2**20 if options.small else 2**28)
    clocks = {key: value for key, value in gpu_machine().items() if "clock" in key}
    add = findings.table("Copy on the device, read and written", ["GB/s", *clocks])
    add(f"{bandwidth / 1e9:.0f}", *clocks.values())

    header = ["photos", "radius", "bytes per pixel"]
    header += itertools.chain(*((f"{name}, ms", "share") for name in MODES.values()))
    add = findings.table("The operator", [*header, "set-up, ms", "Python, µs"])
    for size, batch, radius in itertools.product(sizes, batches, radii):
        # 16 of 8192 x 8192 are 13 GB for guide and p each, and as much for what is between.
        if batch * size**2 <= 2**28:
            add(*operator_row(size, radius, batch, bandwidth))
            free_memory()

    add = findings.table("L p, r = 1, three channels", PEER_HEADER)
    for size in sizes:
        for row in peer_rows(size, size):
            add(*row)
    add = findings.table("Guided filter, with its set-up", PEER_HEADER)
    for size, radius in itertools.product(sizes, radii):
        if size**2 <= BOX_PIXELS:
            for row in filter_rows(size, radius):
                add(*row)


def main() -> None:
    arguments = parser(__doc__)
    for key in FULL:
        arguments.add_argument(f"--{key}", nargs="+", type=int)
    report(measure, arguments.parse_args())


if __name__ == "__main__":
    main()
