"""The network of any style: closed-form transport of features, and a decoder that is learnt.

What the optimiser aims at is a fixed function of content and style: each feature moved by the
linear Monge-Kantorovich map to the style's mean and covariance, see `ops.Transport`. Only the way
back from features to colours has no closed form. It is the same for all styles, and small.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photostyle.feedforward.transform_net import ResizeConv, Start, reflect_conv
from photostyle.ops import Transport, VGGFeatures
from photostyle.ops.affine import apply_affine
from photostyle.ops.checks import check_photos
from photostyle.ops.colour_transfer import GAINS, colour_moments, transfer_to
from photostyle.ops.errors import check_whole
from photostyle.ops.gram import average_down, whole_mask
from photostyle.ops.tones import to_tones
from photostyle.ops.transport import Moments

LAYERS = ("relu1_1", "relu2_1")
"""Deeper ones made the loss 1 % lower and each photo half as long again."""
DOWN = 2
"""The encoder sees the photo at half its size; the guided filter finds the edges again."""
STRIDE = 2 * DOWN
"""Of the pixels of relu2_1."""
SCALES = (100.0, 200.0)
"""About the root mean square of the features of each layer."""


class StyleStatistics(NamedTuple):
    """What the network needs to know of B styles under M masks.

    Attributes:
        colours: means (B, M, 3) and covariances (B, M, 3, 3) of tones, float64.
        features: by layer, what `ops.Transport.statistics` returns: means (B, M, C) and roots of
            covariances (B, M, C, C), float64, and no Gram matrices.
    """

    colours: Moments
    features: dict[str, tuple[Tensor, Tensor, None]]


class UniversalNet(nn.Module):
    """Photo and statistics of a style in, stylised photo out, in one pass.

    The base is the photo's colour transfer, see `ops.colour_transfer`. The decoder is told how far
    the base's features, of an encoder that is not trained, are from where transport wants them,
    and adds what is missing. Its last convolution starts at zero, so that training starts from the
    base. Of the result the residual alone is filtered: the base keeps all the photo's texture.

    Args:
        width: channels at half resolution; twice as many further in.
        blocks: residual blocks at a quarter of the resolution.
        colour_gains, feature_gains: see `ops.Transport`.

    Raises:
        ArgumentError: for a width, number of blocks or gains out of range.
    """

    base = "colour_transfer"  # a `TransformNet` has the choice

    def __init__(
        self,
        width: int = 24,
        blocks: int = 2,
        colour_gains: tuple[float, float] = GAINS,
        feature_gains: tuple[float, float] = (0.85, 2.5),
    ):
        super().__init__()
        check_whole("width", width, 1, 1024)
        check_whole("blocks", blocks, 0, 1024)
        self.width = width
        self.blocks = blocks
        self.transport = Transport(colour_gains, feature_gains)
        # Not a part of the network's file: it comes with the program.
        object.__setattr__(self, "encoder", VGGFeatures(LAYERS, padding_mode="zeros"))
        self.fine = reflect_conv(2 * 3 + 64, width, 3)
        self.coarse = nn.Conv2d(2 * 128, 2 * width, 1)
        self.transform = nn.Sequential(*(ResidualBlock(2 * width) for _ in range(blocks)))
        self.up = ResizeConv(2 * width, width)
        self.merge = ResidualBlock(width)
        self.output = reflect_conv(width, 3, 3)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.to(memory_format=torch.channels_last)

    @property
    def architecture(self) -> dict:
        """The arguments that make this network again; its weights fill it."""
        return {
            "width": self.width,
            "blocks": self.blocks,
            "colour_gains": self.transport.colour_gains,
            "feature_gains": self.transport.feature_gains,
        }

    def _apply(self, function, recurse=True):
        # What moves the network to another device.
        self.encoder._apply(function)
        return super()._apply(function, recurse)

    @torch.no_grad()
    def statistics(self, style: Tensor, masks: Tensor | None = None) -> StyleStatistics:
        """What the network needs to know of styles.

        Args:
            style: (B, 3, H, W), values in [0, 1], at least 8 pixels a side.
            masks: (M, H, W), values in [0, 1]; ``None``: one, everywhere.

        Raises:
            ArgumentError: for a style other than these.
        """
        check_photos("style", style)
        masks = whole_mask(style) if masks is None else masks
        features = self.encoder(_halved(style))
        with torch.autocast(style.device.type, enabled=False):
            return StyleStatistics(
                colour_moments(to_tones(style), masks),
                {
                    layer: self.transport.statistics(
                        layer, maps, average_down(masks, maps.shape[2:])
                    )
                    for layer, maps in features.items()
                },
            )

    @torch.no_grad()
    def start(self, photo: Tensor, style: StyleStatistics, masks: Tensor | None = None) -> Start:
        """What `forward` starts from: where colours and features are to go.

        Args:
            photo: (B, 3, H, W), float32 in [0, 1], at least 8 pixels a side.
            style: what `statistics` returned, of one style or of B.
            masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight, for the M of
                ``style``; ``None``: one, everywhere.
        """
        masks = whole_mask(photo) if masks is None else masks
        features = self.encoder(_halved(photo))
        with torch.autocast(photo.device.type, enabled=False):
            gains = self.transport.colour_gains
            coefficients = transfer_to(style.colours, photo, masks, gains=gains)
            targets = {
                layer: self.transport.target(
                    layer, maps, average_down(masks, maps.shape[2:]), style.features[layer]
                )[0]
                for layer, maps in features.items()
            }
            base = apply_affine(coefficients, photo)
        return Start((photo, base, targets), base, coefficients)

    def forward(self, photo: Tensor, base: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The stylised photo, before its residual is filtered.

        Args:
            photo, base: (B, 3, H, W) each, see `start`.
            targets: by layer, of the features at half size, (B, C, H', W').

        Returns:
            (B, 3, H, W), float32: the base plus a residual in [-1, 1].
        """
        height, width = photo.shape[2:]
        dtype = self.output.weight.dtype
        with torch.no_grad():
            shown = base.clamp(0, 1)
            features = self.encoder(_halved(shown))
            error = {layer: targets[layer] - features[layer] for layer in LAYERS}
            images = [_halved(photo) - 0.5, _halved(shown) - 0.5]
            fine = _stacked(*images, error["relu1_1"] / SCALES[0], dtype=dtype)
            coarse = _stacked(features["relu2_1"], error["relu2_1"], dtype=dtype) / SCALES[1]
        x = self.transform(F.relu(self.coarse(coarse)))
        x = self.output(self.merge(F.relu(self.fine(fine) + self.up(x))))
        residual = torch.tanh(x.float())
        residual = F.interpolate(residual, scale_factor=DOWN, mode="bilinear", align_corners=False)
        return base + residual[:, :, :height, :width]

    def convolve_in(self, dtype: torch.dtype) -> Self:
        """Run all convolutions in another precision; transport stays in float64."""
        for module in self.children():
            module.to(dtype)
        self.encoder.convolve_in(dtype)
        return self


def _halved(photo: Tensor) -> Tensor:
    """(B, C, H, W) at half its size, mirrored to a multiple of the stride first."""
    height, width = photo.shape[2:]
    padded = F.pad(photo, (0, -width % STRIDE, 0, -height % STRIDE), mode="reflect")
    return F.avg_pool2d(padded, DOWN)


def _stacked(*maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Channel upon channel. Maps that are laid out differently take four times as long."""
    like = {"dtype": dtype, "memory_format": torch.channels_last}
    return torch.cat([part.to(**like) for part in maps], 1)


class ResidualBlock(nn.Module):
    """Without normalisation: how strong an error is must not get lost."""

    def __init__(self, channels: int):
        super().__init__()
        self.residual = nn.Sequential(
            reflect_conv(channels, channels, 3),
            nn.ReLU(inplace=True),
            reflect_conv(channels, channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), of the same shape."""
        return x + self.residual(x)
