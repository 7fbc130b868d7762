"""What a training run needs to go on: one file per checkpoint, complete or not there."""

import json
import logging
import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from photostyle.data.paths import atomic_file
from photostyle.data.reading import refused
from photostyle.feedforward.tensor_file import (
    Check,
    check_mapping,
    check_numbers,
    check_texts,
    checked,
    header_fields,
    read_tensors,
)
from photostyle.ops import ArgumentError
from photostyle.ops.errors import check_whole

logger = logging.getLogger(__name__)

LARGEST = 1 << 40
"""Bytes of a checkpoint: this machine has written it."""

_NAME = re.compile(r"step_(\d{8})\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run after a number of steps.

    Attributes:
        step: that number.
        tensors: weights, averages, the optimiser's moments, random states, by name.
        values: everything else, as JSON has it, see `VALUES`.
        settings: what the run was started with, nested.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict
    settings: dict


class Checkpoints:
    """The checkpoints of one run, ``step_00000100.safetensors`` and so on; the last ones are kept.

    Args:
        folder: where they are; made by the first one.
        keep: how many.
    """

    def __init__(self, folder: str | os.PathLike, keep: int):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one more, and then delete those that are too old.

        Raises:
            OSError: it cannot be written, the disk is full, say; the older ones stay.
        """
        metadata = {
            "step": str(checkpoint.step),
            "values": json.dumps(checkpoint.values),
            "settings": json.dumps(checkpoint.settings),
        }
        tensors = {key: value.contiguous() for key, value in checkpoint.tensors.items()}
        written = self.folder / f"step_{checkpoint.step:08d}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(written) as file:
            file.write(save(tensors, metadata))
            # On the disk before it takes its name: a machine may lose power.
            file.flush()
            os.fsync(file.fileno())
        # Those after it are damaged, since the run went on from one before them.
        old = [path for path in self._files() if path <= written][: -self.keep]
        with suppress(OSError):  # this one is written
            for path in old:
                path.unlink(missing_ok=True)

    def newest(self, fits: Callable[[Checkpoint], bool] = lambda _: True) -> Checkpoint | None:
        """The newest that is whole, or ``None``; damaged ones are passed over with a warning.

        Args:
            fits: whether the tensors are those of the run.
        """
        for path in reversed(self._files()):
            try:
                checkpoint = _read(path)
            except ArgumentError as error:
                logger.warning("%s is damaged and passed over (%s)", path, error.expected)
                continue
            if fits(checkpoint):
                return checkpoint
            message = "%s is damaged and passed over (its tensors are not those of the run)"
            logger.warning(message, path)
        return None

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _read(path: Path) -> Checkpoint:
    header, tensors = read_tensors(path, "checkpoint", "checkpoint", LARGEST)
    with refused("checkpoint", path, "{}"):
        step = int(_NAME.fullmatch(path.name)[1])
        if header["step"] != str(step):
            raise ValueError(f"it is of step {header['step'][:20]}")
        fields = header_fields(header, FIELDS)
        return Checkpoint(step, tensors, fields["values"], fields["settings"])


def _check_values(name: str, value: object) -> None:
    checked(name, value, VALUES)


FIELDS: dict[str, Check] = {"values": _check_values, "settings": check_mapping}
"""What a checkpoint says in its header, as JSON."""
VALUES: dict[str, Check] = {
    "skipped": partial(check_whole, minimum=0),
    "metrics": check_numbers,
    "processes": partial(check_whole, minimum=1),
    "contents": check_texts,
}


def check_same_settings(settings: dict, earlier: dict, free: Collection[str] = ()) -> None:
    """Refuse to go on with a run under other settings.

    Args:
        settings, earlier: nested dicts.
        free: dotted keys that may differ.

    Raises:
        ArgumentError: names the keys that differ, with both values.
    """
    new, old = flat(settings), flat(earlier)
    differing = [
        f"{key} is {new.get(key)}, was {old.get(key)}"
        for key in sorted({*new, *old} - {*free})
        if new.get(key) != old.get(key)
    ]
    if differing:
        expected = f"the run has another configuration: {'; '.join(differing)}"
        raise ArgumentError("resume", "true", f"{expected}; give the same, or another output")


def flat(settings: dict) -> dict[str, object]:
    """A nested dict as one of dotted keys."""
    return dict(_items(settings))


def _items(settings: dict, prefix: str = ""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
