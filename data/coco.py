"""Training photos as an endless stream of crops: COCO's train2017, any folder, or tar shards.

What sample n of a folder shows depends on the seed and on n alone. Hence neither the number of
workers nor an interruption changes the stream, and processes share one stream between them. Shards
(the WebDataset format) are read from start to end instead, for disks that do not like to seek:
there the numbers of workers and of processes belong to what a stream is reproduced from.
"""

import logging
import os
import random
import signal
import tarfile
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain, count, islice
from multiprocessing import forkserver, parent_process, resource_tracker
from pathlib import Path, PurePath
from statistics import median_low
from tempfile import NamedTemporaryFile
from typing import BinaryIO

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.transforms import v2
from webdataset.tariterators import tar_file_iterator

from data.images import FORMATS, load_photo
from ops.errors import ArgumentError, check_number, check_whole

logger = logging.getLogger(__name__)

MIN_CROP = 64
"""Below this the deeper features see hardly more than their own padding."""

MAX_PIXELS = 100_000_000
"""Each worker may have such a photo in memory, 0.7 GB while it is decoded; larger ones count as
unreadable."""

INSPECTED = 64
"""So many headers are read before training starts, to compare the crop with the photos."""

MAX_UNREADABLE = 1000
"""So many in a row are no accident: the run ends instead of searching on."""

SHUFFLE_BUFFER = 500
"""Encoded photos of shards that each worker draws from; 80 MB where photos are COCO's."""

_RIGHT = (
    "give a folder of photos, a folder of .tar shards, one shard, or a pattern of shards such as "
    "train-{0000..0099}.tar"
)
# What a random number is for: equal numbers for different purposes must not be related.
_AUGMENTATION, _ORDER, _SHARD_ORDER, _BUFFER = range(4)


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
        check_number("data.min_scale", min_scale, 0, 1)
        if min_scale == 0:
            raise ArgumentError("data.min_scale", min_scale, "give a number above 0")
        check_whole("seed", seed, 0)
        check_whole("data.workers", workers, 0)
        check_whole("data.held_out", held_out, 0)
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

        self._shards = find_shards(root)
        if self._shards:
            self._limit_workers(process_index, process_count)
            first_photos = islice(_members(self._shards[0], {}), INSPECTED)
            headers = [_header(BytesIO(content)) for _, content in first_photos]
            if not headers:
                expected = f"{self._shards[0].name} holds no photos ({' '.join(FORMATS)}); {_RIGHT}"
                raise ArgumentError("data.root", root, expected)
        else:
            self._folder = Path(root).absolute()
            listing = find_photos(root)
            if held_out >= len(listing):
                expected = f"give fewer than the {len(listing)} photos in {root}"
                raise ArgumentError("data.held_out", held_out, expected)
            apart = {position * len(listing) // held_out for position in range(held_out)}
            self.held_out = [self._folder / listing[index] for index in sorted(apart)]
            self._names = [name for index, name in enumerate(listing) if index not in apart]
            self.size = len(self._names)
            spaced = min(INSPECTED, self.size)
            inspected = [self._names[index * self.size // spaced] for index in range(spaced)]
            headers = [_header(self._folder / name) for name in inspected]
        self._check_crop(crop, headers)
        if self.workers:
            _start_server()

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
            stream = _ShardCrops(self._shards, start, **self._options)
        else:
            stream = _FolderCrops(self._folder, self._names, start, **self._options)
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # Not fork: by then this process runs threads of OpenMP, Numba and CUDA, whose locks a
            # child would inherit in whatever state they are, and it has signal handlers of its own.
            # The fork server has imported torch once and nothing else.
            multiprocessing_context="forkserver" if self.workers else None,
            worker_init_fn=_start_worker,
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
            raise ArgumentError("data.root", self._root, expected)
        limit = shards // process_count
        if self.workers > limit:
            if process_index == 0:
                message = "data.workers: %d instead of %d, since there are only %d shards"
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
                raise ArgumentError("data.root", self._root, f"{found}; give larger photos")
            raise ArgumentError("crop", crop, f"{found}; give at most {side}")

    def _raise_unreadable(self, tried: int, name: str, reason: str) -> None:
        expected = f"none of {tried} photos can be read ({name}: {reason})"
        raise ArgumentError("data.root", self._root, expected)


# ---------------------------------------------------------------------------------------- finding


def find_shards(root: str | os.PathLike) -> list[Path]:
    """The shards that ``root`` stands for, sorted, as absolute paths; none for a folder of photos.

    Raises:
        ArgumentError: there is nothing of that name or one of the shards is no tar file.
    """
    if not isinstance(root, str | os.PathLike) or not os.fspath(root):
        raise ArgumentError("data.root", root, _RIGHT)
    root = os.fspath(root)
    if os.path.isdir(root):
        try:
            with os.scandir(root) as entries:
                names = [entry.name for entry in entries]
        except OSError as error:
            expected = f"cannot be read: {error.strerror}"
            raise ArgumentError("data.root", root, expected) from error
        names = [name for name in names if name.endswith(".tar") and not name.startswith(".")]
        # The archive often stays beside what was unpacked from it.
        if not names or next(_walk(Path(root)), None) is not None:
            return []
        shards = [Path(root, name) for name in sorted(names)]
    elif "{" in root and not os.path.exists(root):
        try:
            shards = [Path(shard) for shard in webdataset.SimpleShardList(root).urls]
        except (AssertionError, ValueError) as error:
            raise ArgumentError("data.root", root, f"no such pattern; {_RIGHT}") from error
    else:
        shards = [Path(root)]
    missing = [shard for shard in shards if not os.path.exists(shard)]  # never raises
    if missing:
        which = "" if len(shards) == 1 else f" as {missing[0]} ({len(missing)} are missing)"
        raise ArgumentError("data.root", root, f"no such file or folder{which}; {_RIGHT}")
    for shard in shards:
        _check_shard(root, shard)
    return sorted(shard.absolute() for shard in shards)


def _check_shard(root: str, shard: Path) -> None:
    try:
        # Never a compressed one: what its bytes are would show while training only.
        tarfile.open(shard, "r:").close()
    except tarfile.TarError as error:
        expected = f"{shard.name} is no tar file without compression; {_RIGHT}"
        raise ArgumentError("data.root", root, expected) from error
    except OSError as error:
        expected = f"{shard.name} cannot be read: {error.strerror}"
        raise ArgumentError("data.root", root, expected) from error


def find_photos(folder: str | os.PathLike) -> list[str]:
    """The photos below a folder: sorted paths, relative to it.

    Links to folders are followed, each folder is read once, and what is hidden is passed over.
    Files are told by their suffix; none is opened.

    Raises:
        ArgumentError: there are none, or a folder cannot be read.
    """
    photos = sorted(_walk(Path(folder)))
    if not photos:
        expected = f"holds neither photos ({' '.join(FORMATS)}) nor .tar shards; {_RIGHT}"
        raise ArgumentError("data.root", folder, expected)
    return photos


def _walk(top: Path) -> Iterator[str]:
    def refuse(error: OSError):
        expected = f"cannot be read: {error.strerror}"
        raise ArgumentError("data.root", error.filename, expected) from error

    seen = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Which of two ways to a folder is taken must not depend on the file system's order.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = os.path.relpath(folder, top)
        yield from (
            os.path.normpath(os.path.join(below, name)) for name in files if _is_photo(name)
        )


def _is_photo(name: str) -> bool:
    path = PurePath(name)
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")


def _header(file: Path | BinaryIO) -> int | str:
    """The short side in pixels, or why there is none."""
    # A named pipe would block for ever.
    if isinstance(file, Path) and not file.is_file():
        return "no regular file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return min(image.size)
    except OSError as error:
        return error.strerror or "not a picture"
    # Whatever Pillow's parsers meet in damaged bytes; training says more if it gets there.
    except Exception as error:
        return str(error)


# ---------------------------------------------------------------------------------------- loading


def _random_numbers(seed: int, *purpose: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=purpose)


class _Crops(IterableDataset):
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
        seed = _random_numbers(self.seed, _AUGMENTATION, number).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the GPUs of this process as well.
            torch.default_generator.manual_seed(int(seed))
            return self.augment(torch.from_numpy(pixels).permute(2, 0, 1)).contiguous()

    def _first_readable(self, candidates: Iterable[tuple[str, Path | bytes]]) -> np.ndarray | None:
        for name, photo in islice(candidates, MAX_UNREADABLE):
            if name in self.unreadable:
                continue
            try:
                return _pixels(photo)
            except _UnreadableError as error:
                self.unreadable[name] = str(error)
        return None


class _FolderCrops(_Crops):
    """Sample n is photo n % size in the order of epoch n // size."""

    def __init__(self, folder: Path, names: list[str], start: int, **options):
        super().__init__(start, **options)
        self.folder = folder
        self.names = names
        self.epoch = -1

    def photos(self, first, step):
        for batch in count(first, step):
            yield from (self._from(number) for number in self.numbers(batch))

    def _from(self, number: int) -> Iterator[tuple[str, Path]]:
        epoch, position = divmod(number, len(self.names))
        if epoch != self.epoch:
            self.epoch = epoch
            generator = np.random.default_rng(_random_numbers(self.seed, _ORDER, epoch))
            self.order = generator.permutation(len(self.names))
        order = self.order
        for index in chain(range(position, len(order)), range(position)):
            name = self.names[order[index]]
            yield name, self.folder / name


class _ShardCrops(_Crops):
    """Each worker of each process reads its own shards of an epoch, through a shuffle buffer.

    Epochs are each worker's own, so that none waits for another: which shards it reads is drawn
    anew for each.
    """

    def __init__(self, shards: list[Path], start: int, **options):
        super().__init__(start, **options)
        self.shards = shards

    def photos(self, first, step):
        # Batch b has been worker b % step's in the run before this one, and is its stream now.
        stream = self.process_index * step + first % step
        members = self._members(stream, self.process_count * step)
        for _ in islice(members, first // step * self.batch_size):
            pass
        ahead = deque()
        while True:
            # One photo per sample, whether it can be read or not: else to find the place after an
            # interruption all of them would have to be decoded.
            yield _lookahead(ahead, members)
            if not ahead:
                return
            ahead.popleft()

    def _members(self, stream: int, streams: int) -> Iterator[tuple[str, bytes]]:
        empty_epochs = 0
        for epoch in count():
            generator = np.random.default_rng(_random_numbers(self.seed, _SHARD_ORDER, epoch))
            order = generator.permutation(len(self.shards))[stream::streams]
            shards = (self.shards[index] for index in order)
            members = chain.from_iterable(_members(shard, self.unreadable) for shard in shards)
            seed = _random_numbers(self.seed, _BUFFER, epoch, stream).generate_state(1)[0]
            shuffle = webdataset.shuffle(
                SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=random.Random(int(seed))
            )
            empty_epochs += 1
            for member in shuffle(members):
                empty_epochs = 0
                yield member
            # A shard without photos is the fault of one, but shards can also have gone.
            if empty_epochs == MAX_UNREADABLE:
                return


def _lookahead(ahead: deque, members: Iterator) -> Iterator:
    """The members from the next one on; what is taken from the iterator stays in ``ahead``."""
    for index in count():
        if index == len(ahead):
            member = next(members, None)
            if member is None:
                return
            ahead.append(member)
        yield ahead[index]


def _members(shard: Path, unreadable: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a shard's photos; if it is damaged, those before the damage."""
    found = 0
    try:
        with shard.open("rb") as file:
            for member in tar_file_iterator(file, select_files=_is_photo):
                yield f"{shard}/{member['fname']}", member["data"]
                found += 1
    except (OSError, EOFError, ValueError, tarfile.TarError):
        unreadable.setdefault(str(shard), f"truncated, damaged or gone after {found} photos")


class _UnreadableError(Exception):
    """A photo that cannot be used; its message is why."""


def _pixels(photo: Path | bytes) -> np.ndarray:
    """The decoded photo, (H, W, 3) uint8, upright RGB."""
    if isinstance(photo, bytes):
        with NamedTemporaryFile() as file:
            file.write(photo)
            file.flush()
            return _pixels(Path(file.name))
    try:
        return load_photo(photo, argument="photo", max_pixels=MAX_PIXELS).pixels
    except ArgumentError as error:
        raise _UnreadableError(str(error).removeprefix(f"photo={photo}: ")) from error


# ---------------------------------------------------------------------------------------- workers


def _start_server() -> None:
    """Start the process that workers are forked from, and have it import what they need.

    That takes seconds, which pass while the caller goes on. Ctrl-C, and a SIGTERM to all processes,
    must reach the trainer alone: workers inherit a mask, so there is no moment in which it could
    hit them. Server and workers end with this process, even when it is killed.
    """
    forkserver.set_forkserver_preload([__name__])
    # It would lift the mask again if it were started with the server.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(_: int) -> None:
    # Someone else may have started the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A minute for the trainer to save and to end them in good order.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # What a photo's metadata lack would be told in every epoch anew.
    logging.disable()
    # A killed trainer leaves the server running, which ends after its workers, and for them it is
    # the server that DataLoader would watch.
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    parent_process().join()
    os._exit(1)
