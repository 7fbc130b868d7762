"""What all entry points share: Hydra, and errors as one line and an exit code."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ops.errors import ArgumentError

USER_ERROR = 2
INTERRUPTED = 130
# Their values are taken as they are, so that a file may be called "photo (1).jpg".
PATHS = {
    "baseline", "content", "content_mask", "encoder.weights", "intermediate_dir", "log_dir",
    "output", "pairs", "results", "style", "style_mask",
}  # fmt: skip


def entry_point(config_name: str):
    """Decorate ``main(config) -> int | None`` to run with ``conf/<config_name>.yaml``.

    The exit code is what it returns (``None``: 0); 2, with one line on stderr, for what the user
    got wrong; 130 after Ctrl-C. Anything else is a defect and keeps its traceback.
    """

    def decorate(main: Callable[[DictConfig], int | None]):
        @hydra.main(
            version_base="1.3", config_path=str(Path(__file__).parent), config_name=config_name
        )
        @functools.wraps(main)
        def task(config: DictConfig):
            for key in sorted(OmegaConf.missing_keys(config)):
                raise ArgumentError(key, "???", f"required; give it as {key}=VALUE")
            sys.exit(main(config) or 0)

        @functools.wraps(main)
        def run():
            # Lets Hydra raise its errors to us instead of printing them over many lines.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            # A polite kill saves what Ctrl-C saves.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            sys.argv[1:] = map(_quote_path, sys.argv[1:])
            try:
                task()
            except (ArgumentError, HydraException, OmegaConfBaseException) as error:
                print("error:", " ".join(str(error).split()), file=sys.stderr)
                sys.exit(USER_ERROR)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(INTERRUPTED)

        return run

    return decorate


def _quote_path(argument: str) -> str:
    """Quote the value of ``key=path``, which Hydra's grammar would otherwise take apart."""
    key, separator, value = argument.partition("=")
    if not separator or key not in PATHS or value in ("", "null") or value[0] in "'\"":
        return argument
    escaped = value.replace('"', r"\"")
    return f'{key}="{escaped}"'
