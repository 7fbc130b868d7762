"""Gatys et al. (2016) on images that are photos by construction.

Optimising pixels under a heavy photorealism loss is badly conditioned. Instead the losses are
measured on y = c + P S (x − c), where x is optimised, c is the closed-form colour transfer, S gives
the nearest map of the content's colours and P is a guided filter, and differentiated through both.
What is added to c depends on a pixel's colour, not on its place: no haze, no glow. Both c and the
rest are locally affine in the content: every iterate is a photo, and ten L-BFGS steps are enough.
P alone, y = P x, would take fine texture away, which has less variance than P's ridge; c keeps all
of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photostyle.ops import GuidedFilter, LossTerms, MattingLaplacian, StyleObjective, Targets
from photostyle.ops.affine import apply_affine, resize_affine
from photostyle.ops.checks import check_masks, check_photo
from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.colour_transfer import colour_transfer, restore_contrast
from photostyle.ops.errors import ArgumentError, check_choice, check_flag
from photostyle.ops.gram import at_least_float32, average_down, pixel_weights, whole_mask
from photostyle.ops.interrupts import interrupts_held
from photostyle.optimize.descent import Descent

INITS = ("colour_transfer", "content", "noise", "style")
DEFAULT_FILTER = GuidedFilter()
FIRST_MOVE = 1e-2
"""Mean change of a pixel in the first step of L-BFGS, before its line search."""


@dataclass(frozen=True)
class Step:
    """What the callback of `optimize_image` is told after each evaluation of the objective.

    Attributes:
        number, total: of this step, from 1, and of all steps of all scales. The last line search of
            a scale may take a few more.
        size: the long side of the current scale in pixels.
        terms: the weighted losses, detached.
        image: the current result, (1, 3, h, w), detached, not clamped.
    """

    number: int
    total: int
    size: int
    terms: LossTerms
    image: Tensor


@dataclass(frozen=True)
class OptimizedImage:
    """What `optimize_image` returns.

    Attributes:
        image: (1, 3, H, W) in [0, 1], at the content's size.
        coefficients: (1, 3, 4, H, W) such that image = A·I + b before clamping, to apply to the
            content at any size; ``None`` without a guided filter.
        terms: the losses of the best step at the last scale, ``None`` if there was none.
        stopped: why it ended early (``"interrupted"``, or a sentence about a loss that was not
            finite), or ``None``.
    """

    image: Tensor
    coefficients: Tensor | None
    terms: LossTerms | None
    stopped: str | None


def optimize_image(
    content: Tensor,
    style: Tensor,
    objective: StyleObjective,
    *,
    content_masks: Tensor | None = None,
    style_masks: Tensor | None = None,
    guided_filter: GuidedFilter | None = DEFAULT_FILTER,
    colour_map: bool = True,
    keep_contrast: bool = True,
    optimizer: Descent = Descent(),
    init: str | Tensor = "colour_transfer",
    seed: int = 0,
    callback: Callable[[Step], None] | None = None,
) -> OptimizedImage:
    """Find the content photo with the style's colours.

    Args:
        content: (1, 3, H, W), values in [0, 1]; its size is the working size, with a guided filter
            at least 3 x 3. Half precision is computed in float32.
        style: (1, 3, H', W'), values in [0, 1].
        objective: the losses and their weights, on the content's device.
        content_masks, style_masks: (M, H, W) and (M, H', W'), values in [0, 1]; the style is taken
            from mask m to mask m. Both or neither. The sum of the content's masks is the pixel's
            weight: 1, less where the photo is transparent.
        guided_filter: ``None`` turns photorealism by guided filter off.
        colour_map: add to the closed form a map of the content's colours and nothing else, see
            `ops.colour_map.NearestColourMap`; not without a guided filter.
        keep_contrast: give the result the closed form's contrast at last, see
            `ops.colour_transfer.restore_contrast`; not without a guided filter.
        optimizer: which one, and its steps at each scale.
        init: start from the per-mask ``"colour_transfer"``, the ``"content"``, ``"noise"``, the
            ``"style"`` or an image, (1, 3, H, W), values in [0, 1].
        seed: of the noise.
        callback: told of each step; a `KeyboardInterrupt` that it raises ends as Ctrl-C does.

    Returns:
        The result of the best step. Ctrl-C and a loss that is not finite end early with the best so
        far; ``stopped`` says so.

    Raises:
        ArgumentError: for values other than these.
    """
    check_flag("colour_map", colour_map)
    check_flag("keep_contrast", keep_contrast)
    check_photo("content", content)
    check_photo("style", style)
    if guided_filter is not None and min(content.shape[2:]) < 3:
        expected = "give at least 3 x 3 pixels, or no guided_filter"
        raise ArgumentError("content", tuple(content.shape), expected)
    if not isinstance(init, Tensor):
        check_choice("init", init, INITS)
    elif init.shape != content.shape:
        raise ArgumentError("init", tuple(init.shape), f"give an image of {tuple(content.shape)}")
    else:
        check_photo("init", init)
    if not any(objective.weights.values()):
        expected = "give a weight above 0, to this or to another loss"
        raise ArgumentError("style_weight", objective.weights["style"], expected)
    check_masks(content_masks, style_masks, content, style)
    # A copy: of what inference mode has made PyTorch keeps nothing for a gradient.
    content, style = at_least_float32(content).clone(), at_least_float32(style)
    if content_masks is None:
        content_masks, style_masks = whole_mask(content), whole_mask(style)

    weights = pixel_weights(content_masks)
    schedule = optimizer.schedule(colour_map and guided_filter is not None)
    search = _Search(objective, sum(count for _, count in schedule), callback)
    base = colour_transfer(content, style, content_masks, style_masks)
    if isinstance(init, str) and init == "colour_transfer":
        estimate = _Estimate(apply_affine(base, content).clamp(0, 1))
    else:
        estimate = _Estimate(_initial(init, content, style, seed))
    stopped, photo = None, None
    try:
        for scale, count in schedule:
            guide, scaled_style = _scale(content, scale), _scale(style, scale)
            targets = objective.targets(
                guide,
                scaled_style,
                average_down(content_masks, guide.shape[2:]),
                average_down(style_masks, scaled_style.shape[2:]),
            )
            photo = guided_filter and _Photo(
                guided_filter.laplacian(guide), base, colour_map, weights
            )
            search.start(estimate.at(guide), targets, photo)
            search.minimise(optimizer.name, optimizer.learning_rate, count)
            estimate = search.best()
    except KeyboardInterrupt:
        stopped = "interrupted"
    except _NonFiniteLossError as error:
        stopped = str(error)
    if stopped and search.best_terms is not None:
        estimate = search.best()
    if guided_filter is not None:
        if photo is None or photo.c.shape != content.shape:
            photo = _Photo(guided_filter.laplacian(content), base, colour_map, weights)
        if estimate.coefficients is None:  # stopped before the first step
            estimate = photo.estimate(estimate.at(content))
        if keep_contrast:
            estimate = photo.estimate(restore_contrast(estimate.at(content), photo.c, weights))
    image = estimate.at(content).clamp(0, 1)
    return OptimizedImage(image, estimate.coefficients_at(content), search.best_terms, stopped)


class _NonFiniteLossError(ArithmeticError):
    pass


@dataclass(frozen=True)
class _Estimate:
    """An image at one scale that can be had at any other.

    With coefficients it takes its edges from the guide of that other scale (joint upsampling, Kopf
    et al. 2007); resized pixels would have to find them again.
    """

    image: Tensor
    coefficients: Tensor | None = None

    def at(self, guide: Tensor) -> Tensor:
        if self.coefficients is None:
            return _fit(self.image, guide)
        return apply_affine(self.coefficients_at(guide), guide)

    def coefficients_at(self, guide: Tensor) -> Tensor | None:
        if self.coefficients is None:
            return None
        return resize_affine(self.coefficients, guide.shape[2:])


class _Photo:
    """y = c + P S (x − c): any x made a photo, at the size of P's guide.

    Args:
        laplacian: P's.
        base: coefficients of c at any size.
        colour_map: without it S is the identity.
        weights: how much each pixel counts in S, (H, W); ``None``: all alike.
    """

    def __init__(
        self, laplacian: MattingLaplacian, base: Tensor, colour_map: bool, weights: Tensor | None
    ):
        self.laplacian = laplacian
        if weights is not None:
            weights = average_down(weights[None], laplacian.guide.shape[2:])[0]
        self.base = resize_affine(base, laplacian.guide.shape[2:])
        self.c = apply_affine(self.base, laplacian.guide)
        self.nearest = None
        if colour_map:
            self.nearest = NearestColourMap(laplacian.guide, pixel_weights=weights)

    def image(self, x: Tensor) -> Tensor:
        return self.c + self.laplacian.guided_filter(self._added(x))

    def estimate(self, x: Tensor) -> _Estimate:
        coefficients = self.base + self.laplacian.coefficients(self._added(x))
        return _Estimate(apply_affine(coefficients, self.laplacian.guide), coefficients)

    def _added(self, x: Tensor) -> Tensor:
        return x - self.c if self.nearest is None else self.nearest(x - self.c)


class _Search:
    """The image that is being optimised, its objective, and the best of it so far."""

    def __init__(self, objective, total, callback):
        self.objective = objective
        self.total = total
        self.callback = callback
        self.number = 0
        self.best_terms: LossTerms | None = None

    def start(self, x: Tensor, targets: Targets, photo: _Photo | None) -> None:
        """Begin a scale. Losses of another scale are of other features and do not compare."""
        self.best_terms = None
        self.x = x.detach().clone(memory_format=torch.contiguous_format)
        self.targets = targets
        self.photo = photo
        self.best_x = x.detach().clone()

    def minimise(self, optimizer: str, learning_rate: float, steps: int) -> None:
        """Evaluate the objective ``steps`` times on the way to its minimum."""
        if optimizer == "adam":
            x = self.x.requires_grad_(True)
            adam = torch.optim.Adam([x], lr=learning_rate)
            for _ in range(steps):
                adam.step(lambda: self.evaluate(x, x))
            return
        # L-BFGS does not depend on the unit of its variable, but for the first step, whose absolute
        # values add up to 1. In this unit the line search need not grow it by powers of ten.
        unit = FIRST_MOVE * self.x.numel()
        z = (self.x / unit).requires_grad_(True)
        with interrupts_held():  # the first one imports compilers, which lose them
            lbfgs = torch.optim.LBFGS(
                [z],
                lr=learning_rate,
                max_iter=steps,
                max_eval=steps,
                history_size=20,
                line_search_fn="strong_wolfe",
                # The losses are means: their gradients are tiny long before the minimum.
                tolerance_grad=0,
                tolerance_change=0,
            )
        lbfgs.step(lambda: self.evaluate(z, z * unit))

    def evaluate(self, variable: Tensor, x: Tensor) -> Tensor:
        """The loss at x, a function of the variable; leaves the variable's gradient."""
        y = x if self.photo is None else self.photo.image(x)
        terms = self.objective(y, self.targets)
        self.number += 1
        if not torch.isfinite(terms.total):
            where = f"the loss is not finite at step {self.number}"
            raise _NonFiniteLossError(f"{where}: {terms.detach()}")
        # The encoder's gradients are channels_last, which L-BFGS does not take.
        variable.grad = torch.autograd.grad(terms.total, variable)[0].contiguous()
        terms = terms.detach()
        if self.best_terms is None or terms.total < self.best_terms.total:
            self.best_x.copy_(x.detach())
            self.best_terms = terms
        if self.callback is not None:
            size = max(x.shape[2:])
            self.callback(Step(self.number, self.total, size, terms, y.detach()))
        return terms.total

    @torch.no_grad()
    def best(self) -> _Estimate:
        """The best result of this scale."""
        return _Estimate(self.best_x) if self.photo is None else self.photo.estimate(self.best_x)


def _initial(init, content, style, seed) -> Tensor:
    if isinstance(init, Tensor):
        return init.to(content)
    if init == "content":
        return content
    if init == "style":
        return _fit(style, content)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(content.shape, generator=generator, dtype=content.dtype)
    return noise.to(content.device)


def _scale(image: Tensor, scale: float) -> Tensor:
    # At least 16 pixels a side: relu4_1 comes after three poolings.
    return _fit(image, [max(16, round(side * scale)) for side in image.shape[2:]])


def _fit(image: Tensor, size) -> Tensor:
    """Resize (B, C, H, W) to a size, or to that of another image."""
    height, width = size.shape[2:] if isinstance(size, Tensor) else size
    if image.shape[2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True)
