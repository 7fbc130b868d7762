"""Pictures side by side, with labels, to look at."""

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from photostyle.data.photo import to_pixels

CELL_WIDTH = 320
CELL_MARGIN = 8
LINE_HEIGHT = 22
FONT_SIZE = 14


def cell(image: Tensor, *lines: str, width: int = CELL_WIDTH) -> Image.Image:
    """A picture, (1, 3, H, W) in [0, 1], at most ``width`` pixels a side, on white, with lines of
    text below."""
    thumbnail = Image.fromarray(to_pixels(image))
    thumbnail.thumbnail((width, width), Image.Resampling.LANCZOS)
    size = (width + 2 * CELL_MARGIN, thumbnail.height + CELL_MARGIN + len(lines) * LINE_HEIGHT)
    result = Image.new("RGB", size, "white")
    result.paste(thumbnail, ((size[0] - thumbnail.width) // 2, CELL_MARGIN))
    position = (CELL_MARGIN, CELL_MARGIN + thumbnail.height + 2)
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(result).multiline_text(position, "\n".join(lines), "black", font)
    return result


def stack(images: list[Image.Image], axis: int) -> Image.Image:
    """Images on white, one after the other: downwards (axis 0) or to the right (axis 1)."""
    if axis == 0:
        size = max(image.width for image in images), sum(image.height for image in images)
    else:
        size = sum(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", size, "white")
    position = 0
    for image in images:
        sheet.paste(image, (0, position) if axis == 0 else (position, 0))
        position += image.height if axis == 0 else image.width
    return sheet
