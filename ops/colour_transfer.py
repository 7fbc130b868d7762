"""The linear Monge-Kantorovich colour transfer, globally or per mask."""

import torch
from torch import Tensor

# Added to the colour variances: one 8-bit level of noise. A flat region then stays flat, where the
# exact map would stretch its noise to the contrast of the style.
NOISE_VARIANCE = (1 / 255) ** 2


def colour_moments(image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, (M, 3), and covariance, (M, 3, 3), of the colours under each mask, float64.

    Args:
        image: (1, 3, H, W).
        masks: (M, H, W), weights in [0, 1], none of them empty.
    """
    colours = image[0].double().flatten(1)
    weights = masks.double().flatten(1)
    weights = weights / weights.sum(1, keepdim=True)
    mean = weights @ colours.T
    covariance = torch.einsum("mn,cn,dn->mcd", weights, colours, colours)
    return mean, covariance - mean[:, :, None] * mean[:, None, :]


def monge_kantorovich(source: Tensor, target: Tensor) -> Tensor:
    """T = Σs^(-1/2) (Σs^(1/2) Σt Σs^(1/2))^(1/2) Σs^(-1/2), (..., 3, 3) each.

    The linear map of least motion that turns the covariance Σs into Σt: Pitié and Kokaram, "The
    linear Monge-Kantorovitch linear colour mapping for example-based colour transfer" (2007).
    """
    root = _matrix_power(source, 0.5)
    inverse_root = _matrix_power(source, -0.5)
    return inverse_root @ _matrix_power(root @ target @ root, 0.5) @ inverse_root


def colour_transfer(
    content: Tensor, style: Tensor, content_masks: Tensor, style_masks: Tensor
) -> Tensor:
    """The content with the style's colour mean and covariance under each mask.

    Args:
        content: (1, 3, H, W), values in [0, 1].
        style: (1, 3, H', W'), values in [0, 1].
        content_masks: (M, H, W), values in [0, 1], sum 1 at every pixel.
        style_masks: (M, H', W'), values in [0, 1].

    Returns:
        (1, 3, H, W), clamped to [0, 1], in the content's dtype.
    """
    maps, offsets = _colour_maps(
        *colour_moments(content, content_masks), *colour_moments(style, style_masks)
    )
    # Blending the maps equals blending their results.
    slope = torch.einsum("mhw,mcd->cdhw", content_masks.double(), maps)
    offset = torch.einsum("mhw,mc->chw", content_masks.double(), offsets)
    result = torch.einsum("cdhw,bdhw->bchw", slope, content.double()) + offset
    return result.clamp(0, 1).to(content.dtype)


def match_colours(image: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Each image of a batch with the given colour mean and covariance: one affine map per image.

    Args:
        image: (B, 3, H, W), values in [0, 1].
        mean, covariance: (3,) and (3, 3), float64, as of :func:`colour_moments`.

    Returns:
        (B, 3, H, W), not clamped, in the image's dtype.
    """
    colours = image.double().flatten(2)
    source_mean = colours.mean(2)
    centred = colours - source_mean[:, :, None]
    source = centred @ centred.mT / colours.shape[2]
    maps, offsets = _colour_maps(source_mean, source, mean, covariance)
    result = maps.to(image.dtype) @ image.flatten(2) + offsets.to(image.dtype)[:, :, None]
    return result.view_as(image)


def _colour_maps(
    source_mean: Tensor, source: Tensor, target_mean: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The slopes (M, 3, 3) and offsets (M, 3) that turn source moments into target moments."""
    noise = NOISE_VARIANCE * torch.eye(3, dtype=source.dtype, device=source.device)
    maps = monge_kantorovich(source + noise, target + noise)
    return maps, target_mean - (maps @ source_mean[:, :, None])[:, :, 0]


def _matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of symmetric positive definite matrices; rounding below zero is cut."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=torch.finfo(values.dtype).tiny) ** exponent
    return vectors @ (values[..., :, None] * vectors.mT)
