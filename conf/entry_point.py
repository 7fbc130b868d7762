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
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photostyle import __version__
from photostyle.conf.multirun import INTERRUPTED, is_multirun, multirun
from photostyle.conf.overrides import UNKNOWN, check_overrides, items
from photostyle.conf.paths import quote_path, shield_paths
from photostyle.conf.renamed import new_name
from photostyle.ops.console import safe_console
from photostyle.ops.errors import ArgumentError, printable

FOLDER = str(Path(__file__).parent)
USER_ERROR = 2
SEVERAL = "{}: give one value; decimals have a point, lists brackets, and --multirun tries several"
SELECTS = {"styles": "kind=universal"}
"""Keys that only one choice of a group has, and that choice: given the key it need not be given."""


def entry_point(config_name: str):
    """Decorate ``main(config) -> int | None`` to run with ``conf/<config_name>.yaml``.

    The exit code is what it returns (``None``: 0); 2, with one line on stderr, for what the user
    got wrong; 130 after Ctrl-C, SIGTERM or SIGHUP. Anything else is a defect and keeps its
    traceback. With ``--multirun`` it is called for one job after the other, or wherever a launcher
    takes them, and the exit code is the highest of theirs.
    """

    def decorate(main: Callable[[DictConfig], int | None]):
        def job(config: DictConfig, name: str = "") -> int:
            return _exit_code(_call, main, config, job=name)

        @hydra.main(version_base="1.3", config_path=FOLDER, config_name=config_name)
        @functools.wraps(main)
        def single(config: DictConfig):
            # Hydra announces what it raises with a line of its own, but not an exit.
            sys.exit(job(config))

        def command(words: list[str]) -> int | None:
            if "--version" in words:  # Hydra would tell its own
                print("photostyle", __version__)
                return None
            _refuse_old_names(words)
            several = is_multirun(words)
            words = [quote_path(word, several=several) for word in _with_selected(words)]
            check_overrides(FOLDER, config_name, words)
            if several:
                return multirun(FOLDER, config_name, job, words)
            sys.argv[1:] = words
            return single()

        @functools.wraps(main)
        @safe_console()
        def run():
            # Lets Hydra raise its errors to us instead of printing them over many lines.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            # A polite kill saves what Ctrl-C saves, and so does a console that is closed.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(signal.SIGHUP, _hang_up)
            try:
                code = _exit_code(command, sys.argv[1:])
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                code = INTERRUPTED
            sys.exit(code)

        return run

    return decorate


def _hang_up(number, frame) -> None:
    """A polite kill, once: of a console that is closed both shell and system tell."""
    signal.signal(number, signal.SIG_IGN)
    signal.raise_signal(signal.SIGTERM)


def _call(main: Callable[[DictConfig], int | None], config: DictConfig) -> int | None:
    values = OmegaConf.to_container(config)
    missing = [key for key, value in items(values) if value == "???"]
    for key in sorted(missing, key=lambda key: key.count(".")):
        raise ArgumentError(key, "???", f"required; give it as {key}=VALUE")
    # Not before: --cfg job and --help are there at once.
    from photostyle.ops.devices import keep_freed_memory

    keep_freed_memory()
    shield_paths(config)
    with _arguments_as_keys(values):
        return main(config)


def _exit_code(call: Callable[..., int | None], *arguments, job: str = "") -> int:
    """What a call returns, or else 2 and a line on stderr of what the user got wrong."""
    try:
        return call(*arguments) or 0
    except (ArgumentError, HydraException, OmegaConfBaseException) as error:
        cause = reason(error)
        if not isinstance(cause, ArgumentError | HydraException | OmegaConfBaseException):
            raise
        print("error:", printable(_message(cause) + (job and f" ({job})")), file=sys.stderr)
        return USER_ERROR


def reason(error: BaseException) -> BaseException:
    """What Hydra has wrapped: whatever the functions that it calls raise, defects included."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _message(error: BaseException) -> str:
    # Hydra goes on about where it looked for a file of that name.
    message = " ".join(str(error).partition("Config search path")[0].split())
    if unknown := re.match(r"Could not override '([^']+)'", message):
        key = unknown[1].partition("@")[0]
        return UNKNOWN.format(key, ";")
    if wrong := re.search(r"Could not find '(.+)/(.+)' Available options in '.+': (.+)", message):
        group, name, choices = wrong.groups()
        return f"{group}={name}: unknown; choose one of {', '.join(choices.split())}"
    if several := re.match(r"Ambiguous value for argument '(.+)' 1\. ", message):
        return SEVERAL.format(several[1])
    return message


@contextmanager
def _arguments_as_keys(config: dict) -> Iterator[None]:
    """Name arguments of functions in errors as the command line has them: root as data.root."""
    try:
        yield
    except (ArgumentError, InstantiationException) as error:
        cause = reason(error)
        if not isinstance(cause, ArgumentError):
            raise
        key = _key_of(cause.argument, cause.value, config)
        raise ArgumentError(key, cause.value, cause.expected) from error


def _key_of(argument: str, value: object, config: dict) -> str:
    """The key that gave an argument its value, or else the argument itself.

    Of several keys whose last part is the argument, or which such a key refers to, one of the same
    value, and the shortest.
    """
    given = dict(items(config))
    named = (key for key in given if key.rpartition(".")[2] == argument)
    keys = {_source(key, given) for key in named} & given.keys()
    order = {key: (str(given[key]) != str(value), key.count("."), key) for key in keys}
    return min(order, key=order.get, default=argument)


def _source(key: str, given: dict[str, object]) -> str:
    """The key whose value a key has: ``seed`` of ``options.seed: ${seed}``."""
    while reference := re.fullmatch(r"\$\{([\w.]+)\}", str(given.get(key))):
        key = reference[1]
    return key


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
