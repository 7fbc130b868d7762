"""The optimiser from file to file."""

import logging
import time
from pathlib import Path

from photostyle.data.paths import check_folder
from photostyle.data.photo_pair import Files, PhotoPair
from photostyle.ops import StyleObjective
from photostyle.ops.devices import convolution_dtype, select_device
from photostyle.ops.errors import check_choice, check_whole
from photostyle.optimize.callbacks import (
    Expendable,
    IntermediatePictures,
    ProgressBar,
    TensorBoardLog,
)
from photostyle.optimize.image_optimizer import INITS, OptimizedImage, optimize_image
from photostyle.optimize.report import Report

logger = logging.getLogger(__name__)


def stylize_photo(
    files: Files,
    *,
    init: str = "colour_transfer",
    device: str = "auto",
    precision: str = "auto",
    log_dir: str | Path | None = None,
    intermediate_dir: str | Path | None = None,
    intermediate_every: int = 10,
    **optimisation,
) -> Report:
    """Write the content photo in the style photo's light.

    What is shown on the way may fail to be written; it is left out then, with a warning. The result
    goes elsewhere where its place cannot be written, see `data.rescue`.

    Args:
        files: both photos, their masks and the result.
        init: see `optimize.optimize_image`.
        device, precision: see `optimize_pair`.
        log_dir: folder for TensorBoard.
        intermediate_dir: folder for a picture every ``intermediate_every`` steps; those of an
            earlier run are replaced only where the output may be.
        optimisation: passed on to `optimize_pair`: the objective and the guided filter, for two.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    check_choice("init", init, INITS)
    check_whole("intermediate_every", intermediate_every, 1)
    check_folder("log_dir", log_dir)
    check_folder("intermediate_dir", intermediate_dir)
    convolution_dtype(precision, select_device(device))
    pictures = None
    if intermediate_dir is not None:
        overwrite = files.options.overwrite
        pictures = IntermediatePictures(intermediate_dir, intermediate_every, overwrite=overwrite)
    pair = files.load()
    callbacks = []
    if log_dir is not None:
        log = TensorBoardLog(log_dir, intermediate_every)
        callbacks.append(Expendable(log, "log_dir", log_dir))
    if pictures is not None:
        callbacks.append(Expendable(pictures, "intermediate_dir", intermediate_dir))
    with ProgressBar() as bar:
        callbacks.append(bar)
        result = optimize_pair(
            pair,
            init=init,
            device=device,
            precision=precision,
            seed=files.seed,
            callback=lambda step: [callback(step) for callback in callbacks],
            **optimisation,
        )
    if result.stopped:
        logger.warning("%s; writing the best picture so far", result.stopped)
    stylized = files.save(pair, result.image, result.coefficients)
    lut = files.save_lut(pair, result.image)
    seconds = time.monotonic() - start
    size = stylized.pixels.shape[:2]
    return Report(files.target, size, seconds, result.terms, result.stopped, lut)


def optimize_pair(
    pair: PhotoPair,
    *,
    objective: StyleObjective,
    device: str = "auto",
    precision: str = "auto",
    **optimisation,
) -> OptimizedImage:
    """What `stylize_photo` does between reading and writing, on the device.

    Args:
        pair: both photos and their masks.
        objective: the losses and their weights; its encoder a `ops.VGGFeatures`, or another
            with ``convolve_in(dtype)``.
        device: see `ops.devices.select_device`.
        precision: of the encoder's convolutions, see `ops.devices.convolution_dtype`; it is
            the objective's from then on.
        optimisation: passed on to `optimize.optimize_image`: the guided filter and where to start,
            for two.

    Raises:
        ArgumentError: for values other than these.
    """
    device = select_device(device)
    objective.encoder.convolve_in(convolution_dtype(precision, device))
    return optimize_image(
        pair.content.to(device),
        pair.style.to(device),
        objective.to(device),
        content_masks=pair.masks.content.to(device),
        style_masks=pair.masks.style.to(device),
        **optimisation,
    )
