"""The feed-forward mode from files to files."""

import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from photostyle.data import Photo, PhotoOptions, apply_to_photo
from photostyle.data.cube_file import check_cube
from photostyle.data.lut_output import SavedLut, save_lut_of
from photostyle.data.paths import is_film
from photostyle.data.photo_run import Job, Plan, Report, is_one, plan
from photostyle.data.run_log import check_log
from photostyle.data.shard_run import ShardPlan, plan_shards
from photostyle.data.shards import shards_of
from photostyle.feedforward.style_network import UNIVERSAL, load_network
from photostyle.feedforward.style_source import Styled, StyleSource
from photostyle.feedforward.stylize_film import FilmReport, stylize_film
from photostyle.ops.affine import apply_affine, blend_affine
from photostyle.ops.devices import convolution_dtype, return_free_memory, select_device
from photostyle.ops.errors import ArgumentError, check_finite, check_whole

logger = logging.getLogger(__name__)

GPU_BATCH = 4
LARGE = 3 * 10_000_000
"""Values of a photo whose memory is worth a hundredth of a second."""


def stylize_photos(
    content: str | Path,
    network: str | Path | None = None,
    output: str | Path | None = None,
    *,
    lut: str | Path | None = None,
    style: StyleSource = StyleSource(),
    options: PhotoOptions = PhotoOptions(),
    batch_size: int | None = None,
    workers: int | None = None,
    report: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Report | FilmReport:
    """Write photos in the style of a trained network, or in any style by one that takes any.

    Of a folder, with all below it, and of a pattern such as ``trip/**/*.jpg``, each photo goes to
    the same place below ``output``. Hidden files and what is in ``output`` are passed over, and
    photos that ``output`` has already are skipped. A photo that cannot be read or written does not
    stop the others, nor does a folder below that cannot be read. After Ctrl-C the photos begun are
    finished. Of a single photo the result goes elsewhere where its place cannot be written, see
    `data.rescue`; those of many the next run makes again. A film on its own: see
    `feedforward.stylize_film`. Shards, tar files of the WebDataset format, become shards of the
    same names, see `data.shard_run`.

    Args:
        content: an image file, a folder or a pattern, or a film; a shard, a folder of shards and
            no photos, or a pattern such as ``photos-{000..099}.tar``.
        network: see `feedforward.load_network`; ``None``: ``universal``, which takes any style.
        output: image file, for a folder or pattern a folder; ``None`` for ``<content>_<style>`` or
            ``<content>_<network>`` in the current folder, a file with the content's own suffix.
        lut: ``.cube`` file for the result of a single photo as a LUT, see `ops.lut_fit.fit_lut`.
        style: of a network that takes any.
        options: how photos are read and results are written; a network without a guided filter
            gives the working size all the same.
        batch_size: of photos: how many a worker reads, to show the network those of equal size at
            once; ``None`` for 1 on a CPU and 4 on a GPU. One, where each has regions of its own.
        workers: of photos: how many threads read, compute and write, each its own; ``None`` for as
            many as PyTorch would use. Memory grows with ``batch_size`` times ``workers``.
        report: ``.csv`` file to which a line is added for each photo, see `data.run_log`.
        device: see `ops.devices.select_device`.
        precision: of the network's convolutions, see `ops.devices.convolution_dtype`.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    check_log(report)
    for argument, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None:
            check_whole(argument, value, 1)
    shards = shards_of(content)
    single = not shards and is_one(content)
    own_regions = style.masks == "auto"
    if own_regions and batch_size not in (None, 1):
        expected = "with masks=auto each photo has regions of its own; leave one of them out"
        raise ArgumentError("batch_size", batch_size, expected)
    if network is None and style.style is None:
        expected = "required: a photo whose style to take; or give network=NAME_OR_FILE"
        raise ArgumentError("style", None, expected)
    network = UNIVERSAL if network is None else network
    device = select_device(device)
    trained = load_network(network, device, convolution_dtype(precision, device))
    style.check_for(trained, network, single=single, overwrite=options.overwrite)
    if single and is_film(content):
        of_photos = {"lut": lut, "report": report, "batch_size": batch_size, "workers": workers}
        for argument, value in of_photos.items():
            if value is not None:
                raise ArgumentError(argument, value, "is for photos; leave it out for a film")
        return stylize_film(
            Path(content), trained, network, output, style=style, options=options, device=device
        )
    named = Path(network if style.style is None else style.style).stem
    if shards:
        photos = plan_shards(shards, content, named, output, options)
    else:
        photos = plan(content, named, output, options, style=style.style, **style.painted)
    if lut is not None:
        if not single:
            raise ArgumentError("lut", lut, "is that of one photo; give one as content")
        check_cube(lut, overwrite=options.overwrite)
    styled, statistics = style.styled(trained, options, device, single=single)
    stylist = _Stylist(styled, device, photos, lut)
    if trained.guided_filter is None and options.full_resolution:
        logger.info("without a guided filter the results have the working size")
    batch_size = batch_size or (1 if own_regions or device.type == "cpu" else GPU_BATCH)
    done = photos.run(stylist, batch_size, workers, report)
    failures = done.failures
    try:
        style.save(statistics, overwrite=options.overwrite)
    except ArgumentError as error:
        if single:
            raise
        failures += (str(error),)
    saved = next(iter(stylist.luts), None)
    seconds = time.monotonic() - start
    return replace(done, failures=failures, lut=saved, seconds=seconds)


@dataclass(frozen=True)
class _Stylist:
    """From files to files, a few photos at a time; any number of threads may call it."""

    styled: Styled
    device: torch.device
    plan: Plan | ShardPlan
    lut: str | Path | None = None
    luts: list[SavedLut] = field(default_factory=list)
    """What has been written there."""

    @property
    def options(self) -> PhotoOptions:
        return self.plan.options

    @torch.inference_mode()
    def __call__(self, jobs: list[Job]) -> list[ArgumentError]:
        """Returns what failed."""
        failures = []
        by_kind = defaultdict(list)
        for source, target in jobs:
            try:
                photo = self.plan.load(source, target)
            except ArgumentError as error:
                failures.append(error)
            else:
                guide = photo.tensor(self.options.size)
                # What is transparent is a matter of each photo's own.
                kind = guide.shape if photo.is_opaque else target
                by_kind[kind].append((source, target, photo, guide))
        for equals in by_kind.values():
            sources, targets, photos, guides = zip(*equals, strict=True)
            guides = torch.cat(guides).to(self.device)
            opacity = photos[0].opacity(self.options.size)
            found = self._found(guides, opacity)
            if max(photo.pixels.size for photo in photos) > LARGE:
                return_free_memory()
            parts = found.cpu().split(1)
            for source, target, photo, part in zip(sources, targets, photos, parts, strict=True):
                try:
                    check_finite("content", source, part)
                    self.plan.save(target, _result(photo, part))
                except ArgumentError as error:
                    failures.append(error)
            if self.lut is not None and not failures:
                image = apply_affine(found, guides) if found.ndim == 5 else found
                overwrite = self.options.overwrite
                saved = save_lut_of(
                    self.lut, guides, image.clamp(0, 1), opacity, overwrite=overwrite
                )
                self.luts.append(saved)
        return failures

    def _found(self, guides: Tensor, opacity: Tensor | None) -> Tensor:
        """What becomes of the working sizes (B, 3, h, w).

        Coefficients, (B, 3, 4, h, w), or images, (B, 3, h, w), that keep to the working size.
        """
        network = self.styled(guides, opacity)
        coefficients = network.coefficients(guides) if self.options.full_resolution else None
        if coefficients is None:
            return torch.lerp(guides, network(guides), self.options.strength)
        if self.options.strength < 1:
            coefficients = blend_affine(coefficients, self.options.strength)
        return coefficients


def _result(photo: Photo, found: Tensor) -> Photo:
    """The photo in the style, by coefficients or an image."""
    if found.ndim == 5:
        # In place: two large photos would be too many.
        return apply_to_photo(found, photo, in_place=True)
    return photo.with_image(found)
