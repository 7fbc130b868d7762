"""Masks that people paint: which colours are labels, and which pixel is of which."""

import logging
import math
import os

import numpy as np
import torch

from photostyle.data.image_io import MAX_PIXELS, load_numbers
from photostyle.data.masks import LARGEST_MASK, Masks
from photostyle.data.photo import MIN_SIDE
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)

MAX_LABELS = 32
"""More labels than people paint or a photo's segmentation holds; and the style costs grow with it.

Also the number of colours up to which a pair of files is taken literally, see ``_find_labels``.
"""

MIN_INTERIOR_SHARE = 2e-4
"""Share of a mask that a label's interior fills at least: one pixel in 5000.

A lamp or a pair of eyes in a portrait fill 8e-4 to 2e-3.
"""

MERGE_DISTANCE = 48
"""Colours closer than this in every channel are one, in files with noise, shading or JPEG traces.

Such files drift by up to 36 levels within a region; colours painted to differ are 64 or more apart.
"""

MIN_LABELLED_SHARE = 0.75
"""Share of a mask's pixels that are of a label's colour; the rest are borders and noise.

Painted masks have more than 0.95, also after JPEG; one with borders feathered over a tenth of its
width still passes. Most photos have less than 0.5.
"""

MASK_STRETCH = 0.01
"""How much a mask's proportions may differ from its photo's: a scan, an editor's rounding."""


def load_masks(
    content_mask: str | os.PathLike | None,
    style_mask: str | os.PathLike | None,
    content_size: tuple[int, int],
    style_size: tuple[int, int],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Masks:
    """Read a pair of colour-coded masks, or of grey or palette images of label indices.

    The same colour in both files is one label. Colours that only soften a border, noise and JPEG
    traces are no labels: such a pixel goes to the nearest colour that is one. Masks are resized to
    their photo by nearest label. A label that only the content has takes the style of the whole
    style photo, one that only the style has is not used; a warning names them.

    Args:
        content_mask: file, or None.
        style_mask: file, or None; without masks everything is one label.
        content_size: (height, width) of the content at working size.
        style_size: (height, width) of the style at working size.
        max_pixels: refuse more than this in a file, by its header.

    Raises:
        ArgumentError: only one mask is given, a file cannot be read (see
            `data.load_photo`), has transparent pixels, or is no mask.
    """
    if content_mask is None and style_mask is None:
        return Masks.whole(content_size, style_size)
    for argument, path in (("content_mask", content_mask), ("style_mask", style_mask)):
        if path is None:
            raise ArgumentError(argument, None, "masks come in pairs; give both or neither")

    content_codes = _read_codes(content_mask, "content_mask", max_pixels)
    style_codes = _read_codes(style_mask, "style_mask", max_pixels)
    _check_shape(content_codes, content_size, content_mask, "content_mask")
    _check_shape(style_codes, style_size, style_mask, "style_mask")
    colours, (in_content, in_style) = _find_labels(content_codes, style_codes)
    small_content = _resize_nearest(content_codes, content_size)
    small_style = _resize_nearest(style_codes, style_size)
    content = _assign(small_content, colours[in_content], content_mask, "content_mask")
    style = _assign(small_style, colours[in_style], style_mask, "style_mask")
    _warn_of_lines(colours, content_codes, style_codes)
    _warn_of_vanished(colours[in_content], content, content_mask)
    _warn_of_vanished(colours[in_style], style, style_mask)

    labels, areas = np.unique(content, return_counts=True)
    labels = labels[np.argsort(-areas, kind="stable")]
    in_style = np.isin(labels, style)
    _warn_of_unmatched(labels, np.unique(style))
    labels_column = labels[:, None, None]
    style_layers = (style == labels_column) | ~in_style[:, None, None]
    return Masks(
        torch.from_numpy((content == labels_column).astype(np.float32)),
        torch.from_numpy(style_layers.astype(np.float32)),
        tuple(map(_name, labels)),
    )


def _read_codes(path: str | os.PathLike, argument: str, max_pixels: int) -> np.ndarray:
    """The colours of a mask as 0xrrggbb, (H, W) int32, at most `LARGEST_MASK` a side.

    Label indices are shades of grey.
    """
    pixels, alpha = load_numbers(path, argument=argument, max_pixels=max_pixels)
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        expected = "has transparent pixels; fill them with the colour of a label"
        raise ArgumentError(argument, path, expected)
    scale = min(1, LARGEST_MASK / max(pixels.shape[:2]))
    if scale < 1:
        height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
        pixels = _resize_nearest(pixels, (height, width))
    codes = np.zeros(pixels.shape[:2], np.int32)
    for channel in range(3):
        codes <<= 8
        codes |= _eight_bits(pixels[..., channel], path, argument)
    return codes


def _eight_bits(levels: np.ndarray, path: str | os.PathLike, argument: str) -> np.ndarray:
    """Levels of a 16-bit file are label indices, where none is above 255, or shades."""
    found = np.unique(levels)
    if levels.dtype == np.uint8 or found[-1] <= 255:
        return levels
    if len(found) <= MAX_LABELS and len(np.unique(np.rint(found / 257))) < len(found):
        expected = "16-bit levels that 8 bits cannot tell apart; give label indices up to 255"
        raise ArgumentError(argument, path, expected)
    return np.rint(levels / 257).astype(np.int32)


def _check_shape(
    codes: np.ndarray, size: tuple[int, int], path: str | os.PathLike, argument: str
) -> None:
    """A mask has the proportions of its photo, but for the rounding of its own size."""
    (mask_height, mask_width), (height, width) = codes.shape, size
    scale = max(size) / max(codes.shape)
    # A panorama has no side below the least at working size.
    rows, columns = (max(MIN_SIDE, scale * side) for side in codes.shape)
    rounding = 1 / min(*codes.shape, *size)
    ratio = (rows / columns) / (height / width)
    if abs(math.log(ratio)) > MASK_STRETCH + rounding:
        photo = argument.removesuffix("_mask")
        expected = (
            f"has {mask_width} x {mask_height} pixels and the {photo}, at working size, "
            f"{width} x {height}; give a mask of the whole photo, the same way up"
        )
        raise ArgumentError(argument, path, expected)


def _find_labels(content: np.ndarray, style: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The K colours that are labels, (K,) codes, and which of the two files has them, (2, K) bool.

    A label has an *interior*: pixels whose eight neighbours are of exactly its colour. The shades
    of a softened border have none, however long the border is; nor have most colours of noise.
    Two files with few colours between them are drawings, whose colours are labels however close:
    indices 0, 1, 2 differ by one level. In other files colours drift within a region, and close
    ones are one label, named after the one with the largest interior.
    """
    distinct = len(np.union1d(np.unique(content), np.unique(style)))
    reach = 1 if distinct <= MAX_LABELS else MERGE_DISTANCE
    rest, shares = _interior_shares(content, style)
    colours, label_shares = [], []
    while len(rest):
        near = np.abs(_rgb(rest) - _rgb(rest[:1])).max(-1) < reach
        colours.append(rest[0])
        label_shares.append(shares[:, near].sum(1))
        rest, shares = rest[~near], shares[:, ~near]
    colours = np.array(colours, np.int32)
    shares = np.array(label_shares).reshape(-1, 2).T
    # Enough in one file is enough: the same part may be far away, and small, in the other photo.
    kept = (shares >= MIN_INTERIOR_SHARE).any(0)
    return colours[kept], shares[:, kept] > 0


def _interior_shares(*files: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours with an interior, (N,) codes, and its share of each file, (files, N).

    By falling total share.
    """
    counts = [np.unique(_interior(codes), return_counts=True) for codes in files]
    colours = np.unique(np.concatenate([found for found, _ in counts]))
    shares = np.zeros((len(files), len(colours)))
    for share, codes, (found, count) in zip(shares, files, counts, strict=True):
        share[np.searchsorted(colours, found)] = count / codes.size
    order = np.argsort(-shares.sum(0), kind="stable")
    return colours[order], shares[:, order]


def _interior(codes: np.ndarray) -> np.ndarray:
    """The pixels, flat, that are of the same colour as all their eight neighbours."""
    height, width = codes.shape
    centre = codes[1:-1, 1:-1]
    same = np.ones(centre.shape, bool)
    for dy in range(3):
        for dx in range(3):
            same &= codes[dy : height - 2 + dy, dx : width - 2 + dx] == centre
    return centre[same]


def _assign(
    codes: np.ndarray, colours: np.ndarray, path: str | os.PathLike, argument: str
) -> np.ndarray:
    """The nearest of ``colours`` for each pixel, as its code."""
    expected = "each part must be filled with one plain colour; this looks like a photo"
    if len(colours) > MAX_LABELS:
        expected = f"{len(colours)} plain colours are too many; give at most {MAX_LABELS}"
        raise ArgumentError(argument, path, expected)
    if len(colours) == 0:
        raise ArgumentError(argument, path, expected)
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    difference = _rgb(found)[:, None] - _rgb(colours)
    nearest = (difference**2).sum(-1).argmin(1)
    distance = np.abs(difference).max(-1).min(1)
    if counts[distance < MERGE_DISTANCE].sum() < MIN_LABELLED_SHARE * codes.size:
        raise ArgumentError(argument, path, expected)
    return colours[nearest][inverse].reshape(codes.shape)


def _resize_nearest(codes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        ((np.arange(target) + 0.5) * source / target).astype(int)
        for target, source in zip(size, codes.shape, strict=False)  # may have channels
    )
    return codes[rows[:, None], columns]


def _warn_of_lines(labels: np.ndarray, *files: np.ndarray) -> None:
    """Name the colours of a drawing that are no labels, although nothing softens to them."""
    found, counts = np.unique(
        np.concatenate([codes.ravel() for codes in files]), return_counts=True
    )
    if len(found) > MAX_LABELS:  # borders and noise have many colours
        return
    seen = found[counts >= MIN_INTERIOR_SHARE * sum(codes.size for codes in files)]
    lines = [code for code in np.setdiff1d(seen, labels) if _is_drawn(code, labels)]
    if lines:
        names = ", ".join(map(_name, lines))
        logger.warning("%s: nowhere three pixels wide, goes to the colour nearest to it", names)


def _is_drawn(code: int, labels: np.ndarray) -> bool:
    """Whether a colour is far from all that a soft border between two labels can have."""
    colour, ends = _rgb(np.array(code)).astype(float), _rgb(labels).astype(float)
    first, way = ends[:, None], ends[None] - ends[:, None]
    length = np.maximum((way**2).sum(-1, keepdims=True), 1)
    share = (((colour - first) * way).sum(-1, keepdims=True) / length).clip(0, 1)
    return np.abs(first + share * way - colour).max(-1).min() >= MERGE_DISTANCE


def _warn_of_vanished(labels: np.ndarray, found: np.ndarray, path: str | os.PathLike) -> None:
    if len(vanished := np.setdiff1d(labels, found)):
        names = ", ".join(map(_name, vanished))
        width, height = found.shape[::-1]
        logger.warning("%s: %s vanish at %d x %d pixels; raise size", path, names, width, height)


def _warn_of_unmatched(content: np.ndarray, style: np.ndarray) -> None:
    if len(only_content := np.setdiff1d(content, style)):
        names = ", ".join(map(_name, only_content))
        logger.warning("%s: not in the style mask, takes the style of the whole photo", names)
    if len(only_style := np.setdiff1d(style, content)):
        names = ", ".join(map(_name, only_style))
        logger.warning("%s: not in the content mask, not used", names)


def _rgb(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1)


def _name(code: int) -> str:
    return f"#{code:06x}"
