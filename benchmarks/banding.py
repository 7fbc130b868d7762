"""What is left of the bands in a smooth sky: levels rounded to nearest against dithered ones.

    python -m benchmarks.banding

A sky without noise and with some is stored in 8 bits, its contrast raised by a half, and the result
stored in 8 bits, as PNG or JPEG. The figure is the standard deviation from the sky without any
rounding after a blur of two pixels, about that of the eye, in levels.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from photostyle.data import apply_coefficients

HEIGHT, WIDTH = 400, 600
GAINS = np.array([1.5, 1.4, 1.3])
OFFSETS = -60 * (GAINS - 1)
BLUR = 2
MARGIN = 20


def sky():
    """(H, W, 3), in levels of 8 bits, not rounded."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / np.array([HEIGHT, WIDTH])[:, None, None]
    return np.stack([90 + 50 * y + 6 * x, 130 + 45 * y + 5 * x, 130 + 30 * y + 3 * x], -1)


def rounded(photo):
    return np.rint(GAINS * photo + OFFSETS).clip(0, 255).astype(np.uint8)


def dithered(photo):
    coefficients = torch.zeros(1, 3, 4, 1, 1)
    coefficients[0, range(3), range(3), 0, 0] = torch.from_numpy(GAINS).float()
    coefficients[0, :, 3, 0, 0] = torch.from_numpy(OFFSETS / 255).float()
    return apply_coefficients(coefficients, photo)


def as_jpeg(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(file))


def bands(pixels, expected):
    difference = gaussian_filter(pixels - expected, (BLUR, BLUR, 0))
    return difference[MARGIN:-MARGIN, MARGIN:-MARGIN].std()


def main():
    random = np.random.default_rng(0)
    expected = GAINS * sky() + OFFSETS
    print("| noise | rounded, PNG | dithered, PNG | rounded, JPEG | dithered, JPEG |")
    print("|---|---|---|---|---|")
    for noise in (0, 0.3, 0.6, 1, 2):
        photo = np.rint(sky() + random.normal(0, noise, (HEIGHT, WIDTH, 3))).astype(np.uint8)
        results = [function(photo) for function in (rounded, dithered)]
        results += map(as_jpeg, results[:2])
        figures = " | ".join(f"{bands(result, expected):.2f}" for result in results)
        print(f"| {noise} | {figures} |")


if __name__ == "__main__":
    main()
