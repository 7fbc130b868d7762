"""What both modes minimise: style, content and photorealism losses, weighted and added."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photostyle.ops.checks import check_mask_shape
from photostyle.ops.errors import (
    ArgumentError,
    check_choice,
    check_number,
    check_positive,
    check_whole,
)
from photostyle.ops.features import VGGFeatures
from photostyle.ops.filters import edge_magnitude
from photostyle.ops.gram import average_down, pixel_weights
from photostyle.ops.losses import LossTerms, content_loss, edge_loss, total_variation
from photostyle.ops.matting.laplacian import BACKENDS, MattingLaplacian
from photostyle.ops.style_losses import COLOURS, StyleLoss, Transport


@dataclass(frozen=True)
class Targets:
    """What an image is compared with: made by `StyleObjective.targets`.

    Attributes:
        content: features of the content by layer, (B, C, H', W').
        style: what the style loss aims at, by layer.
        edges: the content's edge magnitudes, (B, 1, H, W); ``None`` when their weight is zero.
        laplacian: the content's, for the matting loss; ``None`` when its weight is zero.
        weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all of them 1.
    """

    content: dict[str, Tensor]
    style: dict[str, object]
    edges: Tensor | None
    laplacian: MattingLaplacian | None
    weights: Tensor | None = None


class StyleObjective(nn.Module):
    """style + content + photorealism: what both modes minimise.

    Args:
        encoder: called with the names of all layers, it returns a module that gives them by name;
            ``functools.partial(VGGFeatures, model="vgg19")`` for another VGG.
        style_loss: `Transport`, `GRAM` or `MEAN_STD`.
        style_layers: layers whose features take after the style's; ``"colours"`` is the image.
        layer_weights: of these layers, relative to each other; ``None``: all alike.
        content_layers: layers whose activations are kept, Gatys et al. (2016), eq. 1.
        style_weight, content_weight, edges_weight, matting_weight, total_variation_weight: at least
            0; a loss of weight 0 is not computed. For the edges see `ops.losses.edge_loss`. The
            matting loss is pᵀLp per pixel and channel, Luan et al. (2017), eq. 2.
        matting_radius, matting_ridge: of its matting Laplacian, see `MattingLaplacian.with_ridge`.
        backend: of the matting Laplacian.

    Raises:
        ArgumentError: for what is no style loss, a weight that is negative or no number, weights
            that do not fit the layers, a missing or unknown layer, and an unknown backend.
    """

    def __init__(
        self,
        encoder: Callable[[tuple[str, ...]], nn.Module] = VGGFeatures,
        *,
        style_loss: StyleLoss = Transport(),
        style_layers: Sequence[str] = (COLOURS, "relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        layer_weights: Sequence[float] | None = (8, 2, 1, 1, 0.5),
        content_layers: Sequence[str] = ("relu4_2",),
        style_weight: float = 200.0,
        content_weight: float = 0.0,
        edges_weight: float = 4.0,
        matting_weight: float = 3000.0,
        total_variation_weight: float = 0.0,
        matting_radius: int = 1,
        matting_ridge: float = 1e-5 / 9,
        backend: str = "auto",
    ):
        super().__init__()
        self.weights = {
            "style": style_weight,
            "content": content_weight,
            "edges": edges_weight,
            "matting": matting_weight,
            "total_variation": total_variation_weight,
        }
        for name, weight in self.weights.items():
            check_number(f"{name}_weight", weight, 0)
        if not isinstance(style_loss, StyleLoss):
            raise ArgumentError("style_loss", style_loss, "give Transport(), GRAM or MEAN_STD")
        check_whole("matting_radius", matting_radius, 1)
        check_positive("matting_ridge", matting_ridge)
        check_choice("backend", backend, BACKENDS)
        _check_layers("style_layers", style_layers)
        _check_layers("content_layers", content_layers)
        self.style_loss = style_loss
        self.style_layers = tuple(style_layers)
        self.layer_weights = _shares("layer_weights", layer_weights, len(style_layers))
        self.content_layers = tuple(content_layers) if content_weight else ()
        layers = (*self.content_layers, *self.style_layers)
        self.encoder = encoder(tuple(layer for layer in layers if layer != COLOURS))
        self.matting_radius = matting_radius
        self.matting_ridge = matting_ridge
        self.backend = backend

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The image (B, 3, H, W) itself and its activations by layer, (B, C, H', W')."""
        return {COLOURS: image, **self.encoder(image)}

    @torch.no_grad()
    def targets(
        self, content: Tensor, style: Tensor, content_masks: Tensor, style_masks: Tensor
    ) -> Targets:
        """What an image must match to be this content in that style.

        Args:
            content: (B, 3, H, W), values in [0, 1].
            style: (1, 3, H', W'), values in [0, 1].
            content_masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight: 1, less
                where the photo is transparent.
            style_masks: (M, H', W'), values in [0, 1]; mask m of the style goes to mask m of the
                content.
        """
        check_mask_shape("content_masks", content_masks, content)
        check_mask_shape("style_masks", style_masks, style)
        if len(content_masks) != len(style_masks):
            raise ArgumentError(
                "style_masks", len(style_masks), f"give one for each of {len(content_masks)}"
            )
        statistics = self.style_statistics(style, style_masks)
        return self.content_targets(content, content_masks, statistics)

    @torch.no_grad()
    def style_statistics(self, style: Tensor, masks: Tensor) -> dict[str, object]:
        """What the style loss keeps of (1, 3, H, W) under (M, H, W) masks, by layer."""
        features = self.features(style)
        with torch.autocast(style.device.type, enabled=False):
            return {
                layer: self.style_loss.statistics(layer, *_under(features[layer], masks))
                for layer in self.style_layers
            }

    @torch.no_grad()
    def content_targets(
        self, content: Tensor, masks: Tensor, statistics: dict[str, object]
    ) -> Targets:
        """As `targets`, with a style of which only the statistics are left.

        Args:
            content: (B, 3, H, W), values in [0, 1].
            masks: (M, H, W), values in [0, 1], whose sum is the pixel's weight.
            statistics: what `style_statistics` returned for as many masks.
        """
        features = self.features(content)
        with torch.autocast(content.device.type, enabled=False):
            return Targets(
                content={layer: features[layer] for layer in self.content_layers},
                style={
                    layer: self.style_loss.target(
                        layer, *_under(features[layer], masks), statistics[layer]
                    )
                    for layer in self.style_layers
                },
                edges=edge_magnitude(content) if self.weights["edges"] else None,
                laplacian=self.laplacian(content),
                weights=pixel_weights(masks),
            )

    def laplacian(self, content: Tensor) -> MattingLaplacian | None:
        """The matting Laplacian of the matting loss, if that has a weight."""
        if not self.weights["matting"]:
            return None
        return MattingLaplacian.with_ridge(
            content, self.matting_radius, self.matting_ridge, self.backend
        )

    def forward(self, image: Tensor, targets: Targets) -> LossTerms:
        """The weighted losses of an image.

        Args:
            image: (B, 3, H, W), values around [0, 1].
            targets: what `targets` returned for a content of the same shape.
        """
        features = self.features(image)
        with torch.autocast(image.device.type, enabled=False):
            terms = self._losses(image, features, targets)
        return LossTerms({name: self.weights[name] * loss for name, loss in terms.items()})

    def _losses(
        self, image: Tensor, features: dict[str, Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        terms = {}
        if self.weights["style"]:
            terms["style"] = sum(
                weight * self.style_loss(features[layer], targets.style[layer])
                for layer, weight in zip(self.style_layers, self.layer_weights, strict=True)
            )
        if self.weights["content"]:
            losses = [
                content_loss(features[layer], f, _weights_at(f, targets.weights))
                for layer, f in targets.content.items()
            ]
            terms["content"] = sum(losses) / len(losses)
        if targets.edges is not None:
            terms["edges"] = edge_loss(edge_magnitude(image), targets.edges, targets.weights)
        if targets.laplacian is not None:
            terms["matting"] = targets.laplacian.matting_loss(image).mean()
            if targets.weights is not None:  # a mean over what counts; the rest is smooth
                terms["matting"] = terms["matting"] / targets.weights.mean()
        if self.weights["total_variation"]:
            terms["total_variation"] = total_variation(image)
        return terms


def _weights_at(features: Tensor, weights: Tensor | None) -> Tensor | None:
    return weights if weights is None else average_down(weights[None], features.shape[-2:])[0]


def _under(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    return features, average_down(masks, features.shape[-2:])


def _check_layers(argument: str, layers) -> None:
    if not isinstance(layers, list | tuple) or not layers:
        raise ArgumentError(argument, layers, "give a list of at least one layer")


def _shares(argument: str, weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that add up to 1."""
    weights = [1.0] * count if weights is None else weights
    if not isinstance(weights, list | tuple) or len(weights) != count:
        raise ArgumentError(argument, weights, f"give a list of {count} numbers, one for a layer")
    for weight in weights:
        check_number(argument, weight, 0)
    if not sum(weights):
        raise ArgumentError(argument, list(weights), "give at least one number above 0")
    return [weight / sum(weights) for weight in weights]
