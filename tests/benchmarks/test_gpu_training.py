"""Photos that are trained with and measured on, read without a decoder but Pillow."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from benchmarks.gpu_training import PhotosInMemory, ends_after, read_photos
from benchmarks.photos import load, read_photo
from photostyle.data import load_image
from photostyle.ops.errors import ArgumentError


def photo(path, width=96, height=64, **options):
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, 0 * x], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_load_is_load_image(tmp_path):
    path = photo(tmp_path / "a.png")
    assert torch.equal(load(path, 48), load_image(path, 48))


def test_a_turned_photo_is_upright(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = photo(tmp_path / "a.jpg", exif=exif)
    assert torch.equal(load(path), load_image(path))
    assert load(path).shape == (1, 3, 96, 64)


def test_a_small_photo_is_enlarged_where_that_is_asked_for(tmp_path):
    path = photo(tmp_path / "a.png")
    assert read_photo(path).pixels.shape == (64, 96, 3)
    assert read_photo(path, least=192).pixels.shape == (128, 192, 3)


def test_no_photo(tmp_path):
    (tmp_path / "a.jpg").write_text("no photo")
    with pytest.raises(ArgumentError, match=r"validation=.*a\.jpg: cannot be read"):
        load(tmp_path / "a.jpg", argument="validation")


def test_some_photos_are_held_out(tmp_path):
    for number in range(7):
        photo(tmp_path / f"{number}.png")
    (tmp_path / "8.jpg").write_text("no photo")
    photos, held_out = read_photos(tmp_path, 100)
    assert [path.name for path in held_out] == ["0.png", "3.png", "6.png"]
    assert [tuple(image.shape) for image in photos] == [(3, 64, 96)] * 4
    assert {image.dtype for image in photos} == {torch.uint8}
    photos, held_out = read_photos(tmp_path, 4)  # 0, 2, 4 and 6
    assert [path.name for path in held_out] == ["0.png", "6.png"]
    assert len(photos) == 2


def test_batches():
    images = [torch.full((3, 80, 90), value, dtype=torch.uint8) for value in (10, 200)]
    stream = PhotosInMemory(images, 64, 5, seed=0)
    batches = stream.batches()
    first, second = next(batches), next(batches)
    assert first.shape == second.shape == (5, 3, 64, 64)
    assert first.dtype == torch.uint8
    assert set(torch.cat([first, second]).unique().tolist()) == {10, 200}
    assert len(stream.drawn) == 2
    again = PhotosInMemory(images, 64, 5, seed=0).batches()
    assert torch.equal(next(again), first)


def test_ends_after():
    """It has what is inside told by SIGTERM, and survives that itself; in time nothing is told."""
    told = []
    with ends_after(0.05):
        signal.signal(signal.SIGTERM, lambda *_: told.append(os.getpid()))
        time.sleep(0.2)
    assert told == [os.getpid()]
    with ends_after(0.05):
        time.sleep(0.2)
    with ends_after(0.1):
        signal.signal(signal.SIGTERM, lambda *_: told.append(os.getpid()))
    time.sleep(0.3)
    assert len(told) == 1
