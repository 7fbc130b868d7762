"""Crops of WebDataset shards, and finding them."""

import os
import random
import tarfile
from collections import deque
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from photostyle.data.paths import is_photo, walk_photos
from photostyle.data.training.crops import (
    BUFFER,
    MAX_UNREADABLE,
    SHARD_ORDER,
    Crops,
    random_numbers,
)
from photostyle.ops.errors import ArgumentError

SHUFFLE_BUFFER = 500
"""Encoded photos of shards that each worker draws from; 80 MB where photos are COCO's."""

EXPECTED = (
    "give a folder of photos, a folder of .tar shards, one shard, or a pattern of shards such as "
    "train-{0000..0099}.tar"
)


def find_shards(root: str | os.PathLike) -> list[Path]:
    """The shards that ``root`` stands for, sorted, as absolute paths; none for a folder of photos.

    Raises:
        ArgumentError: there is nothing of that name or one of the shards is no tar file.
    """
    if not isinstance(root, str | os.PathLike) or not os.fspath(root):
        raise ArgumentError("root", root, EXPECTED)
    root = os.fspath(root)
    if os.path.isdir(root):
        try:
            with os.scandir(root) as entries:
                names = [entry.name for entry in entries]
        except OSError as error:
            expected = f"cannot be read: {error.strerror}"
            raise ArgumentError("root", root, expected) from error
        names = [name for name in names if name.endswith(".tar") and not name.startswith(".")]
        # The archive often stays beside what was unpacked from it.
        if not names or next(walk_photos(root, argument="root"), None) is not None:
            return []
        shards = [Path(root, name) for name in sorted(names)]
    elif "{" in root and not os.path.exists(root):
        import webdataset  # folders of photos do without

        try:
            shards = [Path(shard) for shard in webdataset.SimpleShardList(root).urls]
        except (AssertionError, ValueError) as error:
            raise ArgumentError("root", root, f"no such pattern; {EXPECTED}") from error
    else:
        shards = [Path(root)]
    missing = [shard for shard in shards if not os.path.exists(shard)]  # never raises
    if missing:
        which = "" if len(shards) == 1 else f" as {missing[0]} ({len(missing)} are missing)"
        raise ArgumentError("root", root, f"no such file or folder{which}; {EXPECTED}")
    for shard in shards:
        _check_shard(root, shard)
    return sorted(shard.absolute() for shard in shards)


def _check_shard(root: str, shard: Path) -> None:
    try:
        # Never a compressed one: what its bytes are would show while training only.
        tarfile.open(shard, "r:").close()
    except tarfile.TarError as error:
        expected = f"{shard.name} is no tar file without compression; {EXPECTED}"
        raise ArgumentError("root", root, expected) from error
    except OSError as error:
        expected = f"{shard.name} cannot be read: {error.strerror}"
        raise ArgumentError("root", root, expected) from error


class ShardCrops(Crops):
    """Each worker of each process reads its own shards of an epoch, through a shuffle buffer.

    Epochs are each worker's own, so that none waits for another: which shards it reads is drawn
    anew for each.
    """

    def __init__(self, shards: list[Path], start: int, **options):
        super().__init__(start, **options)
        self.shards = shards

    def photos(self, first, step):
        """See `Crops.photos`."""
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
        import webdataset

        empty_epochs = 0
        for epoch in count():
            generator = np.random.default_rng(random_numbers(self.seed, SHARD_ORDER, epoch))
            order = generator.permutation(len(self.shards))[stream::streams]
            shards = (self.shards[index] for index in order)
            members = chain.from_iterable(read_shard(shard, self.unreadable) for shard in shards)
            seed = random_numbers(self.seed, BUFFER, epoch, stream).generate_state(1)[0]
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


def read_shard(shard: Path, unreadable: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a shard's photos; if it is damaged, those before the damage."""
    from webdataset.tariterators import tar_file_iterator

    found = 0
    try:
        with shard.open("rb") as file:
            for member in tar_file_iterator(file, select_files=is_photo):
                yield f"{shard}/{member['fname']}", member["data"]
                found += 1
    except (OSError, EOFError, ValueError, tarfile.TarError):
        unreadable.setdefault(str(shard), f"truncated, damaged or gone after {found} photos")
