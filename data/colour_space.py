"""What the numbers of a photo mean: to sRGB and back.

The profiles that cameras and editors attach to RGB photos are three curves and a matrix
(ICC.1:2010, 8.3): applying them to a large photo is a matter of tables. They are read here, since
LittleCMS rounds, which near black is much; through libvips it says whether they are all there is.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from photostyle.data.vips import attach_profile, to_vips
from photostyle.ops.jit import kernel

_LEVELS = 65536
_SAME = 1.0 / 255
"""Colours that differ by less are the same: profiles of sRGB differ in their rounding."""

_ADDITIVE = 1e-2
"""Of white, how far LittleCMS's light of a colour may be from that of curves and matrix: a
thousandth by its rounding, a tenth and more where a profile has a table beside them."""

# (X, Y, Z) of red, green and blue of sRGB, adapted to D50 as profiles are.
_SRGB = (0.43604, 0.22249, 0.01392), (0.38512, 0.71690, 0.09706), (0.14305, 0.06061, 0.71391)
# Of Adobe RGB (1998), adapted to D50 as profiles are: (X, Y, Z) of red, green and blue.
_ADOBE_RGB = (
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)
_D50 = (0.9642, 1.0, 0.8249)
_ADOBE_GAMMA = 563 / 256

_kernel = kernel(fastmath={"contract"})


class ColourSpace:
    """RGB numbers to which an ICC profile of three curves and a matrix gives a meaning.

    Args:
        profile: of RGB, not damaged.

    Raises:
        ValueError: the profile is of another kind.
    """

    def __init__(self, profile: bytes):
        curves, primaries = _curves_and_primaries(profile)
        self.matrix = np.linalg.solve(np.transpose(_SRGB), primaries)
        self.inverse = np.linalg.inv(self.matrix)
        self.curves = np.maximum.accumulate(curves, 1).astype(np.float32)
        self.inverse_curves = _inverse(self.curves)

        grid = np.indices((5, 5, 5)).reshape(3, 1, -1).transpose(1, 2, 0) * 63
        colours = np.ascontiguousarray(grid, np.uint8)
        lights = self.curves[np.arange(3), 257 * colours.astype(int)] @ self.matrix.T
        if not np.abs(lights - _linear_srgb(colours, profile)).max() <= _ADDITIVE:  # nor a NaN
            raise ValueError("no curves and matrix")
        self.is_srgb = bool(np.abs(self.to_srgb(colours) - colours / 255).max() < _SAME)

    def to_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, 3), uint8 or uint16, as sRGB in float32.

        The range of sRGB is [0, 1]; colours that it lacks are outside.
        """
        step = 1 if pixels.dtype == np.uint16 else 257
        image = np.empty(pixels.shape, np.float32)
        _to_srgb(pixels, step, self.curves, self.matrix, _ENCODED, image)
        return image

    def levels(self, image: np.ndarray) -> np.ndarray:
        """What `to_srgb` returned as numbers of this space again, (H, W, 3) float32.

        From 0 to 65535; what the space cannot say is cut.
        """
        result = np.empty(image.shape, np.float32)
        _to_levels(image, self.inverse, self.inverse_curves, _DECODED, result)
        return result


@lru_cache(maxsize=16)
def colour_space(profile: bytes | None) -> ColourSpace | None:
    """What a profile of RGB stands for; ``None``: sRGB, with or without a profile.

    Raises:
        ValueError: as `ColourSpace`.
    """
    if profile is None:
        return None
    space = ColourSpace(profile)
    return None if space.is_srgb else space


def _linear_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """(H, W, 3) integers as light in the primaries of sRGB, float64."""
    xyz = attach_profile(to_vips(pixels), profile).icc_import(pcs="xyz", intent="relative")
    return xyz.colourspace("scrgb").numpy().astype(np.float64)


# ----------------------------------------------------------------------------------------- reading


def _curves_and_primaries(profile: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The light of each channel's levels, (3, 65536), and (X, Y, Z) of each channel as columns."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        table = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
        tags = {name: profile[start : start + length] for name, start, length in table}
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        primaries = [_fixed(tags[name], 8, 3) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    except (struct.error, LookupError) as error:
        raise ValueError("no curves and matrix") from error
    if not (np.abs(curves) <= _REACH).all():  # a NaN is not
        raise ValueError("no curves and matrix")
    return np.stack(curves), np.stack(primaries, 1)


def _curve(tag: bytes) -> np.ndarray:
    """A curve of type "curv" or "para" (ICC.1:2010, 10.5 and 10.15) at all levels."""
    x = np.linspace(0, 1, _LEVELS)
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        return _parametric(x, kind, _fixed(tag, 12, (1, 3, 4, 5, 7)[kind]))
    if tag[:4] != b"curv":
        raise LookupError(tag[:4])
    (count,) = struct.unpack_from(">I", tag, 8)
    values = np.array(struct.unpack_from(f">{count}H", tag, 12))
    if count == 0:
        return x
    if count == 1:
        return x ** (values[0] / 256)
    return np.interp(x, np.linspace(0, 1, count), values / 65535)


def _parametric(x: np.ndarray, kind: int, parameters: np.ndarray) -> np.ndarray:
    g, a, b, c, d, e, f = np.append(parameters, np.zeros(7 - len(parameters)))
    if kind == 0:
        a = 1.0
    with np.errstate(all="ignore"):  # not all parameters give numbers
        if kind in (1, 2):  # level up to where it begins
            c, d, e, f = 0.0, -b / a, c, c
        return np.where(x >= d, (a * x + b).clip(0) ** g + e, c * x + f)


def _fixed(tag: bytes, offset: int, count: int) -> np.ndarray:
    return np.array(struct.unpack_from(f">{count}i", tag, offset)) / 65536


# ------------------------------------------------------------------------------------------ curves


def _encoded(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, odd beyond black."""
    size = np.abs(linear)
    value = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(value, linear)


def _decoded(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


_REACH = 4.0
"""Tables go as far beyond white: to the most saturated colours of any camera's space."""
# Over the root of the light, which steepens none of these curves anywhere.
_ROOTS = np.linspace(0, _REACH**0.5, 1 << 14)
_ENCODED = _encoded(_ROOTS**2).astype(np.float32)
_DECODED = _decoded(np.linspace(0, _REACH, 1 << 14)).astype(np.float32)


def _inverse(curves: np.ndarray) -> np.ndarray:
    """(3, 65536), the level from 0 to 65535 of each channel over the root of its light."""
    roots = np.linspace(0, 1, _LEVELS)
    levels = np.arange(_LEVELS)
    inverse = np.stack([np.interp(roots**2, curve, levels) for curve in curves])
    inverse[:, 0] = 0  # many levels close to black may have no light at all
    return inverse.astype(np.float32)


@_kernel
def _looked_up(table, position):
    """The table between its entries; its end beyond."""
    last = table.size - 1
    position = min(position, np.float32(last))
    low = min(np.int64(position), last - 1)
    return table[low] + (position - np.float32(low)) * (table[low + 1] - table[low])


@_kernel
def _to_srgb(pixels, step, curves, matrix, encoded, image):
    scale = np.float32((encoded.size - 1) / _REACH**0.5)
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            red = curves[0, np.int64(pixels[y, x, 0]) * step]
            green = curves[1, np.int64(pixels[y, x, 1]) * step]
            blue = curves[2, np.int64(pixels[y, x, 2]) * step]
            for c in range(3):
                light = np.float32(matrix[c, 0] * red + matrix[c, 1] * green + matrix[c, 2] * blue)
                value = _looked_up(encoded, np.sqrt(abs(light)) * scale)
                image[y, x, c] = value if light >= 0 else -value


@_kernel
def _to_levels(image, inverse, curves, decoded, result):
    scale = np.float32((decoded.size - 1) / _REACH)
    top = np.float32(curves.shape[1] - 1)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red = _light(image[y, x, 0], decoded, scale)
            green = _light(image[y, x, 1], decoded, scale)
            blue = _light(image[y, x, 2], decoded, scale)
            for c in range(3):
                light = np.float32(
                    inverse[c, 0] * red + inverse[c, 1] * green + inverse[c, 2] * blue
                )
                root = np.sqrt(min(max(light, np.float32(0)), np.float32(1)))
                result[y, x, c] = _looked_up(curves[c], root * top)


@_kernel
def _light(value, decoded, scale):
    light = _looked_up(decoded, abs(value) * scale)
    return light if value >= 0 else -light


# ----------------------------------------------------------------------------------------- writing


def matrix_profile(
    name: str, primaries: Sequence[tuple[float, float, float]], gamma: float
) -> bytes:
    """An ICC profile of three equal power laws and a matrix (ICC.1:2010, 8.3).

    Args:
        name: of the space, ASCII.
        primaries: (X, Y, Z) of red, green and blue, adapted to D50.
        gamma: of the power laws, in steps of 1/256.
    """
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    text = name.encode("ascii") + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [(b"desc", description), (b"cprt", b"text" + bytes(4) + b"Public domain\0")]
    tags += [
        (b"wtpt", _xyz(_D50)),
        *zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, primaries), strict=True),
    ]
    tags += [(tag, curve) for tag in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags:
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    layout = ">I4xI4s4s4s12x4s"
    values = start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    header = struct.pack(layout, *values).ljust(68, b"\0") + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + body


def adobe_rgb_profile() -> bytes:
    """A profile of Adobe RGB (1998)."""
    return matrix_profile("Compatible with Adobe RGB (1998)", _ADOBE_RGB, _ADOBE_GAMMA)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))
