"""The matting Laplacian on a GPU: how near it is to the limit that memory sets, and what it costs.

python -m benchmarks.gpu_operator [--sizes 512 4096 ...] [--radii 1 3 8] [--batches 1 16]

Bandwidth is measured first, by copying 1 GiB on the device. The share of L p, P p or the loss is
that of the bytes that it cannot do without, guide and p read once and the result written once, 36
per pixel with three channels in float32, in the time that it takes. Inputs rotate, so that none is
in the cache from the call before. Beside it are cuSPARSE with the explicit matrix, where that can
be built, and the definition in plain PyTorch; then what the operator takes of a step of the slow
mode and of a training step.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable

import torch

from benchmarks.common import machine, table
from photostyle.feedforward.training_objective import OneStyle, RawMattingLoss
from photostyle.feedforward.transform_net import TransformNet
from photostyle.ops import GuidedFilter, MattingLaplacian, StyleObjective
from photostyle.ops.colour_transfer import colour_moments

DEVICE = "cuda"
TRAINING_LAYERS = ["colours", "relu1_1", "relu2_1", "relu3_1"]
EPSILON = 1e-7
BYTES_PER_PIXEL = 3 * 3 * 4
MODES = {"product": "L p", "guided_filter": "P p", "matting_loss": "matting_loss"}
# More than the cache of any GPU of today.
ROTATED_BYTES = 512 * 2**20
# A matrix in CSR has 25 entries of 12 bytes per pixel at r = 1; the definition needs 400 bytes.
# Beyond these many bytes they are left out.
MATRIX_BYTES = 24e9
REFERENCE_BYTES = 16e9
REPEATS = 30


def gpu_seconds(calls: list[Callable[[], object]], repeats: int = REPEATS) -> float:
    """Median seconds of a call by CUDA events, over calls that take turns."""
    for call in calls * 2:
        call()
    events = []
    for call in itertools.islice(itertools.cycle(calls), repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) / 1000


def copy_bandwidth(count: int = 2**28) -> float:
    """Bytes per second, read and written, of a copy of ``count`` floats."""
    source = torch.rand(count, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / gpu_seconds([lambda: target.copy_(source)])


def photos(batch: int, size: int) -> list[torch.Tensor]:
    """As many as do not fit into the cache together, but two at least."""
    count = max(2, min(16, ROTATED_BYTES // (batch * 3 * size * size * 4)))
    return [torch.rand(batch, 3, size, size, device=DEVICE) for _ in range(count)]


def operator_row(size: int, radius: int, batch: int, bandwidth: float) -> list[str]:
    """Milliseconds of each mode and of what is done once per guide, and shares of the bandwidth."""
    guides = photos(batch, size)
    operators = [MattingLaplacian(guide, radius, EPSILON) for guide in guides]
    inputs = photos(batch, size)
    row = [f"{batch} x {size} x {size}", str(radius)]
    for mode in MODES:
        calls = [
            lambda operator=operator, p=p, mode=mode: getattr(operator, mode)(p)
            for operator, p in zip(operators, inputs, strict=True)
        ]
        seconds = gpu_seconds(calls)
        share = BYTES_PER_PIXEL * batch * size * size / seconds / bandwidth
        row += [f"{1000 * seconds:.3f}", f"{100 * share:.0f} %"]
    calls = [lambda guide=guide: MattingLaplacian(guide, radius, EPSILON) for guide in guides]
    return [*row, f"{1000 * gpu_seconds(calls):.3f}"]


def peer_rows(size: int) -> list[list[str]]:
    """L p at r = 1 by the operator, by the explicit matrix and by the definition."""
    guide, p = torch.rand(2, 1, 3, size, size, device=DEVICE)
    operator = MattingLaplacian(guide, 1, EPSILON)
    ours = gpu_seconds([lambda: operator.product(p)])
    rows = [[f"{size} x {size}", "this operator", f"{1000 * ours:.3f}", "1"]]
    matrix = sparse_seconds(guide, p) if size**2 * 25 * 12 < MATRIX_BYTES else None
    times = {"cuSPARSE, explicit matrix": matrix}
    if size**2 * 400 < REFERENCE_BYTES:
        reference = MattingLaplacian(guide, 1, EPSILON, "reference")
        times["plain PyTorch"] = gpu_seconds([lambda: reference.product(p)], 5)
    for name, seconds in times.items():
        numbers = "does not fit" if seconds is None else f"{1000 * seconds:.3f}"
        ratio = "-" if seconds is None else f"{seconds / ours:.1f}"
        rows.append([f"{size} x {size}", name, numbers, ratio])
    return rows


def sparse_seconds(guide: torch.Tensor, p: torch.Tensor) -> float | None:
    """Of a product with the matrix in float32, without building it; None where it does not fit."""
    import cupy
    import cupyx.scipy.sparse
    import pymatting

    pixels = guide[0].permute(1, 2, 0).double().cpu().numpy()
    try:
        matrix = pymatting.cf_laplacian(pixels, EPSILON, 1).tocsr().astype("float32")
        matrix = cupyx.scipy.sparse.csr_matrix(matrix)
        vectors = cupy.asfortranarray(cupy.from_dlpack(p[0].flatten(1)).T)
        return gpu_seconds([lambda: matrix @ vectors])
    except (MemoryError, cupy.cuda.memory.OutOfMemoryError):
        return None


def optimizer_step(height: int, width: int, precision: torch.dtype):
    """A step of the optimiser, and what the operator does in it."""
    content, style = torch.rand(2, 1, 3, height, width, device=DEVICE)
    mask = torch.ones(1, height, width, device=DEVICE)
    objective = StyleObjective().to(DEVICE)
    laplacian = GuidedFilter().laplacian(content)
    x = content.clone().requires_grad_(True)
    with autocast(precision):
        targets = objective.targets(content, style, mask, mask)

    def step():
        with autocast(precision):
            loss = objective(laplacian.guided_filter(x), targets).total
        torch.autograd.grad(loss, x)

    def operator():
        y = laplacian.guided_filter(x)
        torch.autograd.grad(y.sum() + targets.laplacian.matting_loss(y).mean(), x)

    return step, operator


def training_step(batch: int, size: int, precision: torch.dtype):
    """A training step, and what the operator does in it, set-up for new photos included."""
    photo = torch.rand(batch, 3, size, size, device=DEVICE)
    style = torch.rand(1, 3, size, size, device=DEVICE)
    colours = colour_moments(style, style.new_ones(1, size, size))
    moments = {"style_mean": colours.mean[0, 0], "style_covariance": colours.covariance[0, 0]}
    net = TransformNet(**moments).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters())
    guided_filter = GuidedFilter(radius=4, ridge=1e-4)
    with autocast(precision):
        layers = {"style_layers": TRAINING_LAYERS, "layer_weights": None}
        objective = StyleObjective(matting_weight=0, edges_weight=0, **layers).to(DEVICE)
        raw_matting = RawMattingLoss(weight=1000.0)
        losses = OneStyle(objective, raw_matting, style)

    def step():
        optimizer.zero_grad()
        with autocast(precision):
            example = losses.example(photo)
            raw = net(photo)
        result = guided_filter.laplacian(photo).guided_filter(raw)
        with autocast(precision):
            total = losses(example, raw, result).total
        total.backward()
        optimizer.step()

    x = photo.clone().requires_grad_(True)

    def operator():
        result = guided_filter.laplacian(photo).guided_filter(x)
        torch.autograd.grad(result.sum() + raw_matting(photo, x), x)

    return step, operator


def autocast(precision: torch.dtype):
    return torch.autocast(DEVICE, torch.bfloat16, enabled=precision == torch.bfloat16)


def share_rows() -> list[list[str]]:
    rows = []
    for precision in (torch.float32, torch.bfloat16):
        for name, (step, operator) in (
            ("optimiser, 904 x 603", optimizer_step(603, 904, precision)),
            ("training, 16 x 256 x 256", training_step(16, 256, precision)),
        ):
            whole, part = gpu_seconds([step], 15), gpu_seconds([operator], 15)
            numbers = f"{1000 * whole:.2f}", f"{1000 * part:.3f}", f"{100 * part / whole:.1f} %"
            rows.append([name, str(precision).removeprefix("torch."), *numbers])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--radii", nargs="+", type=int, default=[1, 3, 8])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here")
    bandwidth = copy_bandwidth()
    print(f"{machine()}\n\nA copy moves {bandwidth / 1e9:.0f} GB/s, read and written.\n")

    rows = []
    for size, batch, radius in itertools.product(
        arguments.sizes, arguments.batches, arguments.radii
    ):
        # 16 of 8192 x 8192 are 13 GB for guide and p each, and as much for what is between.
        if batch * size**2 <= 2**28:
            rows.append(operator_row(size, radius, batch, bandwidth))
            print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    header = ["photos", "radius"]
    header += list(itertools.chain(*((f"{name}, ms", "share") for name in MODES.values())))
    print(table([*header, "set-up, ms"], rows), "\n")

    rows = list(itertools.chain(*map(peer_rows, arguments.sizes)))
    print(table(["size", "L p, r = 1", "ms", "times ours"], rows), "\n")
    print(table(["step", "precision", "step, ms", "operator, ms", "share"], share_rows()))


if __name__ == "__main__":
    main()
