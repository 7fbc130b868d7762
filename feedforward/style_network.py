"""A trained network and its file: one safetensors file with everything that applying it needs."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photostyle.data.paths import atomic_file, is_file
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import StyleStatistics, Transported, UniversalNet
from photostyle.ops import ArgumentError, GuidedFilter
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_map import nearest_colour_map
from photostyle.ops.colour_transfer import restore_contrast
from photostyle.ops.gram import pixel_weights
from photostyle.ops.transport import EXACT

SHIPPED = Path(__file__).parent / "weights"
FORMAT = "photostyle network 2"
EARLIER = "photostyle network 1"
EARLIER_KEYS = {"projection": "guided_filter", "quality": "metrics"}
UNIVERSAL = "universal"
"""In a file: the kind of a network of any style."""


@dataclass(frozen=True, eq=False)
class StyleNetwork:
    """A network, the guided filter that makes its output a photo, and where both come from.

    Attributes:
        net: what was trained.
        guided_filter: ``None`` for a painterly network.
        name: of the style.
        config: the configuration it was trained with.
        metrics: means over the validation photos: ``style_distance``, ``edge_ssim``, ...; may be
            empty.
        style: of a network of any style, see `with_style`.
        masks: of the photo it is called with, (M, H, W), values in [0, 1], whose sum is the pixel's
            weight: 1, less where the photo is transparent; ``None``: one, everywhere.
    """

    net: TransformNet | UniversalNet
    guided_filter: GuidedFilter | None
    name: str = ""
    config: dict = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    style: StyleStatistics | None = None
    masks: Tensor | None = None

    @property
    def is_universal(self) -> bool:
        """Whether it takes any style and must be given one, see `with_style`."""
        return isinstance(self.net, UniversalNet)

    def with_style(self, style: StyleStatistics, masks: Tensor | None = None) -> Self:
        """A network of any style, given one.

        Args:
            style: what `UniversalNet.statistics` or `feedforward.load_style` returned.
            masks: of the photo that it is then called with, one for each of the style's, see
                there.
        """
        return replace(self, style=style, masks=masks)

    @property
    def _weights(self) -> Tensor | None:
        return self.masks if self.masks is None else pixel_weights(self.masks)

    def __call__(self, photo: Tensor) -> Tensor:
        """Photos (B, 3, H, W), float32 in [0, 1], in the style; (B, 3, H, W), not clamped.

        Raises:
            ArgumentError: the network takes any style and has not been given one.
        """
        if not self.is_universal:
            return self.filtered(self.net(photo, self._weights), photo)
        if self.guided_filter is None:
            return self.net(*self._transported(photo).inputs)
        return apply_affine(self.coefficients(photo), photo)

    def filtered(self, raw: Tensor, photo: Tensor, base: Tensor | None = None) -> Tensor:
        """The network's output made locally affine in the photo, (B, 3, H, W) each.

        Of a network of any style only what it adds to the base, which is so already: a guided
        filter takes fine texture away. This is what is trained; when it is applied `coefficients`
        goes on from here.
        """
        if self.guided_filter is None:
            return raw
        laplacian = self.guided_filter.laplacian(photo)
        if base is None:
            return laplacian.guided_filter(raw)
        return base + laplacian.guided_filter(raw - base)

    def coefficients(self, photo: Tensor) -> Tensor | None:
        """A and b such that the result is A·I + b, (B, 3, 4, H, W), to apply at any size.

        ``None`` without a guided filter. Of a network of any style the result has the contrast of
        its base, and what it adds to the base is a map of the photo's colours alone.

        Raises:
            ArgumentError: the network takes any style and has not been given one.
        """
        if self.guided_filter is None:
            return None
        laplacian = self.guided_filter.laplacian(photo)
        if not self.is_universal:
            return laplacian.coefficients(self.net(photo, self._weights))
        start = self._transported(photo)
        residual = laplacian.coefficients(self.net(*start.inputs) - start.base)
        restored = restore_contrast(
            start.coefficients + residual, start.coefficients, photo, self._weights
        )
        image = apply_affine(restored, photo).clamp(0, 1)
        added = nearest_colour_map(photo, image - start.base, pixel_weights=self._weights)
        return start.coefficients + laplacian.coefficients(added)

    def _transported(self, photo: Tensor) -> Transported:
        if self.style is None:
            raise ArgumentError("style", None, "required by a network of any style")
        return self.net.transported(photo, self.style, self.masks)

    @property
    def _architecture(self) -> dict:
        kind = {"kind": UNIVERSAL} if self.is_universal else {}
        return {**kind, **self.net.architecture}

    def save(self, path: str | os.PathLike) -> None:
        """Write the network: weights in float16, all else as text in the file's header.

        What `with_style` gave it is no part of it.

        Raises:
            OSError: the file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "architecture": json.dumps(self._architecture),
            "guided_filter": json.dumps(self.guided_filter and _settings(self.guided_filter)),
            "name": self.name,
            "config": json.dumps(self.config),
            "metrics": json.dumps(self.metrics),
        }
        tensors = {key: value.half().contiguous() for key, value in self.net.state_dict().items()}
        with atomic_file(path) as file:
            file.write(save(tensors, metadata))


def load_network(
    network: str | os.PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StyleNetwork:
    """Read a network, shipped or your own; no code from the file is run.

    Args:
        network: a shipped name, see `shipped_networks`, or a file that
            `StyleNetwork.save` wrote.
        device: where to put it.
        dtype: of its convolutions, see `TransformNet.convolve_in`; photos, base and
            guided_filter are in float32.

    Returns:
        The network, in evaluation mode.

    Raises:
        ArgumentError: no such file or name, and for a file that is no network: of another kind or
            project, truncated, damaged, or with weights that do not fit its own architecture.
    """
    path = _find(network)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == EARLIER:
                metadata = {EARLIER_KEYS.get(key, key): metadata[key] for key in metadata}
            elif metadata.get("format") != FORMAT:
                raise ArgumentError("network", network, "safetensors, but no network of ours")
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise ValueError("weights that are not finite")
        architecture = json.loads(metadata["architecture"])
        _check_size(architecture, state)
        # Not on the meta device, which takes a second to import.
        with torch.random.fork_rng(devices=[]):
            net = _build(architecture)
        net.load_state_dict(state, assign=True)
        guided_filter = json.loads(metadata["guided_filter"])
        net.to(device, memory_format=torch.channels_last).convolve_in(dtype)
        trained = StyleNetwork(
            net.requires_grad_(False).eval(),
            guided_filter and GuidedFilter(**guided_filter),
            metadata["name"],
            json.loads(metadata["config"]),
            json.loads(metadata["metrics"]),
        )
    except SafetensorError as error:
        raise ArgumentError("network", network, f"no network file ({error})") from error
    except OSError as error:
        expected = f"cannot be read: {error.strerror or error}"
        raise ArgumentError("network", network, expected) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ArgumentError) and error.argument == "network":
            raise
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError("network", network, f"damaged network file ({reason})") from error
    return trained


def shipped_networks() -> list[str]:
    """The names of the networks that come with the program."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def _find(network: str | os.PathLike) -> Path:
    shipped = shipped_networks()
    if str(network) in shipped:
        return SHIPPED / f"{network}.safetensors"
    if not is_file(network, "network"):
        expected = f"no such file; give a network file, or one of {', '.join(shipped)}"
        raise ArgumentError("network", network, expected)
    return Path(network)


def _check_size(architecture: dict, state: dict[str, Tensor]) -> None:
    """Before memory is taken for a network of whatever size a file names."""
    width = state["output.weight"].shape[1]
    blocks = len({key.split(".")[1] for key in state if key.startswith("transform.")})
    if (architecture.get("width", width), architecture.get("blocks", blocks)) != (width, blocks):
        raise ValueError("its weights do not fit its architecture")


def _build(architecture: dict) -> TransformNet | UniversalNet:
    kind = architecture.pop("kind", None)
    if kind == UNIVERSAL:
        return UniversalNet(**architecture)
    if kind is not None:
        raise ValueError(f"a network of an unknown kind, {kind}")
    # Older networks began at a colour transfer without limits.
    return TransformNet(**{"gains": EXACT, **architecture})


def _settings(guided_filter: GuidedFilter) -> dict:
    # Not the backend: that is the machine's matter.
    return {key: value for key, value in asdict(guided_filter).items() if key != "backend"}
