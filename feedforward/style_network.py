"""A trained network and its file: one safetensors file with everything that applying it needs."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save
from torch import Tensor

from photostyle.data.paths import atomic_file, is_file
from photostyle.data.reading import refused
from photostyle.feedforward.tensor_file import (
    Check,
    check_mapping,
    check_numbers,
    check_values,
    checked,
    header_fields,
    read_tensors,
)
from photostyle.feedforward.transform_net import BASES, Start, TransformNet
from photostyle.feedforward.universal_net import StyleStatistics, UniversalNet
from photostyle.ops import ArgumentError, GuidedFilter
from photostyle.ops.affine import apply_affine
from photostyle.ops.checks import check_mask_shape, check_photos, check_range
from photostyle.ops.colour_map import NearestColourMap, nearest_colour_map
from photostyle.ops.colour_transfer import restore_contrast
from photostyle.ops.devices import select_device
from photostyle.ops.errors import check_choice, check_flag, check_number, check_whole
from photostyle.ops.gram import pixel_weights
from photostyle.ops.tones import check_curvature
from photostyle.ops.transport import check_gains

SHIPPED = Path(__file__).parent / "weights"
FORMAT = "photostyle network 2"
UNIVERSAL = "universal"
"""In a file: the kind of a network of any style."""
LARGEST_WEIGHT = 65504.0
"""What float16 holds, in which weights are written."""


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
        colour_map: add to the base a map of the photo's colours and nothing else, see
            `ops.colour_map`; not without a guided filter.
        style: of a network of any style, see `with_style`.
        masks: of the photo it is called with, (M, H, W), values in [0, 1], whose sum is the pixel's
            weight: 1, less where the photo is transparent; ``None``: one, everywhere.

    Raises:
        ArgumentError: for a guided filter that a network's file cannot hold.
    """

    net: TransformNet | UniversalNet
    guided_filter: GuidedFilter | None
    name: str = ""
    config: dict = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    colour_map: bool = True
    style: StyleStatistics | None = None
    masks: Tensor | None = None

    def __post_init__(self):
        if self.guided_filter is not None:
            checked("guided_filter", _settings(self.guided_filter), GUIDED_FILTER)

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

        Raises:
            ArgumentError: for more or fewer masks, and of a network of one style.
        """
        if not self.is_universal:
            expected = "has a style of its own; load one that takes any"
            raise ArgumentError("network", self.name, expected)
        count = style.colours.mean.shape[1]
        if count != (1 if masks is None else len(masks)):
            expected = f"give {count}, one for each mask of the style"
            raise ArgumentError("masks", masks if masks is None else len(masks), expected)
        return replace(self, style=style, masks=masks)

    @property
    def _weights(self) -> Tensor | None:
        return self.masks if self.masks is None else pixel_weights(self.masks)

    def __call__(self, photo: Tensor) -> Tensor:
        """Photos (B, 3, H, W), float32 in [0, 1], in the style; (B, 3, H, W), not clamped.

        Raises:
            ArgumentError: see `start`.
        """
        if self.guided_filter is not None:
            return apply_affine(self.coefficients(photo), photo)
        return self.net(*self.start(photo).inputs)

    def filtered(self, raw: Tensor, photo: Tensor, base: Tensor) -> Tensor:
        """c + P S (x − c): what the network says made locally affine in the photo.

        A guided filter takes fine texture away, so only what is added to the base is filtered. This
        is what is trained; when it is applied `coefficients` goes on from here.

        Args:
            raw, photo, base: x, the photos and c, (B, 3, H, W) each.
        """
        if self.guided_filter is None:
            return raw
        added = raw - base
        if self.colour_map:
            added = NearestColourMap(photo)(added)
        return base + self.guided_filter.laplacian(photo).guided_filter(added)

    def coefficients(self, photo: Tensor) -> Tensor | None:
        """A and b such that the result is A·I + b, (B, 3, 4, H, W), to apply at any size.

        ``None`` without a guided filter. Where its base is a colour transfer the result has the
        contrast of that. What the map of colours comes near to is the picture as a screen shows it:
        shadows and highlights roll off.

        Raises:
            ArgumentError: see `start`.
        """
        if self.guided_filter is None:
            return None
        inputs, base, start = self.start(photo)
        laplacian = self.guided_filter.laplacian(photo)
        image = self.net(*inputs)
        if self.colour_map:  # before colours are cut off, or noise would move their means
            image = base + laplacian.guided_filter(image - base)
        if self.net.base == "colour_transfer":
            image = restore_contrast(image, base, self._weights)
        if self.colour_map:
            change = image.clamp(0, 1) - base
            image = base + nearest_colour_map(photo, change, pixel_weights=self._weights)
        return start + laplacian.coefficients(image - base)

    def start(self, photo: Tensor) -> Start:
        """What the network starts from, of photos (B, 3, H, W), values in [0, 1].

        Raises:
            ArgumentError: for photos other than these or of less than 8 pixels a side, for masks
                that do not fit, and when the network takes any style and has not been given one.
        """
        check_photos("photo", photo)
        if min(photo.shape[2:]) < 8:
            raise ArgumentError("photo", tuple(photo.shape), "give at least 8 x 8 pixels")
        if self.masks is not None:
            check_mask_shape("masks", self.masks, photo)
            check_range("masks", self.masks)
        if not self.is_universal:
            return self.net.start(photo, self._weights)
        if self.style is None:
            raise ArgumentError("style", None, "required by a network of any style")
        return self.net.start(photo, self.style, self.masks)

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
            "colour_map": json.dumps(self.colour_map),
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
        dtype: of its convolutions, float32 or bfloat16; photos, base and guided filter are in
            float32.

    Returns:
        The network, in evaluation mode.

    Raises:
        ArgumentError: for a device or dtype other than these, no such file or name, and for a file
            that is no network: of another kind or project, truncated, damaged, or with weights that
            do not fit its own architecture.
    """
    device = select_device(str(device))
    check_choice("dtype", dtype, (torch.float32, torch.bfloat16))
    header, state = read_tensors(_find(network), "network", "network file")
    if header.get("format") != FORMAT:
        raise ArgumentError("network", network, "safetensors, but no network of ours")
    with refused("network", network, "damaged network file ({})"):
        fields = header_fields(header, FIELDS)
        for key, tensor in state.items():
            check_values(key, tensor, LARGEST_WEIGHT)
        _check_size(fields["architecture"], state)
        # Not on the meta device, which takes a second to import.
        with torch.random.fork_rng(devices=[]):
            net = _build(fields["architecture"])
        net.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
        guided_filter = fields["guided_filter"]
        net.to(device, memory_format=torch.channels_last).convolve_in(dtype)
        return StyleNetwork(
            net.requires_grad_(False).eval(),
            None if guided_filter is None else GuidedFilter(**guided_filter),
            header["name"],
            fields["config"],
            fields["metrics"],
            fields["colour_map"],
        )


def shipped_networks() -> list[str]:
    """The names of the networks that come with the program."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def _find(network: str | os.PathLike) -> Path:
    if network is None:
        raise ArgumentError("network", network, "required; give a file or a name")
    shipped = shipped_networks()
    if str(network) in shipped:
        return SHIPPED / f"{network}.safetensors"
    if not is_file(network, "network"):
        expected = f"no such file; give a network file, or one of {', '.join(shipped)}"
        raise ArgumentError("network", network, expected)
    return Path(network)


def _check_architecture(name: str, value: object) -> None:
    kind = value.get("kind") if isinstance(value, dict) else None
    schema = ONE_STYLE if kind is None else ANY_STYLE
    checked(name, value, schema)


def _check_guided_filter(name: str, value: object) -> None:
    if value is not None:
        checked(name, value, GUIDED_FILTER)


FIELDS: dict[str, Check] = {
    "architecture": _check_architecture,
    "guided_filter": _check_guided_filter,
    "config": check_mapping,
    "metrics": check_numbers,
    "colour_map": check_flag,
}
"""What a network's file says in its header, as JSON."""
_SIDE = {
    "width": partial(check_whole, minimum=1, maximum=1024),
    "blocks": partial(check_whole, minimum=0, maximum=1024),
}
ONE_STYLE = {
    **_SIDE,
    "base": partial(check_choice, choices=BASES),
    "gains": check_gains,
    "curvature": check_curvature,
}
ANY_STYLE = {
    **_SIDE,
    "kind": partial(check_choice, choices=(UNIVERSAL,)),
    "colour_gains": check_gains,
    "feature_gains": check_gains,
}
GUIDED_FILTER = {
    "radius": partial(check_whole, minimum=1, maximum=10_000),
    "ridge": partial(check_number, minimum=1e-12, maximum=1e6),
}


def _check_size(architecture: dict, state: dict[str, Tensor]) -> None:
    """Before memory is taken for a network of whatever size a file names.

    Of either kind, its blocks and half of what stands before and behind them has as many weights.
    """
    least = 36 * (1 + 2 * architecture["blocks"]) * architecture["width"] ** 2
    if sum(tensor.numel() for tensor in state.values()) < least:
        raise ValueError("its weights do not fit its architecture")


def _build(architecture: dict) -> TransformNet | UniversalNet:
    if architecture.pop("kind", None) == UNIVERSAL:
        return UniversalNet(**architecture)
    return TransformNet(**architecture)


def _settings(guided_filter: GuidedFilter) -> dict:
    # Not the backend: that is the machine's matter.
    return {key: value for key, value in asdict(guided_filter).items() if key != "backend"}
