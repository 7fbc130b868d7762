"""The network of the feed-forward mode: Johnson et al. (2016) with what has been learnt since."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photostyle.ops.colour_transfer import GAINS, match_colours
from photostyle.ops.errors import check_choice, check_whole
from photostyle.ops.transport import Moments, check_gains

BASES = ("colour_transfer", "content", "none")
STRIDE = 4
"""The residual blocks work on a grid of every fourth pixel."""


class TransformNet(nn.Module):
    """Photo in, stylised photo out, in one pass.

    Johnson et al. (2016), "Perceptual losses for real-time style transfer", with reflection
    padding, resize-convolutions (Odena et al. 2016) and instance normalisation (Ulyanov et al.
    2016). Its last convolution starts at zero, so that training starts from the base.

    Args:
        width: channels at full resolution; twice and four times as many further in.
        blocks: number of residual blocks.
        base: what the output is added to: ``"colour_transfer"``, the photo with the style's colour
            mean and covariance; ``"content"``, the photo itself; or ``"none"``, grey.
        style_mean, style_covariance: (3,) and (3, 3), the colour moments of the style, see
            `ops.colour_transfer.colour_moments`; for the base ``"colour_transfer"``.
        gains: range of the contrast gains of that colour transfer.

    Raises:
        ArgumentError: for a width, number of blocks or gains out of range, and for an unknown base.
    """

    def __init__(
        self,
        width: int = 16,
        blocks: int = 5,
        base: str = "colour_transfer",
        style_mean: Tensor | None = None,
        style_covariance: Tensor | None = None,
        gains: tuple[float, float] = GAINS,
    ):
        super().__init__()
        check_whole("width", width, 1, 1024)
        check_whole("blocks", blocks, 0, 1024)
        check_choice("base", base, BASES)
        self.width = width
        self.blocks = blocks
        self.base = base
        self.gains = check_gains("gains", gains)
        mean = torch.zeros(3) if style_mean is None else style_mean
        covariance = torch.eye(3) if style_covariance is None else style_covariance
        self.register_buffer("style_mean", mean.to(torch.float32))
        self.register_buffer("style_covariance", covariance.to(torch.float32))
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
        }

    def forward(self, photo: Tensor, weights: Tensor | None = None) -> Tensor:
        """The stylised photo, before the guided filter.

        Args:
            photo: (B, 3, H, W), float32 in [0, 1], at least 8 pixels a side.
            weights: how much each pixel counts in the base, (H, W); ``None``: all alike.

        Returns:
            (B, 3, H, W), float32: the base, which is in [0, 1], plus a residual in [-1, 1].
        """
        height, width = photo.shape[2:]
        start = self.start(photo, weights)
        x = F.pad(photo - 0.5, (0, -width % STRIDE, 0, -height % STRIDE), mode="reflect")
        x = x.to(self.output.weight.dtype, memory_format=torch.channels_last)
        x = self.output(self.decode(self.transform(self.encode(x))))
        residual = torch.tanh(x[:, :, :height, :width].float())
        # Around grey, half the range covers all colours.
        return start + (0.5 * residual if self.base == "none" else residual)

    def convolve_in(self, dtype: torch.dtype) -> Self:
        """Run the convolutions in another precision; the base stays in float32.

        On a CPU faster than autocast, which casts the weights in each pass and pads in float32.
        """
        for module in (self.encode, self.transform, self.decode, self.output):
            module.to(dtype)
        return self

    def start(self, photo: Tensor, weights: Tensor | None = None) -> Tensor:
        """What an untrained network returns; of the base ``"none"`` it is grey."""
        if self.base == "content":
            return photo
        if self.base == "none":
            return torch.full_like(photo, 0.5)
        style = Moments(self.style_mean.double(), self.style_covariance.double())
        with torch.autocast(photo.device.type, enabled=False), torch.no_grad():
            return match_colours(photo, style, self.gains, weights).clamp(0, 1)


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
