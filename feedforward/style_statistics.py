"""What a network of any style knows of a style, and its file."""

import os

import torch
from safetensors.torch import save

from photostyle.data.paths import atomic_file
from photostyle.data.reading import refused
from photostyle.feedforward.tensor_file import check_values, read_tensors
from photostyle.feedforward.universal_net import LAYERS, StyleStatistics
from photostyle.ops import ArgumentError
from photostyle.ops.transport import Moments

FORMAT = "photostyle style 2"
SUFFIX = ".safetensors"
LARGEST_FEATURE = 1e5
TENSORS = {
    "colours.mean": ((3,), 1.0),
    "colours.covariance": ((3, 3), 1.0),
    "relu1_1.mean": ((64,), LARGEST_FEATURE),
    "relu1_1.root": ((64, 64), LARGEST_FEATURE),
    "relu2_1.mean": ((128,), LARGEST_FEATURE),
    "relu2_1.root": ((128, 128), LARGEST_FEATURE),
}
"""Their shapes, and the largest size of a number."""


def save_style(
    statistics: StyleStatistics, path: str | os.PathLike, *, overwrite: bool = True
) -> None:
    """Write the statistics of one style photo, see `UniversalNet.statistics`.

    Raises:
        OSError: the file cannot be written, or is there and ``overwrite`` is false.
    """
    tensors = {"colours.mean": statistics.colours.mean}
    tensors["colours.covariance"] = statistics.colours.covariance
    for layer, (mean, root, _) in statistics.features.items():
        tensors |= {f"{layer}.mean": mean, f"{layer}.root": root}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(save(tensors, {"format": FORMAT}))


def load_style(path: str | os.PathLike, device: str | torch.device = "cpu") -> StyleStatistics:
    """Read what `save_style` wrote, onto a device; no code from the file is run.

    Raises:
        ArgumentError: no such file, and a file that is none of these: of another kind or version,
            truncated or damaged.
    """
    header, tensors = read_tensors(path, "style", "file of statistics")
    found = header.get("format", "another program's")
    if found != FORMAT:
        found = " ".join(found.split())[:40]
        raise ArgumentError("style", path, f"not '{FORMAT}', but {found}; write it again")
    for name, (shape, most) in TENSORS.items():
        with refused("style", path, f"damaged: nothing usable as {name} ({{}})"):
            if tensors[name].shape != (1, 1, *shape):
                raise ValueError(f"its shape is {tuple(tensors[name].shape)}")
            check_values(name, tensors[name], most)
    read = {name: tensors[name].double().to(device) for name in TENSORS}
    return StyleStatistics(
        Moments(read["colours.mean"], read["colours.covariance"]),
        {layer: (read[f"{layer}.mean"], read[f"{layer}.root"], None) for layer in LAYERS},
    )
