"""The matting Laplacian on the CPU: Numba kernels over bands of rows, one band per thread.

A band walks down the image once. Running sums over columns, then over rows, turn p into the sums of
each window (pass 1); the ridge regression of the window follows; and a second pair of running sums
turns its coefficients into the sums of each pixel (pass 2). Only the last 2r+1 rows of coefficients
are kept, so the cost is independent of the radius and no image-sized temporary exists.

Sums run in float64 whatever the dtype: a running sum of E[Ip] − E[I]E[p] would lose everything in
float32. The inverse of Σ_k + ε/|w| Id is kept as W_k with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹, whose
error goes with the square root of the condition number.
"""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from photostyle.ops.jit import kernel

PRODUCT, FIT, GUIDED_FILTER, COEFFICIENTS = range(4)
MODES = {
    "PRODUCT": PRODUCT,
    "FIT": FIT,
    "GUIDED_FILTER": GUIDED_FILTER,
    "COEFFICIENTS": COEFFICIENTS,
}
# Means (3) and the lower triangle of W (6) of each window.
STATISTICS = 9
# A band shorter than this spends its time on the 2r rows that it shares with its neighbour.
MIN_BAND_WINDOWS = 4


@functools.cache
def _executor(process: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by process, because threads do not survive a fork.
    return ThreadPoolExecutor(threads, thread_name_prefix="matting_laplacian")


def _over_bands(kernel, rows: int, radius: int, batch: int, *arguments) -> None:
    """Call ``kernel(image, first, last, *arguments)`` for bands of rows that cover each image."""
    threads = torch.get_num_threads()
    shortest = MIN_BAND_WINDOWS * (2 * radius + 1)
    bands = max(1, min(-(-threads // batch), rows // shortest))
    edges = [rows * band // bands for band in range(bands + 1)]
    tasks = [(b, edges[i], edges[i + 1]) for b in range(batch) for i in range(bands)]
    if len(tasks) == 1:
        kernel(*tasks[0], *arguments)
        return
    executor = _executor(os.getpid(), threads)
    futures = [executor.submit(kernel, *task, *arguments) for task in tasks[1:]]
    kernel(*tasks[0], *arguments)
    for future in futures:
        future.result()


@kernel
def _add_row(sums, guide, p, row):
    """sums += (p, I₀p, I₁p, I₂p) of one row of pixels."""
    for x in range(p.shape[1]):
        value = np.float64(p[row, x])
        sums[0, x] += value
        sums[1, x] += value * guide[0, row, x]
        sums[2, x] += value * guide[1, row, x]
        sums[3, x] += value * guide[2, row, x]


@kernel
def _move_down(sums, guide, p, size, row):
    """Column sums over rows row-size to row-1 become those over rows row-size+1 to row."""
    old = row - size
    for x in range(p.shape[1]):
        value = np.float64(p[row, x])
        gone = np.float64(p[old, x])
        sums[0, x] += value - gone
        sums[1, x] += value * guide[0, row, x] - gone * guide[0, old, x]
        sums[2, x] += value * guide[1, row, x] - gone * guide[1, old, x]
        sums[3, x] += value * guide[2, row, x] - gone * guide[2, old, x]


@kernel
def _window_sums(columns, size, windows):
    """windows[:, x] = the sum of columns[:, x : x + size], by a running sum."""
    s0 = s1 = s2 = s3 = 0.0
    for x in range(size):
        s0 += columns[0, x]
        s1 += columns[1, x]
        s2 += columns[2, x]
        s3 += columns[3, x]
    windows[0, 0], windows[1, 0], windows[2, 0], windows[3, 0] = s0, s1, s2, s3
    # Subtracting first keeps the chain of dependent additions, which sets the pace, short.
    for x in range(1, windows.shape[1]):
        s0 += columns[0, x + size - 1] - columns[0, x - 1]
        s1 += columns[1, x + size - 1] - columns[1, x - 1]
        s2 += columns[2, x + size - 1] - columns[2, x - 1]
        s3 += columns[3, x + size - 1] - columns[3, x - 1]
        windows[0, x] = s0
        windows[1, x] = s1
        windows[2, x] = s2
        windows[3, x] = s3


@kernel
def _regress(windows, statistics, row, area, ab):
    """a_k = WᵀW cov(I, p) and b_k = mean(p) − a_kᵀμ_k of a row of windows, from sums of (p, Ip)."""
    for x in range(statistics.shape[2]):
        mean = windows[0, x] / area
        m0 = statistics[0, row, x]
        m1 = statistics[1, row, x]
        m2 = statistics[2, row, x]
        c0 = windows[1, x] / area - m0 * mean
        c1 = windows[2, x] / area - m1 * mean
        c2 = windows[3, x] / area - m2 * mean
        w11 = statistics[4, row, x]
        w21 = statistics[6, row, x]
        v0 = statistics[3, row, x] * c0
        v1 = w11 * c0 + statistics[5, row, x] * c1
        v2 = w21 * c0 + statistics[7, row, x] * c1 + statistics[8, row, x] * c2
        a0 = statistics[3, row, x] * v0 + w11 * v1 + w21 * v2
        a1 = statistics[5, row, x] * v1 + statistics[7, row, x] * v2
        a2 = statistics[8, row, x] * v2
        ab[0, x] = a0
        ab[1, x] = a1
        ab[2, x] = a2
        ab[3, x] = mean - a0 * m0 - a1 * m1 - a2 * m2


@kernel
def _pixel_sums(padded, size, oldest, total):
    """Exchange the oldest row of sums over windows by this one, in the ring and in the total.

    ``padded`` holds the coefficients of a row of windows between zeros, ``size`` of them before.
    """
    s0 = s1 = s2 = s3 = 0.0
    for x in range(total.shape[1]):
        s0 += padded[0, x + size] - padded[0, x]
        s1 += padded[1, x + size] - padded[1, x]
        s2 += padded[2, x + size] - padded[2, x]
        s3 += padded[3, x + size] - padded[3, x]
        total[0, x] += s0 - oldest[0, x]
        total[1, x] += s1 - oldest[1, x]
        total[2, x] += s2 - oldest[2, x]
        total[3, x] += s3 - oldest[3, x]
        oldest[0, x] = s0
        oldest[1, x] = s1
        oldest[2, x] = s2
        oldest[3, x] = s3


@kernel
def _count(position, length, size):
    """How many of the windows along one axis hold the pixel at ``position``."""
    return min(position, length - size) - max(position - size + 1, 0) + 1


@kernel
def _write_mode(p, guide, total, row, size, mode, out):
    """F p = (Σ_k a_k)ᵀ I_i + Σ_k b_k for one row of pixels, L p = D p − F p, or P p = F p / D."""
    height, width = p.shape
    vertical = _count(row, height, size)
    for x in range(width):
        fitted = (
            total[0, x] * guide[0, row, x]
            + total[1, x] * guide[1, row, x]
            + total[2, x] * guide[2, row, x]
            + total[3, x]
        )
        count = vertical * _count(x, width, size)
        if mode == PRODUCT:
            out[row, x] = count * np.float64(p[row, x]) - fitted
        elif mode == FIT:
            out[row, x] = fitted
        else:
            out[row, x] = fitted / count


@kernel
def _write_means(total, row, size, height, out):
    """Σ_k (a_k, b_k) / D_i for one row of pixels."""
    width = total.shape[1]
    vertical = _count(row, height, size)
    for x in range(width):
        share = 1.0 / (vertical * _count(x, width, size))
        out[0, row, x] = total[0, x] * share
        out[1, row, x] = total[1, x] * share
        out[2, row, x] = total[2, x] * share
        out[3, row, x] = total[3, x] * share


@kernel
def _band(image, first, last, p, guide, statistics, radius, out, mode):
    """Rows first to last of L p in an output mode, (B, K, H, W), or of the A, b, (B, K·4, H, W)."""
    size = 2 * radius + 1
    area = float(size * size)
    channels, height, width = p.shape[1:]
    columns = np.zeros((channels, 4, width))
    ring = np.zeros((channels, size, 4, width))
    total = np.zeros((channels, 4, width))
    windows = np.empty((4, width - 2 * radius))
    padded = np.zeros((4, width + size))
    ab = padded[:, size : width + 1]
    guide_, statistics_ = guide[image], statistics[image]

    top = max(0, first - 2 * radius)  # the first row of windows that reaches this band
    for k in range(channels):
        for row in range(top, top + size):
            _add_row(columns[k], guide_, p[image, k], row)
    for row in range(top, last):
        for k in range(channels):
            p_ = p[image, k]
            if row < height - 2 * radius:
                if row > top:
                    _move_down(columns[k], guide_, p_, size, row + 2 * radius)
                _window_sums(columns[k], size, windows)
                _regress(windows, statistics_, row, area, ab)
            else:
                ab[:] = 0.0
            _pixel_sums(padded, size, ring[k, row % size], total[k])
            if row >= first:
                if mode == COEFFICIENTS:
                    _write_means(total[k], row, size, height, out[image, 4 * k : 4 * k + 4])
                else:
                    _write_mode(p_, guide_, total[k], row, size, mode, out[image, k])


@kernel
def _whiten(windows, area, ridge, statistics, row):
    """μ_k and W_k = M⁻¹ of a row of windows, where M Mᵀ is Cholesky's factorisation of Σ_k + ridge.

    In exact arithmetic no pivot is below the ridge; the clamp keeps rounding from undercutting it.
    """
    for x in range(statistics.shape[2]):
        m0 = windows[0, 0, x] / area
        m1 = windows[1, 0, x] / area
        m2 = windows[2, 0, x] / area
        d0 = math.sqrt(max(windows[0, 1, x] / area - m0 * m0 + ridge, ridge))
        l10 = (windows[0, 2, x] / area - m1 * m0) / d0
        l20 = (windows[0, 3, x] / area - m2 * m0) / d0
        d1 = math.sqrt(max(windows[1, 2, x] / area - m1 * m1 + ridge - l10 * l10, ridge))
        l21 = (windows[1, 3, x] / area - m2 * m1 - l20 * l10) / d1
        d2 = math.sqrt(
            max(windows[2, 3, x] / area - m2 * m2 + ridge - l20 * l20 - l21 * l21, ridge)
        )
        w10 = -l10 / (d0 * d1)
        statistics[0, row, x] = m0
        statistics[1, row, x] = m1
        statistics[2, row, x] = m2
        statistics[3, row, x] = 1.0 / d0
        statistics[4, row, x] = w10
        statistics[5, row, x] = 1.0 / d1
        statistics[6, row, x] = -(l20 / d0 + l21 * w10) / d2
        statistics[7, row, x] = -l21 / (d1 * d2)
        statistics[8, row, x] = 1.0 / d2


@kernel
def _statistics_band(image, first, last, guide, radius, ridge, statistics):
    """Rows first to last of the windows' statistics."""
    size = 2 * radius + 1
    area = float(size * size)
    guide_ = guide[image]
    channels, _, width = guide_.shape
    columns = np.zeros((channels, 4, width))
    windows = np.empty((channels, 4, width - 2 * radius))
    for row in range(first, last):
        for k in range(channels):
            if row > first:
                _move_down(columns[k], guide_, guide_[k], size, row + 2 * radius)
            else:
                for y in range(row, row + size):
                    _add_row(columns[k], guide_, guide_[k], y)
            _window_sums(columns[k], size, windows[k])
        _whiten(windows, area, ridge, statistics[image], row)


def _three_channels(guide: Tensor) -> np.ndarray:
    # A grey guide is a colour guide with two constant channels: their slopes are zero.
    if guide.shape[1] == 1:
        guide = torch.nn.functional.pad(guide, (0, 0, 0, 0, 0, 2))
    return guide.numpy()


def window_statistics(guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """μ_k and W_k of all windows, (B, C, H, W) -> (B, 9, H-2r, W-2r) float64."""
    batch, _, height, width = guide.shape
    windows = height - 2 * radius
    shape = batch, STATISTICS, windows, width - 2 * radius
    statistics = torch.empty(shape, dtype=torch.float64, device="cpu")
    ridge = epsilon / (2 * radius + 1) ** 2
    _over_bands(
        _statistics_band, windows, radius, batch,
        _three_channels(guide), radius, ridge, statistics.numpy(),
    )  # fmt: skip
    return statistics


def apply(p: Tensor, guide: Tensor, statistics: Tensor, radius: int, mode: str) -> Tensor:
    """L p in an output mode, (B, K, H, W).

    Args:
        p: (B, K, H, W), contiguous, with the guide's dtype.
        guide, statistics, radius: see `window_statistics`.
        mode: ``"PRODUCT"``, ``"FIT"``, ``"GUIDED_FILTER"``, or ``"COEFFICIENTS"``: the means of
            a_k and b_k over the windows that hold a pixel, (B, K, C+1, H, W).
    """
    batch, channels, height, width = p.shape
    means = mode == "COEFFICIENTS"
    out = p.new_empty(batch, channels * (4 if means else 1), height, width)
    _over_bands(
        _band, height, radius, batch,
        p.numpy(), _three_channels(guide), statistics.numpy(), radius, out.numpy(), MODES[mode],
    )  # fmt: skip
    if not means:
        return out
    out = out.view(batch, channels, 4, height, width)
    return out if guide.shape[1] == 3 else out[:, :, [0, 3]]
