"""What a network of any style knows of a style, and its file."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photostyle.data.paths import atomic_file
from photostyle.feedforward.universal_net import LAYERS, StyleStatistics
from photostyle.ops import ArgumentError
from photostyle.ops.style_losses import COLOURS

FORMAT = "photostyle style 1"
SUFFIX = ".safetensors"


def save_style(statistics: StyleStatistics, path: str | os.PathLike) -> None:
    """Write the statistics of one style photo, see `UniversalNet.statistics`.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {}
    for layer, (mean, root, _) in statistics.items():
        tensors |= {f"{layer}.mean": mean.contiguous(), f"{layer}.root": root.contiguous()}
    with atomic_file(path) as file:
        file.write(save(tensors, {"format": FORMAT}))


def load_style(path: str | os.PathLike) -> StyleStatistics:
    """Read what `save_style` wrote; no code from the file is run.

    Raises:
        ArgumentError: no such file, and a file that is none of these: of another kind or version,
            truncated or damaged.
    """
    if not Path(path).is_file():
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
    statistics = {}
    for layer, channels in zip((COLOURS, *LAYERS), (3, 64, 128), strict=True):
        mean, root = (tensors.get(f"{layer}.{name}") for name in ("mean", "root"))
        if not (_fits(mean, (channels,)) and _fits(root, (channels, channels))):
            raise ArgumentError("style", path, f"damaged: nothing usable of {layer}")
        statistics[layer] = (mean.double(), root.double(), None)
    return statistics


def _fits(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    return tensor is not None and tensor.shape == (1, 1, *shape) and bool(tensor.isfinite().all())
