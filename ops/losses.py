"""Content, style and photorealism losses, and their sum: the objective of both modes.

All losses are means or relative errors, so that a weight keeps its meaning when the size changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.errors import ArgumentError, check_choice, check_number, check_whole
from ops.features import VGGFeatures
from ops.matting_laplacian import BACKENDS, MattingLaplacian

# Rec. 601.
LUMA = (0.299, 0.587, 0.114)
# Guards the division by a target of zeros (a black style).
TINY = 1e-12


def gram_matrix(features: Tensor, masks: Tensor) -> Tensor:
    """G_m = Σ_i m_i F_i F_iᵀ / Σ_i m_i for each mask, Gatys et al. (2016), eq. 3.

    Args:
        features: (B, C, H, W), of any floating dtype.
        masks: (M, H, W), weights in [0, 1].

    Returns:
        (B, M, C, C), float32 for features of half precision, else in the features' dtype.
    """
    return _MaskedGram.apply(_pixels(features), masks.flatten(1))


def mean_and_deviation(features: Tensor, masks: Tensor) -> Tensor:
    """Channel means and standard deviations under each mask, Li et al. (2017),
    "Demystifying neural style transfer".

    Args:
        features: (B, C, H, W).
        masks: (M, H, W), weights in [0, 1].

    Returns:
        (B, M, 2C), float32 for features of half precision, else in the features' dtype.
    """
    pixels = _at_least_float32(_pixels(features))
    statistics = []
    for support, weights in _supports(masks.flatten(1)):
        mean = (pixels[:, support] * weights).sum(1, keepdim=True)
        variance = ((pixels[:, support] - mean).square() * weights).sum(1)
        # Dead channels have no variance, and no gradient of its root either.
        statistics.append(torch.cat([mean[:, 0], (variance + TINY).sqrt()], dim=1))
    return torch.stack(statistics, dim=1)


STATISTICS = {"gram": gram_matrix, "mean_and_deviation": mean_and_deviation}


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """‖F − F_target‖² / ‖F_target‖² of each image of (B, C, H, W), averaged, a scalar."""
    features, target = _at_least_float32(features), _at_least_float32(target)
    error = (features - target).square().flatten(1).sum(1)
    return (error / target.square().flatten(1).sum(1).clamp(min=TINY)).mean()


def style_loss(statistics: Tensor, target: Tensor, areas: Tensor) -> Tensor:
    """Σ_m area_m ‖S_m − T_m‖² / ‖T_m‖², averaged over the batch, a scalar.

    Args:
        statistics: (B, M, ...), what :func:`gram_matrix` or :func:`mean_and_deviation` return.
        target: (1, M, ...), the same of the style.
        areas: (M,), shares of the content's area, sum 1.
    """
    error = (statistics - target).flatten(2).square().sum(2)
    error = error / target.flatten(2).square().sum(2).clamp(min=TINY)
    return (error * areas).sum(1).mean()


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of (B, C, H, W), a scalar."""
    return image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean()


def edge_magnitude(image: Tensor) -> Tensor:
    """Sobel magnitudes of luma (Rec. 601), (B, 3, H, W) -> (B, 1, H, W), in the image's dtype.

    Sobel's filter as a derivative: change per pixel, both directions averaged, so the magnitudes of
    an image in [0, 1] are in [0, 0.5], half of scikit-image's.
    """
    luma = torch.einsum("c,bchw->bhw", image.new_tensor(LUMA), image)[:, None]
    smooth, slope = image.new_tensor([0.25, 0.5, 0.25]), image.new_tensor([0.5, 0, -0.5])
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    horizontal = _Filter.apply(padded, slope, smooth)
    vertical = _Filter.apply(padded, smooth, slope)
    # A square root has no gradient at zero.
    return ((horizontal.square() + vertical.square()) / 2 + 1e-8).sqrt()


def edge_loss(edges: Tensor, target: Tensor) -> Tensor:
    """1 − SSIM of edge magnitudes (B, 1, H, W), float32 or float64, a scalar in [0, 2].

    Wang et al. (2004), eq. 13, with a Gaussian window of σ = 1.5 and a data range of 1. What it
    compares is where edges are and how they stand out, whatever their colours: edges that the
    photo does not have, halos and steps in a sky, cost as much as those that are lost.

    Raises:
        RuntimeError: for fewer than 11 pixels a side, the window's width.
    """
    distance = torch.arange(-5, 6, dtype=edges.dtype, device=edges.device)
    window = torch.exp(-distance.square() / (2 * 1.5**2))
    window = window / window.sum()

    def mean(x: Tensor) -> Tensor:
        return _Filter.apply(x, window, window)

    mean_x, mean_y = mean(edges), mean(target)
    variance_x = mean(edges.square()) - mean_x.square()
    variance_y = mean(target.square()) - mean_y.square()
    covariance = mean(edges * target) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return 1 - (luminance * structure).mean()


class _Filter(torch.autograd.Function):
    """A separable correlation of (B, 1, H, W), without the border.

    Its gradient is the same with reversed kernels, border and all. PyTorch's own takes five times
    as long on a CPU.
    """

    @staticmethod
    def forward(ctx, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(row, column)
        return F.conv2d(F.conv2d(x, row.view(1, 1, 1, -1)), column.view(1, 1, -1, 1))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        row, column = ctx.saved_tensors
        beside, above = len(row) - 1, len(column) - 1
        padded = F.pad(gradient, (beside, beside, above, above))
        return _Filter.apply(padded, row.flip(0), column.flip(0)), None, None


class LossTerms(Mapping):
    """Weighted losses by name: a mapping that adds up, term by term, and prints."""

    def __init__(self, terms: Mapping[str, Tensor]):
        self._terms = dict(terms)

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self):
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __add__(self, other: "LossTerms") -> "LossTerms":
        names = dict.fromkeys((*self, *other))
        return LossTerms({name: self.get(name, 0.0) + other.get(name, 0.0) for name in names})

    @property
    def total(self) -> Tensor:
        """The sum of all terms, a scalar."""
        return sum(self._terms.values())

    def detach(self) -> "LossTerms":
        """The same terms without their graph."""
        return LossTerms({name: value.detach() for name, value in self.items()})

    def __str__(self) -> str:
        parts = [f"{name} {float(value):.4g}" for name, value in self.items()]
        return "  ".join([*parts, f"total {float(self.total):.4g}"])


@dataclass(frozen=True)
class Targets:
    """What an image is compared with: made by :meth:`StyleObjective.targets`.

    Attributes:
        content: features of the content by layer, (B, C, H', W').
        style: statistics of the style by layer, (1, M, ...).
        masks: content masks at each style layer's size, (M, H', W').
        areas: (M,), each mask's share of the content.
        laplacian: the content's, for the energy; ``None`` when its weight is zero.
        edges: the content's edge magnitudes, (B, 1, H, W); ``None`` when their weight is zero.
        wide_laplacian: the same in wide windows; ``None`` when its weight or the discord is zero.
        discord: how little content and style have in common, in [0, 1].
    """

    content: dict[str, Tensor]
    style: dict[str, Tensor]
    masks: dict[str, Tensor]
    areas: Tensor
    laplacian: MattingLaplacian | None
    edges: Tensor | None = None
    wide_laplacian: MattingLaplacian | None = None
    discord: float = 0.0


class StyleObjective(nn.Module):
    """content + style + photorealism: what both modes minimise.

    Args:
        encoder: called with the names of all layers, it returns a module that gives them by name;
            ``functools.partial(VGGFeatures, encoder="vgg19")`` for another VGG.
        content_layers: layers whose activations are kept, Gatys et al. (2016), eq. 1.
        style_layers: layers whose statistics are matched.
        content_weight, style_weight, edges_weight, energy_weight, variation_weight: at least 0; a
            loss of weight 0 is not computed. For the edges see :func:`edge_loss`. The energy is
            pᵀLp per pixel and channel, Luan et al. (2017), eq. 2.
        wide_energy_weight: of the energy in wide windows, where content and style have nothing in
            common. A style's shapes for which the content has no place are too large for the
            windows of the other energy to see.
        strangers_style: the share of ``style_weight`` that is left where they have nothing in
            common, in [0, 1].
        statistic: ``"gram"`` or ``"mean_and_deviation"``.
        energy_radius, wide_energy_radius, energy_epsilon: of the matting Laplacians that measure
            the energies.
        backend: of the matting Laplacian.

    Raises:
        ArgumentError: for a weight that is negative or no number, a share of style beyond [0, 1],
            a missing or unknown layer, or an unknown statistic or backend.
    """

    def __init__(
        self,
        encoder: Callable[[tuple[str, ...]], nn.Module] = VGGFeatures,
        *,
        content_layers: tuple[str, ...] | list[str] = ("relu4_2",),
        style_layers: tuple[str, ...] | list[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        content_weight: float = 1.0,
        style_weight: float = 10.0,
        edges_weight: float = 1.5,
        energy_weight: float = 3000.0,
        wide_energy_weight: float = 300.0,
        strangers_style: float = 0.4,
        variation_weight: float = 0.0,
        statistic: str = "gram",
        energy_radius: int = 1,
        wide_energy_radius: int = 8,
        energy_epsilon: float = 1e-5,
        backend: str = "auto",
    ):
        super().__init__()
        self.weights = {
            "content": content_weight,
            "style": style_weight,
            "edges": edges_weight,
            "energy": energy_weight,
            "wide_energy": wide_energy_weight,
            "variation": variation_weight,
        }
        for name, weight in self.weights.items():
            check_number(f"{name}_weight", weight, 0)
        check_number("strangers_style", strangers_style, 0, 1)
        self.strangers_style = strangers_style
        check_choice("statistic", statistic, STATISTICS)
        check_choice("backend", backend, BACKENDS)
        for argument, layers in (
            ("content_layers", content_layers),
            ("style_layers", style_layers),
        ):
            if not isinstance(layers, list | tuple) or not layers:
                raise ArgumentError(argument, layers, "give a list of at least one layer")
        self.content_layers = tuple(content_layers)
        self.style_layers = tuple(style_layers)
        self.features = encoder((*self.content_layers, *self.style_layers))
        self.statistic = STATISTICS[statistic]
        self.energy_radius = energy_radius
        check_whole("wide_energy_radius", wide_energy_radius, 1)
        self.wide_energy_radius = wide_energy_radius
        self.energy_epsilon = energy_epsilon
        self.backend = backend

    @torch.no_grad()
    def targets(
        self,
        content: Tensor,
        style: Tensor,
        content_masks: Tensor,
        style_masks: Tensor,
        *,
        discord: float = 0.0,
    ) -> Targets:
        """What an image must match to be this content in that style.

        Args:
            content: (B, 3, H, W), values in [0, 1].
            style: (1, 3, H', W'), values in [0, 1].
            content_masks: (M, H, W), values in [0, 1], sum 1 at every pixel.
            style_masks: (M, H', W'), values in [0, 1]; mask m of the style goes to mask m of the
                content.
            discord: how little they have in common, in [0, 1]: the share of
                ``wide_energy_weight`` that counts, and by which ``style_weight`` goes down to
                what strangers have of it.
        """
        if len(content_masks) != len(style_masks):
            raise ArgumentError(
                "style_masks", len(style_masks), f"give one for each of {len(content_masks)}"
            )
        statistics = self.style_statistics(style, style_masks)
        return self.content_targets(content, content_masks, statistics, discord=discord)

    @torch.no_grad()
    def content_targets(
        self,
        content: Tensor,
        masks: Tensor,
        statistics: dict[str, Tensor],
        *,
        discord: float = 0.0,
    ) -> Targets:
        """As :meth:`targets`, with a style of which only the statistics are left.

        Args:
            content: (B, 3, H, W), values in [0, 1].
            masks: (M, H, W), values in [0, 1], sum 1 at every pixel.
            statistics: what :meth:`style_statistics` returned for as many masks.
            discord: see :meth:`targets`.
        """
        check_number("discord", discord, 0, 1)
        features = self.features(content)
        areas = masks.flatten(1).sum(1)
        with torch.autocast(content.device.type, enabled=False):
            edges = edge_magnitude(content) if self.weights["edges"] else None
        return Targets(
            content={layer: features[layer] for layer in self.content_layers},
            style=statistics,
            masks={
                layer: average_down(masks, features[layer].shape[-2:])
                for layer in self.style_layers
            },
            areas=areas / areas.sum(),
            laplacian=self.laplacian(content),
            edges=edges,
            wide_laplacian=self.wide_laplacian(content) if discord else None,
            discord=discord,
        )

    @torch.no_grad()
    def style_statistics(self, style: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Statistics of (1, 3, H, W) under (M, H, W) masks by layer, (1, M, ...)."""
        features = self.features(style)
        with torch.autocast(style.device.type, enabled=False):
            return {
                layer: self.statistic(
                    features[layer], average_down(masks, features[layer].shape[-2:])
                )
                for layer in self.style_layers
            }

    def laplacian(self, content: Tensor) -> MattingLaplacian | None:
        """The matting Laplacian that the energy is measured with, if it has a weight."""
        if not self.weights["energy"]:
            return None
        return MattingLaplacian(content, self.energy_radius, self.energy_epsilon, self.backend)

    def wide_laplacian(self, content: Tensor) -> MattingLaplacian | None:
        """The same in wide windows; small images get the largest that fit."""
        if not self.weights["wide_energy"]:
            return None
        radius = min(self.wide_energy_radius, (min(content.shape[2:]) - 1) // 2)
        return MattingLaplacian(content, radius, self.energy_epsilon, self.backend)

    def forward(self, image: Tensor, targets: Targets) -> LossTerms:
        """The weighted losses of an image.

        Args:
            image: (B, 3, H, W), values around [0, 1].
            targets: what :meth:`targets` returned for a content of the same shape.
        """
        features = self.features(image)
        with torch.autocast(image.device.type, enabled=False):
            terms = self._losses(image, features, targets)
        return LossTerms({name: self.weights[name] * loss for name, loss in terms.items()})

    def _losses(
        self, image: Tensor, features: dict[str, Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        terms = {}
        if self.weights["content"]:
            losses = [content_loss(features[layer], f) for layer, f in targets.content.items()]
            terms["content"] = sum(losses) / len(losses)
        if self.weights["style"]:
            losses = [
                style_loss(self.statistic(features[layer], targets.masks[layer]), s, targets.areas)
                for layer, s in targets.style.items()
            ]
            withheld = targets.discord * (1 - self.strangers_style)
            terms["style"] = (1 - withheld) * sum(losses) / len(losses)
        if targets.edges is not None:
            terms["edges"] = edge_loss(edge_magnitude(image), targets.edges)
        if targets.laplacian is not None:
            terms["energy"] = targets.laplacian.energy(image).mean()
        if targets.wide_laplacian is not None:
            terms["wide_energy"] = targets.discord * targets.wide_laplacian.energy(image).mean()
        if self.weights["variation"]:
            terms["variation"] = total_variation(image)
        return terms


class _MaskedGram(torch.autograd.Function):
    """Gram matrices (B, M, C, C) of pixels (B, N, C) under masks (M, N).

    Their gradient is written out, dF_i = Σ_m m_i / Σm (dG_m + dG_mᵀ) F_i: one product where
    autograd takes two, in the features' own precision, and one array for all masks where autograd
    takes one for each.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, masks: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, masks)
        grams = []
        for support, weights in _supports(masks):
            part = _at_least_float32(pixels[:, support])
            grams.append((part * weights).mT @ part)
        return torch.stack(grams, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        pixels, masks = ctx.saved_tensors
        symmetric = (gradient + gradient.mT).to(pixels.dtype)
        result = torch.zeros_like(pixels)
        for (support, weights), factor in zip(_supports(masks), symmetric.unbind(1), strict=True):
            result[:, support] += pixels[:, support] @ factor * weights.to(pixels.dtype)
        return result, None


def _pixels(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H·W, C)."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    """Sums over the pixels of half precision need more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _supports(masks: Tensor):
    """For each mask of (M, N) where it is not zero, and its weights there, (n, 1), sum 1."""
    for mask in masks:
        index = mask.nonzero()[:, 0]
        # Masks hardly overlap, so the work stays that of one mask.
        support = slice(None) if len(index) == len(mask) else index
        weights = mask[support]
        yield support, (weights / weights.sum())[:, None]


def average_down(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (M, H, W) at a smaller size (height, width): the share of each label in each cell."""
    return F.interpolate(masks[None], size=tuple(size), mode="area")[0]
