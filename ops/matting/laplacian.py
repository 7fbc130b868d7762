"""The matting Laplacian L of a photo as an operator: L·p without ever building L."""

import functools
import logging

import torch
from torch import Tensor

from photostyle.ops.checks import HALF, check_image
from photostyle.ops.errors import ArgumentError, check_choice, check_positive, check_whole
from photostyle.ops.matting import cuda, operators, reference

BACKENDS = ("auto", "cuda", "cpu", "reference")

logger = logging.getLogger(__name__)


class MattingLaplacian:
    """The matting Laplacian of a guide photo (Levin et al. 2006), applied as in He et al. (2010).

    For windows w_k of (2r+1)² pixels, all inside the image, L measures how far p is from an affine
    function of the guide's colours in every window. It is symmetric and positive semi-definite, and
    L·1 = 0. All methods are linear (``matting_loss``: quadratic) in p and differentiable in p:
    backward to any order, and forward once; forward mode nested in itself is refused by a
    ``NotImplementedError``. The kernels keep running sums: what is not finite in the guide or in p,
    or larger than the rest by many powers of ten, spoils pixels outside its windows, too, which
    only ``"reference"`` avoids.

    Args:
        guide: the photo I, (B, 3, H, W) or (B, 1, H, W), float32 or float64, values in [0, 1];
            float16 and bfloat16 become float32. Not differentiated: it must not require grad; and
            not copied: it must not be changed afterwards.
        radius: r ≥ 1; windows are (2r+1) x (2r+1) pixels and must fit into the image.
        epsilon: the regularisation ε > 0 of Levin et al.; ε/|w| is added to the windows' colour
            variances, as in ``pymatting.cf_laplacian``.
        backend: ``"cuda"`` (CuPy kernels), ``"cpu"`` (Numba), ``"reference"`` (plain PyTorch, any
            device, slow) or ``"auto"``, the fastest that the guide's device has.

    Raises:
        ArgumentError: (a ``ValueError``) for a guide, radius, epsilon or backend other than these,
            and for ``"cuda"`` without a GPU or without CuPy.
    """

    def __init__(
        self, guide: Tensor, radius: int = 1, epsilon: float = 1e-7, backend: str = "auto"
    ):
        check_image("guide", guide)
        if guide.shape[1] not in (1, 3):
            raise ArgumentError("guide", tuple(guide.shape), "give 1 or 3 channels, (B, C, H, W)")
        if guide.requires_grad:
            raise ArgumentError(
                "guide", "requires_grad", "L is not differentiated in it; detach it"
            )
        check_whole("radius", radius, 1)
        if min(guide.shape[2:]) < 2 * radius + 1:
            height, width = guide.shape[2:]
            size = 2 * radius + 1
            raise ArgumentError("radius", radius, f"{size}x{size} windows exceed {height}x{width}")
        check_positive("epsilon", epsilon)
        self.backend = _choose_backend(backend, guide.device)
        self.guide = (guide.float() if guide.dtype in HALF else guide).contiguous()
        self.radius = radius
        self.epsilon = float(epsilon)
        #: D: the number of windows that hold each pixel, (H, W), in the guide's dtype.
        self.counts = operators.window_counts(self.guide, radius)
        self._fused = self.backend == "cuda" and cuda.has_fused_kernel(self.guide, radius)
        self._statistics = None
        if not (self.backend == "reference" or self._fused):
            kernels = operators.implementation(guide.device)
            self._statistics = kernels.window_statistics(self.guide, radius, self.epsilon)

    @classmethod
    def with_ridge(
        cls, guide: Tensor, radius: int, ridge: float, backend: str = "auto"
    ) -> "MattingLaplacian":
        """By the ridge ε/|w| instead of ε; small images get the largest radius that fits.

        Args:
            guide, backend: as for the constructor.
            radius: r ≥ 1; a guide has at least 3 x 3 pixels.
            ridge: ε/|w| > 0, what is added to the windows' colour variances.

        Raises:
            ArgumentError: for a radius or ridge other than these, and as the constructor.
        """
        check_whole("radius", radius, 1)
        check_positive("ridge", ridge)
        check_image("guide", guide)
        if min(guide.shape[2:]) < 3:
            raise ArgumentError("guide", tuple(guide.shape), "give at least 3 x 3 pixels")
        radius = min(radius, (min(guide.shape[2:]) - 1) // 2)
        return cls(guide, radius, ridge * (2 * radius + 1) ** 2, backend)

    def product(self, p: Tensor) -> Tensor:
        """L p, channel by channel.

        Args:
            p: (B, K, H, W), any K, on the guide's device and in its dtype; where that is float32
                also float16 and bfloat16, which are computed in float32.

        Returns:
            (B, K, H, W), in p's dtype: (L p)_i = D_i p_i − (Σ_k a_k)ᵀ I_i − Σ_k b_k, He et al.
            (2010).

        Raises:
            ArgumentError: when p's shape, dtype or device do not fit the guide.
        """
        return self._product(self._checked(p)).to(p.dtype)

    def matting_loss(self, p: Tensor) -> Tensor:
        """The mean loss pᵀLp / (K·H·W) of each image, (B, K, H, W) -> (B,), in the guide's dtype.

        Its gradient is 2 L p / (K·H·W).
        """
        p = self._checked(p)
        if operators.tangent(p) is not None:
            return (p * self._product(p)).flatten(1).sum(1) / p[0].numel()
        if self._fused:
            product, loss = operators.product_and_loss(p, self.guide, self.epsilon)
        else:
            product, loss = self._product(p), None
        return _QuadraticForm.apply(p, product, loss) / p[0].numel()

    def guided_filter(self, p: Tensor) -> Tensor:
        """P p = p − D⁻¹ L p, (B, K, H, W) in p's dtype: p made locally affine in the guide.

        This is the guided filter (He et al. 2013, eq. 8) with windows inside the image only.
        """
        checked = self._checked(p)
        if self.backend == "reference":
            result = checked - self._product(checked) / self.counts
        else:
            result = self._apply(checked, "GUIDED_FILTER")
        return result.to(p.dtype)

    def coefficients(self, p: Tensor) -> Tensor:
        """The local affine model of p, such that P p = A·I + b.

        Args:
            p: as for `product`.

        Returns:
            (B, K, C+1, H, W) in the guide's dtype: for each of p's channels the C slopes over the
            guide's channels, then the offset; means of (a_k, b_k) over the windows that hold the
            pixel.
        """
        p = self._checked(p)
        if self.backend == "reference":
            return reference.coefficients(p, self.guide, self.radius, self.epsilon)
        rest = self.guide, self._statistics, self.radius, self.epsilon
        return operators.coefficients(p, *rest)

    def _product(self, p: Tensor) -> Tensor:
        if self.backend == "reference":
            return reference.product(p, self.guide, self.radius, self.epsilon)
        return self._apply(p, "PRODUCT")

    def _apply(self, p: Tensor, mode: str) -> Tensor:
        rest = self.guide, self._statistics, self.counts, self.radius, self.epsilon, mode
        return operators.apply(p, *rest)

    def _checked(self, p: Tensor) -> Tensor:
        """p in the guide's dtype."""
        check_image("p", p)
        batch, _, height, width = self.guide.shape
        if (p.shape[0], *p.shape[2:]) != (batch, height, width):
            expected = f"give ({batch}, K, {height}, {width}), as the guide"
            raise ArgumentError("p", tuple(p.shape), expected)
        if p.dtype not in (self.guide.dtype, *(HALF if self.guide.dtype == torch.float32 else ())):
            raise ArgumentError("p", p.dtype, f"give {self.guide.dtype}, as the guide")
        if p.device != self.guide.device:
            raise ArgumentError("p", p.device, f"move it to {self.guide.device}, as the guide")
        return p.to(self.guide.dtype)


def _choose_backend(backend: str, device: torch.device) -> str:
    check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        backend = device.type if device.type in ("cpu", "cuda") else "reference"
        reason = cuda.availability() if backend == "cuda" else None
        if reason:
            backend = "reference"
        _log_choice(device.type, backend, reason)
    elif backend == "cuda" and (reason := cuda.availability()):
        raise ArgumentError("backend", backend, reason)
    if backend in ("cpu", "cuda") and device.type != backend:
        raise ArgumentError("backend", backend, f"the guide is on {device}; move it or use 'auto'")
    return backend


@functools.cache
def _log_choice(device: str, backend: str, reason: str | None) -> None:
    # Cached, so that each choice is logged once.
    suffix = f" ({reason})" if reason else ""
    level = logging.INFO if reason else logging.DEBUG
    logger.log(level, "matting Laplacian on %s: backend %s%s", device, backend, suffix)


class _QuadraticForm(torch.autograd.Function):
    """pᵀ(Lp) per image. Its gradient 2Lp reuses the product; it carries Lp's own graph along."""

    @staticmethod
    def forward(ctx, p, product, known):
        ctx.save_for_backward(product)
        return (p * product).flatten(1).sum(1) if known is None else known.to(p.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (product,) = ctx.saved_tensors
        return 2 * gradient[:, None, None, None] * product, None, None
