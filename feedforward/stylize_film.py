"""The feed-forward mode from film to film."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from photostyle.data import PhotoOptions
from photostyle.data.film_frame import FilmFrame, Planes
from photostyle.data.paths import check_apart
from photostyle.data.reading import check_present
from photostyle.data.video import check_film_output, open_film, suffix_of_result
from photostyle.feedforward.steady_colours import SteadyColours
from photostyle.feedforward.style_network import StyleNetwork
from photostyle.feedforward.style_source import StyleSource
from photostyle.ops.console import standard_error
from photostyle.ops.errors import ArgumentError, check_finite, printable


@dataclass(frozen=True)
class FilmReport:
    """What `stylize_film` did."""

    output: Path
    frames: int
    cuts: int
    seconds: float

    exit_code = 0

    def __str__(self) -> str:
        cuts = f"{self.cuts} cut{'' if self.cuts == 1 else 's'}"
        speed = f"{self.seconds:.1f} s, {self.frames / self.seconds:.1f} frames a second"
        frames = f"{self.frames} frame{'' if self.frames == 1 else 's'}"
        return f"{printable(self.output)}: {frames}, {cuts}, {speed}"


def stylize_film(
    content: Path,
    trained: StyleNetwork,
    network: str | Path,
    output: str | Path | None,
    *,
    style: StyleSource,
    options: PhotoOptions,
    device: torch.device,
) -> FilmReport:
    """Write a film in a style, picture by picture, with colours that keep still.

    Each picture has what a smooth map of its colours can give it, the same everywhere in it, and
    maps are averaged over time: see `feedforward.steady_colours`. After Ctrl-C there is no result:
    a film that stops in the middle would look like a whole one.

    Args:
        content: a file.
        trained: the network, on the device.
        network: its name or file.
        output: file; ``None`` for ``<content>_<style>`` or ``<content>_<network>`` in the current
            folder, with the content's own suffix, or ``.mkv`` for one that is not written.
        style: of a network that takes any.
        options: how the style photo is read and results are written.
        device: to work on.

    Raises:
        ArgumentError: for anything that does not go with a film, before anything is written, and
            for a film that proves to be damaged.
    """
    start = time.monotonic()
    _check(trained, network, style, options)
    check_present("a film", content=content)
    named = Path(network if style.style is None else style.style).stem
    output = Path(output or f"{content.stem}_{named}{suffix_of_result(content)}")
    check_apart("output", output, content=content, style=style.style)
    check_film_output(output, overwrite=options.overwrite)
    with open_film(content) as film:
        if film.width * film.height > options.max_pixels:
            expected = f"{film.width} x {film.height} pixels are too many; raise max_pixels"
            raise ArgumentError("content", content, expected)
        styled, statistics = style.styled(trained, options, device, single=False)

        @torch.inference_mode()
        def stylize(image: Tensor) -> Tensor:
            image = image.to(device)
            result = styled(image, None)(image)
            check_finite("network", network, result)
            return result.clamp(0, 1).cpu()

        colours = SteadyColours(stylize, options.size)

        def change(frame: FilmFrame, out: Planes) -> None:
            frame.change(options.strength * colours(frame), out)

        with tqdm(total=film.frames, unit="frame", file=standard_error()) as bar:
            frames = film.rewrite(
                output,
                change,
                quality=options.quality,
                overwrite=options.overwrite,
                progress=bar.update,
            )
    style.save(statistics, overwrite=options.overwrite)
    return FilmReport(output, frames, colours.cuts, time.monotonic() - start)


def _check(
    trained: StyleNetwork, network: str | Path, style: StyleSource, options: PhotoOptions
) -> None:
    """Whether all of this goes with a film.

    Raises:
        ArgumentError: it does not.
    """
    for argument in ("content_mask", "style_mask", "whole_share"):
        if (value := getattr(style, argument)) is not None:
            raise ArgumentError(argument, value, "a film has no regions; leave it out")
    if style.masks == "auto":
        raise ArgumentError("masks", "auto", "a film has one style for the whole picture")
    if not options.full_resolution:
        raise ArgumentError("full_resolution", False, "a film keeps its own size; leave it out")
    if trained.guided_filter is None:
        raise ArgumentError("network", network, "makes paintings, which flicker; not for films")
