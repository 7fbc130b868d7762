"""Speed of a network: one pass, a folder of photos, and a large photo from file to file.

python -m benchmarks.feedforward_speed [--network dusk] [--photos 100] [--precision auto]
    [--side 1280] [--device cpu]

In the same run: one pass (network, guided filter, coefficients) and
the optimiser with default settings; ``stylize_photos`` from files to files and the bare network on
the same photos, in memory and at the size that it sees there, with all of PyTorch's threads.
A network of any style is given a photo, and one new style with regions is timed, too.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from benchmarks.common import machine, median_seconds, table
from photostyle.data import PhotoOptions, load_image
from photostyle.feedforward import StyleNetwork, StyleSource, load_network
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops.devices import PRECISIONS, convolution_dtype, keep_freed_memory

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PHOTO = EXAMPLES / "pavilion.jpg"
STYLE = EXAMPLES / "dusk.jpg"
SIZES = {"cpu": ["512x342"], "cuda": ["512x342", "1920x1080", "3840x2160"]}


@torch.inference_mode()
def one_pass(network: StyleNetwork, size: str, device: str) -> tuple[float, float]:
    """Median seconds of the network alone, and with guided filter and coefficients."""
    photo = load_image(PHOTO).to(device)
    width, height = map(int, size.split("x"))
    photo = torch.nn.functional.interpolate(photo, (height, width), mode="bilinear")
    alone = median_seconds(lambda: bare(network, photo))
    return alone, median_seconds(lambda: network.coefficients(photo))


def bare(network: StyleNetwork, photo: torch.Tensor) -> torch.Tensor:
    """Without the guided filter."""
    return network.net(*network.start(photo).inputs)


def new_style_seconds(file: str, folder: Path, settings: dict) -> float:
    """Median seconds of one photo in a new style, regions and files included."""
    resized(512, folder / "content.jpg")
    options = PhotoOptions(size=512, overwrite=True)
    source, output = StyleSource(STYLE), folder / "output.jpg"

    def run() -> None:
        stylize_photos(
            folder / "content.jpg", file, output, style=source, options=options, **settings
        )

    return median_seconds(run)


def optimiser_seconds(folder: Path, device: str) -> float:
    """Seconds of the optimiser for the same photo, without starting the program."""
    output = folder / "optimised.jpg"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"content={PHOTO}", f"style={STYLE}", f"output={output}", f"device={device}"]
        return instantiate(compose("stylize", overrides).method).seconds


def resized(size: int, target: Path, number: int = 0) -> None:
    """An example with a long side of ``size`` pixels."""
    examples = sorted(EXAMPLES.glob("*.jpg"))
    image = Image.open(examples[number % len(examples)])
    scale = size / max(image.size)
    smaller = (round(image.width * scale), round(image.height * scale))
    image.resize(smaller, Image.Resampling.BICUBIC).save(target, quality=92)


@torch.inference_mode()
def bare_rate(network: StyleNetwork, guides: list[torch.Tensor]) -> float:
    """Photos per second of the network alone, from tensor to tensor."""

    def all_guides() -> None:
        for guide in guides:
            bare(network, guide)

    return len(guides) / median_seconds(all_guides)


def folder_rate(file: str, photos: Path, output: Path, **settings) -> float:
    """Photos per second from files to files."""
    report = stylize_photos(photos, file, output, **settings)
    assert not report.failures
    return report.done / report.seconds


def large_photo(
    file: str, style: list[str], folder: Path, device: str, precision: str
) -> tuple[float, int]:
    """Seconds and peak resident bytes of the whole command for 24 megapixels."""
    resized(6000, folder / "large.jpg")
    command = [
        sys.executable, str(ROOT / "stylize.py"), "method=feedforward", f"network={file}",
        f"content={folder / 'large.jpg'}", f"output={folder / 'output.jpg'}", f"device={device}",
        f"precision={precision}", *style,
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("stylize.py failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="dusk")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--side", type=int, default=1280, help="pixels of the photos' long side")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = arguments.device
    logging.basicConfig(level=logging.WARNING)
    keep_freed_memory()  # as the entry points do
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = arguments.network
        dtype = convolution_dtype(arguments.precision, torch.device(device))
        precision = str(dtype).removeprefix("torch.")
        # First: a process inherits the peak of the one that starts it.
        universal = load_network(file).is_universal
        words = [f"style={STYLE}"] if universal else []
        large, peak = large_photo(file, words, folder, device, precision)
        network = load_network(file, device, dtype)
        if universal:
            network = network.with_style(network.net.statistics(load_image(STYLE, 512).to(device)))
        (folder / "photos").mkdir()
        for number in range(arguments.photos):
            resized(arguments.side, folder / "photos" / f"{number:03}.jpg", number)

        passes = []
        for size in SIZES[torch.device(device).type]:
            alone, whole = one_pass(network, size, device)
            share = f"{100 * (1 - alone / whole):.0f} %"
            passes.append([size, f"{1000 * alone:.1f}", f"{1000 * whole:.1f}", share])
            print(*passes[-1], sep="\t", file=sys.stderr, flush=True)
        seconds = one_pass(network, "512x342", device)[1]
        slow = optimiser_seconds(folder, device)

        # Both warm; the bare network before and after, so that moods of the machine meet both.
        settings = {"device": device, "precision": precision}
        new_style = new_style_seconds(file, folder, settings) if universal else None
        settings["style"] = StyleSource(STYLE if universal else None)
        examples = sorted((folder / "photos").iterdir())[: len(list(EXAMPLES.glob("*.jpg")))]
        folders = []
        for size in sorted({512, arguments.side}):
            settings["options"] = PhotoOptions(size=size, overwrite=True)
            guides = [load_image(photo, size).to(device) for photo in examples]
            folder_rate(file, folder / "photos" / "00*.jpg", folder / "results", **settings)
            before = bare_rate(network, guides)
            rate = folder_rate(file, folder / "photos", folder / "results", **settings)
            bare = (before + bare_rate(network, guides)) / 2
            folders.append([size, f"{rate:.2f}", f"{bare:.2f}", f"{100 * rate / bare:.0f} %"])
            print(*folders[-1], sep="\t", file=sys.stderr, flush=True)
    print(f"{machine()}; device {device}, {precision}\n")
    print(table(["pixels", "network, ms", "one pass, ms", "guided filter"], passes))
    print(f"\noptimiser: {slow:.1f} s, {slow / seconds:.0f} times as long as one pass\n")
    if new_style is not None:
        print(f"one photo in a new style, regions and files included: {new_style:.2f} s\n")
    print(f"{arguments.photos} photos of {arguments.side} pixels\n")
    print(table(["size", "files to files, per s", "bare network, per s", "share"], folders))
    print(f"\n24 megapixels, whole command: {large:.1f} s, {peak / 2**30:.2f} GiB at most")


if __name__ == "__main__":
    main()
