"""Sobel magnitudes and SSIM: what the edge loss and the edge metric are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12
"""Guards a division where nothing counts."""
LUMA = (0.299, 0.587, 0.114)
"""Rec. 601."""


def edge_magnitude(image: Tensor) -> Tensor:
    """Sobel magnitudes of luma (Rec. 601), (B, 3, H, W) -> (B, 1, H, W), in the image's dtype.

    As scikit-image's `sobel`: both directions averaged, each kernel's weights adding up to 1 on
    either side, so the magnitudes of an image in [0, 1] are in [0, 1].
    """
    luma = torch.einsum("c,bchw->bhw", image.new_tensor(LUMA), image)[:, None]
    smooth, slope = image.new_tensor([0.25, 0.5, 0.25]), image.new_tensor([1.0, 0, -1.0])
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    horizontal = _Filter.apply(padded, slope, smooth)
    vertical = _Filter.apply(padded, smooth, slope)
    # A square root has no gradient at zero.
    return ((horizontal.square() + vertical.square()) / 2 + 4e-8).sqrt()


def ssim(x: Tensor, y: Tensor, data_range: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """The mean SSIM of images, a scalar in [-1, 1]; 1: they are equal.

    Wang et al. (2004), eq. 13, with a Gaussian window of σ = 1.5, 11 pixels wide, where all of it
    is inside the image.

    Args:
        x, y: (B, 1, H, W), float32 or float64.
        data_range: L of the constants (0.01 L)² and (0.03 L)²: what is far below it counts little.
        weights: of the windows, by the pixel in their middle, (H, W); ``None``: all alike.

    Raises:
        RuntimeError: for fewer than 11 pixels a side.
    """
    distance = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    window = torch.exp(-distance.square() / (2 * 1.5**2))
    window = window / window.sum()

    def mean(z: Tensor) -> Tensor:
        return _Filter.apply(z, window, window)

    mean_x, mean_y = mean(x), mean(y)
    variance_x = mean(x.square()) - mean_x.square()
    variance_y = mean(y.square()) - mean_y.square()
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    similarity = luminance * structure
    if weights is None:
        return similarity.mean()
    weights = weights[5:-5, 5:-5]
    return (similarity * weights).sum() / (weights.sum() * len(x)).clamp(min=TINY)


class _Filter(torch.autograd.Function):
    """A separable correlation of (B, 1, H, W), without the border.

    Its gradient is the same with reversed kernels, border and all. PyTorch's own takes five times
    as long on a CPU.
    """

    @staticmethod
    def forward(ctx, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(row, column)
        return F.conv2d(F.conv2d(x, row.view(1, 1, 1, -1)), column.view(1, 1, -1, 1))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        row, column = ctx.saved_tensors
        beside, above = len(row) - 1, len(column) - 1
        padded = F.pad(gradient, (beside, beside, above, above))
        return _Filter.apply(padded, row.flip(0), column.flip(0)), None, None
