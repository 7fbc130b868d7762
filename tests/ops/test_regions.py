"""Two photos segmented together: what every pair of masks must be, and that parts meet."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from photostyle.data import Masks, automatic_masks, load_image, load_masks, save_masks
from photostyle.data.masks import masks_of_described
from photostyle.ops.regions import describe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def photos():
    """Two photos of sky, land and water, 160 pixels long."""
    return [load_image(EXAMPLES / f"{name}.jpg", 160) for name in ("pavilion", "dusk")]


@pytest.fixture(scope="module")
def masks(photos):
    return automatic_masks(*photos)


def test_masks_share_out_every_pixel(photos, masks):
    for layers, photo in zip((masks.content, masks.style), photos, strict=True):
        assert layers.shape == (len(masks.labels), *photo.shape[2:])
        assert layers.dtype == torch.float32
        assert layers.min() >= 0
        torch.testing.assert_close(layers.sum(0), torch.ones(photo.shape[2:]))
        # Soft at borders only: a pixel of two regions costs twice.
        assert (layers > 0).float().sum(0).mean() < 3


def test_photos_described_before(photos, masks):
    """One that is met with several others has the same masks with each."""
    first, second = map(describe, photos)
    found = masks_of_described(first, second)
    assert found.labels == masks.labels
    assert (found.content == masks.content).all()
    assert (found.style == masks.style).all()
    again = masks_of_described(first, first)
    assert (again.content == automatic_masks(photos[0], photos[0]).content).all()


def test_mixed_precision_around_it_changes_nothing():
    """As in training, where a GPU has no QR decomposition of bfloat16."""
    photos = [load_image(EXAMPLES / f"{name}.jpg", 256) for name in ("pavilion", "sunset")]
    masks = automatic_masks(*photos)
    with torch.autocast("cpu", torch.bfloat16):
        found = automatic_masks(*photos)
    assert (found.content == masks.content).all()
    assert (found.style == masks.style).all()


@pytest.mark.gpu
def test_on_a_gpu():
    """Within mixed precision; the encoder may run in bfloat16 there, so borders may differ."""
    photos = [load_image(EXAMPLES / f"{name}.jpg", 256) for name in ("pavilion", "sunset")]
    expected = automatic_masks(*photos)
    with torch.autocast("cuda", torch.bfloat16):
        found = automatic_masks(*(photo.cuda() for photo in photos))
    assert found.labels == expected.labels
    changed = found.content.cpu().argmax(0) != expected.content.argmax(0)
    assert changed.float().mean() < 0.1


@pytest.mark.parametrize("name", ["sunset", "dusk", "autumn"])
def test_a_level_of_noise_leaves_the_regions(name):
    """In the style: single starts of k-means may end elsewhere, the best of many does not."""
    content, style = (load_image(EXAMPLES / f"{one}.jpg", 400) for one in ("pavilion", name))
    described = describe(content)
    regions = masks_of_described(described, describe(style)).content.argmax(0)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        noise = torch.randint(-1, 2, style.shape, generator=random) / 255
        noisy = describe((style + noise).clamp(0, 1))
        changed = masks_of_described(described, noisy).content.argmax(0) != regions
        assert changed.float().mean() < 0.02


def test_every_region_has_a_counterpart(masks):
    assert 2 <= len(masks.labels) <= 5
    assert len(set(masks.labels)) == len(masks.labels)
    for layers in (masks.content, masks.style):
        assert layers.flatten(1).mean(1).min() > 0.002
    areas = masks.content.flatten(1).sum(1)
    assert (areas.diff() <= 0).all()


def test_sky_meets_sky(photos):
    """The labels of the upper corners of both are not those of the lower edge."""
    masks = automatic_masks(*photos)
    for layers in (masks.content, masks.style):
        labels = layers.argmax(0)
        upper, lower = labels[: len(labels) // 5], labels[-len(labels) // 8 :]
        assert not set(upper.mode().values.tolist()) & set(lower.mode().values.tolist())
    tops = [layers[:, :20].mean((1, 2)) for layers in (masks.content, masks.style)]
    bottoms = [layers[:, -12:].mean((1, 2)) for layers in (masks.content, masks.style)]
    similar = F.cosine_similarity
    assert similar(*tops, dim=0) > 2 * similar(tops[0], bottoms[1], dim=0)


def test_a_photo_and_itself_are_segmented_alike(photos):
    masks = automatic_masks(photos[0], photos[0])
    assert (masks.content.argmax(0) == masks.style.argmax(0)).float().mean() > 0.999


def test_a_mirrored_photo_is_segmented_mirrored(photos):
    masks = automatic_masks(photos[0], photos[0].flip(3))
    same = masks.content.argmax(0) == masks.style.flip(2).argmax(0)
    assert same.float().mean() > 0.85  # 0.92; the features' grid is not symmetric


def test_seed(photos, masks):
    again = automatic_masks(*photos, seed=0)
    assert torch.equal(again.content, masks.content)
    assert torch.equal(again.style, masks.style)


@pytest.mark.parametrize("sizes", [((16, 16), (17, 40)), ((33, 20), (64, 31))], ids=str)
def test_small_and_odd_sizes(sizes):
    random = torch.Generator().manual_seed(0)
    photos = [torch.rand(1, 3, *size, generator=random) for size in sizes]
    masks = automatic_masks(*photos)
    for layers, size in zip((masks.content, masks.style), sizes, strict=True):
        assert layers.shape[1:] == size
        torch.testing.assert_close(layers.sum(0), torch.ones(size))


def plain_photos():
    """One colour, noise on it, and an even sky."""
    noise = torch.randn(1, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    grey = torch.tensor([0.47, 0.51, 0.55]).view(1, 3, 1, 1).expand(1, 3, 200, 300)
    height = torch.linspace(0, 1, 200).view(1, 1, 200, 1)
    sky = torch.lerp(torch.tensor([0.35, 0.55, 0.82]).view(1, 3, 1, 1), 0.85 * grey / grey, height)
    return {"flat": grey, "noise": (grey + 3 / 255 * noise).clamp(0, 1), "sky": sky}


@pytest.mark.parametrize("name", ["flat", "noise", "sky"])
def test_a_plain_photo_has_no_parts(photos, name):
    """Bands across a wall would be all that it owed to them."""
    plain = plain_photos()[name]
    for pair in ((plain, photos[0]), (photos[0], plain)):
        masks = automatic_masks(*pair)
        assert (masks.content == torch.ones(1, *pair[0].shape[2:])).all()
        assert (masks.style == torch.ones(1, *pair[1].shape[2:])).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_an_even_surface_is_not_parted(photos, seed):
    """The sky above a kite and that below it differ in nothing but the height."""
    top, bottom = torch.tensor([[0.3, 0.45, 0.75], [0.36, 0.52, 0.83]]).view(2, 1, 3, 1, 1)
    content = top.lerp(bottom, torch.linspace(0, 1, 200).view(200, 1)).repeat(1, 1, 1, 300)
    kite = load_image(EXAMPLES / "pavilion.jpg", 300)[..., 60:124, 60:124]
    content[..., 68:132, 118:182] = kite
    masks = automatic_masks(content, load_image(EXAMPLES / "sunset.jpg", 160), seed=seed)
    assert len(masks.labels) == 2
    sky = masks.content[:, :1, :1]
    assert (masks.content[:, :20] == sky).all()
    assert (masks.content[:, -20:] == sky).all()


def test_photos_with_nothing_in_common(photos):
    noise = torch.rand(1, 3, 120, 90, generator=torch.Generator().manual_seed(0))
    masks = automatic_masks(photos[0], noise)
    for layers in (masks.content, masks.style):
        assert layers.flatten(1).mean(1).min() > 0.001


def test_saved_masks_can_be_given_back(photos, masks, tmp_path):
    content, style = photos
    files = save_masks(masks, content, style, tmp_path / "masks")
    assert [file.name for file in files] == [
        "content_mask.png",
        "content_overlay.png",
        "style_mask.png",
        "style_overlay.png",
    ]
    again = load_masks(files[0], files[2], content.shape[2:], style.shape[2:])
    names = [np.array(m.labels) for m in (masks, again)]
    for ours, theirs in ((masks.content, again.content), (masks.style, again.style)):
        # A region of single pixels alone has no interior to be read by.
        same = names[0][ours.argmax(0)] == names[1][theirs.argmax(0)]
        assert same.mean() > 0.99
    whole = Masks.whole(content.shape[2:], style.shape[2:])
    mask, *_ = save_masks(whole, content, style, tmp_path / "whole")
    with Image.open(mask) as image:
        assert len(image.getcolors()) == 1
    with Image.open(files[1]) as overlay:
        mean = (np.asarray(overlay).astype(float) * 2 - np.asarray(Image.open(files[0]))) / 255
    assert abs(mean - content[0].permute(1, 2, 0).numpy()).max() < 0.01
