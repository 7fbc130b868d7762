"""The network of any style, applied to tensors."""

import torch
from torch import Tensor

from photostyle.feedforward.style_network import UNIVERSAL, load_network


@torch.inference_mode()
def universal_image(
    content: Tensor,
    style: Tensor,
    content_masks: Tensor | None = None,
    style_masks: Tensor | None = None,
    *,
    network: str = UNIVERSAL,
) -> Tensor:
    """The content with the style's colours and light, in one pass.

    Args:
        content: (1, 3, H, W), values in [0, 1].
        style: (1, 3, H', W'), values in [0, 1].
        content_masks, style_masks: (M, H, W), values in [0, 1], sum 1 at every pixel, and
            (M, H', W'); the style is taken from mask m to mask m. ``None``: one, everywhere.
        network: of any style, see `feedforward.load_network`.

    Returns:
        (1, 3, H, W), values in [0, 1].
    """
    trained = load_network(network, content.device)
    statistics = trained.net.statistics(style, style_masks)
    return trained.with_style(statistics, content_masks)(content).clamp(0, 1)
