"""What the matting Laplacian and the map of colours take of a step on a GPU, L p at the sizes of
the original chart, and what else is done there in another way than on the CPU, beside that way.

python -m benchmarks.gpu_share
"""

import torch

from benchmarks.findings import Findings, parser, report
from benchmarks.gpu_kernels import kernel_seconds
from benchmarks.gpu_operator import DEVICE, PEER_HEADER, call_seconds, peer_rows
from benchmarks.networks import one_style
from photostyle.feedforward import StyleNetwork
from photostyle.ops import GuidedFilter, StyleObjective
from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.colour_transfer import CURVES
from photostyle.ops.matrix_functions import power
from photostyle.ops.transport import moments, root, shrunk

CHART = [(384, 512), (512, 512), (1024, 1024), (2048, 2048)]
SMALL_CHART = [(24, 32)]
SHRINKAGE = 1e-2


def optimizer_step(height: int, width: int, precision: torch.dtype):
    """A step of the optimiser, and what the operator and the map of colours do in it."""
    content, style = torch.rand(2, 1, 3, height, width, device=DEVICE)
    mask = torch.ones(1, height, width, device=DEVICE)
    objective = StyleObjective().to(DEVICE)
    laplacian, nearest = GuidedFilter().laplacian(content), NearestColourMap(content)
    x = content.clone().requires_grad_(True)
    with autocast(precision):
        targets = objective.targets(content, style, mask, mask)

    def step():
        with autocast(precision):
            loss = objective(laplacian.guided_filter(nearest(x)), targets).total
        torch.autograd.grad(loss, x)

    def operator():
        y = laplacian.guided_filter(x)
        torch.autograd.grad(y.sum() + targets.laplacian.matting_loss(y).mean(), x)

    def colour_map():
        torch.autograd.grad(nearest(x).sum(), x)

    return step, operator, colour_map


def training_step(batch: int, size: int, precision: torch.dtype):
    """A training step, and what the operator and the map of colours do in it, for new photos."""
    photo = torch.rand(batch, 3, size, size, device=DEVICE)
    with autocast(precision):
        setup = one_style(torch.rand(1, 3, size, size, device=DEVICE))
    net, losses, guided_filter = setup.net, setup.losses, setup.guided_filter
    network = StyleNetwork(net, guided_filter)
    optimizer = torch.optim.Adam(net.parameters())

    def step():
        optimizer.zero_grad()
        with autocast(precision):
            example = losses.example(photo)
            raw = net(*example.inputs)
        result = network.filtered(raw, photo, example.base)
        with autocast(precision):
            total = losses(example, result).total
        total.backward()
        optimizer.step()

    x = photo.clone().requires_grad_(True)

    def operator():
        CURVES.laplacian(photo).coefficients(photo)  # of the colour transfer that is the base
        y = guided_filter.laplacian(photo).guided_filter(x)
        loss = losses.objective.laplacian(photo).matting_loss(y).mean()
        torch.autograd.grad(y.sum() + loss, x)

    def colour_map():
        torch.autograd.grad(NearestColourMap(photo)(x).sum(), x)

    return step, operator, colour_map


def autocast(precision: torch.dtype):
    return torch.autocast(DEVICE, torch.bfloat16, enabled=precision == torch.bfloat16)


def share_row(name: str, precision: torch.dtype, step, *parts) -> list[str]:
    """Milliseconds of a step and of its kernels; those of each part's kernels, and their share."""
    wall = call_seconds([step], seconds=3, most=15)
    kernels = kernel_seconds(step)
    row = [name, str(precision).removeprefix("torch.")]
    row += [f"{1000 * wall:.2f}", f"{1000 * kernels:.2f}"]
    for part in parts:
        part()  # compiles
        seconds = kernel_seconds(part)
        row += [f"{1000 * seconds:.3f}", f"{100 * seconds / kernels:.1f} %"]
    return row


def roots_row(batch: int, channels: int) -> list[object]:
    """Roots of covariances of features, by products and by eigenvalues."""
    pixels = torch.randn(batch, 4 * channels, channels, device=DEVICE, dtype=torch.float64)
    scale = torch.logspace(0, -3, channels, device=DEVICE, dtype=torch.float64)
    found = moments(pixels * scale)
    covariance = shrunk(found.covariance, SHRINKAGE)
    ours = call_seconds([lambda: root(found, SHRINKAGE)], most=5)
    peer = call_seconds([lambda: power(covariance, 0.5)], most=5)
    roots = root(found, SHRINKAGE), power(covariance, 0.5)
    return [f"{batch} x {channels}", *beside(ours, peer, *roots)]


def colour_map_row(batch: int, size: int) -> list[object]:
    """The nearest map of the colours of new photos, as on this device and as on the CPU."""
    photo, image = torch.rand(2, batch, 3, size, size, device=DEVICE)
    ours = call_seconds([lambda: NearestColourMap(photo)(image)], most=5)
    peer = call_seconds([lambda: NearestColourMap(photo.cpu())(image.cpu()).to(DEVICE)], most=5)
    found, expected = NearestColourMap(photo)(image), NearestColourMap(photo.cpu())(image.cpu())
    return [f"{batch} x {size} x {size}", *beside(ours, peer, found, expected.to(DEVICE))]


def beside(ours: float, peer: float, found: torch.Tensor, expected: torch.Tensor) -> list[str]:
    difference = (torch.dist(found, expected) / expected.norm()).item()
    return [f"{1000 * ours:.2f}", f"{1000 * peer:.2f}", f"{peer / ours:.1f}", f"{difference:.1e}"]


def measure(findings: Findings, options) -> None:
    height, width, batch, crop = (32, 48, 2, 64) if options.small else (603, 904, 16, 256)
    header = ["step", "precision", "step, ms", "kernels, ms", "operator's, ms", "share"]
    header += ["colour map's, ms", "share"]
    add = findings.table("Share of the operator and of the map of colours in a step", header)
    for precision in (torch.float32, torch.bfloat16):
        steps = optimizer_step(height, width, precision)
        add(*share_row(f"optimiser, {width} x {height}", precision, *steps))
        steps = training_step(batch, crop, precision)
        add(*share_row(f"training, {batch} x {crop} x {crop}", precision, *steps))
    add = findings.table("L p, r = 1, three channels", PEER_HEADER)
    for height, width in SMALL_CHART if options.small else CHART:
        for row in peer_rows(height, width):
            add(*row)
    header = ["batch x channels", "here, ms", "by eigenvalues, ms", "times ours", "difference"]
    add = findings.table("Roots of covariances", header)
    for channels in (64,) if options.small else (64, 128, 256, 512):
        add(*roots_row(batch, channels))
    header = ["photos", "here, ms", "by the CPU's way, ms", "times ours", "difference"]
    add = findings.table("Map of colours of new photos", header)
    add(*colour_map_row(batch, crop))


def main() -> None:
    report(measure, parser(__doc__).parse_args())


if __name__ == "__main__":
    main()
