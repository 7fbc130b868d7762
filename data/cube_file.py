"""LUTs in files: Adobe's Cube LUT Specification 1.0."""

import os
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from photostyle.data.paths import atomic_file, check_file
from photostyle.data.reading import content_of, refused
from photostyle.ops.errors import ArgumentError
from photostyle.ops.lut import Lut

SUFFIX = ".cube"
LONGEST_LINE = 1000
"""Bytes; the specification allows 250."""
LARGEST = {1: 65536, 3: 256}
"""Entries of a curve, and of each side of a cube."""
MOST = 1_000_000
"""Of any number in a table or a domain: far beyond that of any light, and floats can square it."""
NARROWEST = 1e-6
"""Of a domain, from end to end."""
LARGE = 1_000_000
"""Bytes of a cube of 33 x 33 x 33."""
_SIZES = {"LUT_1D_SIZE": 1, "LUT_3D_SIZE": 3}
_RANGES = ("LUT_1D_INPUT_RANGE", "LUT_3D_INPUT_RANGE")
"""The domain of all channels in one line, as DaVinci Resolve writes it."""
_ENTRY = "%.6f %.6f %.6f"
_HEADER = """TITLE "photostyle: sRGB in, sRGB out"
# Takes and gives the numbers of sRGB, from 0 to 1.
"""


def check_cube(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Check that a LUT can be written to ``path``; call it before any work.

    Raises:
        ArgumentError: as `paths.check_file`, and for a suffix other than ``.cube``.
    """
    if Path(path).suffix.lower() != SUFFIX:
        raise ArgumentError("lut", path, f"give a file that ends in {SUFFIX}")
    check_file(path, overwrite=overwrite, argument="lut", needed=LARGE)


def save_cube(path: str | os.PathLike, lut: Lut, *, overwrite: bool = True) -> None:
    """Write a LUT of sRGB, six decimals.

    Raises:
        OSError: the file cannot be written, or is there and ``overwrite`` is false.
    """
    dimensions = lut.table.ndim - 1 or 1
    rows = lut.table
    if lut.table.ndim == 4:  # red fastest
        rows = lut.table.transpose(2, 1, 0, 3).reshape(-1, 3)
    with atomic_file(path, overwrite=overwrite) as file:
        header = f"{_HEADER}LUT_{dimensions}D_SIZE {len(lut.table)}\n"
        for key, ends in (("DOMAIN_MIN", lut.low), ("DOMAIN_MAX", lut.high)):
            header += f"{key} {' '.join(f'{end:g}' for end in ends)}\n"
        file.write(header.encode())
        np.savetxt(file, rows, _ENTRY)


def load_cube(path: str | os.PathLike, *, argument: str = "lut") -> Lut:
    """Read a LUT, one curve for each channel or a cube.

    Args:
        path: the file.
        argument: the caller's name for it, for error messages.

    Raises:
        ArgumentError: it cannot be read; it is no LUT, one of another size than it says, larger
            than 256 a side (a curve: 65536) or with entries that are no finite numbers.
    """
    content = content_of(path, argument, give=f"a {SUFFIX} file")
    with refused(argument, path, "no LUT that can be read: {}"):
        return _read(BytesIO(content))


def _read(file: BinaryIO) -> Lut:
    """Raises ValueError with what is wrong."""
    dimensions, size, domain, first = _read_header(file)
    if size > LARGEST[dimensions]:
        raise ValueError(f"size {size}, at most {LARGEST[dimensions]} are allowed")
    if size < 2:
        raise ValueError(f"size {size}, at least 2 are needed")
    rows = _read_rows(chain([first], _lines(file)), size**dimensions)
    low, high = domain
    if not (np.abs(domain).max() <= MOST and (np.subtract(high, low) >= NARROWEST).all()):
        raise ValueError(f"a domain must be from less to more, in numbers up to {MOST:,}")
    if dimensions == 3:  # red fastest
        rows = rows.reshape(size, size, size, 3).transpose(2, 1, 0, 3)
    return Lut(np.ascontiguousarray(rows), low, high)


def _read_header(file: BinaryIO) -> tuple[int, int, tuple, str]:
    """Dimensions, size, domain, and the first line of the table."""
    found = {}
    low, high = (0.0,) * 3, (1.0,) * 3
    for line in _lines(file):
        key, *values = line.split()
        if key[0] in "+-.0123456789" or key.lower() in ("nan", "inf"):
            break
        if key in found:
            raise ValueError(f"{key} is there twice")
        found[key] = values
        if key in _SIZES:
            found[key] = _whole(key, values)
        elif key == "DOMAIN_MIN":
            low = _numbers(key, values, 3)
        elif key == "DOMAIN_MAX":
            high = _numbers(key, values, 3)
        elif key in _RANGES:
            ends = _numbers(key, values, 2)
            low, high = (ends[0],) * 3, (ends[1],) * 3
        elif key != "TITLE":
            raise ValueError(f"unknown word {key[:40]!a}")
    else:
        raise ValueError("it ends before a table")
    sizes = [key for key in _SIZES if key in found]
    if len(sizes) != 1:
        raise ValueError("give one of LUT_1D_SIZE and LUT_3D_SIZE before the table")
    return _SIZES[sizes[0]], found[sizes[0]], (low, high), line


def _read_rows(lines, count: int) -> np.ndarray:
    try:
        rows = np.loadtxt(lines, np.float32, ndmin=2, max_rows=count + 1)
    except ValueError as error:  # after the semicolon NumPy tells of its own arguments
        raise ValueError(str(error).partition(";")[0]) from error
    if rows.shape[1] != 3:
        raise ValueError(f"{rows.shape[1]} numbers in a line of the table instead of 3")
    if len(rows) != count:
        found = f"only {len(rows)}" if len(rows) < count else "more"
        raise ValueError(f"its size asks for {count} colours, and there are {found}")
    if not (np.abs(rows) <= MOST).all():  # a NaN is not
        raise ValueError(f"not all colours are finite numbers up to {MOST:,}")
    return rows


def _lines(file: BinaryIO):
    """The lines with something in them, without comments."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
        text = line.removeprefix(b"\xef\xbb\xbf").decode("latin-1").strip()
        if text and not text.startswith("#"):
            yield text


def _whole(key: str, values: list[str]) -> int:
    if len(values) != 1 or not (values[0].isascii() and values[0].isdigit()):
        raise ValueError(f"{key} needs a whole number")
    return int(values[0])


def _numbers(key: str, values: list[str], count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ValueError(f"{key} needs {count} numbers")
    return numbers
