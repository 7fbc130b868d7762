"""Statistics of features under masks: Gram matrices, means and standard deviations."""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12
"""Guards roots and divisions where there is nothing: dead channels, a black style."""


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
    pixels = at_least_float32(pixel_vectors(features))
    statistics = []
    for support, weights in _supports(masks.flatten(1)):
        mean = (pixels[:, support] * weights).sum(1, keepdim=True)
        variance = ((pixels[:, support] - mean).square() * weights).sum(1)
        # Dead channels have no variance, and no gradient of its root either.
        statistics.append(torch.cat([mean[:, 0], (variance + TINY).sqrt()], dim=1))
    return torch.stack(statistics, dim=1)


def pixel_vectors(features: Tensor) -> Tensor:
    """The feature of each pixel, row by row: (B, C, H, W) -> (B, H·W, C), in the same dtype."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def whole_mask(photo: Tensor) -> Tensor:
    """Ones, (1, H, W), of the dtype and on the device of photos (B, C, H, W)."""
    return photo.new_ones(1, *photo.shape[2:])


def pixel_weights(masks: Tensor) -> Tensor | None:
    """The sums (H, W) of masks (M, H, W): how much each pixel counts; ``None``: all of them 1."""
    weights = at_least_float32(masks).sum(0)
    return None if bool((weights > 1 - 1e-4).all()) else weights


def average_down(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (M, H, W) at a smaller size (height, width): the share of each label in each cell."""
    return F.interpolate(at_least_float32(masks)[None], size=tuple(size), mode="area")[0]


def at_least_float32(x: Tensor) -> Tensor:
    """Sums over the pixels of half precision need more; masks may be of bools."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
            part = at_least_float32(pixels[:, support])
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


def _supports(masks: Tensor):
    """For each mask of (M, N) where it is not zero, and its weights there, (n, 1), sum 1."""
    for mask in masks:
        index = mask.nonzero()[:, 0]
        # Masks hardly overlap, so the work stays that of one mask.
        support = slice(None) if len(index) == len(mask) else index
        weights = mask[support]
        yield support, (weights / weights.sum())[:, None]
