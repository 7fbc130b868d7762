"""Affine colour maps of every pixel, A·I + b."""

import torch
import torch.nn.functional as F
from torch import Tensor


def apply_affine(coefficients: Tensor, image: Tensor) -> Tensor:
    """A·I + b, (B, K, C+1, H, W) and (B, C, H, W) -> (B, K, H, W)."""
    return (coefficients[:, :, :-1] * image[:, None]).sum(2) + coefficients[:, :, -1]


def resize_affine(coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """The maps (B, K, C+1, H, W) at another size (height, width), bilinearly."""
    if coefficients.shape[3:] == tuple(size):
        return coefficients
    resized = F.interpolate(coefficients.flatten(1, 2), tuple(size), mode="bilinear")
    return resized.unflatten(1, coefficients.shape[1:3])


def identity_affine(coefficients: Tensor) -> Tensor:
    """The map that changes nothing, (C, C+1, 1, 1), beside coefficients (B, C, C+1, H, W)."""
    return torch.eye(*coefficients.shape[1:3]).to(coefficients)[:, :, None, None]


def blend_affine(coefficients: Tensor, strength: float) -> Tensor:
    """Maps (B, C, C+1, H, W) between the identity, ``strength`` 0, and themselves, 1."""
    return torch.lerp(identity_affine(coefficients), coefficients, strength)
