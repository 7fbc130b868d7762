"""What one loading process does: photos in an order, decoded, cropped and put into batches."""

from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from torchvision.transforms import v2

from photostyle.data.image_io import load_photo
from photostyle.ops.errors import ArgumentError

MAX_PIXELS = 100_000_000
"""Each worker may have such a photo in memory, 0.7 GB while it is decoded; larger ones count as
unreadable."""

MAX_UNREADABLE = 1000
"""So many in a row are no accident: the run ends instead of searching on."""

# What a random number is for: equal numbers for different purposes must not be related.
AUGMENTATION, ORDER, SHARD_ORDER, BUFFER = range(4)


def random_numbers(seed: int, *purpose: int) -> np.random.SeedSequence:
    """Random numbers of their own for each purpose."""
    return np.random.SeedSequence(seed, spawn_key=purpose)


class Crops(IterableDataset):
    """What one worker does: each W-th batch of a process, W the number of its workers.

    Yields (batch, unreadable): uint8 (batch_size, 3, crop, crop), or None when too many photos in
    a row are unreadable, and those met since the last batch, by name. An exception would lose its
    type on the way between processes.
    """

    def __init__(
        self,
        start: int,
        *,
        crop: int,
        batch_size: int,
        min_scale: float,
        seed: int,
        process_index: int,
        process_count: int,
    ):
        self.start = start
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.process_count = process_count
        self.unreadable: dict[str, str] = {}
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(crop, scale=(min_scale, 1), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def photos(self, first: int, step: int) -> Iterator[Iterable[tuple[str, Path | bytes]]]:
        """For each sample of batches first, first + step, ...: its photo and those to replace it,
        in this order, as name and file or content."""
        raise NotImplementedError

    def numbers(self, batch: int) -> range:
        """The samples of a batch of this process, counted over all processes."""
        first = (batch * self.process_count + self.process_index) * self.batch_size
        return range(first, first + self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor | None, dict[str, str]]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        reported = 0
        photos = self.photos(self.start + worker, workers)
        for batch in count(self.start + worker, workers):
            # An exhausted stream has nothing to read either.
            crops = [self._crop(number, next(photos, ())) for number in self.numbers(batch)]
            complete = all(crop is not None for crop in crops)
            yield (
                torch.stack(crops) if complete else None,
                dict(islice(self.unreadable.items(), reported, None)),
            )
            reported = len(self.unreadable)

    def _crop(self, number: int, candidates: Iterable[tuple[str, Path | bytes]]) -> Tensor | None:
        pixels = self._first_readable(candidates)
        if pixels is None:
            return None
        seed = random_numbers(self.seed, AUGMENTATION, number).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the GPUs of this process as well.
            torch.default_generator.manual_seed(int(seed))
            return self.augment(torch.from_numpy(pixels).permute(2, 0, 1)).contiguous()

    def _first_readable(self, candidates: Iterable[tuple[str, Path | bytes]]) -> np.ndarray | None:
        for name, photo in islice(candidates, MAX_UNREADABLE):
            if name in self.unreadable:
                continue
            try:
                return _pixels(name, photo)
            except _UnreadableError as error:
                self.unreadable[name] = str(error)
        return None


class _UnreadableError(Exception):
    """A photo that cannot be used; its message is why."""


def _pixels(name: str, photo: Path | bytes) -> np.ndarray:
    """The decoded photo, (H, W, 3) uint8, upright RGB."""
    path, content = (name, photo) if isinstance(photo, bytes) else (photo, None)
    try:
        return load_photo(path, max_pixels=MAX_PIXELS, content=content).in_srgb().pixels
    except ArgumentError as error:
        raise _UnreadableError(error.expected) from error
