"""The optimiser and one pass on a GPU: seconds, peak memory, figures, and where the time goes.

python -m benchmarks.gpu_optimiser

With the settings of conf/stylize.yaml, from tensor to tensor. The figures are those of
`photostyle-evaluate`, of the result at its working size. Photos smaller than that are enlarged.
"""

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.common import median_seconds
from benchmarks.findings import Findings, parser, report
from benchmarks.gpu_kernels import kernels
from benchmarks.gpu_operator import DEVICE, free_memory
from benchmarks.photos import EXAMPLES, read_photo
from photostyle.data.masks import WHOLE_SHARE, Masks, automatic_masks
from photostyle.data.photo_pair import PhotoPair
from photostyle.feedforward import StyleNetwork, load_network
from photostyle.ops import GuidedFilter, StyleObjective
from photostyle.ops.devices import convolution_dtype
from photostyle.ops.metrics import StyleDistance, colour_map_residual, edge_ssim
from photostyle.optimize import Descent, OptimizedImage
from photostyle.optimize.stylize_photo import optimize_pair

PAIRS = (("picos_de_europa", "sunset"), ("stream", "autumn"))
SIZES = (512, 1024, 2048)
ONE_PASS = {"1080p": (1080, 1920), "4K": (2160, 3840), "24 megapixels": (4000, 6000)}
NETWORKS = ("universal", "dusk")
KERNELS = 15
SECONDS = 6.0
"""For further calls, of which there are three at most and one at least."""


def load_pair(content: str, style: str, size: int) -> PhotoPair:
    """Two of the examples as `data.Files` loads them."""
    photos = [read_photo(EXAMPLES / f"{name}.jpg", least=size) for name in (content, style)]
    tensors = [photo.tensor(size) for photo in photos]
    masks = automatic_masks(*tensors).with_whole(WHOLE_SHARE["automatic"])
    return PhotoPair(photos[0], *tensors, masks)


def optimiser(pair: PhotoPair, optimizer: Descent) -> Callable[[], OptimizedImage]:
    """A call of the optimiser, which returns when the result is there in full."""
    settings = {"objective": StyleObjective(), "guided_filter": GuidedFilter()}

    def call() -> OptimizedImage:
        result = optimize_pair(pair, device=DEVICE, optimizer=optimizer, **settings)
        synchronize()
        return result

    return call


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def measured(call: Callable[[], OptimizedImage]) -> tuple[OptimizedImage, list[float], float]:
    """What a call returns, the seconds of the first and of further ones, and GiB at most."""
    reset_peak()
    seconds = []
    while len(seconds) < 2 or (len(seconds) < 4 and sum(seconds[1:]) < SECONDS):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, seconds, peak_gibibytes()


def reset_peak() -> None:
    if DEVICE == "cuda":
        free_memory()
        torch.cuda.reset_peak_memory_stats()


def peak_gibibytes() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0


def figures(pair: PhotoPair, image: torch.Tensor) -> list[str]:
    """Style distance, edge SSIM and residual of a result, both photos one region each."""
    masks = Masks.whole(pair.content.shape[2:], pair.style.shape[2:])
    on_device = (x.to(DEVICE) for x in (image, pair.style, masks.content, masks.style))
    distance = StyleDistance().to(DEVICE)(*on_device)
    image = image.cpu()
    residual = colour_map_residual(pair.content, image, masks.content)
    return [f"{distance:.3f}", f"{edge_ssim(pair.content, image):.3f}", f"{residual:.1f}"]


@torch.inference_mode()
def pass_row(name: str, size: str, height: int, width: int) -> list[str]:
    """Seconds and peak memory of one pass of a network."""
    network = network_with_style(name)
    photo = read_photo(EXAMPLES / "stream.jpg").tensor().to(DEVICE)
    photo = torch.nn.functional.interpolate(photo, (height, width), mode="bilinear")
    reset_peak()
    try:
        seconds = f"{median_seconds(lambda: network(photo), 2.0, 10):.3f}"
    except torch.cuda.OutOfMemoryError:
        seconds = "does not fit"
    return [name, f"{size}, {width} x {height}", seconds, f"{peak_gibibytes():.2f}"]


def network_with_style(name: str) -> StyleNetwork:
    network = load_network(name, DEVICE, convolution_dtype("auto", torch.device(DEVICE)))
    if not network.is_universal:
        return network
    style = read_photo(EXAMPLES / "dusk.jpg").tensor(512).to(DEVICE)
    return network.with_style(network.net.statistics(style))


def profile_tables(findings: Findings, call: Callable[[], object]) -> None:
    """Where the time of a call goes: the longest kernels, and how long the GPU waits."""
    call()
    start = time.perf_counter()
    call()
    wall = time.perf_counter() - start
    runs = kernels(call)
    total = sum(map(sum, runs.values()))
    add = findings.table("Kernels of the optimiser", ["kernel", "runs", "ms", "share"])
    longest = sorted(runs.items(), key=lambda item: sum(item[1]), reverse=True)
    for name, seconds in longest[:KERNELS]:
        own = sum(seconds)
        shown = name.replace("|", "¦")[:110]
        add(f"`{shown}`", len(seconds), f"{1000 * own:.1f}", f"{100 * own / total:.1f} %")
    header = ["wall, s", "all kernels, s", "the GPU is idle", "kernels"]
    add = findings.table("Wall time without the profiler", header)
    count = sum(map(len, runs.values()))
    add(f"{wall:.3f}", f"{total:.3f}", f"{100 * max(0, 1 - total / wall):.0f} %", count)


def measure(findings: Findings, options) -> None:
    sizes = (64,) if options.small else SIZES
    optimizer = Descent(steps=(2, 2)) if options.small else Descent()
    passes = {"small": (48, 64)} if options.small else ONE_PASS
    header = ["photos", "long side", "first call, s", "further calls, s", "peak, GiB"]
    header += ["style distance", "edge SSIM", "residual, ΔE*ab"]
    add = findings.table("Optimiser", header)
    add_pass = findings.table("One pass", ["network", "size", "s", "peak, GiB"])
    for size in sizes:
        pairs = {f"{content}, {style}": load_pair(content, style, size) for content, style in PAIRS}
        for name, pair in pairs.items():
            result, seconds, peak = measured(optimiser(pair, optimizer))
            median = statistics.median(seconds[1:])
            numbers = f"{seconds[0]:.2f}", f"{median:.2f}", f"{peak:.2f}"
            add(name, size, *numbers, *figures(pair, result.image))
        if size == sizes[0]:
            for network in NETWORKS:
                for label, shape in passes.items():
                    add_pass(*pass_row(network, label, *shape))
            profile_tables(findings, optimiser(pair, optimizer))


def main() -> None:
    report(measure, parser(__doc__).parse_args())


if __name__ == "__main__":
    main()
