"""Where a network of any style takes its style from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from photostyle.data import Masks, PhotoOptions, load_masks, load_visible
from photostyle.data.decoders import READABLE
from photostyle.data.masks import WHOLE_SHARE, check_mask_choices, masks_of_described
from photostyle.data.paths import check_apart, check_file, written
from photostyle.data.reading import check_present
from photostyle.feedforward.style_network import StyleNetwork
from photostyle.feedforward.style_statistics import SUFFIX, load_style, save_style
from photostyle.feedforward.universal_net import StyleStatistics
from photostyle.ops import ArgumentError
from photostyle.ops.errors import check_whole
from photostyle.ops.features import VGGFeatures
from photostyle.ops.regions import describe

Styled = Callable[[Tensor, Tensor | None], StyleNetwork]
"""From photos at working size, (B, 3, H, W), and their opacity, (H, W), to the network with its
style for them; an opacity of ``None``: 1."""


@dataclass(frozen=True)
class StyleSource:
    """A style photo with or without masks, or a file of statistics.

    Attributes:
        style: an image file, or a ``.safetensors`` file that ``save_style`` wrote; ``None`` for a
            network that has a style of its own.
        content_mask, style_mask: see `data.load_masks`; for a single photo.
        masks: what to do without these: ``"auto"``, see `data.automatic_masks`, ``"none"``: one
            style for the whole photo, or ``None``: auto for a single photo, none for many.
        whole_share: how much the whole photos count beside their regions, in [0, 1]; ``None``: see
            `data.masks.WHOLE_SHARE`.
        save_style: file for the statistics of the whole style photo.
        seed: of the automatic masks.

    Raises:
        ArgumentError: for values other than these.
    """

    style: str | Path | None = None
    content_mask: str | Path | None = None
    style_mask: str | Path | None = None
    masks: str | None = None
    whole_share: float | None = None
    save_style: str | Path | None = None
    seed: int = 0

    def __post_init__(self):
        check_whole("seed", self.seed, 0)
        check_mask_choices(self.masks, self.whole_share, **self.painted)
        if self.save_style is not None and Path(self.save_style).suffix != SUFFIX:
            raise ArgumentError("save_style", self.save_style, f"give a file that ends in {SUFFIX}")
        if self.is_statistics:
            for argument in ("content_mask", "style_mask", "whole_share", "save_style"):
                self._refuse(argument, f"style={self.style} is a file of statistics, no photo")
            if self.masks == "auto":
                expected = "a file of statistics has no regions; give the style photo, or none"
                raise ArgumentError("masks", self.masks, expected)

    @property
    def is_statistics(self) -> bool:
        """Whether the style is a file of statistics, no photo."""
        return self.style is not None and Path(self.style).suffix == SUFFIX

    @property
    def painted(self) -> dict[str, str | Path | None]:
        """The files of masks, by their arguments."""
        return {"content_mask": self.content_mask, "style_mask": self.style_mask}

    def check_for(
        self, network: StyleNetwork, name: str | Path, *, single: bool, overwrite: bool
    ) -> None:
        """Whether all this goes together with a network, with one photo or many, and with files.

        Raises:
            ArgumentError: it does not.
        """
        if not network.is_universal:
            own = "style", "content_mask", "style_mask", "masks", "whole_share", "save_style"
            for argument in own:
                self._refuse(argument, f"network={name} has a style of its own; leave one out")
            return
        if self.style is None:
            expected = f"network={name} takes any; give a photo or a file of statistics"
            raise ArgumentError("style", None, expected)
        if not single:
            for argument in self.painted:
                self._refuse(argument, "painted masks are those of one photo; give one as content")
            if self.masks is None:
                self._refuse("whole_share", "many photos have regions on request; add masks=auto")
        if not self.is_statistics:
            check_present(READABLE, style=self.style, **self.painted)
        if self.save_style is not None:
            check_apart("save_style", self.save_style, style=self.style, network=name)
            check_file(self.save_style, overwrite=overwrite, argument="save_style")

    def styled(
        self, network: StyleNetwork, options: PhotoOptions, device: torch.device, *, single: bool
    ) -> tuple[Styled, StyleStatistics | None]:
        """The network with its style for each photo, and what there is to save of the style.

        Args:
            network: on the device; one with a style of its own stays as it is.
            options: how the style photo is read.
            device: to work on.
            single: whether it will be for one photo; of many each has regions only if
                ``masks="auto"`` says so.
        """
        if not network.is_universal:
            return _same(network), None
        if self.is_statistics:
            return _same(network.with_style(load_style(self.style, device))), None
        photo = load_visible(self.style, argument="style", max_pixels=options.max_pixels)
        style, opacity = photo.tensor(options.size), photo.opacity(options.size)
        painted = self.content_mask is not None or self.style_mask is not None
        regions = painted or self.masks == "auto" or (self.masks is None and single)
        encoder, described, whole = cache(VGGFeatures), None, None
        if regions and not painted:
            described = describe(style, opacity, encoder=encoder)
        if self.save_style is not None or not regions:
            with torch.inference_mode():
                visible = opacity if opacity is None else opacity[None].to(device)
                whole = network.net.statistics(style.to(device), visible)
        if not regions:
            return _same(network.with_style(whole)), whole

        def by_region(guides: Tensor, seen: Tensor | None) -> StyleNetwork:
            content = guides.cpu()
            if painted:
                files, sizes = self.painted.values(), (content.shape[2:], style.shape[2:])
                masks, kind = load_masks(*files, *sizes, max_pixels=options.max_pixels), "painted"
            else:
                photo = describe(content, seen, encoder=encoder)
                masks, kind = masks_of_described(photo, described, seed=self.seed), "automatic"
            share = WHOLE_SHARE[kind] if self.whole_share is None else self.whole_share
            masks = masks.with_whole(share).visible(seen, opacity)
            return with_regions(network, style.to(device), masks)

        return by_region, whole

    def save(self, statistics: StyleStatistics | None, *, overwrite: bool) -> None:
        """Write what `styled` returned, if ``save_style`` says where.

        Raises:
            ArgumentError: it cannot be written.
        """
        if self.save_style is None:
            return
        with written("save_style", self.save_style):
            save_style(statistics, self.save_style, overwrite=overwrite)

    def _refuse(self, argument: str, expected: str) -> None:
        if (value := getattr(self, argument)) is not None:
            raise ArgumentError(argument, value, expected)


def with_regions(network: StyleNetwork, style: Tensor, masks: Masks) -> StyleNetwork:
    """A network of any style, given that of a photo region by region.

    Args:
        network: on the device.
        style: (1, 3, H', W') there, values in [0, 1].
        masks: of the photo that it is then called with, and of the style.
    """
    statistics = network.net.statistics(style, masks.style.to(style.device))
    return network.with_style(statistics, masks.content.to(style.device))


def _same(network: StyleNetwork) -> Styled:
    """One style for the whole photo, whatever the photo is."""

    def styled(guides: Tensor, opacity: Tensor | None) -> StyleNetwork:
        if opacity is None:
            return network
        return replace(network, masks=opacity[None].to(guides.device))

    return styled
