"""libvips, loaded when it is first needed, and on our terms."""

import logging
import os
from functools import cache

import numpy as np


@cache
def libvips():
    """The module ``pyvips``.

    A file that has changed is read again, and what a decoder says of its file is in its error.
    """
    os.environ.setdefault("VIPS_WARNING", "0")  # libvips's own way to be silent
    import pyvips

    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    # In a call from C an exception is dropped, and it calls to log what it does: Ctrl-C was lost.
    pyvips._remove_log_handler()
    return pyvips


def to_vips(array: np.ndarray):
    """An array (H, W, C), uint8 or uint16, as an image of libvips, which shares its memory."""
    wide = array.dtype == np.uint16
    names = ("b-w", "grey16") if array.shape[2] < 3 else ("srgb", "rgb16")
    array = np.ascontiguousarray(array)
    return libvips().Image.new_from_array(array, interpretation=names[wide])


def attach_profile(image, profile: bytes):
    """The image with an ICC profile."""
    image = image.copy()
    image.set_type(libvips().GValue.blob_type, "icc-profile-data", profile)
    return image
