"""The linear Monge-Kantorovich colour transfer, of a whole photo or region by region."""

import torch
from torch import Tensor

from photostyle.ops.affine import apply_affine, compose_affine
from photostyle.ops.guided_filter import GuidedFilter
from photostyle.ops.transport import (
    EXACT,
    GREY_AXIS,
    AffineMaps,
    Moments,
    check_gains,
    moments,
    monge_kantorovich,
    shares,
)

# Added to the colour variances: one 8-bit level of noise. A flat region then stays flat, where the
# exact map would stretch its noise to the contrast of the style.
NOISE_VARIANCE = (1 / 255) ** 2
GAINS = (0.85, 1.8)
"""Of contrast: below, photos look veiled; above, noise and JPEG blocks show. Saturation may go."""
CONTRAST_GAINS = (1.0, 1.6)
"""Of `restore_contrast`: no more than brings back what was lost, and noise stays noise."""
BORDER = 1 / 20
"""Radius, as a share of the long side, of the guided filter that carries masks to edges."""
BORDER_RIDGE = 1e-2
"""Its ridge: maps change where the photo does, and elsewhere so slowly that no halo is seen."""


def colour_moments(image: Tensor, masks: Tensor) -> Moments:
    """Mean, (B, M, 3), and covariance, (B, M, 3, 3), of the colours under each mask, float64.

    Args:
        image: (B, 3, H, W).
        masks: (M, H, W), weights in [0, 1], none of them empty.
    """
    return moments(image.flatten(2).mT, masks.flatten(1))


def colour_maps(source: Moments, target: Moments, gains: tuple[float, float] = EXACT) -> AffineMaps:
    """The maps of least motion that turn colour moments into others; (..., 3, 3) and (..., 3)."""
    noise = NOISE_VARIANCE * torch.eye(3).to(source.covariance)
    noisy = (Moments(part.mean, part.covariance + noise) for part in (source, target))
    return monge_kantorovich(*noisy, gains=gains, axes=GREY_AXIS)


def colour_transfer(
    content: Tensor,
    style: Tensor,
    content_masks: Tensor | None = None,
    style_masks: Tensor | None = None,
    *,
    gains: tuple[float, float] = GAINS,
) -> Tensor:
    """The content with the style's colours, as affine maps that vary from place to place.

    Each region has the linear Monge-Kantorovich map of its colour moments, Pitié and Kokaram
    (2007), with bounded gains. A guided filter carries the regions to the photo's edges.

    Args:
        content: (1, 3, H, W), values in [0, 1].
        style: (1, 3, H', W'), values in [0, 1].
        content_masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight: 1, less where
            the photo is transparent; ``None``: one region.
        style_masks: (M, H', W'), values in [0, 1].
        gains: the range of the maps' eigenvalues.

    Returns:
        Coefficients (1, 3, 4, H, W) in the content's dtype, to be applied to the content at any
        size: see `ops.affine.apply_affine`.

    Raises:
        ArgumentError: for ``gains`` other than these.
    """
    gains = check_gains("gains", gains)
    if content_masks is None:
        content_masks = content.new_ones(1, *content.shape[2:])
        style_masks = style.new_ones(1, *style.shape[2:])
    return transfer_to(colour_moments(style, style_masks), content, content_masks, gains=gains)


def transfer_to(
    style: Moments, content: Tensor, masks: Tensor, *, gains: tuple[float, float] = GAINS
) -> Tensor:
    """As `colour_transfer`, to a style of which the moments are known.

    Args:
        style: (B, M, 3) and (B, M, 3, 3), as of `colour_moments`; of one style or of B.
        content: (B, 3, H, W), values in [0, 1].
        masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight.
        gains: the range of the maps' eigenvalues.

    Returns:
        Coefficients (B, 3, 4, H, W) in the content's dtype.
    """
    maps = colour_maps(colour_moments(content, masks), style, gains)
    weights = _carried_to_edges(masks, content)
    parts = torch.cat([maps.matrix, maps.offset[..., None]], -1).to(content.dtype)
    if len(weights) == 1:
        return parts[:, 0, :, :, None, None].expand(-1, -1, -1, *content.shape[2:])
    # Blending the maps equals blending their results.
    return torch.einsum("mhw,bmck->bckhw", weights.to(content.dtype), parts)


def match_colours(
    image: Tensor,
    style: Moments,
    gains: tuple[float, float] = EXACT,
    weights: Tensor | None = None,
) -> Tensor:
    """Each image of a batch with the given colour mean and covariance: one affine map per image.

    Args:
        image: (B, 3, H, W), values in [0, 1].
        style: (1, 1, 3) and (1, 1, 3, 3), as of `colour_moments`; or one for each image.
        gains: the range of the maps' eigenvalues.
        weights: of the image's pixels, (H, W) in [0, 1]; ``None``: all alike.

    Returns:
        (B, 3, H, W), not clamped, in the image's dtype.
    """
    matrix, offset = _matching_maps(image, style, gains, weights)
    return (matrix @ image.flatten(2) + offset[..., None]).view_as(image)


@torch.no_grad()
def restore_contrast(
    coefficients: Tensor, base: Tensor, photo: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Affine maps followed by one more, which gives their result the base's colours as a whole.

    What is added to a closed-form transfer in order to match features lifts blacks: a target that
    cannot be reached everywhere is averaged. The last map has the base's mean and covariance, and
    contrast from black to white never falls by it.

    Args:
        coefficients, base: (B, 3, 4, H, W), of the result and of the closed form.
        photo: (B, 3, H, W), values in [0, 1].
        weights: of its pixels, (H, W) in [0, 1]; ``None``: all alike.

    Returns:
        Coefficients (B, 3, 4, H, W).
    """
    before, after = (apply_affine(maps, photo).clamp(0, 1) for maps in (base, coefficients))
    maps = _matching_maps(after, _whole_moments(before, weights), CONTRAST_GAINS, weights)
    return compose_affine(*maps, coefficients)


def _matching_maps(
    image: Tensor, style: Moments, gains: tuple[float, float], weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(B, 3, 3) and (B, 3), in the image's dtype."""
    maps = colour_maps(_whole_moments(image, weights), style, gains)
    return maps.matrix[:, 0].to(image.dtype), maps.offset[:, 0].to(image.dtype)


def _whole_moments(image: Tensor, weights: Tensor | None) -> Moments:
    return moments(image.flatten(2).mT, weights if weights is None else weights.reshape(1, -1))


def _carried_to_edges(masks: Tensor, photo: Tensor) -> Tensor:
    if len(masks) == 1:
        return masks
    radius = max(1, round(BORDER * max(photo.shape[2:])))
    filtered = (
        GuidedFilter(radius, BORDER_RIDGE).laplacian(photo).guided_filter(masks[None].to(photo))[0]
    )
    return shares(filtered)
