"""A result is the last thing to lose: where it goes when its own place cannot be written."""

import itertools
import logging
import os
import tempfile
from pathlib import Path

from photostyle.data.image_io import save_photo
from photostyle.data.paths import EXISTS, reason_of
from photostyle.data.photo import Photo
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)


def save_or_rescue(
    path: str | os.PathLike, photo: Photo, *, quality: int = 95, overwrite: bool = True
) -> None:
    """As `data.save_photo`, but what cannot be written to ``path`` is written elsewhere.

    That is ``<name>_rescued.png`` in the same folder or, where that fails too, in the one for
    temporary files.

    Raises:
        ArgumentError: it could not be written to ``path``; says where it is now, if anywhere.
    """
    try:
        save_photo(path, photo, quality=quality, overwrite=overwrite)
    except ArgumentError as error:
        raise ArgumentError("output", path, f"{error.expected}; {_rescue(path, photo)}") from error
    except OSError as error:
        expected = f"cannot be written: {reason_of(error)}; {_rescue(path, photo)}"
        raise ArgumentError("output", path, expected) from error
    except Exception:  # a defect, of an encoder say, which keeps its traceback
        logger.error("%s cannot be written; %s", path, _rescue(path, photo))
        raise


def _rescue(path: str | os.PathLike, photo: Photo) -> str:
    """Write the photo somewhere; returns a sentence on where it is."""
    reasons = []
    for folder in (Path(path).parent, Path(_temporary_folder())):
        try:
            rescued = _save_under_free_name(folder, Path(path).stem, photo)
        except Exception as error:
            reasons.append(f"{folder}: {reason_of(error)}")
        else:
            return f"the result is in {rescued}"
    return f"the result is lost, since nothing else could be written ({'; '.join(reasons)})"


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # it tries to write to each
        return os.curdir


def _save_under_free_name(folder: Path, stem: str, photo: Photo) -> Path:
    while True:
        path = _free_name(folder, stem)
        try:
            save_photo(path, photo, overwrite=False)
        except ArgumentError as error:
            if error.expected != EXISTS:  # else another process was faster
                raise
        else:
            return path


def _free_name(folder: Path, stem: str) -> Path:
    # Short: the name may be what was wrong.
    names = (
        f"{stem[:40]}_rescued{number}.png" for number in itertools.chain([""], itertools.count(2))
    )
    return next(path for name in names if not os.path.lexists(path := folder / name))
