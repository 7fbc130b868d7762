"""Tables of colours over RGB, interpolated trilinearly, and fitted: lattice regression.

With the trilinear weights W (N, size³) of N pixels' colours a table t gives the pixels W t; fitting
one, Garcia and Gupta (2009), takes sums over the pixels, Wᵀ v, and the normal matrix Wᵀ M W. On the
CPU the eight entries around each colour and their shares are kept. On a GPU W is the product of hat
functions along the three axes,

    W[i, (j, k, l)] = h_j(red_i) h_k(green_i) h_l(blue_i)

so sums over pixels are products of matrices: all of a batch at once, and in one order, where
additions to one place from many threads have none.
"""

from functools import cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array, diags_array, eye_array, kron, tril
from torch import Tensor

from photostyle.ops.jit import kernel

SIZE = 9
"""Entries along an axis."""
ENTRIES = SIZE**3
SMOOTHNESS = 1e-3
"""λ: where the photo has few colours the table goes on as it does beside them."""
RIDGE = 1e-6
"""Where it has none at all."""
BAND = 2 * SIZE**2
"""How far apart in a table's order two entries are that a second difference has in common."""
PAIRS = 2 * SIZE - 1
"""Of entries of one axis whose hat functions overlap, each once: itself, and with the next."""
PIXELS_AT_ONCE = 2**17
"""On a GPU: products of their hat functions take 0.3 GiB."""


class Lattice(Protocol):
    """Tables of 9 x 9 x 9 entries over the colours of B photos of N pixels."""

    def interpolate(self, tables: Tensor) -> Tensor:
        """W t, (B, C, N), of tables (B, C, 9³), in their dtype."""

    def sums(self, values: Tensor) -> Tensor:
        """Wᵀ v, (B, C, 9³), float64, of values (B, C, N)."""

    def factor(self, weights: Tensor) -> Tensor:
        """Cholesky's, (B, 9³, 9³), float64, of Wᵀ M W + λ N/9³ Dᵀ D + 1e-6 N Id.

        M is the diagonal matrix of weights (N,), at least 0, not all of them 0, and N their sum; D
        are second differences along the table's axes.
        """


def lattice(photo: Tensor) -> Lattice:
    """Of photos (B, 3, H, W), values in [0, 1], on their device."""
    colours = photo.detach().flatten(2)
    return Corners(colours) if photo.device.type == "cpu" else Hats(colours)


class Corners:
    """A `Lattice` by the entries around each colour.

    Args:
        colours: (B, 3, N), float32 or float64, values in [0, 1].
    """

    def __init__(self, colours: Tensor):
        self.photos = [corners(photo.double().mT.numpy()) for photo in colours]

    def interpolate(self, tables: Tensor) -> Tensor:
        """W t, see `Lattice`."""
        (columns, _), *_ = self.photos
        result = tables.new_empty(*tables.shape[:2], len(columns))
        for photo, table, out in zip(self.photos, tables, result, strict=True):
            _interpolate(*photo, table.contiguous().numpy(), out.numpy())
        return result

    def sums(self, values: Tensor) -> Tensor:
        """Wᵀ v, see `Lattice`."""
        result = np.zeros((*values.shape[:2], ENTRIES))
        for photo, part, out in zip(self.photos, values, result, strict=True):
            _add_sums(*photo, part.contiguous().numpy(), out)
        return torch.from_numpy(result)

    def factor(self, weights: Tensor) -> Tensor:
        """Cholesky's of the normal matrix, see `Lattice`."""
        weights = weights.double().numpy()
        result = np.zeros((len(self.photos), ENTRIES, ENTRIES))
        for photo, out in zip(self.photos, result, strict=True):
            bands = SMOOTHNESS * weights.sum() / ENTRIES * _roughness_bands()
            bands[:, 0] += RIDGE * weights.sum()
            _add_normal(*photo, weights, bands)
            _banded_cholesky(bands, out)
        return torch.from_numpy(result)


class Hats:
    """A `Lattice` by the hat functions of its axes, in products of matrices.

    Args:
        colours: (B, 3, N), float32 or float64, values in [0, 1].
    """

    def __init__(self, colours: Tensor):
        self.colours = colours

    def interpolate(self, tables: Tensor) -> Tensor:
        """W t, see `Lattice`."""
        # What grid_sample calls x runs along the last axis: blue.
        positions = 2 * self.colours.to(tables).mT[:, None, None].flip(-1) - 1
        tables = tables.unflatten(2, (SIZE, SIZE, SIZE))
        result = F.grid_sample(tables, positions, padding_mode="border", align_corners=True)
        return result.flatten(2)

    def sums(self, values: Tensor) -> Tensor:
        """Wᵀ v, see `Lattice`."""
        result = 0.0
        for colours, part in self._parts(values):
            red, green, blue = (_hats(channel) for channel in colours.unbind(1))
            weighted = part.mT[..., None] * blue[:, :, None]
            result = result + _products(red, green).mT @ weighted.flatten(2)
        return result.unflatten(2, (-1, SIZE)).movedim(2, 1).flatten(2)

    def factor(self, weights: Tensor) -> Tensor:
        """Cholesky's of the normal matrix, see `Lattice`."""
        result = 0.0
        for colours, part in self._parts(weights.expand(len(self.colours), 1, -1)):
            red, green, blue = (_overlaps(_hats(channel)) for channel in colours.unbind(1))
            result = result + _products(red, green).mT @ (part.mT * blue)
        normal = _spread(result.unflatten(1, (PAIRS, PAIRS)))
        normal += weights.double().sum() * _regularisation(weights.device)
        # Without a look at whether it is one, for which the CPU would wait.
        return torch.linalg.cholesky_ex(normal)[0]

    def _parts(self, values: Tensor):
        """Colours (B, 3, n) and values (B, C, n), float64, of so many pixels at once."""
        count = max(1, PIXELS_AT_ONCE // len(self.colours))
        parts = self.colours.split(count, 2), values.split(count, 2)
        for colours, part in zip(*parts, strict=True):
            yield colours.double(), part.double()


def corners(colours: np.ndarray, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The entries of a table of size³ around each of (N, 3) colours, and their shares: (N, 8)."""
    columns = np.empty((len(colours), 8), np.int32)
    shares = np.empty(columns.shape)
    _corners(np.ascontiguousarray(colours, np.float64), size, columns, shares)
    return columns, shares


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


@kernel(fastmath={"contract"})
def _corners(colours, size, columns, shares):
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


@kernel(fastmath={"contract"})
def _interpolate(columns, shares, table, result):
    for c in range(len(result)):
        for i in range(len(columns)):
            value = 0.0
            for k in range(8):
                value += shares[i, k] * table[c, columns[i, k]]
            result[c, i] = value


@kernel(fastmath={"contract"})
def _add_sums(columns, shares, values, sums):
    for c in range(len(values)):
        for i in range(len(columns)):
            for k in range(8):
                sums[c, columns[i, k]] += shares[i, k] * values[c, i]


@kernel(fastmath={"contract"})
def _add_normal(columns, shares, weights, bands):
    for i in range(len(weights)):
        for first in range(8):
            share = weights[i] * shares[i, first]
            column = columns[i, first]
            for second in range(8):
                above = columns[i, second] - column
                if above >= 0:
                    bands[column, above] += share * shares[i, second]


@cache
def _roughness_bands() -> np.ndarray:
    """A matrix A = Dᵀ D by its bands: A[j + k, j] at [j, k]."""
    lower = tril(roughness(), format="coo")
    bands = np.zeros((ENTRIES, BAND + 1))
    bands[lower.col, lower.row - lower.col] = lower.data
    return bands


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
def _regularisation(device: torch.device) -> Tensor:
    """λ/9³ Dᵀ D + 1e-6 Id, float64."""
    matrix = SMOOTHNESS / ENTRIES * roughness().toarray() + RIDGE * np.eye(ENTRIES)
    return torch.from_numpy(matrix).to(device)


def _hats(channel: Tensor) -> Tensor:
    """h_j of values (B, n): (B, n, 9)."""
    levels = torch.arange(SIZE, device=channel.device)
    distance = (SIZE - 1) * channel.clamp(0, 1)[..., None] - levels
    return (1 - distance.abs()).clamp(min=0)


def _overlaps(hats: Tensor) -> Tensor:
    """h_j h_j, then h_j h_j+1: (B, n, 17)."""
    return torch.cat([hats.square(), hats[..., :-1] * hats[..., 1:]], -1)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """(B, n, J), (B, n, K) -> (B, n, J·K)."""
    return (first[..., None] * second[..., None, :]).flatten(2)


def _spread(overlaps: Tensor) -> Tensor:
    """A matrix over entries, (B, 9³, 9³), from its values by the pairs of each axis, (B, 17³)."""
    steps = torch.arange(SIZE, device=overlaps.device)
    apart = (steps[:, None] - steps).abs()
    nearest = torch.where(apart == 0, steps, SIZE + torch.minimum(steps[:, None], steps))
    pair = torch.where(apart <= 1, nearest, PAIRS)  # one more, of value 0
    red, green, blue = (
        pair.view([SIZE if axis % 3 == channel else 1 for axis in range(6)]) for channel in range(3)
    )
    matrix = F.pad(overlaps, (0, 1, 0, 1, 0, 1))[:, red, green, blue]
    return matrix.reshape(len(overlaps), ENTRIES, ENTRIES)
