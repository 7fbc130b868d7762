"""The smooth map of a photo's colours that comes nearest to an image.

A change that depends on nothing but a pixel's colour, as that of a curve or of a 3D lookup table,
makes no haze, glow or patch. The map is a table of 9 x 9 x 9 colours over the photo's RGB,
interpolated trilinearly.
"""

import warnings
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array, diags_array, eye_array, kron, tril
from torch import Tensor

from photostyle.ops.colour_transfer import colour_maps
from photostyle.ops.jit import kernel
from photostyle.ops.transport import moments

SIZE = 9
SMOOTHNESS = 1e-3
"""λ: where the photo has few colours the table goes on as it does beside them."""
RIDGE = 1e-6
"""Where it has none at all."""
BAND = 2 * SIZE**2
"""How far apart in a table's order two entries are that a second difference has in common."""


class NearestColourMap:
    """S r: the smooth map of the photo's colours nearest to an image r, under each mask.

    With W the trilinear weights of N pixels' colours and M_m the diagonal matrix of a mask,

        t_m = argmin (W t − r)ᵀ M_m (W t − r) + λ N_m/9³ ‖D t‖² + 1e-6 N_m ‖t‖²,  N_m = tr M_m
        S r = Σ_m M_m W t_m

    where D are second differences along the three axes of the table: lattice regression, Garcia
    and Gupta (2009). S is linear and, where all pixels count alike, symmetric: its gradient is S
    itself.

    Args:
        photo: (1, 3, H, W), float32 or float64, values in [0, 1]. S is computed on its device and
            in its dtype, the tables in float64; images are to have both.
        masks: (M, H, W), values in [0, 1], sum 1 at every pixel, none of them empty; ``None``: one,
            everywhere.
        pixel_weights: how much each pixel counts, Ω, (H, W) in [0, 1]: M_m Ω in the place of M_m in
            t_m. ``None``: all alike.
    """

    def __init__(
        self, photo: Tensor, masks: Tensor | None = None, pixel_weights: Tensor | None = None
    ):
        if masks is None:
            masks = photo.new_ones(1, *photo.shape[2:])
        weights = trilinear_weights(photo[0].detach().double().flatten(1).mT.cpu().numpy())
        self.weights = _to_torch(weights, photo)
        self.transposed = _to_torch(weights.T.tocsr(), photo)
        self.masks = masks.to(photo)
        self.pixel_weights = pixel_weights if pixel_weights is None else pixel_weights.to(photo)
        counted = masks if pixel_weights is None else masks * pixel_weights.to(masks)
        self.factors = [
            _factor(weights, mask).to(photo.device)
            for mask in counted.detach().double().flatten(1).cpu().numpy()
        ]

    def __call__(self, image: Tensor) -> Tensor:
        """S r, (1, C, H, W) for (1, C, H, W)."""
        return _Nearest.apply(image, self)

    def counted(self, image: Tensor) -> Tensor:
        """Ω r."""
        return image if self.pixel_weights is None else self.pixel_weights * image

    def spread(self, image: Tensor) -> Tensor:
        """Σ_m M_m W t_m of what has been counted: symmetric in it."""
        return (self.masks[:, None] * self._by_mask(image)).sum(0, keepdim=True)

    @torch.no_grad()
    def by_mask(self, image: Tensor) -> Tensor:
        """W t_m, (M, C, H, W) for (1, C, H, W): each mask's map of the whole photo."""
        return self._by_mask(self.counted(image))

    def _by_mask(self, image: Tensor) -> Tensor:
        maps = [self.weights @ table for table in self._tables(image)]
        return torch.stack(maps).mT.unflatten(2, image.shape[2:])

    @torch.no_grad()
    def tables(self, image: Tensor) -> Tensor:
        """t_m, (M, C, 9, 9, 9), for (1, C, H, W); by red, green and blue from 0 to 1."""
        return torch.stack(self._tables(self.counted(image))).mT.unflatten(2, (SIZE, SIZE, SIZE))

    def _tables(self, image: Tensor) -> list[Tensor]:
        values = image[0].flatten(1).mT
        tables = []
        for mask, factor in zip(self.masks.flatten(1), self.factors, strict=True):
            right = (self.transposed @ (mask[:, None] * values)).double()
            tables.append(torch.cholesky_solve(right, factor).to(values))
        return tables


@torch.no_grad()
def nearest_colour_map(
    photo: Tensor, image: Tensor, *, pixel_weights: Tensor | None = None, size: int = 128
) -> Tensor:
    """The map of the photo's colours nearest to an image, found once, at a small size.

    Args:
        photo: (B, 3, H, W), float32 or float64, values in [0, 1].
        image: (B, C, H, W), of the same dtype.
        pixel_weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all alike.
        size: long side in pixels at which the table is fitted.

    Returns:
        (B, C, H, W), the table of each photo at each of its pixels.
    """
    photos, images = (_shrunk(batch, size).split(1) for batch in (photo, image))
    if pixel_weights is not None:
        pixel_weights = _shrunk(pixel_weights[None, None], size)[0, 0]
    tables = [
        NearestColourMap(p, pixel_weights=pixel_weights).tables(r)
        for p, r in zip(photos, images, strict=True)
    ]
    # What grid_sample calls x runs along the last axis: blue.
    positions = 2 * photo.movedim(1, -1)[:, None].flip(-1) - 1
    return F.grid_sample(
        torch.cat(tables), positions, padding_mode="border", align_corners=True
    ).squeeze(2)


@torch.no_grad()
def colour_table(photo: Tensor, image: Tensor, *, size: int = 128) -> Tensor:
    """The smooth map from a photo's colours to an image's, as a table of all colours.

    Where the photo has no colours, the map that gives its colours the image's mean and covariance
    goes on: it is what S starts from.

    Args:
        photo, image: (1, 3, H, W), float32 or float64, values in [0, 1].
        size: long side in pixels at which the table is fitted.

    Returns:
        (3, 9, 9, 9), float64, by red, green and blue from 0 to 1; not clamped.
    """
    photo, image = (_shrunk(batch, size).double() for batch in (photo, image))
    source, target = (moments(batch.flatten(2).mT) for batch in (photo, image))
    matrix, offset = (part[0, 0] for part in colour_maps(source, target))
    base = torch.einsum("jk,bkhw->bjhw", matrix, photo) + offset[:, None, None]
    axis = torch.linspace(0, 1, SIZE, dtype=torch.float64, device=photo.device)
    lattice = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    table = torch.einsum("jk,krgb->jrgb", matrix, lattice) + offset[:, None, None, None]
    return table + NearestColourMap(photo).tables(image - base)[0]


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, nearest: NearestColourMap) -> Tensor:
        ctx.nearest = nearest
        return nearest.spread(nearest.counted(image))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.nearest.counted(ctx.nearest.spread(gradient)), None


def _shrunk(images: Tensor, size: int) -> Tensor:
    scale = size / max(images.shape[2:])
    if scale >= 1:
        return images
    sides = [max(1, round(scale * side)) for side in images.shape[2:]]
    return F.interpolate(images, sides, mode="area")


def trilinear_weights(colours: np.ndarray, size: int = SIZE) -> csr_array:
    """W, (N, size³): the share of each entry of a table in each of (N, 3) colours."""
    columns = np.empty((len(colours), 8), np.int64)
    shares = np.empty(columns.shape)
    _corners(np.ascontiguousarray(colours, np.float64), size, columns, shares)
    starts = np.arange(0, columns.size + 1, 8)
    return csr_array((shares.ravel(), columns.ravel(), starts), (len(colours), size**3))


@kernel(fastmath={"contract"})
def _corners(colours, size, columns, shares):
    """The eight entries of a table around each colour, and their shares."""
    low = np.empty(3, np.int64)
    fraction = np.empty(3)
    for i in range(len(colours)):
        for c in range(3):
            position = min(max(colours[i, c], 0.0), 1.0) * (size - 1)
            low[c] = max(0, min(np.int64(position), size - 2))
            fraction[c] = position - low[c]
        for corner in range(8):
            column, share = 0, 1.0
            for c in range(3):
                step = (corner >> (2 - c)) & 1
                column = column * size + low[c] + step
                share *= fraction[c] if step else 1 - fraction[c]
            columns[i, corner] = column
            shares[i, corner] = share


def _factor(weights: csr_array, mask: np.ndarray) -> Tensor:
    """Cholesky's of Wᵀ M W + λ N/9³ Dᵀ D + 1e-6 N."""
    count = mask.sum()
    bands = SMOOTHNESS * count / SIZE**3 * _roughness_bands()
    bands[:, 0] += RIDGE * count
    corners = weights.indices.reshape(-1, 8), weights.data.reshape(-1, 8)
    _add_normal(*corners, mask, bands)
    factor = np.zeros((SIZE**3, SIZE**3))
    _banded_cholesky(bands, factor)
    return torch.from_numpy(factor)


@cache
def _roughness_bands() -> np.ndarray:
    """A matrix A = Dᵀ D by its bands: A[j + k, j] at [j, k]."""
    lower = tril(roughness(), format="coo")
    bands = np.zeros((SIZE**3, BAND + 1))
    bands[lower.col, lower.row - lower.col] = lower.data
    return bands


@kernel(fastmath={"contract"})
def _add_normal(indices, shares, mask, bands):
    """Add Wᵀ M W, of eight entries in each row of W."""
    for i in range(len(mask)):
        for first in range(8):
            share = mask[i] * shares[i, first]
            column = indices[i, first]
            for second in range(8):
                above = indices[i, second] - column
                if above >= 0:
                    bands[column, above] += share * shares[i, second]


@kernel(fastmath={"contract"})
def _banded_cholesky(bands, factor):
    """The factor of a matrix by its bands, over which it works.

    LAPACK's of a dense matrix takes four times as long; its banded one starts threads, which stand
    in the way of those that work on other photos.
    """
    size, width = bands.shape
    for j in range(size):
        count = min(width, size - j)
        bands[j, 0] = np.sqrt(bands[j, 0])
        for k in range(1, count):
            bands[j, k] /= bands[j, 0]
        for k in range(1, count):
            share = bands[j, k]
            for i in range(count - k):
                bands[j + k, i] -= share * bands[j, k + i]
        for k in range(count):
            factor[j + k, j] = bands[j, k]


@cache
def roughness(size: int = SIZE) -> csr_array:
    """Dᵀ D, (size³, size³)."""
    second = diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(size - 2, size))
    identity = eye_array(size)
    axes = (
        kron(kron(second, identity), identity),
        kron(kron(identity, second), identity),
        kron(kron(identity, identity), second),
    )
    return sum(difference.T @ difference for difference in axes).tocsr()


def _to_torch(matrix: csr_array, like: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its CSR matrices beta
        sparse = torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            matrix.shape,
        )
    return sparse.to(like)
