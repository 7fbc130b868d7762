"""What a network of any style knows of a style, and its file."""

import os

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photostyle.data.paths import atomic_file, is_file
from photostyle.feedforward.universal_net import LAYERS, StyleStatistics
from photostyle.ops import ArgumentError
from photostyle.ops.transport import Moments

FORMAT = "photostyle style 1"
SUFFIX = ".safetensors"
SHAPES = {
    "colours.mean": (3,),
    "colours.covariance": (3, 3),
    "relu1_1.mean": (64,),
    "relu1_1.root": (64, 64),
    "relu2_1.mean": (128,),
    "relu2_1.root": (128, 128),
}


def save_style(statistics: StyleStatistics, path: str | os.PathLike) -> None:
    """Write the statistics of one style photo, see `UniversalNet.statistics`.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {"colours.mean": statistics.colours.mean}
    tensors["colours.covariance"] = statistics.colours.covariance
    for layer, (mean, root, _) in statistics.features.items():
        tensors |= {f"{layer}.mean": mean, f"{layer}.root": root}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as file:
        file.write(save(tensors, {"format": FORMAT}))


def load_style(path: str | os.PathLike, device: str | torch.device = "cpu") -> StyleStatistics:
    """Read what `save_style` wrote, onto a device; no code from the file is run.

    Raises:
        ArgumentError: no such file, and a file that is none of these: of another kind or version,
            truncated or damaged.
    """
    if not is_file(path, "style"):
        raise ArgumentError("style", path, "no such file")
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format", "another program's")
            if found != FORMAT:
                raise ArgumentError("style", path, f"not '{FORMAT}', but {found}; write it again")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArgumentError("style", path, f"no file of statistics ({error})") from error
    except OSError as error:
        expected = f"cannot be read: {error.strerror or error}"
        raise ArgumentError("style", path, expected) from error
    for name, shape in SHAPES.items():
        if not _fits(tensors.get(name), shape):
            raise ArgumentError("style", path, f"damaged: nothing usable as {name}")
    read = {name: tensors[name].double().to(device) for name in SHAPES}
    return StyleStatistics(
        Moments(read["colours.mean"], read["colours.covariance"]),
        {layer: (read[f"{layer}.mean"], read[f"{layer}.root"], None) for layer in LAYERS},
    )


def _fits(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    return tensor is not None and tensor.shape == (1, 1, *shape) and bool(tensor.isfinite().all())
