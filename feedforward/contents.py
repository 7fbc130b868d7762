"""What a run is of, told by content: a resumed run may have its files elsewhere."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

import numpy as np
from torch import Tensor, nn

from photostyle.data.photo import to_pixels
from photostyle.ops import ArgumentError

logger = logging.getLogger(__name__)

Buffer = bytes | np.ndarray

FILES = {
    "style": {"style"},
    "encoder.weights": {"encoder.weights", "objective.encoder.weights"},
}
"""What must have the same content, by the settings that name its file."""


def contents(
    style: Tensor | None, encoder: nn.Module, photos: Sequence[str], styles: Sequence[str] = ()
) -> dict[str, str]:
    """A digest of each, by the key that gives it.

    Args:
        style: (1, 3, H, W), values in [0, 1], at the size that the run works with, or ``None``.
        encoder: its weights.
        photos, styles: names of files.
    """
    digests = {
        "encoder.weights": _digest(_weights(encoder)),
        "data.root": _digest(map(os.fsencode, photos)),
        "styles": _digest(map(os.fsencode, styles)),
    }
    if style is not None:
        pixels = to_pixels(style)
        digests["style"] = _digest([str(pixels.shape).encode(), pixels])
    return digests


def check_same_contents(contents: dict[str, str], earlier: dict[str, str], given: dict) -> None:
    """Refuse to go on with another style photo or other weights of the encoder.

    A warning tells of other photos to train on: some may have been added, or lost.

    Args:
        contents, earlier: see `contents`.
        given: the values of the keys.

    Raises:
        ArgumentError: names the key.
    """
    for key in sorted({*contents, *earlier}):
        if contents.get(key) == earlier.get(key):
            continue
        if key in FILES:
            expected = "has another content than in this run; give the same, or another output"
            raise ArgumentError(key, given.get(key), expected)
        logger.warning("%s holds other photos than before; the run goes on with them", key)


def _weights(module: nn.Module) -> Iterator[Buffer]:
    for name, tensor in module.state_dict().items():
        yield name.encode()
        yield tensor.float().cpu().contiguous().numpy()


def _digest(parts: Iterable[Buffer]) -> str:
    digest = sha256()
    for part in parts:
        digest.update(sha256(part).digest())
    return digest.hexdigest()
