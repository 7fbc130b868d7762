"""Files of tensors with text in their header: reading them, and checking what they say."""

import json
import os
import struct
from collections.abc import Callable, Mapping

from safetensors.torch import load
from torch import Tensor

from photostyle.data.reading import content_of, refused
from photostyle.ops.errors import ArgumentError

LARGEST = 1 << 30
"""Bytes of a network: a hundred times those of any that is of use."""

Check = Callable[[str, object], None]
"""Of a field's name and value; raises `ArgumentError`."""


def read_tensors(
    path: str | os.PathLike, argument: str, what: str, largest: int = LARGEST
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's texts and the tensors of a safetensors file; no code from it is run.

    Args:
        path: the file.
        argument: the caller's name for it.
        what: it ought to be, such as "network file".
        largest: bytes that it may have.

    Raises:
        ArgumentError: as `data.reading.content_of`, and for a file of another kind, truncated or
            damaged.
    """
    content = content_of(path, argument, give=f"a {what}", largest=largest)
    with refused(argument, path, f"no {what} ({{}})"):
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        return json.loads(content[8 : 8 + length]).get("__metadata__") or {}, tensors


def header_fields(header: dict[str, str], schema: Mapping[str, Check]) -> dict:
    """What a header says as JSON, see `checked`; other texts are left out.

    Raises:
        ValueError: something is missing, no JSON, or other than the schema wants it.
    """
    fields = {key: json.loads(text) for key, text in header.items() if key in schema}
    return checked("header", fields, schema)


def checked(name: str, fields: object, schema: Mapping[str, Check]) -> dict:
    """Fields of a header, each as its schema wants it, and no others.

    Raises:
        ArgumentError: they are not.
    """
    if not isinstance(fields, dict):
        raise ArgumentError(name, fields, "give fields by name")
    if missing := schema.keys() - fields.keys():
        raise ArgumentError(name, list(fields), f"without {', '.join(sorted(missing))}")
    if unknown := fields.keys() - schema.keys():
        raise ArgumentError(name, list(fields), f"no such thing as {', '.join(sorted(unknown))}")
    for key, value in fields.items():
        schema[key](key, value)
    return fields


def check_mapping(name: str, value: object) -> None:
    """Raise `ArgumentError` unless a field is a mapping."""
    if not isinstance(value, dict):
        raise ArgumentError(name, value, "give values by name")


def check_texts(name: str, value: object) -> None:
    """Raise `ArgumentError` unless a field is texts by name."""
    check_mapping(name, value)
    if not all(isinstance(text, str) for text in value.values()):
        raise ArgumentError(name, value, "give texts by name")


def check_numbers(name: str, value: object) -> None:
    """Raise `ArgumentError` unless a field is numbers by name, finite or not."""
    check_mapping(name, value)
    if not all(type(number) in (int, float) for number in value.values()):
        raise ArgumentError(name, value, "give numbers by name")


def check_values(name: str, tensor: Tensor, most: float) -> None:
    """Raise `ArgumentError` unless a tensor holds finite floats up to ``most``."""
    if not tensor.is_floating_point() or not (tensor.float().abs() <= most).all():
        raise ArgumentError(name, "tensor", f"give finite numbers, at most {most:g} in size")
