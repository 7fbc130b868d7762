"""The kernels as operators of PyTorch, with their derivatives."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from photostyle.ops.matting import cpu, cuda, reference


def implementation(device: torch.device):
    """The module that has the kernels of a device."""
    return cuda if device.type == "cuda" else cpu


def window_counts(guide: Tensor, radius: int) -> Tensor:
    """D: the number of windows that hold each pixel, (H, W), in the guide's dtype."""

    def along(length):
        i = torch.arange(length, device=guide.device)
        last = length - 1 - 2 * radius
        return i.clamp(max=last) - (i - 2 * radius).clamp(min=0) + 1

    height, width = guide.shape[2:]
    return (along(height)[:, None] * along(width)).to(guide.dtype)


# Registered with PyTorch, so that torch.compile treats each as one opaque node. Not by
# torch.library.custom_op: its first call imports the compiler, which takes a second.
#
# L p, F p = D p − L p and P p = F p / D come from the same kernels, in one go each. L and F are
# symmetric, so the backward of each is itself; that of P is F (g / D).


def _operator(name: str, schema: str):
    """Decorate a function to be what an operator of PyTorch computes on any device."""
    torch.library.define(name, schema)

    def register(function):
        torch.library.impl(name, "CompositeExplicitAutograd", function)
        namespace, _, operator = name.partition("::")
        return getattr(getattr(torch.ops, namespace), operator).default

    return register


def tangent(p: Tensor) -> Tensor | None:
    """Of forward-mode differentiation, if p is differentiated so.

    Raises:
        NotImplementedError: within another one, of which PyTorch would drop the tangent.
    """
    if forward_ad._current_level < 0:
        return None
    from torch._functorch import eager_transforms  # private, so asked only where it is needed

    if eager_transforms.JVP_NESTING > 1:
        expected = "differentiate backward, or in forward mode once"
        raise NotImplementedError(f"the matting Laplacian in nested forward mode; {expected}")
    return forward_ad.unpack_dual(p).tangent


def _linear(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate f, linear in p: f of its tangent for the tangent, which PyTorch would drop."""

    @functools.wraps(operator)
    def function(p, *rest):
        if (direction := tangent(p)) is None:
            return operator(p, *rest)
        primal = forward_ad.unpack_dual(p).primal
        return forward_ad.make_dual(operator(primal, *rest), operator(direction, *rest))

    return function


APPLY = "photostyle::matting_laplacian"
WITH_LOSS = "photostyle::matting_laplacian_loss"
COEFFICIENTS = "photostyle::matting_laplacian_coefficients"


@_linear
@_operator(
    APPLY,
    "(Tensor p, Tensor guide, Tensor? statistics, Tensor counts, int radius, float epsilon, "
    "str mode) -> Tensor",
)
def apply(
    p: Tensor,
    guide: Tensor,
    statistics: Tensor | None,
    counts: Tensor,
    radius: int,
    epsilon: float,
    mode: str,
) -> Tensor:
    """L p in an output mode, see `cpu.apply`; without statistics by the fused kernel for r = 1."""
    if statistics is None:
        return cuda.fused_radius_1(p.contiguous(), guide, epsilon, mode)[0]
    return implementation(p.device).apply(p.contiguous(), guide, statistics, radius, mode)


@torch.library.register_fake(APPLY)
def _(p, guide, statistics, counts, radius, epsilon, mode):
    return torch.empty_like(p, memory_format=torch.contiguous_format)


def _apply_context(ctx, inputs, output):
    _, guide, statistics, counts, ctx.radius, ctx.epsilon, ctx.mode = inputs
    ctx.save_for_backward(guide, statistics, counts)
    # The loss asks for no gradient of its product.
    ctx.set_materialize_grads(False)


def _apply_backward(ctx, gradient):
    if gradient is not None:
        guide, statistics, counts = ctx.saved_tensors
        mode = ctx.mode
        if mode == "GUIDED_FILTER":
            gradient, mode = gradient / counts, "FIT"
        gradient = apply(gradient, guide, statistics, counts, ctx.radius, ctx.epsilon, mode)
    return gradient, *[None] * 6


torch.library.register_autograd(APPLY, _apply_backward, setup_context=_apply_context)


@_operator(WITH_LOSS, "(Tensor p, Tensor guide, float epsilon) -> (Tensor, Tensor)")
def product_and_loss(p: Tensor, guide: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """L p and pᵀLp of each image, (B,), float64, by the fused kernel for r = 1."""
    return cuda.fused_radius_1(p.contiguous(), guide, epsilon, "MATTING_LOSS")


@torch.library.register_fake(WITH_LOSS)
def _(p, guide, epsilon):
    product = torch.empty_like(p, memory_format=torch.contiguous_format)
    return product, p.new_empty(len(p), dtype=torch.float64)


def _product_and_loss_context(ctx, inputs, output):
    _, guide, ctx.epsilon = inputs
    ctx.save_for_backward(guide)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _product_and_loss_backward(ctx, gradient, _):
    if gradient is not None:
        (guide,) = ctx.saved_tensors
        gradient = apply(gradient, guide, None, window_counts(guide, 1), 1, ctx.epsilon, "PRODUCT")
    return gradient, None, None


torch.library.register_autograd(
    WITH_LOSS, _product_and_loss_backward, setup_context=_product_and_loss_context
)


@_linear
@_operator(
    COEFFICIENTS,
    "(Tensor p, Tensor guide, Tensor? statistics, int radius, float epsilon) -> Tensor",
)
def coefficients(
    p: Tensor, guide: Tensor, statistics: Tensor | None, radius: int, epsilon: float
) -> Tensor:
    """A and b of the guided filter, (B, K, C+1, H, W)."""
    kernels = implementation(p.device)
    if statistics is None:
        statistics = kernels.window_statistics(guide, radius, epsilon)
    return kernels.apply(p.contiguous(), guide, statistics, radius, "COEFFICIENTS")


@torch.library.register_fake(COEFFICIENTS)
def _(p, guide, statistics, radius, epsilon):
    batch, channels, height, width = p.shape
    return p.new_empty(batch, channels, guide.shape[1] + 1, height, width)


def _coefficients_context(ctx, inputs, output):
    _, guide, _, ctx.radius, ctx.epsilon = inputs
    ctx.save_for_backward(guide)


def _coefficients_backward(ctx, gradient):
    # Rarely needed, so the slow definition is good enough.
    (guide,) = ctx.saved_tensors
    adjoint = reference.coefficients_adjoint(gradient, guide, ctx.radius, ctx.epsilon)
    return adjoint, None, None, None, None


torch.library.register_autograd(
    COEFFICIENTS, _coefficients_backward, setup_context=_coefficients_context
)
