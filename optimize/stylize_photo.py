"""The slow mode from file to file."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import (
    Masks,
    Photo,
    apply_coefficients,
    check_output,
    likeness,
    load_masks,
    load_photo,
    save_masks,
    save_photo,
    segment_together,
)
from data.images import MAX_PIXELS, check_folder, to_pixels
from ops import LossTerms, Projection, StyleObjective
from ops.devices import convolution_dtype, select_device
from ops.errors import ArgumentError, check_choice, check_flag, check_whole
from optimize.callbacks import IntermediatePictures, ProgressBar, TensorBoardLog
from optimize.image_optimizer import OptimizedImage, optimize_image

logger = logging.getLogger(__name__)

LARGEST_SEED = 2**63 - 1
MASKS = ("auto", "none")

STRANGERS = 0.5
"""Likeness of photos that have nothing in common; see :func:`data.likeness`, docs/quality.md."""
TENFOLD = 0.04
"""By how much it must rise for a tenth of the discord."""
LEAST_DISCORD = 0.02


@dataclass(frozen=True)
class Report:
    """What :func:`stylize_photo` did."""

    output: Path
    size: tuple[int, int]
    seconds: float
    terms: LossTerms | None
    stopped: str | None

    @property
    def exit_code(self) -> int:
        """0; 130 after Ctrl-C, 1 after a loss that was not finite."""
        return {None: 0, "interrupted": 130}.get(self.stopped, 1)

    def __str__(self) -> str:
        height, width = self.size
        text = f"{self.output}: {width} x {height}, {self.seconds:.0f} s"
        if self.terms is not None:
            text += f"\nlosses: {self.terms}"
        if self.stopped:
            text += f"\nended early ({self.stopped}); this is the best picture so far"
        return text


def stylize_photo(
    content: str | Path,
    style: str | Path,
    output: str | Path | None = None,
    *,
    objective: StyleObjective,
    content_mask: str | Path | None = None,
    style_mask: str | Path | None = None,
    masks: str | None = None,
    masks_dir: str | Path | None = None,
    projection: Projection | None,
    size: int = 512,
    full_resolution: bool = True,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
    log_dir: str | Path | None = None,
    intermediate_dir: str | Path | None = None,
    intermediate_every: int = 10,
    **optimisation,
) -> Report:
    """Write the content photo in the style photo's light.

    Args:
        content, style: image files.
        output: image file; ``None`` for ``<content>_<style>.jpg`` in the current folder.
        objective: the losses and their weights; its encoder a :class:`ops.VGGFeatures`, or another
            with ``convolve_in(dtype)``.
        content_mask, style_mask: see :func:`data.load_masks`.
        masks: what to do without these: ``"auto"`` or ``None``, see
            :func:`data.segment_together`, or ``"none"``: one style for the whole photo.
        masks_dir: folder for the masks, see :func:`data.save_masks`.
        projection: ``None`` turns photorealism by projection off; the result then has the working
            size, since nothing ties it to the photo's own pixels.
        size: long side in pixels at which the result is found.
        full_resolution: apply the result to the photo at its own size.
        device: see :func:`ops.devices.select_device`.
        precision: of the encoder's convolutions, see :func:`ops.devices.convolution_dtype`; it is
            the objective's from then on.
        seed: of every random number.
        overwrite: whether ``output`` may exist.
        quality: of JPEG and WebP, 1 to 100.
        max_pixels: refuse larger photos.
        log_dir: folder for TensorBoard.
        intermediate_dir: folder for a picture every ``intermediate_every`` steps.
        optimisation: passed on to :func:`optimize.optimize_image`.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    check_flag("overwrite", overwrite)
    check_flag("full_resolution", full_resolution)
    check_whole("size", size, 32)
    check_whole("quality", quality, 1, 100)
    check_whole("intermediate_every", intermediate_every, 1)
    check_whole("max_pixels", max_pixels, 1)
    check_whole("seed", seed, 0, LARGEST_SEED)
    _check_file("content", content)
    _check_file("style", style)
    masks = "auto" if masks is None else masks
    check_choice("masks", masks, MASKS)
    check_folder("masks_dir", masks_dir)
    check_folder("log_dir", log_dir)
    check_folder("intermediate_dir", intermediate_dir)
    output = Path(output or f"{Path(content).stem}_{Path(style).stem}.jpg")
    check_output(output, overwrite=overwrite)
    device = select_device(device)
    objective.features.convolve_in(convolution_dtype(precision, device))
    photo = load_photo(content, argument="content", max_pixels=max_pixels)
    guide = photo.tensor(size)
    style_image = load_photo(style, argument="style", max_pixels=max_pixels).tensor(size)
    regions = load_masks(content_mask, style_mask, guide.shape[2:], style_image.shape[2:])
    guarded = objective.weights["wide_energy"] > 0
    counterparts = regions
    if content_mask is None and (masks == "auto" or guarded):
        counterparts = segment_together(guide, style_image, seed=seed)
        if masks == "auto":
            regions = counterparts
            logger.info("masks: %d regions that both photos have", len(regions.labels))
    discord = _discord(guide, style_image, counterparts) if guarded else 0.0
    if masks_dir is not None:
        _save_masks(regions, guide, style_image, masks_dir)

    torch.manual_seed(seed)
    with ExitStack() as stack:
        callbacks = [stack.enter_context(ProgressBar())]
        if log_dir is not None:
            callbacks.append(stack.enter_context(TensorBoardLog(log_dir, intermediate_every)))
        if intermediate_dir is not None:
            callbacks.append(IntermediatePictures(intermediate_dir, intermediate_every))
        result = optimize_image(
            guide.to(device),
            style_image.to(device),
            objective.to(device),
            content_masks=regions.content.to(device),
            style_masks=regions.style.to(device),
            discord=discord,
            projection=projection,
            seed=seed,
            callback=lambda step: [callback(step) for callback in callbacks],
            **optimisation,
        )
    if result.stopped:
        logger.warning("%s; writing the best picture so far", result.stopped)
    stylized = photo.with_pixels(_pixels(result, photo, full_resolution))
    save_photo(output, stylized, quality=quality)
    seconds = time.monotonic() - start
    return Report(output, stylized.pixels.shape[:2], seconds, result.terms, result.stopped)


def _discord(content: Tensor, style: Tensor, masks: Masks) -> float:
    """0 for photos that go together, 1 for those that have nothing in common, with a smooth way
    from one to the other where nobody can tell."""
    alike = likeness(content, style, masks)
    discord = min(1.0, 10 ** ((STRANGERS - alike) / TENFOLD))
    logger.info("likeness of the photos: %.2f", alike)
    return discord if discord >= LEAST_DISCORD else 0.0


def _save_masks(masks: Masks, content: Tensor, style: Tensor, folder: str | Path) -> None:
    try:
        files = save_masks(masks, content, style, folder)
    except OSError as error:
        expected = f"masks cannot be written there: {error.strerror or error}"
        raise ArgumentError("masks_dir", folder, expected) from error
    logger.info("masks: %s", ", ".join(map(str, files)))


def _check_file(argument: str, path: str | Path | None) -> None:
    if path is None:
        raise ArgumentError(argument, path, "required; give an image file")


def _pixels(result: OptimizedImage, photo: Photo, full_resolution: bool) -> np.ndarray:
    """The result as (H, W, 3) uint8, at the photo's own size if that can be had."""
    if full_resolution and result.coefficients is not None:
        return apply_coefficients(result.coefficients.cpu(), photo.pixels)
    if full_resolution:
        logger.info("without the projection the result has the working size")
    return to_pixels(result.image)
