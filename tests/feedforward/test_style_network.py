"""A network of one style as it is applied: what it adds to a photo, and what its file keeps."""

from dataclasses import replace

import pytest
import torch

from photostyle.feedforward.style_network import StyleNetwork, load_network
from photostyle.feedforward.transform_net import BASES, TransformNet
from photostyle.ops import ArgumentError, GuidedFilter
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_map import NearestColourMap
from photostyle.ops.colour_transfer import restore_contrast


@pytest.fixture(params=BASES)
def network(request):
    torch.manual_seed(0)
    net = TransformNet(4, 1, request.param, 0.4 + 0.14 * torch.randn(1, 3, 64, 64))
    torch.nn.init.normal_(net.output.weight, std=0.05)
    return StyleNetwork(net.eval(), GuidedFilter(2, 1e-4))


@pytest.fixture
def photo():
    return torch.rand(1, 3, 60, 80, generator=torch.Generator().manual_seed(1))


def said(network, photo):
    """What the network says, before anything is filtered."""
    return network.net(*network.start(photo).inputs)


@torch.no_grad()
def test_adds_a_map_of_colours_and_nothing_else(network, photo):
    """Whatever the net says: of two pixels of one colour neither is the lighter one."""
    nearest = NearestColourMap(photo)
    left = []
    for colour_map in (True, False):
        added = replace(network, colour_map=colour_map)(photo) - network.start(photo).base
        assert added.abs().mean() > 0.01
        left.append((added - nearest(added)).square().mean())
    assert left[0] < 0.25 * left[1]


@torch.no_grad()
def test_without_a_map_of_colours_what_it_adds_is_filtered(network, photo):
    network = replace(network, colour_map=False)
    image, base = said(network, photo), network.start(photo).base
    if network.net.base == "colour_transfer":
        image = restore_contrast(image, base)
    laplacian = network.guided_filter.laplacian(photo)
    expected = base + laplacian.guided_filter(image - base)
    torch.testing.assert_close(network(photo), expected, rtol=0, atol=1e-5)
    painted = replace(network, guided_filter=None)
    torch.testing.assert_close(painted(photo), said(network, photo))


@torch.no_grad()
def test_what_is_trained_is_what_is_applied(network, photo):
    """But for the contrast, the colours that no screen shows, and the size at which the map is
    found."""
    photos = 0.3 + 0.4 * torch.cat([photo, photo.flip(3) ** 2])
    base = network.start(photos).base
    trained = network.filtered(said(network, photos), photos, base)
    if network.net.base == "colour_transfer":
        trained = restore_contrast(trained, base)
    # The worst measured is 0.013: contrast is restored before the map is found, not after.
    assert (network(photos) - trained).square().mean() ** 0.5 < 0.02
    assert (trained - photos).square().mean() ** 0.5 > 0.03


def test_it_is_trained_through_the_map(network, photo):
    """Against differences of the loss itself."""
    network = replace(network, guided_filter=GuidedFilter(2, 1e-2))
    photo = photo[..., :16, :20].double()
    weights = torch.rand(photo.shape, generator=torch.Generator().manual_seed(2)).double()

    def loss(raw):
        return (weights * network.filtered(raw, photo, 0.9 * photo)).sum()

    raw = photo.clone().requires_grad_()
    loss(raw).backward()
    step = torch.randn(photo.shape, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        expected = loss(photo + step) - loss(photo)  # linear in what the net says
    torch.testing.assert_close((raw.grad * step).sum(), expected)


@torch.no_grad()
def test_coefficients_give_the_result(network, photo):
    """Of each photo of a batch its own."""
    photos = torch.cat([photo, photo.flip(3) ** 2])
    result = network(photos)
    torch.testing.assert_close(apply_affine(network.coefficients(photos), photos), result)
    for one, alone in zip(result, photos, strict=True):
        torch.testing.assert_close(one[None], network(alone[None]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_transparent_pixels_do_not_count_in_the_map(network, photo):
    """The net changes these alone; what one map for all would give the others, they do not get."""
    right = torch.arange(80) >= 50
    network.net.forward = lambda _, base: base + 0.3 * right
    for masks, least, most in ((None, 0.015, 0.2), ((~right).float().expand(1, 60, 80), 0, 0.01)):
        weighted = replace(network, masks=masks)
        added = (weighted(photo) - weighted.start(photo).base)[..., :40]
        assert least <= added.abs().mean() <= most


@pytest.mark.parametrize("guided_filter", [GuidedFilter(2, 1e-4), None])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda photo: (255 * photo).byte(), "^photo=torch.uint8: give float32"),
        (lambda photo: torch.full_like(photo, 255), r"^photo=255: give values in \[0, 1\]"),
        (lambda photo: photo[:, :1], r"^photo=\(1, 1, 60, 80\): give 3 channels"),
        (lambda photo: photo[..., :7], r"^photo=\(1, 3, 60, 7\): give at least 8 x 8 pixels"),
        (lambda photo: photo[0], r"^photo=\(3, 60, 80\): give \(B, C, H, W\)"),
    ],
)
def test_photos_that_are_none(network, photo, guided_filter, change, message):
    with pytest.raises(ArgumentError, match=message):
        replace(network, guided_filter=guided_filter)(change(photo))


@torch.no_grad()
def test_masks(network, photo):
    """Of any dtype, at the photo's size."""
    left = (torch.arange(80) < 30).expand(1, 60, 80)
    results = [replace(network, masks=left.to(dtype))(photo) for dtype in (bool, torch.float32)]
    torch.testing.assert_close(*results)
    for masks, message in ((left.mT, r"\(1, 80, 60\): give \(M, 60, 80\)"), (255 * left, "255: ")):
        with pytest.raises(ArgumentError, match=f"^masks={message}"):
            replace(network, masks=masks)(photo)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": None}, "^network=None: required; give a file or a name"),
        ({"device": "xyz"}, "^device=xyz: unknown; choose one of"),
        ({"dtype": torch.int32}, "^dtype=torch.int32: unknown; choose one of torch.float32"),
    ],
)
def test_what_cannot_be_loaded(arguments, message):
    """The file is not to blame."""
    with pytest.raises(ArgumentError, match=message):
        load_network(**{"network": "dusk", **arguments})


@pytest.mark.parametrize("colour_map", [True, False])
def test_the_file_keeps_it(network, tmp_path, colour_map):
    replace(network, colour_map=colour_map).save(tmp_path / "a.safetensors")
    assert load_network(tmp_path / "a.safetensors").colour_map is colour_map
