"""The linear Monge-Kantorovich colour transfer, of a whole photo or region by region."""

import torch
import torch.nn.functional as F
from torch import Tensor

from photostyle.ops.affine import apply_affine, identity_affine, resize_affine
from photostyle.ops.checks import check_masks, check_photo, check_photos
from photostyle.ops.gram import pixel_weights, whole_mask
from photostyle.ops.guided_filter import GuidedFilter
from photostyle.ops.matrix_functions import identity_like, limit_eigenvalues
from photostyle.ops.tone_curve import END, ToneCurve, at_shares, reachable_mean
from photostyle.ops.tones import CURVATURE, check_curvature, from_tones, to_tones, tone_slope
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
# To that of a style that has none, one in black and white: no colour is left, and nothing singular.
LEAST_VARIANCE = 1e-4 * NOISE_VARIANCE
GAINS = (0.85, 1.8)
"""Of contrast: below, photos look veiled; above, noise and JPEG blocks show. Saturation may go."""
CONTRAST_GAINS = (1.0, 1.6)
"""Of `restore_contrast`: no more than brings back what was lost, and noise stays noise."""
LARGEST_LIFT = 0.05
"""Of black towards white, that is taken back; what is more is no veil but the picture."""
BORDER = 1 / 20
"""Radius, as a share of the long side, of the guided filter that carries masks to edges."""
BORDER_RIDGE = 1e-2
"""Its ridge: maps change where the photo does, and elsewhere so slowly that no halo is seen."""
CURVES = GuidedFilter(radius=4)
"""That of what is left of tone curves: in small windows they are nearly affine."""
COLOURED_NOISE = GuidedFilter(radius=16, ridge=2.25 * NOISE_VARIANCE)
"""What it takes away from a photo is its noise, up to the blotches of JPEG files and of sensors."""


def colour_moments(image: Tensor, masks: Tensor) -> Moments:
    """Mean, (B, M, 3), and covariance, (B, M, 3, 3), of the colours under each mask, float64.

    Args:
        image: (B, 3, H, W).
        masks: (M, H, W), weights in [0, 1], none of them empty.
    """
    return moments(image.flatten(2).mT, masks.flatten(1))


def colour_maps(source: Moments, target: Moments, gains: tuple[float, float] = EXACT) -> AffineMaps:
    """The maps of least motion that turn colour moments into others; (..., 3, 3) and (..., 3)."""
    noise = NOISE_VARIANCE * identity_like(source.covariance)
    # All of it from half a level on.
    of_target = limit_eigenvalues(4 * target.covariance, LEAST_VARIANCE, NOISE_VARIANCE)
    source = source._replace(covariance=source.covariance + noise)
    target = target._replace(covariance=target.covariance + of_target)
    return monge_kantorovich(source, target, gains=gains, axes=GREY_AXIS)


def colour_transfer(
    content: Tensor,
    style: Tensor,
    content_masks: Tensor | None = None,
    style_masks: Tensor | None = None,
    *,
    gains: tuple[float, float] = GAINS,
    curvature: float = CURVATURE,
) -> Tensor:
    """The content with the style's colours, as affine maps that vary from place to place.

    Each region has the linear Monge-Kantorovich map of its colour moments, Pitié and Kokaram
    (2007), with bounded gains, on the scale of `ops.tones`. A guided filter carries the regions to
    the photo's edges. Unless the gains are `EXACT` or the curvature is 0, black and white are bent
    back, see `ops.tone_curve`, and the colour of noise on plain surfaces is not carried along.

    Args:
        content: (B, 3, H, W), values in [0, 1]; each photo has maps of its own.
        style: (1, 3, H', W'), values in [0, 1].
        content_masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight: 1, less where
            the photo is transparent; ``None``: one region.
        style_masks: (M, H', W'), values in [0, 1].
        gains: the range of the maps' eigenvalues.
        curvature: of the scale of tones, from 0, pixel values as they are, to 0.99.

    Returns:
        Coefficients (B, 3, 4, H, W), to be applied to the content at any size, see
        `ops.affine.apply_affine`; in the content's dtype, float32 where that is half precision.

    Raises:
        ArgumentError: for photos, masks and ``gains`` other than these, and a ``curvature`` outside
            [0, 0.99].
    """
    gains = check_gains("gains", gains)
    check_curvature("curvature", curvature)
    check_photos("content", content)
    check_photo("style", style)
    check_masks(content_masks, style_masks, content, style)
    if content_masks is None:
        content_masks, style_masks = whole_mask(content), whole_mask(style)
    wanted = colour_moments(to_tones(style, curvature), style_masks)
    return transfer_to(wanted, content, content_masks, gains=gains, curvature=curvature)


def transfer_to(
    style: Moments,
    content: Tensor,
    masks: Tensor,
    *,
    gains: tuple[float, float] = GAINS,
    curvature: float = CURVATURE,
) -> Tensor:
    """As `colour_transfer`, to a style of which the moments are known.

    Args:
        style: (B, M, 3) and (B, M, 3, 3), as of `colour_moments` of the style's tones; of one style
            or of B.
        content: (B, 3, H, W), values in [0, 1].
        masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight.
        gains: the range of the maps' eigenvalues.
        curvature: of the scale of tones, as of ``style``; not checked.

    Returns:
        Coefficients (B, 3, 4, H, W), in the content's dtype, float32 where that is half precision.
    """
    content = content.to(torch.promote_types(content.dtype, torch.float32))
    tones = to_tones(content, curvature)
    source = colour_moments(tones, masks)
    # Neither the exact map nor one of pixel values is bent.
    is_bent = gains != EXACT and curvature > 0
    target = style._replace(mean=reachable_mean(source.mean, style.mean)) if is_bent else style
    maps = _joined(colour_maps(source, target, gains)).to(content.dtype)
    weights = _carried_to_edges(masks, content).to(content.dtype)
    bend = None
    if is_bent:
        moved = (weights.flatten(2) * _lightness(tones, maps)).sum(1)
        before = tones.mean(1).flatten(1)
        bend = ToneCurve.between(moved, before, style, pixel_weights(masks), curvature)
    curve = _Curve(content, tones, curvature, bend)
    # Blending the maps equals blending their results.
    blended = sum(
        weight[:, None, None] * curve.coefficients(part)
        for weight, part in zip(weights.unbind(1), maps.unbind(1), strict=True)
    )
    return _without_coloured_noise(blended, content) if is_bent else blended


class _Curve:
    """What an affine map of a photo's tones, and then a bend, is as affine maps of its values."""

    def __init__(self, photo: Tensor, tones: Tensor, curvature: float, bend: ToneCurve | None):
        self.photo = photo
        self.tones = tones
        self.curvature = curvature
        self.bend = bend
        # Without curvature all tangents are the same.
        is_curved = curvature > 0 and _has_windows(photo)
        self.laplacian = CURVES.laplacian(photo) if is_curved else None
        self.cells = photo
        if is_curved:
            sides = [-(-side // self.laplacian.radius) for side in photo.shape[2:]]
            self.cells = F.interpolate(photo, sides, mode="area")

    def coefficients(self, maps: Tensor) -> Tensor:
        """(B, 3, 4, H, W), of maps (B, 3, 4).

        The curve has a tangent at the mean colour of each cell, and between cells that is
        interpolated. Within a cell it makes no detail stronger, which may be noise. What it leaves
        over, at edges above all, is given to the guided filter: alone it would take away fine
        texture.
        """
        tangents = self._tangents(maps)
        if self.laplacian is None:
            return tangents
        tangents = resize_affine(tangents, self.photo.shape[2:])
        rest = self._curve(maps, self.tones) - apply_affine(tangents, self.photo)
        return tangents + self.laplacian.coefficients(rest)

    def _curve(self, maps: Tensor, tones: Tensor) -> Tensor:
        moved = _moved(tones, maps)
        return from_tones(moved if self.bend is None else self.bend(moved), self.curvature)

    def _tangents(self, maps: Tensor) -> Tensor:
        tones = to_tones(self.cells, self.curvature)
        y = self._curve(maps, tones)
        matrix = maps[:, :, :3, None, None]
        if self.bend is not None:  # but for how saturation changes with lightness, which is little
            slope, saturation = self.bend.slopes(_moved(tones, maps))
            lightness = matrix.mean(1, keepdim=True)
            matrix = slope[:, None] * lightness + saturation[:, None] * (matrix - lightness)
        slopes = tone_slope(self.cells, self.curvature)[:, None]
        slopes = slopes / tone_slope(y, self.curvature)[:, :, None]
        matrix = matrix * slopes
        if self.bend is not None:  # the exact map is meant as it is
            matrix = _not_raising(matrix)
        offset = y - (matrix * self.cells[:, None]).sum(2)
        return torch.cat([matrix, offset[:, :, None]], 2)


def _not_raising(matrix: Tensor) -> Tensor:
    """Matrices (B, 3, 3, H, W) whose gains of grey and of coloured detail are at most 1."""
    grey = matrix.mean(2, keepdim=True)
    coloured = matrix - grey
    grey_gain = 3 * grey.mean(1, keepdim=True)
    coloured_gain = (coloured.square().sum((1, 2), keepdim=True) / 2).sqrt()
    return grey / grey_gain.clamp(min=1) + coloured / coloured_gain.clamp(min=1)


def _without_coloured_noise(maps: Tensor, photo: Tensor) -> Tensor:
    """Maps (B, 3, 4, H, W) that take colour from the smooth photo, and lightness from the photo.

    A' I + b' being the smooth photo, A I + b becomes A I + b + C A (A' I + b' − I), where C takes
    the mean of the channels away. On a plain wall and in the sky one sees coloured noise at once.
    """
    if not _has_windows(photo):
        return maps
    smooth = COLOURED_NOISE.laplacian(photo).coefficients(photo)
    change = smooth - identity_affine(smooth)
    matrix = maps[:, :, :3]
    coloured = matrix - matrix.mean(1, keepdim=True)
    return maps + torch.einsum("bijhw,bjkhw->bikhw", coloured, change)


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
    maps = colour_maps(_whole_moments(image, weights), style, gains)
    return _moved(image, _joined(maps)[:, 0].to(image.dtype))


@torch.no_grad()
def restore_contrast(image: Tensor, base: Tensor, weights: Tensor | None = None) -> Tensor:
    """An image moved by one affine map, which gives it the base's colours as a whole.

    What is added to a closed-form transfer in order to match features lifts blacks: a target that
    cannot be reached everywhere is averaged. The map gives it the base's mean and covariance, and
    contrast from black to white never falls by it; and what is black stays as black as the base's.

    Args:
        image, base: (B, 3, H, W), the result and the closed form; what is outside [0, 1] counts as
            black or white.
        weights: of the pixels, (H, W) in [0, 1]; ``None``: all alike.

    Returns:
        (B, 3, H, W), values in [0, 1].
    """
    image, base = image.clamp(0, 1), base.clamp(0, 1)
    image = match_colours(image, _whole_moments(base, weights), CONTRAST_GAINS, weights)
    image = image.clamp(0, 1)
    # White stays; black, where it is lighter than the base's, goes there.
    lifted, black = (_black_point(x, weights) for x in (image, base))
    lift = (lifted - black) / (1 - black).clamp(min=1 / 255)
    slope = 1 / (1 - lift.clamp(0, LARGEST_LIFT))
    return (1 - slope[..., None] * (1 - image)).clamp(0, 1)


def _has_windows(photo: Tensor) -> bool:
    """A line has none."""
    return min(photo.shape[2:]) >= 3


def _joined(maps: AffineMaps) -> Tensor:
    """Matrices and offsets in one, (..., 3, 4)."""
    return torch.cat([maps.matrix, maps.offset[..., None]], -1)


def _lightness(tones: Tensor, maps: Tensor) -> Tensor:
    """Of what each of some maps (B, M, 3, 4) makes of tones (B, 3, H, W): (B, M, N)."""
    weights, offset = maps.mean(2).split([3, 1], -1)
    return weights @ tones.flatten(2) + offset


def _moved(image: Tensor, maps: Tensor) -> Tensor:
    """M x + m, of maps (B, 3, 4), everywhere in (B, 3, H, W)."""
    matrix, offset = maps.split([3, 1], -1)
    return (matrix @ image.flatten(2) + offset).view_as(image)


def _black_point(image: Tensor, weights: Tensor | None) -> Tensor:
    """Of each channel, (B, C, 1)."""
    return at_shares(image.flatten(2), (END,), weights)


def _whole_moments(image: Tensor, weights: Tensor | None) -> Moments:
    return moments(image.flatten(2).mT, weights if weights is None else weights.reshape(1, -1))


def _carried_to_edges(masks: Tensor, photo: Tensor) -> Tensor:
    """(B, M, H, W), sum 1 over M, of masks (M, H, W) and photos (B, 3, H, W)."""
    if len(masks) == 1:
        return torch.ones_like(photo[:, :1])
    radius = max(1, round(BORDER * max(photo.shape[2:])))
    laplacian = GuidedFilter(radius, BORDER_RIDGE).laplacian(photo)
    filtered = laplacian.guided_filter(masks.to(photo).expand(len(photo), -1, -1, -1))
    return torch.stack([shares(of_photo) for of_photo in filtered])
