"""The network of the feed-forward mode: Johnson et al. (2016) with what has been learnt since."""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import GAINS, colour_moments, transfer_to
from photostyle.ops.errors import check_choice, check_whole
from photostyle.ops.gram import whole_mask
from photostyle.ops.tones import CURVATURE, check_curvature, to_tones
from photostyle.ops.transport import Moments, check_gains

BASES = ("colour_transfer", "content", "none")
STRIDE = 4
"""The residual blocks work on a grid of every fourth pixel."""


class Start(NamedTuple):
    """What a network starts from; nothing of it is learnt.

    Attributes:
        inputs: the arguments of the network's `forward`.
        base: (B, 3, H, W), what photos become where nothing is learnt, not clamped.
        coefficients: (B, 3, 4, H, W), or a shape that becomes this one, such that the base is
            A·I + b.
    """

    inputs: tuple
    base: Tensor
    coefficients: Tensor


class TransformNet(nn.Module):
    """Photo in, stylised photo out, in one pass.

    Johnson et al. (2016), "Perceptual losses for real-time style transfer", with reflection
    padding, resize-convolutions (Odena et al. 2016) and instance normalisation (Ulyanov et al.
    2016). Its last convolution starts at zero, so that training starts from the base.

    Args:
        width: channels at full resolution; twice and four times as many further in.
        blocks: number of residual blocks.
        base: what the output is added to: ``"colour_transfer"``, the photo with the mean and
            covariance of the style's colours; ``"content"``, the photo itself; or ``"none"``, grey.
        style: (1, 3, H, W), values in [0, 1], for the base ``"colour_transfer"``; ``None``: its
            moments are loaded later, with the weights.
        gains: range of the contrast gains of that colour transfer.
        curvature: of the scale of tones on which it is done, see `ops.tones`; 0: pixel values.

    Raises:
        ArgumentError: for a width, number of blocks, gains or curvature out of range, and for an
            unknown base.
    """

    def __init__(
        self,
        width: int = 16,
        blocks: int = 5,
        base: str = "colour_transfer",
        style: Tensor | None = None,
        gains: tuple[float, float] = GAINS,
        curvature: float = CURVATURE,
    ):
        super().__init__()
        check_whole("width", width, 1, 1024)
        check_whole("blocks", blocks, 0, 1024)
        check_choice("base", base, BASES)
        self.width = width
        self.blocks = blocks
        self.base = base
        self.gains = check_gains("gains", gains)
        check_curvature("curvature", curvature)
        self.curvature = curvature
        mean, covariance = torch.zeros(3), torch.eye(3)
        if style is not None:
            whole = whole_mask(style)
            mean, covariance = (
                part[0, 0].float() for part in colour_moments(to_tones(style, curvature), whole)
            )
        self.register_buffer("style_mean", mean)
        self.register_buffer("style_covariance", covariance)
        self.encode = nn.Sequential(
            ConvNormRelu(reflect_conv(3, width, 9)),
            ConvNormRelu(reflect_conv(width, 2 * width, 3, stride=2)),
            ConvNormRelu(reflect_conv(2 * width, 4 * width, 3, stride=2)),
        )
        self.transform = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.decode = nn.Sequential(
            ConvNormRelu(ResizeConv(4 * width, 2 * width)),
            ConvNormRelu(ResizeConv(2 * width, width)),
        )
        self.output = reflect_conv(width, 3, 3)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.to(memory_format=torch.channels_last)

    @property
    def architecture(self) -> dict:
        """The arguments that make this network again; its weights and moments fill it."""
        return {
            "width": self.width,
            "blocks": self.blocks,
            "base": self.base,
            "gains": self.gains,
            "curvature": self.curvature,
        }

    def start(self, photo: Tensor, weights: Tensor | None = None) -> Start:
        """What `forward` starts from.

        Args:
            photo: (B, 3, H, W), float32 in [0, 1], at least 8 pixels a side.
            weights: how much each pixel counts in the colour transfer, (H, W); ``None``: all alike.
        """
        if self.base != "colour_transfer":
            return Start((photo, photo), photo, torch.eye(3, 4).to(photo)[..., None, None])
        masks = whole_mask(photo) if weights is None else weights[None]
        style = Moments(self.style_mean.double(), self.style_covariance.double())
        style = Moments(*(part[None, None] for part in style))
        with torch.autocast(photo.device.type, enabled=False), torch.no_grad():
            coefficients = transfer_to(
                style, photo, masks, gains=self.gains, curvature=self.curvature
            )
            base = apply_affine(coefficients, photo)
        return Start((photo, base), base, coefficients)

    def forward(self, photo: Tensor, base: Tensor) -> Tensor:
        """The stylised photo, before what is added to the base is filtered.

        Args:
            photo, base: (B, 3, H, W) each, float32, see `start`.

        Returns:
            (B, 3, H, W), float32: the base plus a residual in [-1, 1]; of ``"none"``, grey plus one
            in [-0.5, 0.5], which covers all colours.
        """
        height, width = photo.shape[2:]
        x = F.pad(photo - 0.5, (0, -width % STRIDE, 0, -height % STRIDE), mode="reflect")
        x = x.to(self.output.weight.dtype, memory_format=torch.channels_last)
        x = self.output(self.decode(self.transform(self.encode(x))))
        residual = torch.tanh(x[:, :, :height, :width].float())
        return 0.5 + 0.5 * residual if self.base == "none" else base + residual

    def convolve_in(self, dtype: torch.dtype) -> Self:
        """Run the convolutions in another precision; the base stays in float32.

        On a CPU faster than autocast, which casts the weights in each pass and pads in float32.
        """
        for module in (self.encode, self.transform, self.decode, self.output):
            module.to(dtype)
        return self


def reflect_conv(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that sees its input mirrored at the borders."""
    return nn.Conv2d(
        channels_in, channels_out, size, stride, padding=size // 2, padding_mode="reflect"
    )


class ResizeConv(nn.Conv2d):
    """Twice the size by repetition, then a 3 x 3 convolution, mirrored at the borders.

    As one transposed convolution of stride 2: repetition correlates the kernel with 2 x 2 ones.
    It does 16 products where the larger image takes 36, and never makes that image.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, 2H, 2W)."""
        kernel = F.pad(self.weight, [1] * 4)
        kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
        kernel = kernel[..., 1:] + kernel[..., :-1]
        # Mirroring the larger image repeats the smaller one's border.
        x = F.pad(x, [1] * 4, mode="replicate")
        return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), self.bias, 2, 3)


class ConvNormRelu(nn.Sequential):
    """Convolution, instance normalisation, ReLU."""

    def __init__(self, convolution: nn.Conv2d):
        norm = instance_norm(convolution.out_channels)
        super().__init__(convolution, norm, nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """He et al. (2016), without a ReLU after the sum, as in Johnson et al."""

    def __init__(self, channels: int):
        super().__init__()
        self.residual = nn.Sequential(
            ConvNormRelu(reflect_conv(channels, channels, 3)),
            reflect_conv(channels, channels, 3),
            instance_norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), of the same shape."""
        return x + self.residual(x)


def instance_norm(channels: int) -> nn.Module:
    """Instance normalisation with affine parameters, as one group per channel.

    The same numbers as ``nn.InstanceNorm2d``, which leaves the channels_last layout and is three
    times slower on a CPU.
    """
    return nn.GroupNorm(channels, channels)
