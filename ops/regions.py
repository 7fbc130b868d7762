"""Automatic masks: two photos segmented together, so that regions have counterparts."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photostyle.ops.devices import convolution_dtype
from photostyle.ops.features import VGGFeatures
from photostyle.ops.gram import average_down, whole_mask
from photostyle.ops.guided_filter import GuidedFilter
from photostyle.ops.transport import shares

LAYERS = ("relu3_3", "relu4_3", "relu5_1")
"""Texture, parts and things."""
SIZE = 384
"""Long side at which the photos are compared."""
COMPONENTS = 32
OVERSAMPLING = 16
POWER_ITERATIONS = 4
"""Of the principal components: enough that their agreement with painted masks is the same."""
VERTICAL_WEIGHT = 0.7
"""Of the height in the photo, from -1 to 1: what is above is rather sky than lake."""
COLOUR_WEIGHT = 0.1
"""Of each colour channel, normalised as features are: a lamp is brighter than the wall."""
REGIONS = 5
"""More agree hardly better with painted masks and give worse pictures (docs/quality.md)."""
RESTARTS = 16
"""Of k-means, so many that a level of noise hardly ever leads to other regions."""
FIRST_ITERATIONS, ITERATIONS = 12, 40
"""Of all of them, and of the one that is the best by then."""
LEAST_SHARE = 0.01
"""Of both photos; a region below it in one of them has no counterpart there."""
PLAIN = 0.75
"""Deviation of a plain photo's features from their mean, over their root mean square, at most: of
152 photos it is 0.86 or more, of noise on a wall 0.65, of an even sky 0.2."""
PLAIN_COLOURS = 0.1
"""That of its colours, at most: of an even sky 0.08, of two halves 0.3."""
EVEN_COLOURS = 0.05
"""That of an even surface within a photo, whose features deviate as little as a plain photo's: of a
sky around a kite 0.02, and 0.5 to 0.6 of the features."""
REFINEMENT = GuidedFilter(radius=16, ridge=1e-3)
"""Takes masks from the features' grid to the photo's edges."""
FAINT = 0.05
"""Below it a mask is 0: its share of a pixel costs as much as a whole one."""


class _Cells(NamedTuple):
    """The cells of relu4_3's grid: features (N, channels), colours (N, 3) and heights (N,), from -1
    to 1, of those N that are counted, (height, width); and as they are, relu4_3's square roots and
    colours, where the others are normalised."""

    features: Tensor
    colours: Tensor
    heights: Tensor
    roots: Tensor
    own_colours: Tensor
    counted: Tensor


class Described(NamedTuple):
    """A photo, (1, 3, H, W), what it is compared by, and whether it has no parts, see `PLAIN`."""

    image: Tensor
    cells: _Cells
    is_plain: bool


@torch.no_grad()
def describe(
    photo: Tensor,
    weights: Tensor | None = None,
    *,
    encoder: Callable[[tuple[str, ...]], nn.Module] = VGGFeatures,
) -> Described:
    """What `segment_together` needs of a photo, which may be met with several others.

    Args:
        photo: (1, 3, H, W), values in [0, 1].
        weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all alike. Where it is less
            than a half nothing is compared.
        encoder: makes a network of features from names of layers, with ``convolve_in(dtype)``, as
            `VGGFeatures` has; it computes in bfloat16 where the hardware does. Of several photos
            ``functools.cache(VGGFeatures)`` reads its weights once.
    """
    network = encoder(LAYERS).to(photo.device)
    network.convolve_in(convolution_dtype("auto", photo.device))
    small = _at_size(photo)
    with torch.autocast(photo.device.type, enabled=False):
        features = network(small)
    features = {layer: maps.float() for layer, maps in features.items()}
    fine, middle, coarse = (features[layer] for layer in LAYERS)
    size = tuple(middle.shape[2:])
    fine = F.interpolate(fine, size, mode="area")
    coarse = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    counted = _counted(size, weights).to(photo.device)
    roots = [maps.sqrt() for maps in (fine, middle, coarse)]
    features = [_normalised(maps, counted) / maps.shape[1] ** 0.5 for maps in roots]
    colours = F.interpolate(small, size, mode="area")
    own = [maps[0][:, counted].T for maps in (roots[1], colours)]
    is_plain = _contrast(own[0], own[0]) < PLAIN and _spread(own[1]) < PLAIN_COLOURS
    heights = torch.linspace(-1, 1, size[0])[:, None].expand(size)[counted.cpu()]
    cells = _Cells(torch.cat(features, 1), _normalised(colours, counted), heights, *own, counted)
    return Described(photo, cells, is_plain)


@torch.no_grad()
def segment_together(
    content: Described, style: Described, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Regions that both photos have, by k-means of both photos' features together.

    Features are normalised within each photo, so that day and night meet, and reduced by a
    principal component analysis of both. Regions that one of the photos lacks are merged into what
    is nearest to them by Ward's criterion. Of a plain photo, a wall, all is one region: normalised,
    its noise would be parts. Nor is an even surface of the content parted, the sky around a kite.
    At last the masks are projected onto what is locally affine in their photo, which moves their
    borders to its edges.

    Args:
        content, style: of (1, 3, H, W) and (1, 3, H', W'), as `describe` returns them.
        seed: of the first centres.

    Returns:
        Soft masks of both, (M, H, W) and (M, H', W') in [0, 1], at most five, sum 1 at every pixel,
        by falling area in the content.
    """
    photos = content, style
    if any(photo.is_plain for photo in photos):
        return whole_mask(content.image), whole_mask(style.image)
    with torch.autocast(content.image.device.type, enabled=False):
        points = _points([photo.cells for photo in photos])
        split = int(content.cells.counted.sum())
        clusters = _clusters(points, REGIONS, seed).numpy()
        labels = _without_counterpart_merged(points.numpy(), clusters, split)
        labels = _even_merged(labels, split, content.cells)
        found = np.unique(labels)
        masks = [
            _masks(part, photo.cells.counted, found, photo.image)
            for part, photo in zip((labels[:split], labels[split:]), photos, strict=True)
        ]
    order = masks[0].flatten(1).sum(1).argsort(descending=True)
    return masks[0][order], masks[1][order]


def _counted(size: tuple[int, int], weights: Tensor | None) -> Tensor:
    """Which cells are compared: (height, width) of bool."""
    if weights is None:
        return torch.ones(size, dtype=torch.bool)
    share = average_down(weights[None], size)[0]
    return share >= min(0.5, float(share.max()))


def _contrast(x: Tensor, whole: Tensor) -> float:
    """Deviation of (N, C) features over the root mean square of those of the whole photo."""
    variance = x.var(0, correction=0).sum() / whole.square().mean(0).sum().clamp(min=1e-12)
    return float(variance.sqrt())


def _spread(colours: Tensor) -> float:
    """Deviation of (N, 3) colours."""
    return float(colours.std(0, correction=0).mean())


def _normalised(maps: Tensor, counted: Tensor) -> Tensor:
    """(1, C, H, W) -> (N, C), each channel with mean 0 and deviation 1 where it is counted."""
    x = maps[0][:, counted]
    return ((x - x.mean(1, keepdim=True)) / (x.std(1, correction=0, keepdim=True) + 1e-6)).T


def _at_size(photo: Tensor) -> Tensor:
    scale = SIZE / max(photo.shape[2:])
    if scale >= 1:
        return photo
    size = [max(16, round(scale * side)) for side in photo.shape[2:]]
    return F.interpolate(photo, size, mode="bicubic", antialias=True).clamp(0, 1)


def _points(cells: Sequence[_Cells]) -> Tensor:
    """Both photos' cells: principal components, colours, and the height in the photo."""
    features, colours, heights = (
        torch.cat([getattr(part, name) for part in cells])
        for name in ("features", "colours", "heights")
    )
    x = features - features.mean(0)
    components = x @ _principal_axes(x)
    return torch.column_stack(
        [components.cpu(), COLOUR_WEIGHT * colours.cpu(), VERTICAL_WEIGHT * heights]
    )


def _principal_axes(x: Tensor) -> Tensor:
    """The directions of most variance of centred vectors (N, D), (D, COMPONENTS), orthonormal.

    By subspace iteration, Halko et al. (2011), whose few products take a tenth of the time of all
    eigenvectors.
    """
    random = torch.Generator().manual_seed(0)
    axes = torch.randn(x.shape[1], COMPONENTS + OVERSAMPLING, generator=random).to(x)
    for _ in range(POWER_ITERATIONS):
        axes, _ = torch.linalg.qr(x.T @ (x @ axes))
    # Of flat photos nothing is left but rounding, on which LAPACK gives up in float32.
    _, rotation = torch.linalg.eigh((x @ axes).double().T @ (x @ axes).double())
    return axes @ rotation[:, -COMPONENTS:].to(x)


def _clusters(points: Tensor, regions: int, seed: int) -> Tensor:
    """The label of each of (N, D) points: the best of several runs of k-means, side by side.

    They start by k-means++, Arthur and Vassilvitskii (2007).
    """
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(points), (RESTARTS, 1), generator=random)
    centres = points[first]
    for _ in range(regions - 1):
        nearest = _distances(points, centres).amin(2).square()
        # Where all points are centres already, any will do.
        chosen = torch.multinomial(nearest + 1e-12, 1, generator=random)
        centres = torch.cat([centres, points[chosen]], 1)
    for iteration in range(ITERATIONS):
        if iteration == FIRST_ITERATIONS:
            spread = _distances(points, centres).amin(2).square().sum(1)
            centres = centres[spread.argmin()][None]
        labels = _distances(points, centres).argmin(2)
        members = F.one_hot(labels, regions).to(points).mT
        counts = members.sum(2, keepdim=True)
        centres = torch.where(counts > 0, members @ points / counts.clamp(min=1), centres)
    return _distances(points, centres)[0].argmin(1)


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Of (N, D) points from (R, K, D) centres: (R, N, K)."""
    return torch.cdist(points.expand(len(centres), -1, -1), centres)


def _shares(labels: np.ndarray, split: int) -> list[float]:
    """Of each label, in the photo that has less of it."""
    return [
        min((labels[:split] == label).mean(), (labels[split:] == label).mean())
        for label in np.unique(labels)
    ]


def _without_counterpart_merged(points: np.ndarray, labels: np.ndarray, split: int) -> np.ndarray:
    """Labels of which each has its share of both photos, the points before and from ``split``."""
    labels = labels.copy()
    while len(found := np.unique(labels)) > 1:
        shares = _shares(labels, split)
        rarest = int(np.argmin(shares))
        if shares[rarest] >= LEAST_SHARE:
            break
        counts = np.array([(labels == label).sum() for label in found])
        centres = np.stack([points[labels == label].mean(0) for label in found])
        # Ward (1963): by how much merging two raises the sum of squares.
        cost = ((centres - centres[rarest]) ** 2).sum(1)
        cost *= counts * counts[rarest] / (counts + counts[rarest])
        cost[rarest] = np.inf
        labels[labels == found[rarest]] = found[cost.argmin()]
    return labels


def _even_merged(labels: np.ndarray, split: int, content: _Cells) -> np.ndarray:
    """Labels of which no two are the same even surface of the content, whose points come first.

    Heights part a sky, and so does a kite, around which features differ; the border would show.
    """
    labels = labels.copy()
    while True:
        even = []
        for pair in itertools.combinations(np.unique(labels[:split]), 2):
            cells = torch.from_numpy(np.isin(labels[:split], pair))
            contrast = _contrast(content.roots[cells], content.roots)
            if contrast < PLAIN and _spread(content.own_colours[cells]) < EVEN_COLOURS:
                even.append((contrast, *pair))
        if not even:
            return labels
        _, first, second = min(even)
        labels[labels == second] = first


def _masks(labels: np.ndarray, counted: Tensor, found: np.ndarray, photo: Tensor) -> Tensor:
    """(M, H, W) in [0, 1], sum 1 at every pixel."""
    grid = torch.zeros(len(found), *counted.shape)
    grid[:, counted.cpu()] = torch.from_numpy(labels == found[:, None]).float()
    coarse = F.interpolate(
        grid[None].to(photo), photo.shape[2:], mode="bilinear", align_corners=False
    )
    fine = shares(REFINEMENT.laplacian(photo).guided_filter(coarse)[0])
    fine = fine.where(fine >= FAINT, 0)
    return fine / fine.sum(0)
