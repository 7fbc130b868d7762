"""Measurements, run as ``python -m benchmarks.NAME`` from the checkout."""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path


def _make_importable() -> None:
    """The folder of the checkout is the package: where that is not installed, a link of its name
    makes it importable, here and in the processes that this one starts."""
    folder = tempfile.mkdtemp(prefix="photostyle_")
    atexit.register(shutil.rmtree, folder)
    Path(folder, "photostyle").symlink_to(Path(__file__).parents[1], target_is_directory=True)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])


if importlib.util.find_spec("photostyle") is None:
    _make_importable()

import photostyle.conf  # noqa: E402, F401  the same settings of the process as the programs have
