"""libvips on our terms."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from photostyle.data import load_image, save_image
from photostyle.data.vips import to_vips


def repeat(seconds, function, *arguments):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        function(*arguments)


def test_an_interrupt_is_not_lost_in_libvips():
    """What is raised in a call from C is dropped."""
    # Loaded before the first signal: an import that is cut short is none.
    image = to_vips(np.zeros((64, 64, 3), np.uint8))
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                repeat(5, image.write_to_buffer, ".png")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


# An interrupt between Python's open and its with leaves the file to the collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_photo_is_written_comes_afterwards(tmp_path, number):
    """And what is written is whole."""
    noise = torch.rand(1, 3, 500, 500, generator=torch.Generator().manual_seed(0))
    save_image(noise, tmp_path / "a.png")
    handler = signal.signal(number, signal.default_int_handler)
    try:
        for i in range(10):
            timer = threading.Timer(0.02 + 0.003 * i, os.kill, (os.getpid(), number))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                repeat(5, save_image, noise, tmp_path / "a.png")
            timer.join()
    finally:
        signal.signal(number, handler)
    assert load_image(tmp_path / "a.png").shape == noise.shape
