"""How much of the style arrived, and how much of a photo is left."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.color import rgb2lab
from torch import Tensor, nn

from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.errors import ArgumentError
from photostyle.ops.features import VGGFeatures
from photostyle.ops.filters import LUMA, edge_magnitude, ssim
from photostyle.ops.gram import average_down, gram_matrix
from photostyle.ops.matting.laplacian import MattingLaplacian

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
MATTING_EPSILON = 1e-5
ROUGHNESS_SIGMA = 2.0
FLAT_SHARE = 0.1
FLOOR = 1e-5
"""Of the deviation of detail, far below the rounding of 8 bits: a plain photo has neither."""
BANDS = (1.0, 2.0)
"""σ in pixels of the Gaussians between which detail is called fine and coarse."""


class StyleDistance(nn.Module):
    """‖G(y) − G(s)‖ / ‖G(s)‖ (Frobenius) of the Gram matrices under each mask; 0 matches fully.

    Averaged over the masks by their area in y and over relu1_1, 2_1, 3_1 and 4_1 of VGG-16.
    """

    def __init__(self):
        super().__init__()
        self.features = VGGFeatures(STYLE_LAYERS, padding_mode="zeros")

    @torch.no_grad()
    def forward(self, image: Tensor, style: Tensor, masks: Tensor, style_masks: Tensor) -> float:
        """The distance of one image.

        Args:
            image: (1, 3, H, W), values in [0, 1].
            style: (1, 3, H', W'), values in [0, 1].
            masks: (M, H, W), values in [0, 1].
            style_masks: (M, H', W'), values in [0, 1].
        """
        areas = masks.flatten(1).sum(1)
        image_features, style_features = self.features(image), self.features(style)
        distances = []
        for layer in STYLE_LAYERS:
            gram = _gram(image_features[layer], masks)
            target = _gram(style_features[layer], style_masks)
            distance = (gram - target).flatten(2).norm(dim=2) / target.flatten(2).norm(dim=2)
            distances.append((distance[0] * areas).sum() / areas.sum())
        return float(torch.stack(distances).mean())


def edge_ssim(content: Tensor, image: Tensor) -> float:
    """SSIM of the Sobel magnitudes of luma, (1, 3, H, W) in [0, 1] each; 1: all edges are kept.

    See `filters.ssim`, with a data range of 1, and `filters.edge_magnitude`.
    """
    return float(ssim(edge_magnitude(content.double()), edge_magnitude(image.double())))


def matting_loss(content: Tensor, image: Tensor) -> float:
    """pᵀLp per pixel and channel at radius 1, ε = 1e-5; (1, 3, H, W) in [0, 1] each."""
    return float(MattingLaplacian(content, radius=1, epsilon=MATTING_EPSILON).matting_loss(image))


def flat_roughness(content: Tensor, image: Tensor) -> float:
    """Noise and banding where the content is flat, in levels of 255; lower is cleaner.

    The root mean square, over colours and flat pixels, of what a Gaussian of σ = 2 pixels takes
    away. It takes nothing from a gradient, however steep, but noise, JPEG blocks and the steps of a
    posterised sky. Flat is the tenth of the content's pixels around which it varies least: by the
    largest deviation of a colour within 13 x 13 pixels, the Gaussian's reach.

    Args:
        content, image: (1, 3, H, W), values in [0, 1], at least 13 pixels a side.

    Raises:
        ArgumentError: for smaller ones, and an image of another size than the content.
    """
    reach = int(3 * ROUGHNESS_SIGMA)
    if image.shape != content.shape:
        expected = f"give {tuple(content.shape)}, as the content"
        raise ArgumentError("image", tuple(image.shape), expected)
    if min(content.shape[2:]) < 2 * reach + 1:
        expected = f"give at least {2 * reach + 1} pixels a side"
        raise ArgumentError("content", tuple(content.shape), expected)
    guide, result = (255 * photo[0].double().numpy() for photo in (content, image))
    window = (0, 2 * reach + 1, 2 * reach + 1)
    variance = uniform_filter(guide**2, window) - uniform_filter(guide, window) ** 2
    variance = variance.max(0).clip(0)
    # Beyond the border there is no gradient to go on.
    inner = tuple(slice(reach, side - reach) for side in variance.shape)
    flat = variance[inner] <= np.quantile(variance[inner], FLAT_SHARE)
    smooth = gaussian_filter(
        result, (0, ROUGHNESS_SIGMA, ROUGHNESS_SIGMA), radius=(0, reach, reach)
    )
    return float(np.sqrt(np.square(result - smooth)[:, *inner][:, flat].mean()))


def sharpness(content: Tensor, image: Tensor) -> float:
    """How sharp the image is beside its content; 1: as sharp, less: blurred.

    The deviation of luma's fine detail, which a Gaussian of σ = 1 pixel takes away, over that of
    the coarser detail which one of σ = 2 takes away beyond it, and this ratio over the content's.
    Contrast changes nothing. Read it beside `StyleDistance`, which blur alone lowers wherever the
    style is less sharp than the content.

    Args:
        content, image: (1, 3, H, W), values in [0, 1].
    """
    return _fine_share(image) / _fine_share(content)


def _fine_share(photo: Tensor) -> float:
    luma = np.tensordot(LUMA, photo[0].double().numpy(), 1)
    less, least = (gaussian_filter(luma, sigma) for sigma in BANDS)
    return (FLOOR + (luma - less).std()) / (FLOOR + (less - least).std())


def colour_map_residual(content: Tensor, image: Tensor, masks: Tensor) -> float:
    """How far the image is from any smooth map of the content's colours, in ΔE*ab; 0: it is one.

    For each mask a table of 9 x 9 x 9 colours is fitted from the content's RGB to the image's
    CIELAB, see `colour_map.NearestColourMap`; the residual is the root mean square distance to it
    over the whole photo. A grade of colours leaves little; haze, glows and blotches, which are
    not in the content's colours, are all of it. An untouched photo has next to none: read it beside
    `StyleDistance`.

    Args:
        content, image: (1, 3, H, W), values in [0, 1].
        masks: (M, H, W), values in [0, 1], sum 1 at every pixel.
    """
    lab = rgb2lab(image[0].double().permute(1, 2, 0).numpy())
    lab = torch.from_numpy(lab).permute(2, 0, 1)[None]
    maps = NearestColourMap(content.double(), masks).by_mask(lab)[:, 0]
    errors = (maps - lab).square().sum(1)
    return float((masks.double() * errors).sum(0).mean().sqrt())


def _gram(features: Tensor, masks: Tensor) -> Tensor:
    return gram_matrix(features, average_down(masks, features.shape[-2:]))
