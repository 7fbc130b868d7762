"""libvips on our terms."""

import signal
import time

import numpy as np
import pytest

from photostyle.data.vips import to_vips


def write_for(seconds):
    image = to_vips(np.zeros((64, 64, 3), np.uint8))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        image.write_to_buffer(".png")


def test_an_interrupt_is_not_lost_in_libvips():
    """What is raised in a call from C is dropped."""
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                write_for(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
