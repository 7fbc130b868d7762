"""Folders of photo pairs to measure results on: one folder a pair, named as the pair.

    pairs/01/content.jpg  style.jpg  [content_mask.png  style_mask.png]  [a baseline's result]

Suffixes are free among those that `data.load_photo` reads.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from photostyle.data.paths import FORMATS
from photostyle.ops.errors import ArgumentError


@dataclass(frozen=True)
class Pair:
    """The files of one pair.

    Attributes:
        name: of the pair, which is that of its folder.
        content: the photo to keep.
        style: the photo whose look is wanted.
        content_mask, style_mask: which part takes its style from where; both None without masks.
        baseline: another method's result on this pair, None if none was asked for.
    """

    name: str
    content: Path
    style: Path
    content_mask: Path | None = None
    style_mask: Path | None = None
    baseline: Path | None = None


def find_pairs(
    folder: str | os.PathLike, baseline: str | None = None, *, argument: str = "baseline"
) -> list[Pair]:
    """The pairs in a folder, sorted by name. Nothing is decoded.

    Each subfolder with a content or a style photo is a pair; hidden and other ones are passed over.

    Args:
        folder: holds one folder for each pair.
        baseline: file name of another method's result that lies in every pair's folder.
        argument: the caller's name for ``baseline``.

    Raises:
        ArgumentError: ``folder`` is no folder or holds no pair; a pair lacks its content, its
            style, one mask of two or the baseline, or has one of its photos twice; ``baseline`` is
            no bare file name.
    """
    if baseline is not None and Path(baseline).name != baseline:
        expected = "no such folder, nor a file's name alone; give one that every pair has"
        raise ArgumentError(argument, baseline, expected)
    subfolders = sorted(
        path
        for path in list_folder(folder, argument="pairs")
        if os.path.isdir(path) and not path.name.startswith(".")
    )
    found = (_read_pair(path, baseline, argument) for path in subfolders)
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        expected = "holds no pairs; give a folder of folders with content.* and style.*"
        raise ArgumentError("pairs", folder, expected)
    return pairs


def list_folder(folder: str | os.PathLike, *, argument: str) -> list[Path]:
    """What lies in a folder.

    Raises:
        ArgumentError: there is no such folder, it is a file, or it cannot be read.
    """
    folder = Path(folder)
    try:
        return list(folder.iterdir())
    except FileNotFoundError as error:
        raise ArgumentError(argument, folder, "no such folder") from error
    except NotADirectoryError as error:
        raise ArgumentError(argument, folder, "is a file; give a folder") from error
    except OSError as error:
        raise ArgumentError(argument, folder, f"cannot be read: {error.strerror}") from error


def find_image(folder: str | os.PathLike, stem: str, *, argument: str) -> Path | None:
    """The image file ``stem.*`` of a folder, None if there is none.

    Raises:
        ArgumentError: there are several, or as `list_folder`.
    """
    found = sorted(
        path
        for path in list_folder(folder, argument=argument)
        if path.stem == stem and path.suffix.lower() in FORMATS and os.path.isfile(path)
    )
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ArgumentError(argument, folder, f"holds {names}; leave one of them")
    return found[0] if found else None


def _read_pair(folder: Path, baseline: str | None, argument: str) -> Pair | None:
    stems = ("content", "style", "content_mask", "style_mask")
    files = {stem: find_image(folder, stem, argument="pairs") for stem in stems}
    photos, masks = ("content", "style"), ("content_mask", "style_mask")
    if not any(files[stem] for stem in photos):
        return None
    for stem in photos:
        if files[stem] is None:
            raise ArgumentError("pairs", folder, f"a pair without {stem}; add {stem}.*")
    for stem, other in (masks, masks[::-1]):
        if files[stem] is None and files[other] is not None:
            expected = f"a pair with {other} but without {stem}; give both or neither"
            raise ArgumentError("pairs", folder, expected)
    baseline_file = None if baseline is None else folder / baseline
    if baseline_file is not None and not os.path.isfile(baseline_file):
        expected = f"no such file in {folder}; give a file name that every pair has"
        raise ArgumentError(argument, baseline, expected)
    return Pair(folder.name, **files, baseline=baseline_file)
