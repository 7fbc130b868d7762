"""How far results are from each other when one photo comes in several colour spaces, of 8 bits.

    python -m benchmarks.colour_spaces

Two of the example photos are stored as sRGB, Display P3, Adobe RGB and ProPhoto. Each serves as
style and as content; the figure is the mean CIEDE2000 to the result of the sRGB one. Once more in
16 bits, which shows what is left without the rounding of 8.
"""

import contextlib
import logging
import tempfile
from io import StringIO
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from skimage.color import deltaE_ciede2000, rgb2lab

from photostyle.data import Photo, load_image, save_photo
from photostyle.data.colour_space import adobe_rgb_profile, colour_space, matrix_profile
from photostyle.data.photo import to_pixels
from photostyle.data.vips import libvips

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZE = 400
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
"""ISO 22028-2, (X, Y, Z) of red, green and blue."""
METHODS = {
    "optimiser": ("method=optimize",),
    "one pass": ("method=feedforward",),
    "closed form": ("method=colour_transfer",),
}
NETWORK = ("method=feedforward", "network=autumn")


def stored(name: str, bits: int) -> dict[str, Path]:
    """An example photo in each space, as files of the current folder."""
    profiles = {
        "sRGB": None,
        "Display P3": libvips().Image.profile_load("p3"),
        "Adobe RGB": adobe_rgb_profile(),
        "ProPhoto": matrix_profile("ProPhoto", PROPHOTO, 1.8),
    }
    pixels = to_pixels(load_image(EXAMPLES / f"{name}.jpg", SIZE))
    files = {}
    for space, profile in profiles.items():
        levels = pixels.astype(np.float32) * 257
        if profile is not None:
            levels = colour_space(profile).levels(pixels.astype(np.float32) / 255)
        dtype = np.uint8 if bits == 8 else np.uint16
        levels = np.rint(levels / (257 if bits == 8 else 1)).astype(dtype)
        files[space] = Path(f"{name} {space} {bits}.png")
        save_photo(files[space], Photo(levels, icc_profile=profile))
    return files


def result(words: tuple[str, ...], content: Path, style: Path | None) -> np.ndarray:
    overrides = [*words, f"content='{content}'", "output=result.png", "overwrite=true"]
    overrides += [] if style is None else [f"style='{style}'"]
    instantiate(compose("stylize", overrides).method)
    return lab("result.png")


def lab(path: str | Path) -> np.ndarray:
    return rgb2lab(load_image(path)[0].permute(1, 2, 0).numpy())


def differences(pictures: list[np.ndarray]) -> str:
    return " | ".join(f"{deltaE_ciede2000(p, pictures[0]).mean():.2f}" for p in pictures[1:])


def main():
    logging.disable()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stderr(StringIO()),  # progress bars
        initialize_config_module("photostyle.conf", version_base="1.3"),
    ):
        for bits in (8, 16):
            sunset, pavilion = stored("sunset", bits), stored("pavilion", bits)
            print(f"\n| {bits} bits | {' | '.join(list(sunset)[1:])} |\n|---|---|---|---|")
            print(f"| the photo itself | {differences([lab(file) for file in sunset.values()])} |")
            for name, words in METHODS.items():
                found = [result(words, pavilion["sRGB"], file) for file in sunset.values()]
                print(f"| as style, {name} | {differences(found)} |")
                found = [result(words, file, pavilion["sRGB"]) for file in sunset.values()]
                print(f"| as content, {name} | {differences(found)} |")
            found = [result(NETWORK, file, None) for file in sunset.values()]
            print(f"| as content, network autumn | {differences(found)} |", flush=True)


if __name__ == "__main__":
    main()
