"""Crops of a folder of photos."""

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

import numpy as np

from photostyle.data.training.crops import ORDER, Crops, random_numbers


class FolderCrops(Crops):
    """Sample n is photo n % size in the order of epoch n // size."""

    def __init__(self, folder: Path, names: list[str], start: int, **options):
        super().__init__(start, **options)
        self.folder = folder
        self.names = names
        self.epoch = -1

    def photos(self, first, step):
        """See `Crops.photos`."""
        for batch in count(first, step):
            yield from (self._from(number) for number in self.numbers(batch))

    def _from(self, number: int) -> Iterator[tuple[str, Path]]:
        epoch, position = divmod(number, len(self.names))
        if epoch != self.epoch:
            self.epoch = epoch
            generator = np.random.default_rng(random_numbers(self.seed, ORDER, epoch))
            self.order = generator.permutation(len(self.names))
        order = self.order
        for index in chain(range(position, len(order)), range(position)):
            name = self.names[order[index]]
            yield name, self.folder / name
