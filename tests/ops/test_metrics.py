"""The metrics against hand computations, and the properties that make them worth reading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from torchvision.transforms.functional import gaussian_blur

from photostyle.data import load_image
from photostyle.ops import ArgumentError, VGGFeatures
from photostyle.ops.filters import LUMA
from photostyle.ops.metrics import (
    MATTING_EPSILON,
    STYLE_LAYERS,
    StyleDistance,
    colour_map_residual,
    edge_ssim,
    flat_roughness,
    matting_loss,
    sharpness,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def style_distance():
    return StyleDistance()


@pytest.fixture(scope="module")
def pavilion():
    return load_image(EXAMPLES / "pavilion.jpg", 160)[..., :64, :96].contiguous()


@pytest.fixture(scope="module")
def sunset():
    return load_image(EXAMPLES / "sunset.jpg", 160)[..., :80, :64].contiguous()


def whole(image):
    return torch.ones(1, *image.shape[2:])


def halves(image, share=0.5):
    """Left and right, split at a column that VGG's pooling down to relu4_1 keeps."""
    left = torch.zeros(image.shape[2:])
    left[:, : int(image.shape[3] * share)] = 1
    return torch.stack([left, 1 - left])


def noisy(image, amplitude):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + amplitude * noise).clamp(0, 1)


# --------------------------------------------------------------------------------- style distance


def distances_by_hand(image, style, masks, style_masks):
    """‖G(y) − G(s)‖ / ‖G(s)‖ by mask and layer, (M, layers), in NumPy."""
    features = VGGFeatures(STYLE_LAYERS, padding_mode="zeros")
    result = []
    for layer in STYLE_LAYERS:
        grams = []
        for photo, weights in ((image, masks), (style, style_masks)):
            activations = features(photo)[layer][0].double().numpy()
            channels, height, width = activations.shape
            step = weights.shape[1] // height
            blocks = weights.double().numpy().reshape(-1, height, step, width, step)
            weights = blocks.mean((2, 4)).reshape(len(weights), -1)
            pixels = activations.reshape(channels, -1)
            grams.append([(pixels * w) @ pixels.T / w.sum() for w in weights])
        ours, target = map(np.array, grams)
        result.append(
            np.linalg.norm(ours - target, axis=(1, 2)) / np.linalg.norm(target, axis=(1, 2))
        )
    return np.array(result).T


def test_style_distance_of_the_style_itself_is_zero(style_distance, sunset):
    assert style_distance(sunset, sunset, whole(sunset), whole(sunset)) == 0
    assert style_distance(sunset, sunset, halves(sunset), halves(sunset)) == 0


def test_style_distance_by_hand(style_distance, pavilion, sunset):
    by_hand = distances_by_hand(pavilion, sunset, whole(pavilion), whole(sunset))
    distance = style_distance(pavilion, sunset, whole(pavilion), whole(sunset))
    assert distance == pytest.approx(by_hand.mean(), rel=1e-5)


def test_masks_count_by_their_area_in_the_image(style_distance, pavilion, sunset):
    masks, style_masks = halves(pavilion, 0.25), halves(sunset, 0.5)
    by_hand = distances_by_hand(pavilion, sunset, masks, style_masks).mean(1)
    assert abs(by_hand[0] - by_hand[1]) > 0.05
    distance = style_distance(pavilion, sunset, masks, style_masks)
    assert distance == pytest.approx(0.25 * by_hand[0] + 0.75 * by_hand[1], rel=1e-5)


def test_style_distance_does_not_depend_on_the_order_of_masks(style_distance, pavilion, sunset):
    masks, style_masks = halves(pavilion, 0.25), halves(sunset)
    distance = style_distance(pavilion, sunset, masks, style_masks)
    flipped = style_distance(pavilion, sunset, masks.flip(0), style_masks.flip(0))
    assert flipped == pytest.approx(distance, rel=1e-6)


def test_style_distance_is_relative_to_the_style(style_distance, pavilion, sunset):
    there = style_distance(pavilion, sunset, whole(pavilion), whole(sunset))
    back = style_distance(sunset, pavilion, whole(sunset), whole(pavilion))
    assert there > 0.2
    assert back > 0.2
    assert there != pytest.approx(back, rel=0.01)


def test_style_distance_grows_with_the_share_of_another_photo(style_distance, sunset):
    other = sunset.flip(1)
    distances = [
        style_distance(torch.lerp(sunset, other, share), sunset, whole(sunset), whole(sunset))
        for share in (0, 0.25, 0.5, 1)
    ]
    assert distances == sorted(distances)
    assert distances[0] == 0


# -------------------------------------------------------------------------------------- edge SSIM


def test_edge_ssim_of_the_same_photo_is_one(pavilion):
    assert edge_ssim(pavilion, pavilion) == 1


def test_edge_ssim_is_symmetric(pavilion):
    blurred = gaussian_blur(pavilion, [5, 5], [1.0, 1.0])
    there, back = edge_ssim(pavilion, blurred), edge_ssim(blurred, pavilion)
    assert there == pytest.approx(back, abs=1e-12)


def test_edge_ssim_falls_with_blur_noise_and_contrast(pavilion):
    blurred = [gaussian_blur(pavilion, [15, 15], [sigma, sigma]) for sigma in (0.5, 1.0, 2.0)]
    noise = [noisy(pavilion, amplitude) for amplitude in (0.02, 0.05, 0.2)]
    flattened = [pavilion * contrast for contrast in (0.8, 0.5, 0.2)]
    for images in (blurred, noise, flattened):
        values = [edge_ssim(pavilion, image) for image in [pavilion, *images]]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.8


def test_edge_ssim_sees_neither_brightness_nor_hue(pavilion):
    dim = 0.2 + 0.6 * pavilion.double()
    assert edge_ssim(dim, dim + 0.1) == pytest.approx(1, abs=1e-9)
    assert edge_ssim(dim, 1 - dim) == pytest.approx(1, abs=1e-9)
    # A shift from red to blue that keeps every pixel's luma.
    red, _, blue = LUMA
    shift = 0.05 * torch.tensor([1 / red, 0, -1 / blue], dtype=torch.float64)
    varying = dim[:, 1:2] * shift[:, None, None]
    assert edge_ssim(dim, dim + varying) == pytest.approx(1, abs=1e-9)


def test_edge_ssim_keeps_the_dtype_out_of_it(pavilion):
    blurred = gaussian_blur(pavilion, [5, 5], [1.0, 1.0])
    single, double = edge_ssim(pavilion, blurred), edge_ssim(pavilion.double(), blurred.double())
    assert single == pytest.approx(double, abs=1e-12)


# --------------------------------------------------------------------------------- matting loss


def test_matting_loss_against_the_explicit_matrix(cf_laplacian, pavilion):
    guide = pavilion[..., :20, :24].double()
    image = noisy(guide, 0.1)
    matrix = cf_laplacian(guide[0].permute(1, 2, 0).numpy(), epsilon=MATTING_EPSILON)
    planes = image[0].flatten(1).numpy()
    expected = sum(p @ (matrix @ p) for p in planes) / planes.size
    assert matting_loss(guide, image) == pytest.approx(expected, rel=1e-6)


def test_matting_loss_passes_affine_colours_and_sees_noise_and_blur(pavilion):
    mixing = torch.tensor([[0.2, 0.5, 0.1], [0.1, 0.1, 0.6], [0.6, 0.0, 0.2]])
    affine = torch.einsum("dc,bchw->bdhw", mixing, pavilion) + 0.1
    noise = matting_loss(pavilion, noisy(pavilion, 0.05))
    assert matting_loss(pavilion, torch.full_like(pavilion, 0.3)) == pytest.approx(0, abs=1e-9)
    assert 0 <= matting_loss(pavilion, pavilion) < noise / 100
    assert 0 <= matting_loss(pavilion, affine) < noise / 100
    # Both grow with the square of the amplitude; a photo of a tenth the contrast has a hundredth.
    assert matting_loss(pavilion, affine / 10) == pytest.approx(
        matting_loss(pavilion, affine) / 100, rel=1e-2
    )
    assert matting_loss(pavilion, pavilion.flip(3)) > noise / 10


# --------------------------------------------------------------------------------- flat roughness


@pytest.fixture(scope="module")
def sky():
    """A smooth gradient above a chequered ground."""
    rows = torch.linspace(0.3, 0.5, 64)[:, None] + torch.linspace(0, 0.3, 96)
    ground = torch.arange(24)[:, None] // 4 + torch.arange(96) // 4
    rows[40:] = (ground % 2).float()
    return rows.expand(1, 3, 64, 96).contiguous()


def above(sky, change):
    """The sky changed, the ground left."""
    return torch.cat([change(sky[:, :, :40]), sky[:, :, 40:]], dim=2)


def test_gradients_have_no_roughness(sky):
    assert flat_roughness(sky, sky) == pytest.approx(0, abs=1e-4)
    steeper = above(sky, lambda part: 2 * part - 0.4)
    assert flat_roughness(sky, steeper) == pytest.approx(0, abs=1e-4)


def test_noise_is_roughness_in_levels(sky):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(sky.shape, generator=generator) / 255
    # A Gaussian of σ = 2 leaves white noise 1 / (4πσ²) of its variance and takes 2 / (2πσ²) along.
    expected = (1 - 2 / (8 * np.pi) + 1 / (16 * np.pi)) ** 0.5
    for levels in (1, 4):
        measured = flat_roughness(sky, sky + levels * noise)
        assert measured == pytest.approx(levels * expected, rel=0.05)


def test_roughness_grows_with_the_steps_of_a_posterised_sky(sky):
    def posterised(levels):
        return above(sky, lambda part: (part * levels).round() / levels)

    values = [flat_roughness(sky, posterised(levels)) for levels in (255, 60, 30, 15)]
    assert values == sorted(values)
    assert values[0] < 0.35
    assert values[3] > 2


def test_roughness_is_that_of_flat_places_only(sky):
    torn = sky.clone()
    torn[:, :, 48:] = 1 - torn[:, :, 48:].roll(2, dims=3)
    assert flat_roughness(sky, torn) == pytest.approx(0, abs=1e-4)


def test_roughness_of_the_smallest_and_of_plain_photos():
    tiny = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert 0 < flat_roughness(tiny, tiny) < 255
    plain = torch.full((1, 3, 20, 30), 0.5)
    assert flat_roughness(plain, plain) == pytest.approx(0, abs=1e-9)
    assert flat_roughness(plain, noisy(plain, 0.1)) > 10


# --------------------------------------------------------------------------------------- sharpness


@pytest.fixture(scope="module")
def leaves():
    """White noise: detail of every size."""
    return torch.rand(1, 3, 80, 120, generator=torch.Generator().manual_seed(0))


def test_sharpness_is_not_contrast(leaves):
    assert sharpness(leaves, leaves) == pytest.approx(1)
    assert sharpness(leaves, 0.3 + 0.5 * leaves) == pytest.approx(1, abs=1e-3)
    assert sharpness(leaves, 1 - leaves) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigma", [1, 2])
def test_sharpness_of_a_blurred_photo(leaves, sigma):
    """Against the integrals of Gaussians: that of G(a) G(b) is 1 / (2π (a + b)), a and b σ²."""

    def variance(a, b):
        """Of white noise under G(a) - G(b); under 1 - G(b) for a = 0."""
        own = 1 / (4 * np.pi * a) if a else 1
        return own - 1 / (np.pi * (a + b)) + 1 / (4 * np.pi * b)

    def fine_share(blur):
        return (variance(blur, blur + 1) / variance(blur + 1, blur + 4)) ** 0.5

    blurred = gaussian_filter(leaves.numpy(), (0, 0, sigma, sigma))
    expected = fine_share(sigma**2) / fine_share(0)
    assert expected < 0.4
    assert sharpness(leaves, torch.from_numpy(blurred)) == pytest.approx(expected, rel=0.05)


def test_sharpness_of_plain_photos(leaves):
    plain = torch.full((1, 3, 20, 30), 0.5)
    assert sharpness(plain, plain) == pytest.approx(1)
    noise = 0.1 * leaves[..., :20, :30]
    assert sharpness(plain, plain + noise) > 1


# ------------------------------------------------------------------------------ colour-map residual


@pytest.fixture(scope="module")
def landscape():
    return load_image(EXAMPLES / "pavilion.jpg", 160)


def one(image):
    return torch.ones(1, *image.shape[2:])


def test_residual_of_the_photo_itself_and_of_grades(landscape):
    """A smooth map of colours leaves little, a table of 9 entries an axis not nothing."""
    assert colour_map_residual(landscape, landscape, one(landscape)) < 0.5
    matrix = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.5]])
    graded = torch.einsum("dc,bchw->bdhw", matrix, landscape) + 0.1
    assert colour_map_residual(landscape, graded, one(landscape)) < 1
    assert colour_map_residual(landscape, landscape**1.5, one(landscape)) < 1


def test_residual_sees_what_is_not_in_the_colours(landscape):
    """Haze and a glow that one part of the photo has and the rest has not."""
    height, width = landscape.shape[2:]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    glow = 0.4 * torch.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) / 0.02)
    weak, strong = (
        colour_map_residual(
            landscape, landscape.lerp(torch.ones(1, 3, 1, 1), k * glow), one(landscape)
        )
        for k in (0.5, 1.0)
    )
    assert 1 < weak < strong
    patch = landscape.clone()
    patch[..., : width // 2] = patch[..., : width // 2].flip(1)
    assert colour_map_residual(landscape, patch, one(landscape)) > 5


def test_residual_is_measured_mask_by_mask(landscape):
    """A grade of its own for each mask is a grade."""
    half = torch.zeros(landscape.shape[2:])
    half[:, : landscape.shape[3] // 2] = 1
    graded = torch.where(half.bool(), landscape * 0.6, landscape.flip(1))
    assert colour_map_residual(landscape, graded, one(landscape)) > 3
    assert colour_map_residual(landscape, graded, torch.stack([half, 1 - half])) < 1


def test_residual_against_a_dense_solution():
    """The same penalised least squares, with matrices written out, and the residual by hand."""
    random = np.random.default_rng(0)
    content = torch.from_numpy(random.random((1, 3, 12, 10)))
    image = torch.from_numpy(random.random((1, 3, 12, 10)))
    colours = content[0].reshape(3, -1).T.numpy()
    size, count = 9, len(colours)
    weights = np.zeros((count, size, size, size))
    for n, colour in enumerate(colours * (size - 1)):
        hats = [np.maximum(0, 1 - np.abs(np.arange(size) - c)) for c in colour]
        weights[n] = np.einsum("i,j,k->ijk", *hats)
    weights = weights.reshape(count, -1)
    table = np.eye(size**3).reshape(-1, size, size, size)
    penalty = sum(
        np.diff(table, 2, axis=a).reshape(size**3, -1)
        @ np.diff(table, 2, axis=a).reshape(size**3, -1).T
        for a in (1, 2, 3)
    )
    normal = weights.T @ weights + 1e-3 * count / size**3 * penalty + 1e-6 * count * np.eye(size**3)
    lab = rgb2lab(image[0].permute(1, 2, 0).numpy()).reshape(-1, 3)
    fitted = weights @ np.linalg.solve(normal, weights.T @ lab)
    expected = np.sqrt(np.square(fitted - lab).sum(1).mean())
    assert colour_map_residual(content, image, one(content)) == pytest.approx(expected, rel=1e-6)


def test_residual_of_a_one_colour_photo():
    flat = torch.full((1, 3, 20, 20), 0.5)
    assert colour_map_residual(flat, flat, one(flat)) < 0.01
    noise = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    deviation = rgb2lab(noise[0].permute(1, 2, 0).numpy()).reshape(-1, 3).std(0)
    expected = float(np.sqrt(np.square(deviation).sum()))
    assert colour_map_residual(flat, noise, one(flat)) == pytest.approx(expected, rel=1e-3)


def test_roughness_of_photos_that_do_not_fit(sky):
    with pytest.raises(ArgumentError, match=r"^image=.*: give .*, as the content"):
        flat_roughness(sky, sky[..., :-1])
    with pytest.raises(ArgumentError, match=r"^content=.*: give at least 13 pixels a side"):
        flat_roughness(sky[..., :12], sky[..., :12])
