"""Masks: which colours are labels, and what becomes of every other colour and every bad file."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from photostyle.data import Masks, load_masks
from photostyle.ops.errors import ArgumentError

SIZE = (60, 90)


def painted(colours, size=SIZE, mode="RGB"):
    """Vertical bands of equal width."""
    height, width = size
    image = Image.new(mode, (width, height))
    draw = ImageDraw.Draw(image)
    edges = np.linspace(0, width, len(colours) + 1).round().astype(int)
    for colour, left, right in zip(colours, edges, edges[1:], strict=False):
        draw.rectangle((int(left), 0, int(right) - 1, height), fill=colour)
    return image


def disc(colour, background, mode="RGB", scale=8):
    """A disc with a border as soft as drawing programs make it."""
    height, width = SIZE
    image = Image.new(mode, (width * scale, height * scale), background)
    box = [scale * edge for edge in (25, 10, 65, 50)]
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image.resize((width, height), Image.Resampling.BOX)


@pytest.fixture
def load(tmp_path):
    def load(content, style, content_size=SIZE, style_size=SIZE, suffix=".png", **options):
        for name, image in (("content", content), ("style", style)):
            image.save(tmp_path / f"{name}{suffix}", **options)
        paths = (tmp_path / f"content{suffix}", tmp_path / f"style{suffix}")
        return load_masks(*paths, content_size, style_size)

    return load


class TestLabels:
    def test_colours_are_paired(self, load, caplog):
        masks = load(painted(["red", "blue", "blue"]), painted(["blue", "red"]))
        assert masks.labels == ("#0000ff", "#ff0000")
        assert masks.content.shape == masks.style.shape == (2, *SIZE)
        assert masks.content.dtype == masks.style.dtype == torch.float32
        assert masks.content[0, 0].tolist() == [0] * 30 + [1] * 60
        assert masks.style[0, 0].tolist() == [1] * 45 + [0] * 45
        assert (masks.content.sum(0) == 1).all()
        assert not caplog.records

    def test_without_masks_everything_is_one_label(self):
        masks = load_masks(None, None, (20, 30), (40, 50))
        assert masks.labels == ("all",)
        assert torch.equal(masks.content, torch.ones(1, 20, 30))
        assert torch.equal(masks.style, torch.ones(1, 40, 50))
        assert Masks.whole((2, 3), (4, 5)).style.shape == (1, 4, 5)

    @pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
    def test_label_indices_one_apart(self, load, mode):
        count = 2 if mode == "1" else 4
        content = np.repeat(np.arange(count, dtype=np.uint8), 96 // count)[None].repeat(60, 0)
        style = content[:, ::-1]
        if mode == "P":
            images = [Image.fromarray(array).convert("P") for array in (content, style)]
            for image in images:
                image.putpalette([channel for level in range(count) for channel in [level] * 3])
        else:
            dtype = {"L": np.uint8, "I;16": np.uint16, "1": bool}[mode]
            images = [Image.fromarray(array.astype(dtype)) for array in (content, style)]
        assert images[0].mode == mode
        masks = load(*images, (60, 96), (60, 96))
        step = 255 if mode == "1" else 1
        names = {
            f"#{step * level:02x}{step * level:02x}{step * level:02x}" for level in range(count)
        }
        assert set(masks.labels) == names
        assert torch.equal(masks.content, masks.style.flip(-1))

    def test_palette_is_read_by_its_colours(self, load):
        image = painted(["red", "lime", "blue"])
        masks = load(image.quantize(8), image)
        assert set(masks.labels) == {"#ff0000", "#00ff00", "#0000ff"}
        assert torch.equal(masks.content, masks.style)

    def test_sixteen_bit_black_and_white_matches_eight_bit(self, load):
        image = painted([0, 255], mode="L")
        wide = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        masks = load(wide, image)
        assert set(masks.labels) == {"#000000", "#ffffff"}
        assert torch.equal(masks.content, masks.style)

    @pytest.mark.parametrize("scale", [2, 8, 20])
    @pytest.mark.parametrize(
        ("mode", "colours"), [("L", (255, 0)), ("RGB", ("red", "lime")), ("RGB", ("blue", "white"))]
    )
    def test_soft_borders_are_no_labels(self, load, mode, colours, scale):
        image = disc(*colours, mode, scale)
        masks = load(image, image)
        assert len(masks.labels) == 2
        assert (masks.content.sum(0) == 1).all()
        area = masks.content.mean((1, 2))[1].item()
        assert area == pytest.approx(np.pi * 20**2 / (SIZE[0] * SIZE[1]), rel=0.05)

    def test_a_feathered_border(self, load):
        image = painted(["black", "white"], (180, 270)).filter(ImageFilter.GaussianBlur(6))
        masks = load(image, image)
        assert set(masks.labels) == {"#000000", "#ffffff"}

    def test_noise_is_no_label(self, load):
        random = np.random.default_rng(0)
        base = np.asarray(painted(["#101010", "#f0f0f0", "#f01010"], (200, 300)), np.int16)
        # Patches that drift, as painting with a soft brush leaves them.
        drift = random.integers(-8, 9, (20, 30, 3)).repeat(10, 0).repeat(10, 1)
        image = Image.fromarray((base + drift).astype(np.uint8))
        masks = load(image, painted(["#101010", "#f0f0f0", "#f01010"]))
        assert len(masks.labels) == 3
        assert masks.content.mean((1, 2)).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)

    @pytest.mark.parametrize("quality", [40, 75, 95])
    def test_jpeg(self, load, quality):
        image = disc("yellow", "blue", scale=1).resize((360, 240), Image.Resampling.NEAREST)
        clean = load(image, image)
        masks = load(image, image, suffix=".jpg", quality=quality)
        assert len(masks.labels) == 2
        assert (masks.content - clean.content).abs().mean() < 0.01

    def test_a_small_label_counts(self, load):
        image = painted(["blue", "black"], (300, 300))
        ImageDraw.Draw(image).rectangle((20, 20, 29, 29), fill="white")  # 1e-3 of the pixels
        masks = load(image, image, (300, 300), (300, 300))
        assert masks.labels == ("#000000", "#0000ff", "#ffffff")
        assert masks.content[2].sum() == 100

    def test_the_shade_of_a_border_is_no_region_though_it_is_a_label_elsewhere(self, load, caplog):
        # Between black and white lies grey, which the content paints and the style does not.
        content = painted(["black", "#808080", "white"])
        masks = load(content, disc("white", "black"))
        assert torch.equal(masks.style[masks.labels.index("#808080")], torch.ones(SIZE))
        assert "#808080: not in the style mask" in caplog.text


class TestResizing:
    def test_by_nearest_label(self, load):
        image = painted(["red", "lime", "blue"], (40, 30))
        masks = load(image, image, (80, 60), (21, 16))
        assert masks.content.shape == (3, 80, 60)
        assert masks.style.shape == (3, 21, 16)
        assert masks.content.unique().tolist() == masks.style.unique().tolist() == [0, 1]
        assert (masks.content.sum(0) == 1).all()
        assert masks.content.mean((1, 2)).tolist() == pytest.approx([1 / 3] * 3)

    def test_labels_do_not_depend_on_the_working_size(self, load):
        image = disc("white", "black")
        small, large = load(image, image, (16, 24), (16, 24)), load(image, image, (300, 450), SIZE)
        assert small.labels == large.labels == ("#000000", "#ffffff")

    def test_a_label_that_vanishes(self, load, caplog):
        """Whoever painted it is told what to do about it."""
        image = painted(["blue", "black"], (300, 300))
        ImageDraw.Draw(image).rectangle((20, 20, 26, 26), fill="white")
        assert len(load(image, image, (300, 300), (300, 300)).labels) == 3
        assert not caplog.records
        masks = load(image, painted(["blue", "black"]), (16, 16))
        assert set(masks.labels) == {"#000000", "#0000ff"}
        (warning,) = (record.getMessage() for record in caplog.records)
        assert warning.endswith("content.png: #ffffff vanish at 16 x 16 pixels; raise size")

    def test_of_a_file_larger_than_any_use(self, tmp_path):
        """Of its rows and columns some are taken, for labels as for the photo."""
        large = painted(["red", "blue", "green"], (600, 9000))
        large.save(tmp_path / "a.png")
        masks = load_masks(tmp_path / "a.png", tmp_path / "a.png", (60, 900), (60, 900))
        assert sorted(masks.labels) == ["#0000ff", "#008000", "#ff0000"]
        assert (masks.content.sum((1, 2)) - 60 * 300).abs().max() <= 60


class TestProportions:
    """A mask is of the whole photo, the same way up, at whatever size."""

    def test_rotated(self, load):
        upright, rotated = painted(["red", "blue"]), painted(["red", "blue"], (90, 60))
        sizes = "has 60 x 90 pixels and the {}, at working size, 90 x 60; give a mask of the whole"
        with pytest.raises(ArgumentError, match="content_mask=.*" + sizes.format("content")):
            load(rotated, upright)
        with pytest.raises(ArgumentError, match="style_mask=.*" + sizes.format("style")):
            load(upright, rotated)

    @pytest.mark.parametrize(("width", "accepted"), [(1009, True), (991, True), (1013, False)])
    def test_a_little_stretched(self, load, width, accepted):
        """By a scanner, say; the rounding of 1000 pixels allows for a thousandth more."""
        stretched = painted(["red", "blue"], (1000, width))
        square = painted(["red", "blue"], (1000, 1000))
        if accepted:
            masks = load(stretched, square, (1000, 1000), (1000, 1000))
            assert masks.content.mean((1, 2)).tolist() == pytest.approx([0.5, 0.5], abs=0.001)
        else:
            with pytest.raises(ArgumentError, match="has 1013 x 1000 pixels"):
                load(stretched, square, (1000, 1000), (1000, 1000))

    def test_a_small_photo_is_rounded(self, load):
        """4000 x 2670 pixels at a size of 32 are 32 x 21, by 1.7 % off."""
        image = painted(["red", "blue"], (267, 400))
        assert load(image, image, (21, 32), (21, 32)).content.shape == (2, 21, 32)

    def test_a_panorama(self, load):
        """Whose short side at working size would be of 8 pixels, and is of 16."""
        image = painted(["red", "blue"], (50, 800))
        assert load(image, image, (16, 128), (16, 128)).content.shape == (2, 16, 128)
        with pytest.raises(ArgumentError, match="has 800 x 50 pixels"):
            load(image, image, (128, 16), (16, 128))


class TestLines:
    """What is painted too thin to be a label is named."""

    def line(self, width):
        image = painted(["red", "blue"])
        ImageDraw.Draw(image).rectangle((0, 20, SIZE[1], 20 + width - 1), fill="lime")
        return image

    def test_of_two_pixels(self, load, caplog):
        masks = load(self.line(2), self.line(2))
        assert masks.labels == ("#0000ff", "#ff0000")
        assert [record.getMessage() for record in caplog.records] == [
            "#00ff00: nowhere three pixels wide, goes to the colour nearest to it"
        ]

    def test_of_three_pixels(self, load, caplog):
        assert set(load(self.line(3), self.line(3)).labels) == {"#0000ff", "#ff0000", "#00ff00"}
        assert not caplog.records

    def test_a_soft_border_is_no_line(self, load, caplog):
        image = painted(["red", "blue"])
        for column, shade in enumerate((200, 128, 55)):
            left = SIZE[1] // 2 - 1 + column
            ImageDraw.Draw(image).line((left, 0, left, SIZE[0]), fill=(shade, 0, 255 - shade))
        load(image, image)
        assert not caplog.records


class TestUnmatched:
    def test_only_in_the_content(self, load, caplog):
        masks = load(painted(["red", "blue", "lime"]), painted(["red"]))
        assert torch.equal(masks.style, torch.ones(3, *SIZE))
        assert len(caplog.records) == 1
        assert "#0000ff" in caplog.text
        assert "#00ff00" in caplog.text
        assert "#ff0000" not in caplog.text
        assert "takes the style of the whole photo" in caplog.text

    def test_only_in_the_style(self, load, caplog):
        masks = load(painted(["red"]), painted(["red", "blue"]))
        assert masks.labels == ("#ff0000",)
        assert masks.style.mean() == 0.5
        assert [record.getMessage() for record in caplog.records] == [
            "#0000ff: not in the content mask, not used"
        ]


class TestBadInput:
    def test_only_one_is_given(self, tmp_path):
        painted(["red"]).save(tmp_path / "a.png")
        with pytest.raises(ArgumentError, match="style_mask=None: masks come in pairs"):
            load_masks(tmp_path / "a.png", None, SIZE, SIZE)
        with pytest.raises(ArgumentError, match="content_mask=None: masks come in pairs"):
            load_masks(None, tmp_path / "a.png", SIZE, SIZE)

    def test_files_that_cannot_be_read(self, tmp_path):
        good, text, missing = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
        painted(["red"]).save(good)
        text.write_text("text")
        with pytest.raises(ArgumentError, match=r"content_mask=.*c.png: no such file"):
            load_masks(missing, good, SIZE, SIZE)
        with pytest.raises(ArgumentError, match=r"style_mask=.*b.png: not a picture"):
            load_masks(good, text, SIZE, SIZE)

    def test_too_many_pixels_by_the_header_alone(self, tmp_path):
        painted(["red"]).save(tmp_path / "a.png")
        with pytest.raises(ArgumentError, match="90 x 60 pixels are too many; give at most 5,000"):
            load_masks(tmp_path / "a.png", tmp_path / "a.png", SIZE, SIZE, max_pixels=5000)

    def test_a_photo(self, load):
        noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        with pytest.raises(ArgumentError, match=r"content_mask=.*this looks like a photo"):
            load(Image.fromarray(noise), painted(["red"]))
        # A plain sky alone makes no mask.
        noise[:20] = 200
        with pytest.raises(ArgumentError, match=r"style_mask=.*this looks like a photo"):
            load(painted(["red"]), Image.fromarray(noise))

    def test_lines_alone(self, load):
        """A few colours, none of them three pixels wide."""
        lines = Image.fromarray((np.indices(SIZE).sum(0) % 2 * 200).astype(np.uint8))
        with pytest.raises(ArgumentError, match=r"content_mask=.*filled with one plain colour"):
            load(lines, lines)

    def test_too_many_labels(self, load):
        colours = [
            f"#{red:02x}{green:02x}00" for red in range(0, 256, 51) for green in range(0, 256, 51)
        ]
        image = painted(colours, (60, 36 * 5))
        with pytest.raises(ArgumentError, match="36 plain colours are too many; give at most 32"):
            load(image, painted(["red"]), (60, 36 * 5))

    def test_transparent_pixels(self, load):
        image = painted(["red", "blue"])
        load(image.convert("RGBA"), image)
        image.putalpha(200)
        with pytest.raises(
            ArgumentError, match=r"content_mask=.*has transparent pixels; fill them"
        ):
            load(image, painted(["red"]))

    def test_sixteen_bit_labels_that_would_merge(self, load):
        levels = np.repeat(np.array([26_000, 26_001], np.uint16), 45)[None].repeat(60, 0)
        with pytest.raises(ArgumentError, match="8 bits cannot tell apart; give label indices"):
            load(Image.fromarray(levels), painted(["red"]))
