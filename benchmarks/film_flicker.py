"""How much colours flicker that should not: a film's, frame by frame, and the closed form's.

    python -m benchmarks.film_flicker [--frames 96]

A window of half a photo's width goes over it from corner to corner, or from all of it into its
middle, at 24 frames a second. So every point of a frame is known in the next one. The figure is the
mean distance ΔE*ab between the results' colours there, in consecutive frames, before encoding. The
photo is blurred first, or else it would be resampling that is measured; of that, a column tells how
much is left in the film itself.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torchvision.transforms.functional import gaussian_blur

from benchmarks.common import machine, table
from photostyle.data import PhotoOptions, load_image
from photostyle.data.film_frame import BT709, FilmFrame
from photostyle.feedforward import StyleSource, load_network
from photostyle.feedforward.steady_colours import SteadyColours
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import colour_transfer

EXAMPLES = Path(__file__).parents[1] / "examples"
PAIRS = [("picos_de_europa", "sunset"), ("pavilion", "autumn"), ("stream", "dusk")]
RATE = 24
WIDTH, HEIGHT = 512, 288
POINTS = 40
"""Along each side of a frame, that are looked up in the next."""


def blurred(photo):
    sigma = photo.shape[3] / 400
    return gaussian_blur(photo, 2 * round(3 * sigma) + 1, sigma)


def windows(motion: str, frames: int, height: int, width: int):
    """Left, top and width of each frame, in pixels of the photo."""
    ratio = HEIGHT / WIDTH
    widest = min(width, height / ratio)
    for t in np.linspace(0, 1, frames):
        size = widest / 2 if motion == "pan" else widest * (1 - t / 2)
        way = t if motion == "pan" else 0.5
        yield way * (width - size), way * (height - ratio * size), size


def sampled(image, x, y):
    """(1, 3, H, W) at points in pixels, (h, w) each -> (1, 3, h, w)."""
    sides = torch.tensor([image.shape[3], image.shape[2]])
    grid = 2 * (torch.from_numpy(np.stack([x, y], -1)) + 0.5) / sides - 1
    mode = {"mode": "bilinear", "align_corners": False, "padding_mode": "border"}
    return F.grid_sample(image, grid[None].float(), **mode)


def frame_of(photo, window):
    left, top, size = window
    step = size / WIDTH
    x = left + (np.arange(WIDTH) + 0.5) * step - 0.5
    y = top + (np.arange(HEIGHT) + 0.5) * step - 0.5
    return sampled(photo, *np.meshgrid(x, y))


def film_frame(image, time):
    """The frame with luma and chroma at full range, 8 bits."""
    red, green, blue = 255 * image[0].numpy()
    kr, kb = BT709
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = luma, 128 + (blue - luma) / (2 - 2 * kb), 128 + (red - luma) / (2 - 2 * kr)
    planes = tuple(np.rint(plane).clip(0, 255).astype(np.uint8) for plane in planes)
    return FilmFrame(planes, 8, BT709, True, time)


def looked_up(added, image):
    """The image with its colours changed by a table, in floats."""
    positions = 2 * image.movedim(1, -1)[:, None].flip(-1) - 1
    values = torch.from_numpy(added).movedim(-1, 0)[None]
    mode = {"padding_mode": "border", "align_corners": True}
    return (image + F.grid_sample(values, positions, **mode).squeeze(2)).clamp(0, 1)


def lab_at(result, window, points):
    left, top, size = window
    x, y = ((points[0] - left) / size * WIDTH, (points[1] - top) / size * WIDTH)
    inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
    colours = sampled(result, x - 0.5, y - 0.5)[0].movedim(0, -1).clamp(0, 1)
    return rgb2lab(colours.numpy().astype(np.float64)), inside


def flicker(photo, path, methods):
    """By method, the mean over all consecutive frames."""
    sums = dict.fromkeys(methods, 0.0)
    previous = None
    for number, window in enumerate(path):
        image = frame_of(photo, window)
        results = {name: method(image, number / RATE) for name, method in methods.items()}
        if previous is not None:
            left, top, size = before = previous[0]
            steps = (np.arange(POINTS) + 0.5) / POINTS * size
            points = np.meshgrid(left + steps, top + steps * HEIGHT / WIDTH)
            for name in methods:
                last, _ = lab_at(previous[1][name], before, points)
                now, inside = lab_at(results[name], window, points)
                sums[name] += np.linalg.norm(now - last, axis=-1)[inside].mean()
        previous = window, results
    return {name: total / (len(path) - 1) for name, total in sums.items()}


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=96)
    frames = parser.parse_args().frames
    trained, cpu, options = load_network("universal"), torch.device("cpu"), PhotoOptions()
    rows, totals = [], []
    for content, style in PAIRS:
        photo = blurred(load_image(EXAMPLES / f"{content}.jpg"))
        reference = load_image(EXAMPLES / f"{style}.jpg", size=options.size)
        source = StyleSource(EXAMPLES / f"{style}.jpg")
        network = source.styled(trained, options, cpu, single=False)[0](photo, None)
        for motion in ("pan", "zoom"):
            colours = SteadyColours(lambda image, net=network: net(image).clamp(0, 1), WIDTH)
            methods = {
                "the film itself": lambda image, time: image,
                "film": lambda image, time, colours=colours: looked_up(
                    colours(film_frame(image, time)), image
                ),
                "frame by frame": lambda image, time, net=network: net(image).clamp(0, 1),
                "closed form": lambda image, time, to=reference: apply_affine(
                    colour_transfer(image, to), image
                ).clamp(0, 1),
            }
            path = list(windows(motion, frames, *photo.shape[2:]))
            figures = flicker(photo, path, methods)
            totals.append(list(figures.values()))
            rows.append([content, style, motion, *(f"{figure:.3f}" for figure in totals[-1])])
    rows.append(["**mean**", "", "", *(f"**{mean:.3f}**" for mean in np.mean(totals, 0))])
    print(machine())
    print()
    print(table(["photo", "style", "motion", *methods], rows))


if __name__ == "__main__":
    main()
