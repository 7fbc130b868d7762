"""The closed form from file to file: colours by region, in less than a second."""

import time

from photostyle.data.photo_pair import Files
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import GAINS, colour_transfer
from photostyle.ops.devices import select_device
from photostyle.ops.transport import check_gains
from photostyle.optimize.report import Report


def transfer_colours(
    files: Files,
    *,
    gains: tuple[float, float] = GAINS,
    device: str = "auto",
) -> Report:
    """Write the content photo in the style photo's colours.

    Args:
        files: both photos, their masks and the result.
        gains: see `ops.colour_transfer.colour_transfer`.
        device: see `ops.devices.select_device`.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    check_gains("gains", gains)
    device = select_device(device)
    pair = files.load()
    content = pair.content.to(device)
    masks = pair.masks.content.to(device), pair.masks.style.to(device)
    coefficients = colour_transfer(content, pair.style.to(device), *masks, gains=gains)
    image = apply_affine(coefficients, content).clamp(0, 1)
    stylized = files.save(pair, image, coefficients)
    lut = files.save_lut(pair, image)
    return Report(files.target, stylized.pixels.shape[:2], time.monotonic() - start, lut=lut)
