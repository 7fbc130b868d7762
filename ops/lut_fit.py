"""The LUT of a result: what of it depends on colours alone.

A LUT maps colours, whatever their place. What a result owes to a pixel's place, to regions for one,
no LUT can say; `lut_residual` is how much that is.
"""

from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import isotonic_regression
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import LinearOperator, cg
from skimage.color import rgb2lab
from torch import Tensor

from photostyle.ops.lattice import corners, roughness
from photostyle.ops.lut import Lut

SIZE = 33
COARSE = 9
"""Entries along an axis of the table that preconditions."""
SMOOTHNESS = 2.5e-4
"""λ: fifty times as stiff as `colour_map.NearestColourMap`, since it will see other photos."""
RIDGE = 1.5e-8
"""ρ: where the photo has no colours the table goes to the affine map of the whole photo."""
SPREAD = 2e-4
"""Variance below which a direction of colours does not tell how the affine map goes on there."""
GREY_SLOPE = 0.1
"""Of greys, at least: with less their texture is gone."""
GREY_REACH = 0.25
"""How far from grey, as the difference of channels, colours move with the greys."""


def fit_lut(photo: Tensor, image: Tensor, pixel_weights: Tensor | None = None) -> Lut:
    """The smooth LUT that comes nearest to turning a photo into an image.

    With W the trilinear weights of N pixels' colours, Ω how much each pixel counts, D second
    differences along the three axes of the table and a the affine map of the whole photo,

        t = a + argmin (W t − r)ᵀ Ω (W t − r) + λ N ‖D t‖² + ρ N ‖t‖²,  r = image − a(photo)

    as `colour_map.NearestColourMap`, but finer and stiffer. Greys become lighter with their level,
    whatever the photo asks for, and all is cut to [0, 1].

    Args:
        photo, image: (1, 3, H, W), values in [0, 1].
        pixel_weights: Ω, (H, W) in [0, 1], not all 0; ``None``: all pixels alike.
    """
    colours, values = _colours(photo), _colours(image)
    weights = _weights(photo, pixel_weights)
    matrix, offset = _affine_map(colours, values, weights)
    interpolation = _interpolation(colours, SIZE)
    rest = _smooth_table(interpolation, values - colours @ matrix.T - offset, weights)
    lattice = _lattice()
    table = lattice / (SIZE - 1) @ matrix.T + offset + rest
    table += _grey_correction(table, lattice, interpolation.T @ weights)
    return Lut(table.clip(0, 1).reshape(SIZE, SIZE, SIZE, 3).astype(np.float32))


def lut_residual(
    lut: Lut, photo: Tensor, image: Tensor, pixel_weights: Tensor | None = None
) -> float:
    """How far an image is from the photo by a LUT: the root mean square of ΔE*ab.

    Args:
        lut: of sRGB.
        photo, image: (1, 3, H, W), values in [0, 1].
        pixel_weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all alike.
    """
    by_lut, wanted = (rgb2lab(_colours(picture)) for picture in (lut(photo).clamp(0, 1), image))
    errors = np.square(by_lut - wanted).sum(1)
    return float(np.sqrt(np.average(errors, weights=_weights(photo, pixel_weights))))


def _colours(image: Tensor) -> np.ndarray:
    """(N, 3), float64."""
    return image[0].detach().double().flatten(1).mT.cpu().numpy()


def _weights(photo: Tensor, pixel_weights: Tensor | None) -> np.ndarray:
    if pixel_weights is None:
        return np.ones(photo[0, 0].numel())
    return pixel_weights.detach().double().flatten().cpu().numpy()


def _interpolation(colours: np.ndarray, size: int) -> csr_array:
    """W, (N, size³): the share of each entry of a table in each of (N, 3) colours."""
    columns, shares = corners(colours, size)
    starts = np.arange(0, columns.size + 1, 8)
    return csr_array((shares.ravel(), columns.ravel(), starts), (len(colours), size**3))


def _affine_map(
    colours: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """M, (3, 3), and m, (3,), of the nearest affine map; a shift where the photo has no spread."""
    change = values - colours
    means = [np.average(part, 0, weights) for part in (colours, change)]
    centred = colours - means[0]
    weighted = (weights / weights.sum())[:, None] * centred
    covariance = centred.T @ weighted + SPREAD * np.eye(3)
    slopes = np.linalg.solve(covariance, weighted.T @ (change - means[1])).T
    return np.eye(3) + slopes, means[1] - slopes @ means[0]


def _smooth_table(interpolation: csr_array, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """argmin of `fit_lut`, (33³, 3), by conjugate gradients.

    Their preconditioner is Jacobi's and, for what changes slowly, the same problem over a coarse
    table: with it some forty steps are enough instead of a thousand.
    """
    count = weights.sum()
    weighted = interpolation.multiply(weights[:, None]).T.tocsr()
    normal = weighted @ interpolation + SMOOTHNESS * count * roughness(SIZE)
    normal = (normal + RIDGE * count * eye_array(SIZE**3)).tocsr()
    diagonal = normal.diagonal()
    finer = _interpolation(_lattice() / (SIZE - 1), COARSE)
    coarse = cho_factor((finer.T @ normal @ finer).toarray())

    def precondition(rest: np.ndarray) -> np.ndarray:
        return rest / diagonal + finer @ cho_solve(coarse, finer.T @ rest)

    preconditioner = LinearOperator(normal.shape, precondition)
    solve = partial(cg, normal, rtol=1e-5, maxiter=1000, M=preconditioner)
    return np.stack([solve(right)[0] for right in (weighted @ values).T], 1)


def _lattice() -> np.ndarray:
    """(33³, 3), the steps along the three axes of each entry of the table."""
    return np.moveaxis(np.indices((SIZE,) * 3), 0, -1).reshape(-1, 3)


def _grey_correction(table: np.ndarray, lattice: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What makes greys lighter with their level in each channel, (33³, 3).

    Along the greys of a cell trilinear interpolation is the Bernstein polynomial of four values:
    the first corner, the mean of the three that are one step further, that of the three two steps
    further, and the last. It rises when they do. A correction that depends on the sum of the steps
    alone, there, moves each of the four by itself.
    """
    steps = lattice.sum(1)
    spread = np.ptp(lattice, axis=1)
    cells = spread <= 1
    number = np.bincount(steps[cells])
    share = counts[cells] + RIDGE * counts.sum()
    importance = np.bincount(steps[cells], share)
    least = np.linspace(0, GREY_SLOPE, len(number))
    reach = ((spread - 1) / (GREY_REACH * (SIZE - 1))).clip(0, 1)
    falloff = 1 - reach**2 * (3 - 2 * reach)
    correction = np.empty_like(table)
    for c in range(3):
        curve = np.bincount(steps[cells], table[cells, c]) / number
        rising = isotonic_regression(curve - least, weights=importance).x + least
        correction[:, c] = falloff * (rising - curve)[steps]
    return correction
