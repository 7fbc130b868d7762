"""What the page does for one person, without the page.

Each result belongs to a command line. It is found by the functions that the command line calls,
with the settings that it composes, and so is the same picture.
"""

import queue
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photostyle.app.regions import REGIONS, Regions
from photostyle.app.settings import ONE_PASS, PRESETS, Settings, of_preset
from photostyle.app.upload import Upload, uploaded
from photostyle.data import apply_to_photo, load_visible, save_photo
from photostyle.data.cube_file import SUFFIX
from photostyle.data.lut_output import SavedLut, save_lut_of
from photostyle.data.paths import suffix_like, written
from photostyle.data.photo import to_pixels
from photostyle.feedforward.style_network import UNIVERSAL, StyleNetwork
from photostyle.feedforward.style_source import StyleSource, with_regions
from photostyle.ops.affine import apply_affine, blend_affine
from photostyle.ops.errors import ArgumentError, check_choice, check_number
from photostyle.ops.gram import pixel_weights
from photostyle.optimize import Step
from photostyle.optimize.stylize_photo import optimize_pair

PHOTOS = ("content", "style")
LONGEST_NAME = 40
"""Letters of what a person calls a region."""


@dataclass(frozen=True, eq=False)
class Result:
    """A picture that can be had at any strength and at the photo's own size.

    Attributes:
        content: the photo at working size, (1, 3, H, W), values in [0, 1].
        coefficients: such that the picture is A·I + b, (1, 3, 4, H, W).
        pixel_weights: how much each pixel counts for a LUT, see `data.lut_output.save_lut_of`.
        words: of the command line that makes it.
        image: what the optimiser found, of the shape of content; ``None``: it was one pass.
        stopped: why the search for it ended early, ``None`` if it did not.
    """

    content: Tensor
    coefficients: Tensor
    pixel_weights: Tensor | None
    words: tuple[str, ...]
    image: Tensor | None = None
    stopped: str | None = None

    def at(self, strength: float) -> Tensor:
        """The picture at working size, (1, 3, H, W), values in [0, 1]."""
        if self.image is not None:
            return self.content.lerp(self.image, strength)
        coefficients = blend_affine(self.coefficients, strength)
        return apply_affine(coefficients, self.content).clamp(0, 1)

    def picture(self, strength: float) -> np.ndarray:
        """The same as (H, W, 3) uint8."""
        return to_pixels(self.at(strength))


class Session:
    """The photos, regions and result of one person.

    Args:
        settings: shared by all.
        parent: where a folder is made that is deleted with the session; ``None``: where temporary
            files are.

    Attributes:
        result: the newest, ``None`` before there is one.
        network: see `feedforward.load_network`.
        names: what the person calls the regions, by colour; see `rename`.
        shows_regions: whether the person looks at them.
    """

    def __init__(self, settings: Settings, parent: Path | None = None):
        self.settings = settings
        self.parent = parent
        self.network = UNIVERSAL
        self.result: Result | None = None
        self.names = dict(zip(REGIONS, REGIONS, strict=True))
        self.shows_regions = False
        self._uploads: dict[str, Upload] = {}
        self._regions: Regions | None = None
        self._stop = threading.Event()
        self._folder = tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)

    def __deepcopy__(self, memo: dict) -> "Session":
        """An empty one: Gradio gives every person a copy of what the page begins with."""
        return Session(self.settings, self.parent)

    def close(self) -> None:
        """End what is running and delete the folder."""
        self.stop()
        self._folder.cleanup()

    def take(self, argument: str, path: str | Path) -> None:
        """A new photo.

        Args:
            argument: ``content`` or ``style``.
            path: its file, which is copied.

        Raises:
            ArgumentError: it is no photo, or too large.
        """
        folder = Path(self._folder.name) / argument
        self._uploads[argument] = uploaded(argument, Path(path), folder, self.settings.options)
        self._forget()

    def drop(self, argument: str) -> None:
        """Forget a photo."""
        self._uploads.pop(argument, None)
        self._forget()

    def choose(self, network: str) -> None:
        """Take another network; what the former one made is no result any more."""
        if network != self.network:
            self.network = network
            self.result = None

    def _forget(self) -> None:
        """What was of other photos."""
        self.result = self._regions = None

    @property
    def is_ready(self) -> bool:
        """Whether there is all that one pass needs."""
        return "content" in self._uploads and ("style" in self._uploads or not self._takes_style)

    @property
    def _takes_style(self) -> bool:
        return self.network == UNIVERSAL

    @property
    def has_both(self) -> bool:
        """Whether there are a photo and a style photo."""
        return len(self._uploads) == len(PHOTOS)

    def photo(self, argument: str) -> np.ndarray | None:
        """A photo at working size, (H, W, 3) uint8; ``None`` where there is none."""
        upload = self._uploads.get(argument)
        return None if upload is None else upload.pixels

    # ------------------------------------------------------------------------------- results

    @torch.inference_mode()
    def one_pass(self) -> Result:
        """The network's result, which is the newest then.

        Raises:
            ArgumentError: a photo is missing, or masks are wrong.
        """
        self._check_has(*(PHOTOS if self._takes_style else PHOTOS[:1]))
        words, content = self._words(ONE_PASS), self._uploads["content"]
        guide = content.image.to(self.settings.device)
        coefficients = self._styled().coefficients(guide).cpu()
        self.result = Result(content.image, coefficients, content.opacity, words)
        return self.result

    def _styled(self) -> StyleNetwork:
        """The network with its style for the photo, as `feedforward.StyleSource` would have it."""
        network, device = self.settings.network(self.network), self.settings.device
        if self._takes_style:
            style = self._uploads["style"].image.to(device)
            return with_regions(network, style, self.regions.masks())
        content = self._uploads["content"]
        styled, _ = StyleSource().styled(network, self.settings.options, device, single=True)
        return styled(content.image.to(device), content.opacity)

    def ready_to_refine(self) -> None:
        """Take back what `stop` said, before the optimiser is waited for.

        Raises:
            ArgumentError: a photo is missing, or the network takes no style.
        """
        if not self._takes_style:
            expected = f"has a style of its own; choose {UNIVERSAL}, which takes that of a photo"
            raise ArgumentError("network", self.network, expected)
        self._check_has(*PHOTOS)
        self._stop.clear()

    def refine(self, preset: str) -> Iterator[Step]:
        """The optimiser; its result is the newest then, the best so far after `stop`.

        Yields some of its steps.

        Raises:
            ArgumentError: an unknown preset, a photo is missing, or masks that are wrong.
        """
        check_choice("photorealism", preset, PRESETS)
        self._check_has(*PHOTOS)
        steps = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(self._optimised, preset, steps.put)
            future.add_done_callback(lambda _: steps.put(None))
            try:
                yield from iter(steps.get, None)
            finally:
                self.stop()  # whoever looks no longer wants no more steps
            self.result = future.result()

    def stop(self) -> None:
        """End the optimiser at its next step."""
        self._stop.set()

    def _optimised(self, preset: str, show: Callable[[Step], None]) -> Result:
        def watch(step: Step) -> None:
            if step.number % self.settings.picture_every == 0:
                show(step)
            if self._stop.is_set():
                raise KeyboardInterrupt

        words = self._words(of_preset(preset))
        arguments = self.settings.arguments(preset, self._paths())
        files = arguments.pop("files")
        for key in ("log_dir", "intermediate_dir", "intermediate_every"):
            arguments.pop(key)
        pair = files.load()
        found = optimize_pair(pair, seed=files.seed, callback=watch, **arguments)
        return Result(
            pair.content,
            found.coefficients.cpu(),
            pixel_weights(pair.masks.content),
            words,
            found.image.cpu(),
            found.stopped,
        )

    def picture(self, step: Step, strength: float) -> np.ndarray:
        """What the optimiser has so far, (H, W, 3) uint8, at working size."""
        content = self._uploads["content"].image
        image = F.interpolate(step.image.cpu(), content.shape[2:], mode="bicubic")
        return to_pixels(content.lerp(image.clamp(0, 1), strength))

    # -------------------------------------------------------------------------------- files

    def command(self, strength: float, *, lut: bool = False) -> str:
        """The command line that makes the newest result, and its LUT."""
        words = [*self._newest().words]
        if strength < 1:
            words.append(f"strength={strength:g}")
        if lut:
            words.append(f"lut={self._target(SUFFIX).name}")
        return shlex.join(["python", "stylize.py", *words])

    def write(self, strength: float) -> Path:
        """The newest result at the photo's own size, in its own format, as that command line's.

        Raises:
            ArgumentError: there is none, or it cannot be written.
        """
        check_number("strength", strength, 0, 1)
        result, content = self._newest(), self._uploads["content"].path
        options = self.settings.options
        photo = load_visible(content, max_pixels=options.max_pixels)
        coefficients = blend_affine(result.coefficients, strength)
        target = self._target(suffix_like(content))
        with written("output", target.name):
            save_photo(target, apply_to_photo(coefficients, photo), quality=options.quality)
        return target

    def write_lut(self, strength: float) -> SavedLut:
        """The newest result as a LUT, as that command line's.

        Raises:
            ArgumentError: there is none.
        """
        check_number("strength", strength, 0, 1)
        result, target = self._newest(), self._target(SUFFIX)
        image, weights = result.at(strength), result.pixel_weights
        return save_lut_of(target, result.content, image, weights, overwrite=True)

    def _target(self, suffix: str) -> Path:
        named = self._uploads["style"].path.stem if self._takes_style else self.network
        return Path(self._folder.name) / f"{self._uploads['content'].path.stem}_{named}{suffix}"

    def _newest(self) -> Result:
        if self.result is None:
            raise ArgumentError("content", None, "there is no result yet; give a photo and a style")
        return self.result

    def _check_has(self, *photos: str) -> None:
        for argument in photos:
            if argument not in self._uploads:
                raise ArgumentError(argument, None, "required; drop a photo or pick an example")

    def _paths(self) -> dict[str, Path]:
        """The values of the keys that are paths."""
        if not self._takes_style:
            return {"content": self._uploads["content"].path}
        return {argument: self._uploads[argument].path for argument in PHOTOS} | self.mask_files

    def _words(self, words: tuple[str, ...]) -> tuple[str, ...]:
        names = {key: _typed(path.name) for key, path in self._paths().items()}
        if not self._takes_style:
            names["network"] = self.network
        return *words, *self.settings.words, *(f"{key}={name}" for key, name in names.items())

    # ------------------------------------------------------------------------------- regions

    @property
    def regions(self) -> Regions:
        """Those of both photos, found once.

        Raises:
            ArgumentError: a photo is missing.
        """
        self._check_has(*PHOTOS)
        if self._regions is None:
            photos = (self._uploads[argument] for argument in PHOTOS)
            self._regions = Regions(*photos, Path(self._folder.name), seed=self.settings.seed)
        return self._regions

    @property
    def mask_files(self) -> dict[str, Path]:
        """The painted masks, by the key of the command line that names each."""
        return {} if self._regions is None else self._regions.files

    def unmatched(self) -> list[str]:
        """The names of the regions that the photo alone has; see `Regions.unmatched`."""
        return [self.names[region] for region in self.regions.unmatched()]

    def rename(self, region: str, name: str) -> None:
        """Call a region by another name, or by that of its colour again.

        Args:
            region: one of `REGIONS`.
            name: empty for that of the colour.

        Raises:
            ArgumentError: another region has that name, or it is too long.
        """
        check_choice("region", region, REGIONS)
        name = name.strip() or region
        if len(name) > LONGEST_NAME:
            raise ArgumentError("name", name, f"give at most {LONGEST_NAME} letters")
        if name in (other for colour, other in self.names.items() if colour != region):
            raise ArgumentError("name", name, "another region has this name; give another")
        self.names[region] = name


def _typed(name: str) -> str:
    """A file's name for the command line, where ``null`` is none and ``~`` a home folder."""
    return f"./{name}" if name == "null" or name.startswith("~") else name


def warm_up(settings: Settings) -> None:
    """One pass over noise: nobody waits for what is compiled or read once."""
    session = Session(settings)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.png"
        Image.fromarray(noise).save(file)
        for argument in PHOTOS:
            session.take(argument, file)
    session.one_pass()
    session.close()
