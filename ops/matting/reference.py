"""The matting Laplacian by its definition, in plain PyTorch: what every other backend is tested by.

Notation as in He, Sun and Tang, "Fast matting using large kernel matting Laplacian matrices" (2010)
and Levin, Lischinski and Weiss, "A closed-form solution to natural image matting" (2006). Windows
w_k of |w| = (2r+1)² pixels lie wholly inside the image, so there are (H-2r) x (W-2r) of them.

Everything is computed in float64 and returned in the dtype of p: covariances are taken about the
window's own mean, and in near-grey windows Σ_k + ε/|w| Id has a condition number of up to 1e8,
which float32 cannot invert.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def window_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the pixels of each window, (..., H, W) -> (..., H-2r, W-2r)."""
    size = 2 * radius + 1
    return x.unfold(-1, size, 1).sum(-1).unfold(-2, size, 1).sum(-1)


def pixel_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the windows that hold each pixel, (..., H-2r, W-2r) -> (..., H, W)."""
    return window_sum(F.pad(x, [2 * radius] * 4), radius)


def counts(height: int, width: int, radius: int, device=None) -> Tensor:
    """D: the number of windows that hold each pixel, (H, W), float64."""
    windows = torch.ones(
        height - 2 * radius, width - 2 * radius, dtype=torch.float64, device=device
    )
    return pixel_sum(windows, radius)


def shifted_views(x: Tensor, radius: int):
    """For each of the |w| places j in a window, the pixels at j of all windows."""
    size = 2 * radius + 1
    height, width = x.shape[-2] - 2 * radius, x.shape[-1] - 2 * radius
    for dy in range(size):
        for dx in range(size):
            yield x[..., dy : dy + height, dx : dx + width]


def window_moments(guide: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """μ_k, (B, C, H-2r, W-2r), and (Σ_k + ε/|w| Id)⁻¹, (B, C, C, H-2r, W-2r), both float64."""
    guide = guide.double()
    area = (2 * radius + 1) ** 2
    mean = window_sum(guide, radius) / area
    ridge = epsilon / area * torch.eye(guide.shape[1], dtype=guide.dtype, device=guide.device)
    covariance = (
        ridge[:, :, None, None].expand(-1, -1, *mean.shape[-2:]).repeat(len(guide), 1, 1, 1, 1)
    )
    for view in shifted_views(guide, radius):
        centred = view - mean
        covariance += centred[:, :, None] * centred[:, None, :] / area
    inverse = torch.linalg.inv(covariance.permute(0, 3, 4, 1, 2)).permute(0, 3, 4, 1, 2)
    return mean, inverse


def window_coefficients(
    p: Tensor, guide: Tensor, radius: int, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The ridge regression of p on the guide in each window.

    a_k = (Σ_k + ε/|w| Id)⁻¹ cov_wk(I, p), (B, K, C, H-2r, W-2r), and b_k = mean(p) − a_kᵀ μ_k,
    (B, K, H-2r, W-2r).
    """
    p, guide = p.double(), guide.double()
    area = (2 * radius + 1) ** 2
    mean, inverse = window_moments(guide, radius, epsilon)
    p_mean = window_sum(p, radius) / area
    covariance = sum(
        (view - mean)[:, None] * (p_view - p_mean)[:, :, None] / area
        for view, p_view in zip(shifted_views(guide, radius), shifted_views(p, radius), strict=True)
    )
    a = torch.einsum("bcdhw,bkdhw->bkchw", inverse, covariance)
    b = p_mean - (a * mean[:, None]).sum(2)
    return a, b


def coefficients(p: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """Means of (a_k, b_k) over the windows that hold each pixel, (B, K, C+1, H, W)."""
    a, b = window_coefficients(p, guide, radius, epsilon)
    total = pixel_sum(torch.cat([a, b[:, :, None]], 2), radius)
    return (total / counts(*p.shape[-2:], radius, p.device)).to(p.dtype)


def product(p: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """(L p)_i = D_i p_i − (Σ_k a_k)ᵀ I_i − Σ_k b_k, (B, K, H, W)."""
    a, b = window_coefficients(p, guide, radius, epsilon)
    fitted = (pixel_sum(a, radius) * guide.double()[:, None]).sum(2) + pixel_sum(b, radius)
    return (counts(*p.shape[-2:], radius, p.device) * p.double() - fitted).to(p.dtype)


def coefficients_adjoint(gradient: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """The transpose of `coefficients` in p, (B, K, C+1, H, W) -> (B, K, H, W).

    With g_k = Σ_{i∈w_k} gradient_i / D_i, split as g_k = (g_a, g_b), and
    q_k = (Σ_k + ε/|w| Id)⁻¹ (g_a − g_b μ_k), pixel j receives
    1/|w| Σ_{k∋j} ( q_kᵀ (I_j − μ_k) + g_b ).
    """
    area = (2 * radius + 1) ** 2
    mean, inverse = window_moments(guide, radius, epsilon)
    per_window = window_sum(
        gradient.double() / counts(*gradient.shape[-2:], radius, gradient.device), radius
    )
    g_a, g_b = per_window[:, :, :-1], per_window[:, :, -1]
    q = torch.einsum("bcdhw,bkdhw->bkchw", inverse, g_a - g_b[:, :, None] * mean[:, None])
    slope = pixel_sum(q, radius)
    offset = pixel_sum(g_b - (q * mean[:, None]).sum(2), radius)
    return (((slope * guide.double()[:, None]).sum(2) + offset) / area).to(gradient.dtype)
