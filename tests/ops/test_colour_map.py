"""The nearest map of a photo's colours, against its definition and its algebra."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from photostyle.ops.colour_map import NearestColourMap, colour_table, nearest_colour_map
from photostyle.ops.errors import ArgumentError
from photostyle.ops.lattice import RIDGE, SIZE, SMOOTHNESS


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def smooth_photo(height, width):
    """Few colours, of which most of the table has none."""
    y, x = torch.meshgrid(
        torch.linspace(0, 1, height, dtype=torch.float64),
        torch.linspace(0, 1, width, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x, 0.2 + 0.5 * y, 0.6 - 0.3 * x * y])[None]


def soft_masks(height, width):
    left = torch.linspace(1, 0, width, dtype=torch.float64).expand(height, width)
    return torch.stack([left, 1 - left])


def weights_by_hand(photo):
    """W, dense: for each axis a hat function around each of the nine levels."""
    levels = np.arange(SIZE) / (SIZE - 1)
    red, green, blue = (
        np.maximum(0, 1 - np.abs(channel.numpy().reshape(-1, 1) - levels) * (SIZE - 1))
        for channel in photo[0]
    )
    return np.einsum("ni,nj,nk->nijk", red, green, blue).reshape(-1, SIZE**3)


def table_by_hand(photo, mask, values):
    """argmin of the definition, as one least squares problem of stacked equations."""
    weights, mask = weights_by_hand(photo), mask.numpy().reshape(-1, 1)
    second = np.zeros((SIZE - 2, SIZE))
    for i in range(SIZE - 2):
        second[i, i : i + 3] = 1, -2, 1
    eye = np.eye(SIZE)
    axes = ([second, eye, eye], [eye, second, eye], [eye, eye, second])
    differences = np.concatenate([np.kron(np.kron(a, b), c) for a, b, c in axes])
    rows = [
        np.sqrt(mask) * weights,
        np.sqrt(SMOOTHNESS * mask.sum() / SIZE**3) * differences,
        np.sqrt(RIDGE * mask.sum()) * np.eye(SIZE**3),
    ]
    right = np.sqrt(mask) * values
    right = np.concatenate([right, np.zeros((sum(map(len, rows)) - len(right), values.shape[1]))])
    return np.linalg.lstsq(np.concatenate(rows), right, rcond=None)[0]


@pytest.mark.parametrize("photo", [random(1, 3, 9, 13), smooth_photo(12, 7)], ids=["noise", "few"])
def test_definition(photo):
    height, width = photo.shape[2:]
    image, masks = random(1, 2, height, width, seed=1), soft_masks(height, width)
    values = image[0].flatten(1).T.numpy()
    by_mask = [weights_by_hand(photo) @ table_by_hand(photo, mask, values) for mask in masks]
    expected = torch.from_numpy(np.stack(by_mask)).mT.unflatten(2, (height, width))
    nearest = NearestColourMap(photo, masks)
    torch.testing.assert_close(nearest.by_mask(image)[:, 0], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(nearest(image), (masks[:, None] * expected).sum(0)[None])


def test_an_affine_map_of_the_colours_stays():
    photo = smooth_photo(20, 30)
    matrix = torch.tensor([[0.8, 0.1, 0.0], [-0.2, 1.1, 0.3], [0.0, 0.4, 0.5]]).double()
    image = torch.einsum("kc,bchw->bkhw", matrix, photo) - 0.1
    torch.testing.assert_close(NearestColourMap(photo)(image), image, rtol=0, atol=1e-2)


def test_what_is_not_in_the_colours_goes():
    """A glow over a wall of one colour becomes an even change of the wall."""
    photo = torch.full((1, 3, 16, 16), 0.37, dtype=torch.float64)
    glow = torch.linspace(0, 0.5, 16).double().expand(1, 1, 16, 16)
    result = NearestColourMap(photo)(glow)
    assert result.std() < 1e-12
    assert result.mean() == pytest.approx(0.25, abs=1e-4)


def test_masks_have_maps_of_their_own():
    photo = torch.full((1, 3, 8, 8), 0.37, dtype=torch.float64)
    masks = torch.zeros(2, 8, 8, dtype=torch.float64)
    masks[0, :, :4], masks[1, :, 4:] = 1, 1
    image = torch.cat([0.2 * torch.ones(1, 1, 8, 4), 0.9 * torch.ones(1, 1, 8, 4)], 3).double()
    torch.testing.assert_close(NearestColourMap(photo, masks)(image), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_symmetric_and_its_own_gradient(masked):
    photo, masks = smooth_photo(11, 8), soft_masks(11, 8) if masked else None
    nearest = NearestColourMap(photo, masks)
    a, b = random(1, 3, 11, 8, seed=2), random(1, 3, 11, 8, seed=3)
    assert (nearest(a) * b).sum().item() == pytest.approx((nearest(b) * a).sum().item())
    assert torch.autograd.gradcheck(nearest, (a.requires_grad_(),), fast_mode=True)
    assert torch.autograd.gradgradcheck(nearest, (a,), fast_mode=True)


def test_each_photo_of_a_batch_has_a_map_of_its_own():
    photos = torch.cat([smooth_photo(11, 8), smooth_photo(11, 8).flip(1)])
    image, masks = random(2, 2, 11, 8, seed=2), soft_masks(11, 8)
    both = NearestColourMap(photos, masks)
    for i in range(2):
        one = NearestColourMap(photos[i : i + 1], masks)
        torch.testing.assert_close(both(image)[i : i + 1], one(image[i : i + 1]))
        torch.testing.assert_close(both.by_mask(image)[:, i], one.by_mask(image[i : i + 1])[:, 0])
        torch.testing.assert_close(both.tables(image)[:, i], one.tables(image[i : i + 1])[:, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"photo": torch.rand(3, 8, 9)}, r"^photo=\(3, 8, 9\): give \(B, 3, H, W\)"),
        ({"photo": torch.rand(1, 3, 8, 9).half()}, "^photo=torch.float16: give float32 or float64"),
        ({"masks": torch.ones(8, 9)}, r"^masks=\(8, 9\): give \(M, 8, 9\), as the photo"),
        ({"pixel_weights": torch.ones(9, 8)}, r"^pixel_weights=\(1, 9, 8\): give \(M, 8, 9\)"),
        ({"image": torch.rand(2, 3, 8, 9)}, r"^image=\(2, 3, 8, 9\): give \(1, C, 8, 9\), as"),
        ({"image": torch.rand(1, 3, 8, 9).double()}, "^image=torch.float64: give torch.float32"),
    ],
)
def test_what_does_not_fit(arguments, message):
    image = arguments.pop("image", torch.rand(1, 3, 8, 9))
    with pytest.raises(ArgumentError, match=message):
        NearestColourMap(**{"photo": torch.rand(1, 3, 8, 9), **arguments})(image)


def test_all_is_on_the_device_of_the_photo():
    """Without values: whatever met a tensor of another device would raise."""
    photo, masks = torch.rand(3, 3, 20, 30, device="meta"), torch.rand(2, 20, 30, device="meta")
    nearest = NearestColourMap(photo, masks, masks[0])
    found = nearest_colour_map(photo, photo, pixel_weights=masks[0])
    tables = nearest.tables(photo), colour_table(photo[:1], photo[:1])
    for tensor in (nearest(photo), nearest.by_mask(photo), found, *tables):
        assert tensor.device == photo.device


def test_in_single_precision():
    photo, image = smooth_photo(30, 40), random(1, 3, 30, 40, seed=4)
    single = NearestColourMap(photo.float())(image.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), NearestColourMap(photo)(image), rtol=0, atol=1e-5)


def test_found_at_a_small_size():
    """The same map but for noise, which averaging takes away; each photo has its own."""
    photos = torch.cat([smooth_photo(96, 160), smooth_photo(96, 160).flip(1)])
    images = torch.cat([photos[:1] ** 2, 1 - photos[1:]])
    found = nearest_colour_map(photos, images, size=80)
    assert found.shape == images.shape
    for i in range(2):
        whole = NearestColourMap(photos[i : i + 1])(images[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], whole, rtol=0, atol=5e-3)
    same = nearest_colour_map(photos[:1], images[:1], size=160)
    torch.testing.assert_close(same, NearestColourMap(photos[:1])(images[:1]))


def lattice():
    axis = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))


def test_the_table_of_an_affine_map():
    """Symmetric, so it is the one of least motion: the same where the photo has no colours."""
    photo = 0.2 + 0.5 * random(1, 3, 40, 60)
    matrix = torch.tensor([[0.9, 0.1, 0], [0.1, 0.7, 0.05], [0, 0.05, 1.2]], dtype=torch.float64)
    image = torch.einsum("jk,bkhw->bjhw", matrix, photo) + 0.02
    expected = torch.einsum("jk,krgb->jrgb", matrix, lattice()) + 0.02
    # Noise of one level is taken for granted; measured 0.005.
    torch.testing.assert_close(colour_table(photo, image), expected, rtol=0, atol=0.01)


def test_the_table_of_a_curve():
    """Where the photo has colours, it has those of the image."""
    photo = smooth_photo(60, 90)
    table = colour_table(photo, photo**2)
    assert table.shape == (3, SIZE, SIZE, SIZE)
    positions = 2 * photo.movedim(1, -1)[:, None].flip(-1) - 1
    found = F.grid_sample(table[None], positions, align_corners=True).squeeze(2)
    # Of a square, within steps of an eighth: 1/256 between entries; measured 0.006.
    torch.testing.assert_close(found, photo**2, rtol=0, atol=0.012)
