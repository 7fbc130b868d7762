"""Content, style and photorealism losses.

All losses are means or relative errors, so that a weight keeps its meaning when the size changes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

# Rec. 601.
LUMA = (0.299, 0.587, 0.114)
# Guards the division by a target of zeros (a black style).
TINY = 1e-12


def gram_matrix(features: Tensor, masks: Tensor) -> Tensor:
    """G_m = Σ_i m_i F_i F_iᵀ / Σ_i m_i for each mask, Gatys et al. (2016), eq. 3.

    Args:
        features: (B, C, H, W), of any floating dtype.
        masks: (M, H, W), weights in [0, 1].

    Returns:
        (B, M, C, C), float32 for features of half precision, else in the features' dtype.
    """
    return _MaskedGram.apply(pixel_vectors(features), masks.flatten(1))


def mean_std(features: Tensor, masks: Tensor) -> Tensor:
    """Channel means and standard deviations under each mask, Li et al. (2017),
    "Demystifying neural style transfer".

    Args:
        features: (B, C, H, W).
        masks: (M, H, W), weights in [0, 1].

    Returns:
        (B, M, 2C), float32 for features of half precision, else in the features' dtype.
    """
    pixels = _at_least_float32(pixel_vectors(features))
    statistics = []
    for support, weights in _supports(masks.flatten(1)):
        mean = (pixels[:, support] * weights).sum(1, keepdim=True)
        variance = ((pixels[:, support] - mean).square() * weights).sum(1)
        # Dead channels have no variance, and no gradient of its root either.
        statistics.append(torch.cat([mean[:, 0], (variance + TINY).sqrt()], dim=1))
    return torch.stack(statistics, dim=1)


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """‖F − F_target‖² / ‖F_target‖² of each image of (B, C, H, W), averaged, a scalar."""
    features, target = _at_least_float32(features), _at_least_float32(target)
    error = (features - target).square().flatten(1).sum(1)
    return (error / target.square().flatten(1).sum(1).clamp(min=TINY)).mean()


def style_loss(statistics: Tensor, target: Tensor, areas: Tensor) -> Tensor:
    """Σ_m area_m ‖S_m − T_m‖² / ‖T_m‖², averaged over the batch, a scalar.

    Args:
        statistics: (B, M, ...), what :func:`gram_matrix` or :func:`mean_std` return.
        target: (1, M, ...), the same of the style.
        areas: (M,), shares of the content's area, sum 1.
    """
    error = (statistics - target).flatten(2).square().sum(2)
    error = error / target.flatten(2).square().sum(2).clamp(min=TINY)
    return (error * areas).sum(1).mean()


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of (B, C, H, W), a scalar."""
    return image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean()


def edge_magnitude(image: Tensor) -> Tensor:
    """Sobel magnitudes of luma (Rec. 601), (B, 3, H, W) -> (B, 1, H, W), in the image's dtype.

    Sobel's filter as a derivative: change per pixel, both directions averaged, so the magnitudes of
    an image in [0, 1] are in [0, 0.5], half of scikit-image's.
    """
    luma = torch.einsum("c,bchw->bhw", image.new_tensor(LUMA), image)[:, None]
    smooth, slope = image.new_tensor([0.25, 0.5, 0.25]), image.new_tensor([0.5, 0, -0.5])
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    horizontal = _Filter.apply(padded, slope, smooth)
    vertical = _Filter.apply(padded, smooth, slope)
    # A square root has no gradient at zero.
    return ((horizontal.square() + vertical.square()) / 2 + 1e-8).sqrt()


def edge_loss(edges: Tensor, target: Tensor) -> Tensor:
    """1 − SSIM of edge magnitudes (B, 1, H, W), float32 or float64, a scalar in [0, 2].

    Wang et al. (2004), eq. 13, with a Gaussian window of σ = 1.5 and a data range of 1. What it
    compares is where edges are and how they stand out, whatever their colours: edges that the
    photo does not have, halos and steps in a sky, cost as much as those that are lost.

    Raises:
        RuntimeError: for fewer than 11 pixels a side, the window's width.
    """
    distance = torch.arange(-5, 6, dtype=edges.dtype, device=edges.device)
    window = torch.exp(-distance.square() / (2 * 1.5**2))
    window = window / window.sum()

    def mean(x: Tensor) -> Tensor:
        return _Filter.apply(x, window, window)

    mean_x, mean_y = mean(edges), mean(target)
    variance_x = mean(edges.square()) - mean_x.square()
    variance_y = mean(target.square()) - mean_y.square()
    covariance = mean(edges * target) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return 1 - (luminance * structure).mean()


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


class LossTerms(Mapping):
    """Weighted losses by name: a mapping that adds up, term by term, and prints."""

    def __init__(self, terms: Mapping[str, Tensor]):
        self._terms = dict(terms)

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self):
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __add__(self, other: "LossTerms") -> "LossTerms":
        names = dict.fromkeys((*self, *other))
        return LossTerms({name: self.get(name, 0.0) + other.get(name, 0.0) for name in names})

    @property
    def total(self) -> Tensor:
        """The sum of all terms, a scalar."""
        return sum(self._terms.values())

    def detach(self) -> "LossTerms":
        """The same terms without their graph."""
        return LossTerms({name: value.detach() for name, value in self.items()})

    def __str__(self) -> str:
        parts = [f"{name} {float(value):.4g}" for name, value in self.items()]
        return "  ".join([*parts, f"total {float(self.total):.4g}"])


class _MaskedGram(torch.autograd.Function):
    """Gram matrices (B, M, C, C) of pixels (B, N, C) under masks (M, N).

    Their gradient is written out, dF_i = Σ_m m_i / Σm (dG_m + dG_mᵀ) F_i: one product where
    autograd takes two, in the features' own precision, and one array for all masks where autograd
    takes one for each.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, masks: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, masks)
        grams = []
        for support, weights in _supports(masks):
            part = _at_least_float32(pixels[:, support])
            grams.append((part * weights).mT @ part)
        return torch.stack(grams, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        pixels, masks = ctx.saved_tensors
        symmetric = (gradient + gradient.mT).to(pixels.dtype)
        result = torch.zeros_like(pixels)
        for (support, weights), factor in zip(_supports(masks), symmetric.unbind(1), strict=True):
            result[:, support] += pixels[:, support] @ factor * weights.to(pixels.dtype)
        return result, None


def pixel_vectors(features: Tensor) -> Tensor:
    """The feature of each pixel, row by row: (B, C, H, W) -> (B, H·W, C), in the same dtype."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    """Sums over the pixels of half precision need more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _supports(masks: Tensor):
    """For each mask of (M, N) where it is not zero, and its weights there, (n, 1), sum 1."""
    for mask in masks:
        index = mask.nonzero()[:, 0]
        # Masks hardly overlap, so the work stays that of one mask.
        support = slice(None) if len(index) == len(mask) else index
        weights = mask[support]
        yield support, (weights / weights.sum())[:, None]


def average_down(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (M, H, W) at a smaller size (height, width): the share of each label in each cell."""
    return F.interpolate(masks[None], size=tuple(size), mode="area")[0]
