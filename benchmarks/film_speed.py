"""Frames a second and memory of a film in one pass, from file to file.

    python -m benchmarks.film_speed [--frames 1000] [--width 1280 --height 720] [--repeat 3]

The film is a window that wanders over a photo, H.264 with sound of silence; all times are of
`stylize_photos`, start-up of the program left out, the best of some runs. Peak memory is that of
fresh processes, for a tenth of the frames and for all of them.
"""

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.common import in_fresh_process, machine, peak_bytes, start_peak, table
from photostyle.data import PhotoOptions, load_photo
from photostyle.data.photo import resize
from photostyle.feedforward import StyleSource
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops.devices import keep_freed_memory

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE = 24
LOOP = 240
"""Frames from one corner of the photo to the other."""


def make_film(path, frames, width, height):
    photo = load_photo(EXAMPLES / "picos_de_europa.jpg").pixels
    photo = resize(photo, (2 * width, 2 * width * photo.shape[0] // photo.shape[1]))
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", RATE, {"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            way = abs((number / LOOP + 1) % 2 - 1)
            top, left = int(way * (photo.shape[0] - height)), int(way * (photo.shape[1] - width))
            window = np.ascontiguousarray(photo[top : top + height, left : left + width])
            frame = av.VideoFrame.from_ndarray(window, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def stylized(path):
    source, target = StyleSource(EXAMPLES / "sunset.jpg"), path.with_name("result.mp4")
    options = PhotoOptions(overwrite=True)
    return stylize_photos(path, None, target, style=source, options=options, device="cpu")


def peak(path):
    start_peak()
    stylized(path)
    return peak_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in (given.frames // 10, given.frames):
            film = Path(folder) / f"{frames}.mp4"
            make_film(film, frames, given.width, given.height)
            reports = [stylized(film) for _ in range(given.repeat)]
            rate = max(report.frames / report.seconds for report in reports)
            memory = in_fresh_process(peak, film) / 2**30
            size = f"{given.width} x {given.height}"
            rows.append([size, frames, f"{rate:.1f}", f"{memory:.2f}"])
    print(machine())
    print()
    print(table(["size", "frames", "frames a second", "peak memory, GiB"], rows))


if __name__ == "__main__":
    main()
