"""Crops of WebDataset shards."""

import random
import tarfile
from collections import deque
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from photostyle.data.paths import is_photo
from photostyle.data.shards import DAMAGED, check_size, headers
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
        import webdataset  # takes a second, and folders of photos do without

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
    found = 0
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in headers(archive):
                if not info.isreg() or not is_photo(info.name):
                    continue
                name = f"{shard}/{info.name}"
                try:
                    check_size(info, name, argument="photo")
                except ArgumentError as error:
                    unreadable.setdefault(name, error.expected)
                else:
                    yield name, archive.extractfile(info).read()
                found += 1
    except DAMAGED:
        unreadable.setdefault(str(shard), f"truncated, damaged or gone after {found} photos")
