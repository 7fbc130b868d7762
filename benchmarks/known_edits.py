"""Styles that are edits of the photo itself, where it is known what the result should be.

python -m benchmarks.known_edits PHOTOS [--size 384]

For each edit the mean ΔE*ab, over all photos, between the edited one and what is made of a photo
with the edited one as its style; for the untouched photo that is what the edit does.
"""

import argparse
from pathlib import Path

import torch
from skimage.color import deltaE_cie76, rgb2lab
from torch import Tensor

from benchmarks.common import machine, table
from photostyle import colour_transfer, load_network
from photostyle.data import load_image
from photostyle.data.paths import find_photos
from photostyle.ops.affine import apply_affine
from photostyle.ops.transport import EXACT

LUMA = (0.2126, 0.7152, 0.0722)


def exposed(*factors: float):
    """The light of each channel multiplied."""
    return lambda photo: _channels(factors) ** (1 / 2.2) * photo


def saturated(factor: float):
    return lambda photo: _grey(photo).lerp(photo, factor)


def contrasted(strength: float):
    """Slopes of 1 + strength at black and white, of 1 - strength/2 at mid-grey."""
    return lambda photo: photo + strength * photo * (1 - photo) * (1 - 2 * photo)


EDITS = {
    "nothing": lambda photo: photo,
    "half the light": exposed(0.5, 0.5, 0.5),
    "warm": exposed(1.0, 0.75, 0.45),
    "cool": exposed(0.55, 0.75, 1.0),
    "less saturation": saturated(0.5),
    "black and white": saturated(0.0),
    "sepia": lambda photo: _channels((1.0, 0.9, 0.72)) * _grey(photo),
    "more contrast": contrasted(-0.5),
    "less contrast": contrasted(0.5),
    "faded": lambda photo: 0.1 + 0.8 * photo,
    "split tones": lambda photo: photo.lerp(_channels((0.0, 0.15, 0.4)).lerp(
        _channels((1.0, 0.85, 0.6)), _grey(photo)), 0.25),
}  # fmt: skip
"""Of photos (1, 3, H, W), values in [0, 1], which they do not leave."""


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def _grey(photo: Tensor) -> Tensor:
    return (_channels(LUMA) * photo).sum(1, keepdim=True)


def closed_form(photo: Tensor, style: Tensor, **options) -> Tensor:
    return apply_affine(colour_transfer(photo, style, **options), photo)


def distance(result: Tensor, wanted: Tensor) -> float:
    """Mean ΔE*ab."""
    lab = (rgb2lab(image.clamp(0, 1)[0].permute(1, 2, 0).numpy()) for image in (result, wanted))
    return float(deltaE_cie76(*lab).mean())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", type=int, default=384)
    arguments = parser.parse_args()
    photos = [
        load_image(arguments.photos / name, arguments.size)
        for name in find_photos(arguments.photos)
    ]
    network = load_network("universal")
    methods = {
        "untouched": lambda photo, style: photo,
        "exact map of pixel values": lambda *pair: closed_form(*pair, gains=EXACT, curvature=0),
        "closed form": closed_form,
        "one pass": lambda photo, style: network.with_style(network.net.statistics(style))(photo),
    }
    rows = []
    for name, edit in EDITS.items():
        means = [
            sum(distance(method(photo, edit(photo)), edit(photo)) for photo in photos) / len(photos)
            for method in methods.values()
        ]
        rows.append([name, *(f"{mean:.1f}" for mean in means)])
    print(f"{machine()}\n{len(photos)} photos\n\n{table(['edit', *methods], rows)}")


if __name__ == "__main__":
    main()
