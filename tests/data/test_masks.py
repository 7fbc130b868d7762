"""Masks: what they weigh, and how they are written to be given back."""

import numpy as np
import pytest
import torch
from PIL import Image

from photostyle.data import Masks, load_masks, save_masks
from photostyle.data.masks import MASK_FILES

SIZE = (60, 90)


def test_whole_photo_as_one_more_mask():
    masks = Masks(
        torch.eye(2)[:, :, None].expand(2, 2, 3), torch.rand(2, 4, 5), ("#000000", "#ffffff")
    )
    more = masks.with_whole(0.25)
    assert more.labels == ("#000000", "#ffffff", "whole photo")
    torch.testing.assert_close(more.content.sum(0), torch.ones(2, 3))
    torch.testing.assert_close(more.content[:2], 0.75 * masks.content)
    assert torch.equal(more.style, torch.cat([masks.style, torch.ones(1, 4, 5)]))
    assert masks.with_whole(0) is masks
    whole = Masks.whole((2, 3), (4, 5))
    assert whole.with_whole(0.5) is whole


def test_nothing_but_the_whole_photo():
    """Regions without a share have no say, not even in where the style's black is."""
    masks = Masks(torch.tensor([[[0.5, 0.0]], [[0.0, 1.0]]]), torch.ones(2, 1, 1), ("a", "b"))
    only = masks.with_whole(1)
    assert only.labels == ("whole photo",)
    assert torch.equal(only.content, torch.tensor([[[0.5, 1.0]]]))
    assert torch.equal(only.style, torch.ones(1, 1, 1))


def test_the_whole_photo_has_a_share_of_each_weight():
    masks = Masks(torch.tensor([[[0.5, 0.0]], [[0.0, 1.0]]]), torch.ones(2, 1, 1), ("a", "b"))
    more = masks.with_whole(0.25)
    torch.testing.assert_close(more.content.sum(0), torch.tensor([[0.5, 1.0]]))
    torch.testing.assert_close(more.content[2], torch.tensor([[0.125, 0.25]]))


class TestVisible:
    MASKS = Masks(
        torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]]),
        torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]),
        ("#000001", "#000002", "#000003"),
    )

    def test_opaque(self):
        assert self.MASKS.visible(None, None) is self.MASKS

    def test_content(self):
        """A pixel's weight is its opacity; a label that is nowhere to be seen is left out."""
        opacity = torch.tensor([[1.0, 0.25, 0.0, 0.5]])
        masks = self.MASKS.visible(opacity, None)
        assert masks.labels == ("#000001", "#000003")
        assert torch.equal(masks.content.sum(0), opacity)
        assert masks.content[:, 0].tolist() == [[1, 0.25, 0, 0], [0, 0, 0, 0.5]]
        assert torch.equal(masks.style, self.MASKS.style[[0, 2]])

    def test_style(self):
        """Where nothing is seen of a label's style it takes that of all that is seen."""
        masks = self.MASKS.visible(None, torch.tensor([[0.5, 0.0, 1.0]]))
        assert masks.labels == self.MASKS.labels
        assert torch.equal(masks.content, self.MASKS.content)
        assert masks.style[:, 0].tolist() == [[0.5, 0, 0], [0.5, 0, 1], [0, 0, 1]]

    def test_both(self):
        masks = self.MASKS.visible(torch.tensor([[0, 0, 1.0, 1]]), torch.tensor([[1.0, 0.5, 0]]))
        assert masks.labels == ("#000002", "#000003")
        assert masks.content[:, 0].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
        assert masks.style[:, 0].tolist() == [[0, 0.5, 0], [1, 0.5, 0]]


class TestSaving:
    """Masks to be edited at the photos' own sizes, and given back."""

    SIZES = (24, 36), (30, 20)
    """At working size."""

    @pytest.fixture
    def masks(self):
        """Of three labels, one of them a line of a pixel's width."""
        content, style = (np.zeros(size, int) for size in self.SIZES)
        content[10:] = 1
        content[5:20, 30] = 2
        style[:, 12:] = 1
        style[20:, :7] = 2
        layers = [
            torch.from_numpy((labels == np.arange(3)[:, None, None]).astype(np.float32))
            for labels in (content, style)
        ]
        return Masks(*layers, ("#0082c8", "#e6194b", "#3cb44b"))

    @pytest.fixture
    def save(self, masks, tmp_path):
        def save(sizes=None):
            photos = [torch.full((1, 3, *size), 0.5) for size in self.SIZES]
            paths = save_masks(masks, *photos, tmp_path, sizes)
            assert {path.name for path in paths} == set(MASK_FILES.values())
            return {path.stem: path for path in paths}

        return save

    def check_given_back(self, paths, masks):
        back = load_masks(paths["content_mask"], paths["style_mask"], *self.SIZES)
        order = [back.labels.index(label) for label in masks.labels]
        assert torch.equal(back.content[order], masks.content)
        assert torch.equal(back.style[order], masks.style)

    @pytest.mark.parametrize("scale", [3, 4, 12.5])
    def test_at_the_size_of_the_photos(self, save, masks, scale):
        sizes = [tuple(int(scale * side) for side in size) for size in self.SIZES]
        paths = save(sizes)
        for name, size in zip(("content_mask", "style_mask"), sizes, strict=True):
            with Image.open(paths[name]) as image:
                assert image.size == size[::-1]
        self.check_given_back(paths, masks)

    def test_at_working_size(self, save, masks):
        paths = save()
        with Image.open(paths["content_mask"]) as image:
            assert image.size == (36, 24)
            assert image.getpixel((0, 0)) == (0x00, 0x82, 0xC8)
        with Image.open(paths["content_overlay"]) as image:
            assert image.getpixel((0, 0)) == (64, (0x82 + 128) // 2, (0xC8 + 128) // 2)
        # A line of one pixel has no interior and would be none of a drawing's labels.
        back = load_masks(paths["content_mask"], paths["style_mask"], *self.SIZES)
        assert torch.equal(back.style, masks.style[[masks.labels.index(n) for n in back.labels]])

    def test_of_a_large_photo(self, save, masks, monkeypatch):
        monkeypatch.setattr("photostyle.data.masks.LARGEST_MASK", 180)
        paths = save([(2400, 3600), (60, 40)])
        with Image.open(paths["content_mask"]) as content, Image.open(paths["style_mask"]) as style:
            assert (content.size, style.size) == ((180, 120), (40, 60))
        self.check_given_back(paths, masks)

    def test_of_soft_masks(self, tmp_path):
        """The borders lie where the largest changes between pixels, without steps."""
        slope = torch.linspace(1, 0, 16).expand(1, 16, 16)
        soft = Masks(torch.cat([slope, 1 - slope]), torch.ones(2, 16, 16), ("#000000", "#ffffff"))
        photo = torch.zeros(1, 3, 16, 16)
        save_masks(soft, photo, photo, tmp_path, ((160, 160), (16, 16)))
        with Image.open(tmp_path / "content_mask.png") as image:
            levels = np.asarray(image)[..., 0]
        assert (levels[:, :80] == 0).all()
        assert (levels[:, 80:] == 255).all()
