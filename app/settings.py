"""What the page takes from ``conf/``, and the networks: shared by all people."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from photostyle.conf.entry_point import FOLDER, reason
from photostyle.data.photo_options import PhotoOptions
from photostyle.feedforward.style_network import StyleNetwork, load_network
from photostyle.ops.devices import convolution_dtype, select_device
from photostyle.ops.errors import check_whole

PRESETS = ("strict", "matting", "loose")
ONE_PASS = ("method=feedforward",)


def of_preset(preset: str) -> tuple[str, ...]:
    """The words of a command line that choose one of `PRESETS`."""
    return (f"photorealism={preset}",)


class Settings:
    """What ``conf/`` says, composed once for all that the page can do.

    Args:
        max_pixels: refuse larger photos.
        picture_every: steps of the optimiser between two pictures.
        size, device, quality: as in ``conf/stylize.yaml``; ``None``: what that says.

    Raises:
        ArgumentError: for values other than these.
    """

    def __init__(
        self,
        *,
        max_pixels: int,
        picture_every: int = 2,
        size: int | None = None,
        device: str | None = None,
        quality: int | None = None,
    ):
        check_whole("picture_every", picture_every, 1)
        self.picture_every = picture_every
        given = {"size": size, "device": device, "quality": quality}
        self.words = tuple(f"{key}={value}" for key, value in given.items() if value is not None)
        self._configs = {
            words: _composed(*words, *self.words, f"max_pixels={max_pixels}", "overwrite=true")
            for words in (ONE_PASS, *map(of_preset, PRESETS))
        }
        config = self._configs[ONE_PASS]
        self.options: PhotoOptions = _made(config.options)
        self.seed: int = config.seed
        self.device = select_device(config.device)
        self._precision = convolution_dtype(config.precision, self.device)
        self._networks = {}

    def arguments(self, preset: str, paths: dict[str, Path]) -> dict:
        """The arguments of the function that a command line with a preset calls.

        Args:
            preset: one of `PRESETS`.
            paths: the values of its keys that are paths.
        """
        config = self._configs[of_preset(preset)].copy()
        for key, path in paths.items():
            OmegaConf.update(config, key, path)
        return _made(config.method, _partial_=True).keywords

    def network(self, name: str) -> StyleNetwork:
        """A network, read once."""
        if name not in self._networks:
            self._networks[name] = load_network(name, self.device, self._precision)
        return self._networks[name]


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
