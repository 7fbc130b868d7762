"""Pictures and profiles that several test files store."""

import numpy as np
import pytest

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def pixels():
    """A smooth picture, different in every corner and channel."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x * 255 / (WIDTH - 1), y * 255 / (HEIGHT - 1), 60 + x + 2 * y]
    return np.stack(planes, -1).round().astype(np.uint8)


@pytest.fixture
def grey(pixels):
    return pixels[..., 0].copy()


@pytest.fixture
def table_profile():
    """An RGB profile whose only content is a table of 2 x 2 x 2 colours (ICC.1:2010, 10.10)."""
    corners = np.indices((2, 2, 2)).reshape(3, -1).T
    lab = np.stack([100 * corners.mean(1) ** 3, 60.0 * corners[:, 0], -60.0 * corners[:, 2]], 1)
    table = np.stack([lab[:, 0] / 100 * 65_280, *(32_768 + 256 * lab[:, 1:]).T], 1)
    ramp = np.array([0, 65_535], ">u2").tobytes()
    body = b"mft2" + bytes(4) + bytes([3, 3, 2, 0])
    body += np.array(np.eye(3) * 65_536, ">i4").tobytes() + np.array([2, 2], ">u2").tobytes()
    body += 3 * ramp + table.round().astype(">u2").tobytes() + 3 * ramp
    white = b"XYZ " + bytes(4) + np.array([0xF6D6, 0x10000, 0xD32D], ">i4").tobytes()
    entries, data = b"", b""
    for tag, content in ((b"A2B0", body), (b"wtpt", white)):
        start = np.array([128 + 4 + 24 + len(data), len(content)], ">u4").tobytes()
        entries, data = entries + tag + start, data + content + bytes(-len(content) % 4)
    header = (128 + 4 + 24 + len(data)).to_bytes(4, "big") + bytes(4) + b"\x02\x40\0\0"
    header += b"prtrRGB Lab " + bytes(12) + b"acsp" + bytes(28) + white[8:]
    return header.ljust(128, b"\0") + (2).to_bytes(4, "big") + entries + data
