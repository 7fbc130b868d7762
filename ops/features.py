"""VGG encoders with named layers: conv1_1, relu1_1, ..., pool1, conv2_1, ..."""

import os
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Self
from urllib.error import URLError

import torch
from safetensors.torch import load
from torch import Tensor, nn

from photostyle.ops.errors import ArgumentError, check_choice

EMBEDDED_WEIGHTS = Path(__file__).parent / "weights" / "vgg16.safetensors"
# Convolutions per block, for each depth of Simonyan and Zisserman (2014), table 1.
BLOCKS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
MODELS = (*BLOCKS, *(f"{name}_bn" for name in BLOCKS))
PADDING_MODES = ("replicate", "zeros")
BLOCK_CHANNELS = (64, 128, 256, 512, 512)


class VGGFeatures(nn.Module):
    """Activations of a frozen VGG at named layers.

    Args:
        layers: names such as ``"relu4_2"``, ``"conv1_1"`` or ``"pool3"``. The network is built
            up to the deepest of them.
        model: ``"vgg16"`` (embedded: the original Caffe weights, up to conv5_1) or one of
            torchvision's, ``"vgg11"`` to ``"vgg19"`` and their ``"_bn"`` variants.
        weights: ``None`` for the embedded weights (vgg16) or torchvision's download (the others),
            or a local file: ``.safetensors``, or torchvision's ``.pth``, which is read without
            running code from it.
        padding_mode: of the convolutions: ``"replicate"``, or the ``"zeros"`` of the training. To
            every layer these are an edge around the photo, and what is optimised by such features
            takes on colours of its own along its borders.

    Raises:
        ArgumentError: for an unknown model, layer or padding mode, and for weights that are
            missing, cannot be read, belong to another network, or cannot be downloaded.
    """

    def __init__(
        self,
        layers: tuple[str, ...] | list[str],
        model: str = "vgg16",
        weights: str | Path | None = None,
        padding_mode: str = "replicate",
    ):
        super().__init__()
        check_choice("model", model, MODELS)
        check_choice("padding_mode", padding_mode, PADDING_MODES)
        modules = _modules(model, padding_mode)
        for layer in layers:
            if layer not in modules:
                raise ArgumentError(
                    "layers", layer, f"unknown in {model}; choose among {', '.join(modules)}"
                )
        state, caffe = _load_weights(model, weights)
        self.layers = tuple(layers)
        names = list(modules)
        depth = max((names.index(layer) for layer in layers), default=-1)
        self.network = nn.ModuleDict({name: modules[name] for name in names[: depth + 1]})
        for before, name in pairwise(self.network):
            if name.startswith("relu"):
                modules[name].inplace = before not in layers
        self._fill(state, model, weights)
        # Both conventions take RGB in [0, 1]: Caffe's BGR order lives in the first convolution.
        mean = (123.68, 116.779, 103.939) if caffe else (0.485, 0.456, 0.406)
        std = (1.0, 1.0, 1.0) if caffe else (0.229, 0.224, 0.225)
        scale = 255.0 if caffe else 1.0
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) / scale, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) / scale, persistent=False)
        self.requires_grad_(False).eval()
        # Faster than the default layout on a CPU, and what tensor cores want.
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "VGGFeatures":
        """Nothing: a network that trains with these losses leaves the batch statistics alone."""
        return super().train(False)

    def convolve_in(self, dtype: torch.dtype) -> Self:
        """Run the network in another precision, which its activations then have."""
        self.network.to(dtype)
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Activations by layer name, each (B, C, H', W').

        Args:
            image: (B, 3, H, W), RGB in [0, 1]; normalised here.
        """
        x = (image - self.mean) / self.std
        dtype = next((weights.dtype for weights in self.network.parameters()), x.dtype)
        x = x.to(dtype, memory_format=torch.channels_last)
        activations = {}
        for name, module in self.network.items():
            x = module(x)
            if name in self.layers:
                activations[name] = x
        return activations

    def _fill(self, state: dict[str, Tensor], model: str, weights) -> None:
        try:
            for name, module in self.network.items():
                if name.startswith("conv"):
                    module.load_state_dict(
                        {
                            key.removeprefix(f"{name}."): value.float()
                            for key, value in state.items()
                            if key.startswith(f"{name}.")
                        }
                    )
        except RuntimeError:
            expected = f"these are no weights of {model} up to {list(self.network)[-1]}"
            if model == "vgg16" and weights is None:
                expected = "the embedded weights end at relu5_1; give a file with all layers"
            raise ArgumentError("weights", weights, expected) from None


class _Convolution(nn.Conv2d):
    """Not initialised, which takes longer than reading its weights."""

    def reset_parameters(self) -> None:
        pass


def _modules(model: str, padding_mode: str = PADDING_MODES[0]) -> dict[str, nn.Module]:
    """All layers of the model's convolutional part by name, in order."""
    batch_norm = model.endswith("_bn")
    modules: dict[str, nn.Module] = {}
    channels = 3
    for block, (depth, width) in enumerate(
        zip(BLOCKS[model.removesuffix("_bn")], BLOCK_CHANNELS, strict=True), start=1
    ):
        for i in range(1, depth + 1):
            conv = _Convolution(channels, width, 3, padding=1, padding_mode=padding_mode)
            modules[f"conv{block}_{i}"] = (
                nn.Sequential(conv, nn.BatchNorm2d(width)) if batch_norm else conv
            )
            modules[f"relu{block}_{i}"] = nn.ReLU()
            channels = width
        modules[f"pool{block}"] = nn.MaxPool2d(2)
    return modules


def _load_weights(model: str, weights: str | Path | None) -> tuple[dict[str, Tensor], bool]:
    """Parameters keyed by our layer names, and whether they follow Caffe's input convention."""
    if weights is None and model == "vgg16":
        weights = EMBEDDED_WEIGHTS
    state = _download(model) if weights is None else _read(Path(weights))
    if "conv1_1.weight" in state:
        state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
        return state, True
    return _from_torchvision(state, model), False


def _from_torchvision(state: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """Rename torchvision's ``features.N.*`` to our layer names."""
    renamed = {}
    index = 0
    for name, module in _modules(model).items():
        parts = module if isinstance(module, nn.Sequential) else [module]
        for part_index, part in enumerate(parts):
            part_name = f"{name}.{part_index}" if isinstance(module, nn.Sequential) else name
            for key in part.state_dict():
                if (source := f"features.{index}.{key}") in state:
                    renamed[f"{part_name}.{key}"] = state[source]
            index += 1
    return renamed


def _read(path: Path) -> dict[str, Tensor]:
    if not os.path.isfile(path):  # unlike Path.is_file it never raises
        raise ArgumentError("weights", path, "no such file")
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())  # not mapped: the file may be cut short
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # Also for anything that is more than tensors.
        raise ArgumentError("weights", path, "no weights file") from None
    except Exception as error:  # what damaged bytes make the readers raise has no end
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ArgumentError("weights", path, f"no readable weights file ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArgumentError("weights", path, "no weights file: give a dict of tensors")
    return state


def _download(model: str) -> dict[str, Tensor]:
    # Not at the top: it takes longer to import than all else, and the embedded weights need none.
    import torchvision

    entry = torchvision.models.get_model_weights(model).DEFAULT
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ArgumentError(
            "model",
            model,
            f"its weights could not be downloaded ({error}); fetch {entry.url} on another machine "
            "and give it as weights=FILE, or use the embedded vgg16",
        ) from None
