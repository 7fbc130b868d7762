"""What the page does for one person, without the page.

Each result belongs to a command line. It is found by the functions that the command line calls,
with the settings that it composes, and so is the same picture.
"""

import queue
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from photostyle.conf.entry_point import FOLDER, reason
from photostyle.data import apply_to_photo, automatic_masks, load_visible, save_photo
from photostyle.data.image_io import check_holds
from photostyle.data.masks import COLOURS
from photostyle.data.paths import suffix_like
from photostyle.data.photo import to_pixels
from photostyle.data.photo_options import PhotoOptions
from photostyle.feedforward.style_network import UNIVERSAL, load_network
from photostyle.ops.affine import apply_affine, blend_affine
from photostyle.ops.devices import convolution_dtype, select_device
from photostyle.ops.errors import ArgumentError, check_choice, check_number, check_whole
from photostyle.optimize import Step
from photostyle.optimize.stylize_photo import optimize_pair

PRESETS = ("strict", "matting", "loose")
PHOTOS = ("content", "style")
ONE_PASS = ("method=feedforward",)
REGIONS = ("red", "green", "blue", "yellow", "purple", "cyan")
"""What people call `data.masks.COLOURS`."""


class Settings:
    """What ``conf/`` says, composed once for all that the page can do.

    Args:
        max_pixels: refuse larger photos.
        picture_every: steps of the optimiser between two pictures.
        given: values for keys of ``conf/stylize.yaml``; ``None``: what that says.

    Raises:
        ArgumentError: for values other than these.
    """

    def __init__(self, *, max_pixels: int, picture_every: int = 2, **given: object):
        check_whole("picture_every", picture_every, 1)
        self.picture_every = picture_every
        self.words = tuple(f"{key}={value}" for key, value in given.items() if value is not None)
        self._configs = {
            words: _composed(*words, *self.words, f"max_pixels={max_pixels}", "overwrite=true")
            for words in (ONE_PASS, *map(_of_preset, PRESETS))
        }
        config = self._configs[ONE_PASS]
        self.options: PhotoOptions = _made(config.options)
        self.seed: int = config.seed
        self.device = select_device(config.device)
        self._precision = convolution_dtype(config.precision, self.device)
        self._networks = {}

    def arguments(self, words: tuple[str, ...], paths: dict[str, Path | str]) -> dict:
        """The arguments of the function that a command line calls.

        Args:
            words: ``method=feedforward`` or a preset's.
            paths: the values of its keys that are paths.
        """
        config = self._configs[words].copy()
        for key, path in paths.items():
            OmegaConf.update(config, key, path)
        return _made(config.method, _partial_=True).keywords

    def network(self, name: str):
        """A network, read once."""
        if name not in self._networks:
            self._networks[name] = load_network(name, self.device, self._precision)
        return self._networks[name]


def _of_preset(preset: str) -> tuple[str, ...]:
    return (f"photorealism={preset}",)


def _composed(*words: str) -> DictConfig:
    if GlobalHydra.instance().is_initialized():  # by an entry point, for the same folder
        return compose("stylize", list(words))
    with initialize_config_dir(FOLDER, version_base="1.3"):
        return compose("stylize", list(words))


def _made(config: DictConfig, **options: bool):
    try:
        return instantiate(config, **options)
    except InstantiationException as error:
        raise reason(error) from error


@dataclass(frozen=True, eq=False)
class Result:
    """A picture that can be had at any strength and at the photo's own size.

    Attributes:
        content: the photo at working size, (1, 3, H, W), values in [0, 1].
        coefficients: such that the picture is A·I + b, (1, 3, 4, H, W).
        words: of the command line that makes it.
        stopped: why the search for it ended early, ``None`` if it did not.
    """

    content: Tensor
    coefficients: Tensor
    words: tuple[str, ...]
    stopped: str | None = None

    def picture(self, strength: float) -> np.ndarray:
        """The picture at working size, (H, W, 3) uint8."""
        return to_pixels(apply_affine(blend_affine(self.coefficients, strength), self.content))


@dataclass
class _Upload:
    """One of the two photos: its file, and what it is at working size."""

    path: Path
    image: Tensor
    opacity: Tensor | None
    regions: np.ndarray | None = None  # indices of COLOURS, (H, W)


class Session:
    """The photos, regions and result of one person.

    Args:
        settings: shared by all.
        parent: where a folder is made that is deleted with the session; ``None``: where temporary
            files are.

    Attributes:
        result: the newest, ``None`` before there is one.
        network: see `feedforward.load_network`.
        painted: whether the regions are those that the person painted or merged.
        shows_regions: whether the person looks at them: they take a while to find.
    """

    def __init__(self, settings: Settings, parent: Path | None = None):
        self.settings = settings
        self.parent = parent
        self.network = UNIVERSAL
        self.result: Result | None = None
        self.painted = False
        self.shows_regions = False
        self._uploads: dict[str, _Upload] = {}
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
        options = self.settings.options
        name = Path(path).name
        try:
            photo = load_visible(path, argument=argument, max_pixels=options.max_pixels)
            check_holds(f"result{suffix_like(name)}", options.size_of(photo), argument)
        except ArgumentError as error:
            raise ArgumentError(error.argument, name, error.expected) from error
        folder = Path(self._folder.name) / argument
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        copy = Path(shutil.copyfile(path, folder / name))
        size = options.size
        self._uploads[argument] = _Upload(copy, photo.tensor(size), photo.opacity(size))
        self._forget_regions()

    def drop(self, argument: str) -> None:
        """Forget a photo."""
        self._uploads.pop(argument, None)
        self._forget_regions()

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
        return None if upload is None else to_pixels(upload.image)

    # ------------------------------------------------------------------------------- results

    @torch.inference_mode()
    def one_pass(self) -> Result:
        """The network's result, which is the newest then.

        Raises:
            ArgumentError: a photo is missing, or masks are wrong.
        """
        self._check_has(*(PHOTOS if self._takes_style else PHOTOS[:1]))
        paths = self._paths()
        arguments = self.settings.arguments(ONE_PASS, paths)
        content = self._uploads["content"]
        network, device = self.settings.network(self.network), self.settings.device
        styled, _ = arguments["style"].styled(network, arguments["options"], device, single=True)
        guide = content.image.to(device)
        coefficients = styled(guide, content.opacity).coefficients(guide).cpu()
        self.result = Result(content.image, coefficients, self._words(ONE_PASS, paths))
        return self.result

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
            ArgumentError: an unknown preset, or masks that are wrong.
        """
        check_choice("photorealism", preset, PRESETS)
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

        words, paths = _of_preset(preset), self._paths()
        arguments = self.settings.arguments(words, paths)
        files = arguments.pop("files")
        for key in ("log_dir", "intermediate_dir", "intermediate_every"):
            arguments.pop(key)
        pair = files.load()
        found = optimize_pair(pair, seed=files.seed, callback=watch, **arguments)
        words = self._words(words, paths)
        return Result(pair.content, found.coefficients.cpu(), words, found.stopped)

    def picture(self, step: Step, strength: float) -> np.ndarray:
        """What the optimiser has so far, (H, W, 3) uint8, at working size."""
        content = self._uploads["content"].image
        image = F.interpolate(step.image.cpu(), content.shape[2:], mode="bicubic")
        return to_pixels(content.lerp(image, strength))

    # -------------------------------------------------------------------------------- files

    def command(self, strength: float) -> str:
        """The command line that makes the newest result."""
        words = [*self._newest().words]
        if strength < 1:
            words.append(f"strength={strength:g}")
        return shlex.join(["python", "stylize.py", *words])

    def write(self, strength: float) -> Path:
        """The newest result at the photo's own size, in its own format, as that command line's.

        Raises:
            ArgumentError: there is none.
        """
        check_number("strength", strength, 0, 1)
        result, content = self._newest(), self._uploads["content"].path
        options = self.settings.options
        photo = load_visible(content, max_pixels=options.max_pixels)
        coefficients = blend_affine(result.coefficients, strength)
        named = self._uploads["style"].path.stem if self._takes_style else self.network
        target = Path(self._folder.name) / f"{content.stem}_{named}{suffix_like(content)}"
        save_photo(target, apply_to_photo(coefficients, photo), quality=options.quality)
        return target

    def mask_files(self) -> list[Path]:
        """The painted masks that the command line names."""
        return [self._mask_file(argument) for argument in PHOTOS] if self.painted else []

    def _newest(self) -> Result:
        if self.result is None:
            raise ArgumentError("content", None, "there is no result yet; give a photo and a style")
        return self.result

    def _check_has(self, *photos: str) -> None:
        for argument in photos:
            if argument not in self._uploads:
                raise ArgumentError(argument, None, "required; drop a photo or pick an example")

    def _paths(self) -> dict[str, Path | str]:
        """The values of the keys that are paths, or a name."""
        if not self._takes_style:
            return {"content": self._uploads["content"].path, "network": self.network}
        paths = {argument: self._uploads[argument].path for argument in PHOTOS}
        if self.painted:
            paths |= {f"{argument}_mask": self._mask_file(argument) for argument in PHOTOS}
        return paths

    def _words(self, words: tuple[str, ...], paths: dict[str, Path | str]) -> tuple[str, ...]:
        names = (f"{key}={Path(path).name}" for key, path in paths.items())
        return *words, *self.settings.words, *names

    def _mask_file(self, argument: str) -> Path:
        return Path(self._folder.name) / f"{argument}_mask.png"

    # ------------------------------------------------------------------------------- regions

    def regions(self) -> dict[str, np.ndarray]:
        """Both photos under the colours of their regions, (H, W, 3) uint8 each.

        Raises:
            ArgumentError: a photo is missing.
        """
        self._check_has(*PHOTOS)
        content, style = uploads = [self._uploads[argument] for argument in PHOTOS]
        if content.regions is None:
            opacities, seed = (content.opacity, style.opacity), self.settings.seed
            masks = automatic_masks(content.image, style.image, opacities=opacities, seed=seed)
            content.regions = masks.content.argmax(0).numpy().astype(np.uint8)
            style.regions = masks.style.argmax(0).numpy().astype(np.uint8)
        palette = np.array(COLOURS, np.uint16)
        return {
            argument: ((palette[upload.regions] + to_pixels(upload.image)) // 2).astype(np.uint8)
            for argument, upload in zip(PHOTOS, uploads, strict=True)
        }

    def unmatched(self) -> list[str]:
        """The regions of the photo that the style photo lacks; see `data.load_masks`."""
        content, style = (np.unique(self._uploads[argument].regions) for argument in PHOTOS)
        return [REGIONS[index] for index in np.setdiff1d(content, style)]

    def paint(self, argument: str, strokes: np.ndarray) -> None:
        """Give the region of the nearest colour to what is painted.

        Args:
            argument: ``content`` or ``style``.
            strokes: (h, w, 4) uint8, transparent where nothing is painted.
        """
        self.regions()
        upload = self._uploads[argument]
        height, width = upload.regions.shape
        image = Image.fromarray(strokes).resize((width, height), Image.Resampling.NEAREST)
        strokes = np.asarray(image).astype(np.int32)
        difference = strokes[:, :, None, :3] - np.array(COLOURS, np.int32)
        nearest = (difference**2).sum(-1).argmin(-1)
        painted = strokes[..., 3] > 127
        if painted.any():
            upload.regions = np.where(painted, nearest, upload.regions).astype(np.uint8)
            self._use_regions()

    def merge(self, region: str, into: str) -> None:
        """Make two regions one, in both photos.

        Raises:
            ArgumentError: a region is none of `REGIONS`.
        """
        for argument, name in (("region", region), ("into", into)):
            check_choice(argument, name, REGIONS)
        self.regions()
        for upload in self._uploads.values():
            upload.regions[upload.regions == REGIONS.index(region)] = REGIONS.index(into)
        self._use_regions()

    def reset_regions(self) -> None:
        """Go back to the automatic regions."""
        self.painted = False
        for upload in self._uploads.values():
            upload.regions = None

    def _use_regions(self) -> None:
        self.painted = True
        palette = np.array(COLOURS, np.uint8)
        for argument in PHOTOS:
            Image.fromarray(palette[self._uploads[argument].regions]).save(
                self._mask_file(argument)
            )

    def _forget_regions(self) -> None:
        self.result = None
        self.reset_regions()


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
