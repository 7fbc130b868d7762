"""What all entry points share: Hydra, and errors as one line and an exit code."""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photostyle.conf.renamed import new_name
from photostyle.ops.console import safe_console
from photostyle.ops.errors import ArgumentError

USER_ERROR = 2
INTERRUPTED = 130
# Their values are taken as they are, so that a file may be called "photo (1).jpg".
PATHS = {
    "baseline", "blind", "content", "content_mask", "data.root", "data.validation",
    "encoder.weights", "init", "intermediate_dir", "log_dir", "masks_dir", "network", "output",
    "pairs", "results", "save_style", "style", "style_mask", "styles",
}  # fmt: skip
SELECTS = {"styles": "kind=universal"}
"""Keys that only one choice of a group has, and that choice: given the key it need not be given."""


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
            # Hydra announces what it raises with a line of its own, but not an exit.
            with _one_line_errors():
                values = OmegaConf.to_container(config)
                missing = [key for key, value in _items(values) if value == "???"]
                for key in sorted(missing, key=lambda key: key.count(".")):
                    raise ArgumentError(key, "???", f"required; give it as {key}=VALUE")
                # Not before: --cfg job and --help are there at once.
                from photostyle.ops.devices import keep_freed_memory

                keep_freed_memory()
                with _arguments_as_keys(values):
                    code = main(config)
                sys.exit(code or 0)

        @functools.wraps(main)
        @safe_console()
        def run():
            # Lets Hydra raise its errors to us instead of printing them over many lines.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            # A polite kill saves what Ctrl-C saves.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                with _one_line_errors():
                    _refuse_old_names(sys.argv[1:])
                    sys.argv[1:] = map(_quote_path, _with_selected(sys.argv[1:]))
                    task()
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(INTERRUPTED)

        return run

    return decorate


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Report what the user got wrong, and exit."""
    try:
        yield
    except (ArgumentError, HydraException, OmegaConfBaseException) as error:
        reason = _reason(error)
        if not isinstance(reason, ArgumentError | HydraException | OmegaConfBaseException):
            raise
        print("error:", _message(reason), file=sys.stderr)
        sys.exit(USER_ERROR)


def _reason(error: BaseException) -> BaseException:
    """What Hydra has wrapped: whatever the functions that it calls raise, defects included."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _message(error: BaseException) -> str:
    # Hydra goes on about where it looked for a file of that name.
    message = " ".join(str(error).partition("Config search path")[0].split())
    if unknown := re.match(r"Could not override '([^']+)'", message):
        key = unknown[1].partition("@")[0]
        return f"{key}: there is no such argument here; --cfg job lists all"
    return message


@contextmanager
def _arguments_as_keys(config: dict) -> Iterator[None]:
    """Name arguments of functions in errors as the command line has them: root as data.root."""
    try:
        yield
    except (ArgumentError, InstantiationException) as error:
        reason = _reason(error)
        if not isinstance(reason, ArgumentError):
            raise
        key = _key_of(reason.argument, reason.value, config)
        raise ArgumentError(key, reason.value, reason.expected) from error


def _key_of(argument: str, value: object, config: dict) -> str:
    """The key that gave an argument its value, or else the argument itself.

    Of several keys whose last part is the argument, one of the same value, and the shortest.
    """
    keys = {
        key: (str(given) != str(value), key.count("."))
        for key, given in _items(config)
        if key.rpartition(".")[2] == argument and not str(given).startswith("${")
    }
    return min(keys, key=keys.get, default=argument)


def _items(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All keys, those of sections as ``section.key``, and their values."""
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _items(value, f"{prefix}{key}.")


def _refuse_old_names(words: list[str]) -> None:
    for word in words:
        key, separator, value = word.lstrip("+").partition("=")
        if separator and (name := new_name(key, value)):
            raise ArgumentError(key, value, f"is called {name} now")


def _with_selected(words: list[str]) -> list[str]:
    """Each key that stands for a choice followed by it, unless that is made already."""
    given = {word.partition("=")[0] for word in words}
    selected = []
    for word in words:
        selected.append(word)
        choice = SELECTS.get(word.partition("=")[0], "")
        if choice and choice.partition("=")[0] not in given:
            selected.append(choice)
    return selected


def _quote_path(argument: str) -> str:
    """Quote the value of ``key=path``, which Hydra's grammar would otherwise take apart."""
    key, separator, value = argument.partition("=")
    if not separator or key not in PATHS or value in ("", "null"):
        return argument
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return argument
    return f"{key}={QuotedString(value, Quote.double).with_quotes()}"
