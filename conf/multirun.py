"""Several jobs in one call: Hydra's ``--multirun``."""

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from photostyle.conf.overrides import parse_arguments
from photostyle.conf.paths import quoted
from photostyle.ops.errors import ArgumentError

DEFECT = 1
INTERRUPTED = 130
MODE = "hydra.mode=MULTIRUN"


def is_multirun(words: Sequence[str]) -> bool:
    """Whether a command line asks for several jobs."""
    arguments = parse_arguments(words)
    if arguments.help or arguments.hydra_help:
        return False
    return arguments.multirun or MODE in arguments.overrides


def multirun(
    folder: str, config_name: str, job: Callable[[DictConfig, str], int], words: Sequence[str]
) -> int:
    """Run all jobs that a command line asks for, and return the highest of their exit codes.

    Not by `hydra.main`, which keeps what they return to itself. The job may be pickled, and run in
    another process or on another machine. Of one that raises an exception the traceback is printed,
    and its exit code is 1; after one that was interrupted no other begins.

    Args:
        folder, config_name: where the configuration is.
        job: called with the configuration of each job and what tells it from the others,
            ``strength=0.5 style=a.jpg``; returns its exit code.
        words: of the command line, paths quoted.

    Raises:
        KeyboardInterrupt: a job was interrupted.
        ArgumentError: an option that goes with single runs only.
    """
    arguments = parse_arguments(words)
    for option in ("cfg", "info", "config_dir", "config_name", "config_path"):
        if value := getattr(arguments, option):
            name = f"--{option.replace('_', '-')}"
            raise ArgumentError(name, value, "does not go with --multirun")
    overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    swept = [override.get_key_element() for override in overrides if override.is_sweep_override()]
    task = functools.partial(_one_of_several, job, frozenset(swept))
    # Hydra writes what it has been told to the folder of a sweep, which goes with it.
    with (
        TemporaryDirectory() as sweep,
        initialize_config_dir(folder, job_name=config_name, version_base="1.3"),
    ):
        overrides = [f"hydra.sweep.dir={quoted(sweep)}", *arguments.overrides, MODE]
        batches = GlobalHydra.instance().hydra.multirun(config_name, task, overrides)
    return max(result.return_value for batch in batches for result in batch)


def _one_of_several(
    job: Callable[[DictConfig, str], int], swept: frozenset[str], config: DictConfig
) -> int:
    words = HydraConfig.get().overrides.task
    name = " ".join(word for word in words if word.partition("=")[0] in swept)
    try:
        code = job(config, name)
    except Exception:  # no reason not to run the others
        print(f"error: a defect ({name})", file=sys.stderr)
        traceback.print_exc()
        return DEFECT
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code
