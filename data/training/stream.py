"""Training photos as an endless stream of crops: COCO's train2017, any folder, or tar shards.

What sample n of a folder shows depends on the seed and on n alone. Hence neither the number of
workers nor an interruption changes the stream, and processes share one stream between them. Shards
(the WebDataset format) are read from start to end instead, for disks that do not like to seek:
there the numbers of workers and of processes belong to what a stream is reproduced from.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from photostyle.data.decoders import HEAD, kind_of
from photostyle.data.paths import FORMATS, walk_photos
from photostyle.data.shards import EXPECTED, find_shards
from photostyle.data.training.crops import MAX_UNREADABLE
from photostyle.data.training.folder import FolderCrops
from photostyle.data.training.shards import ShardCrops, read_shard
from photostyle.data.training.workers import start_server, start_worker
from photostyle.ops.errors import ArgumentError, check_number, check_whole

logger = logging.getLogger(__name__)

MIN_CROP = 64
"""Below this the deeper features see hardly more than their own padding."""

INSPECTED = 64
"""So many headers are read before training starts, to compare the crop with the photos."""


class TrainingPhotos:
    """An endless, reproducible stream of batches of random crops.

    A crop shows ``min_scale`` to all of its photo's area, with sides from 3:4 to 4:3 resized to a
    square, and is mirrored half of the time. An unreadable photo gives its place to the next one in
    the order that can be read.

    Worker processes import the program's main module, which therefore must start its work under
    ``if __name__ == "__main__"``.

    Args:
        root: a folder of photos (with subfolders; hidden files are passed over), a folder of
            ``*.tar`` shards, one shard, or a pattern with braces like ``train-{0000..0099}.tar``.
        crop: side of the crops in pixels, at least 64.
        batch_size: crops in a batch of this process.
        min_scale: least share of a photo's area that a crop shows, above 0 and up to 1.
        seed: of the order and the crops.
        workers: processes that load; with 0, loading is done in this one. There are never more
            than shards for them.
        process_index, process_count: this process among those that train together. Of every
            ``batch_size * process_count`` samples, each takes its own ``batch_size``.
        held_out: photos of a folder to keep out of training.

    Attributes:
        crop: as given.
        names: of all photos of a folder, relative to it, or of the shards; sorted.
        size: number of training photos; None for shards, which only reading them through tells.
        workers: processes that load.
        held_out: the photos kept out, evenly spaced in the sorted listing; none of shards.
        unreadable: why the photos met so far that cannot be read cannot, by name.

    Raises:
        ArgumentError: an argument is out of range, ``root`` is none of the above, or most photos
            are smaller than ``crop``.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        crop: int = 256,
        batch_size: int = 4,
        min_scale: float = 0.5,
        seed: int = 0,
        workers: int = 2,
        process_index: int = 0,
        process_count: int = 1,
        held_out: int = 0,
    ):
        check_whole("crop", crop, MIN_CROP)
        check_whole("batch_size", batch_size, 1)
        check_number("min_scale", min_scale, 0, 1)
        if min_scale == 0:
            raise ArgumentError("min_scale", min_scale, "give a number above 0")
        check_whole("seed", seed, 0)
        check_whole("workers", workers, 0)
        check_whole("held_out", held_out, 0)
        if not 0 <= process_index < process_count:
            raise ValueError(f"there is no process {process_index} of {process_count}")
        self._root = root
        self._options = {
            "crop": crop,
            "batch_size": batch_size,
            "min_scale": min_scale,
            "seed": seed,
            "process_index": process_index,
            "process_count": process_count,
        }
        self.crop = crop
        self.workers = workers
        self.size: int | None = None
        self.held_out: list[Path] = []
        self.unreadable: dict[str, str] = {}

        self._shards = [shard.absolute() for shard in find_shards(root, argument="root")]
        if self._shards:
            self._limit_workers(process_index, process_count)
            self.names = [shard.name for shard in self._shards]
            first_photos = islice(read_shard(self._shards[0], {}), INSPECTED)
            headers = [_header(BytesIO(content)) for _, content in first_photos]
            if not headers:
                expected = (
                    f"{self._shards[0].name} holds no photos ({' '.join(FORMATS)}); {EXPECTED}"
                )
                raise ArgumentError("root", root, expected)
        else:
            self._folder = Path(root).absolute()
            listing = sorted(walk_photos(root, argument="root"))
            if not listing:
                expected = f"holds neither photos ({' '.join(FORMATS)}) nor .tar shards; {EXPECTED}"
                raise ArgumentError("root", root, expected)
            if held_out >= len(listing):
                expected = f"give fewer than the {len(listing)} photos in {root}"
                raise ArgumentError("held_out", held_out, expected)
            self.names = listing
            apart = {position * len(listing) // held_out for position in range(held_out)}
            self.held_out = [self._folder / listing[index] for index in sorted(apart)]
            self._names = [name for index, name in enumerate(listing) if index not in apart]
            self.size = len(self._names)
            spaced = min(INSPECTED, self.size)
            inspected = [self._names[index * self.size // spaced] for index in range(spaced)]
            headers = [_header(self._folder / name) for name in inspected]
        self._check_crop(crop, headers)
        if self.workers:
            start_server()

    def batches(self, start: int = 0) -> Iterator[Tensor]:
        """The batches of this process, uint8 (batch_size, 3, crop, crop), RGB, without end.

        Workers start at once, and stop when the iterator is closed or forgotten; closing is prompt
        even where a traceback still holds it.

        Args:
            start: batches already taken in an earlier run; what follows is what would have followed
                there. Shards are read up to that point, without decoding.

        Raises:
            ArgumentError: ``start`` is no count of batches; while iterating, 1000 photos in a row
                or all of them are unreadable.
        """
        check_whole("start", start, 0)
        if self._shards:
            stream = ShardCrops(self._shards, start, **self._options)
        else:
            stream = FolderCrops(self._folder, self._names, start, **self._options)
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # Not fork: by then this process runs threads of OpenMP, Numba and CUDA, whose locks a
            # child would inherit in whatever state they are, and it has signal handlers of its own.
            # The fork server has imported torch once and nothing else.
            multiprocessing_context="forkserver" if self.workers else None,
            worker_init_fn=start_worker,
            # It would draw from the global one.
            generator=torch.Generator(),
        )
        return self._checked(iter(loader))

    def _checked(self, loader: Iterator) -> Iterator[Tensor]:
        try:
            for batch, unreadable in loader:
                for name, reason in unreadable.items():
                    if name not in self.unreadable:
                        self.unreadable[name] = reason
                        logger.warning("%s is passed over: %s", name, reason)
                if batch is None:
                    tried = MAX_UNREADABLE if self.size is None else min(self.size, MAX_UNREADABLE)
                    self._raise_unreadable(tried, *next(iter(self.unreadable.items())))
                yield batch
        finally:
            # Its last reference ends the workers. Left to the traceback it would be collected with
            # the queues that tell them to, and each would be waited for in vain.
            del loader

    def _limit_workers(self, process_index: int, process_count: int) -> None:
        """Every worker of every process needs a shard of its own."""
        shards = len(self._shards)
        if shards < process_count:
            expected = f"{shards} shards for {process_count} processes; give one shard or more each"
            raise ArgumentError("root", self._root, expected)
        limit = shards // process_count
        if self.workers > limit:
            if process_index == 0:
                message = "workers: %d instead of %d, since there are only %d shards"
                logger.warning(message, limit, self.workers, shards)
            self.workers = limit

    def _check_crop(self, crop: int, headers: list[int | str]) -> None:
        sides = [header for header in headers if isinstance(header, int)]
        if not sides:
            self._raise_unreadable(len(headers), "the first", headers[0])
        side = median_low(sides)
        if crop > side:
            found = f"the photos' short side is {side} pixels (median of {len(sides)})"
            if side < MIN_CROP:
                raise ArgumentError("root", self._root, f"{found}; give larger photos")
            raise ArgumentError("crop", crop, f"{found}; give at most {side}")

    def _raise_unreadable(self, tried: int, name: str, reason: str) -> None:
        expected = f"none of {tried} photos can be read ({name}: {reason})"
        raise ArgumentError("root", self._root, expected)


def _header(file: Path | BinaryIO) -> int | str:
    """The short side in pixels, or why there is none."""
    # A named pipe would block for ever.
    is_path = isinstance(file, Path)
    if is_path and not file.is_file():
        return "no regular file"
    try:
        with warnings.catch_warnings(), open(file, "rb") if is_path else file as stream:
            warnings.simplefilter("ignore")
            kind = kind_of(stream.read(HEAD))
            stream.seek(0)
            if kind == "HEIC":  # which Pillow alone does not know
                import pillow_heif

                return min(pillow_heif.open_heif(stream).size)
            with Image.open(stream) as image:
                return min(image.size)
    except OSError as error:
        return error.strerror or "not a picture"
    # Whatever Pillow's parsers meet in damaged bytes; training says more if it gets there.
    except Exception as error:
        return str(error)
