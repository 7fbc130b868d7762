"""Words of a command line that fit no argument: told before Hydra makes something odd of them."""

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf

from photostyle.ops.errors import ArgumentError

UNKNOWN = "{}: there is no such argument here{} --cfg job lists all"
NO_ARGUMENT = "{}: is no NAME=VALUE; no spaces around =, quotes around a value that has some"
VARIANTS = {"stylize": "method", "train": "kind"}
"""The group of an entry point whose choices have arguments of their own."""
INNER = frozenset({"app", "data.photos", "evaluation", "files", "method", "options", "training"})
"""Sections that hand arguments on to functions; they have none of their own."""
OPTIONAL = frozenset({"photorealism.guided_filter"})
"""Sections that may be null."""
LONGEST_NAME = 200
LIKENESS = 0.7
"""Of an argument's name and an unknown one, from 0 to 1, for it to be what was meant."""


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Hydra's options, and ``NAME=VALUE`` as ``overrides``.

    Raises:
        HydraException: a word is neither.
    """
    arguments, unknown = get_args_parser().parse_known_intermixed_args(words)
    named = re.compile(r"~|[+]{0,2}[\w.@:-][\w.@:/-]*=")
    for word in [*unknown, *arguments.overrides]:
        if word in unknown or not named.match(word):
            raise HydraException(NO_ARGUMENT.format(word))
    return arguments


def check_overrides(folder: str, config_name: str, words: Sequence[str]) -> None:
    """Check that each key is an argument, and that sections and values are not taken for another.

    Configurations of the user's own, and groups of which a multirun tries several choices, are not
    looked into.

    Args:
        folder, config_name: where the configuration is.
        words: of the command line, paths quoted.

    Raises:
        ArgumentError: a section is given a value, a value is given a section, or a group something
            other than a name.
        HydraException: there is no such key or choice, or the words cannot be read.
    """
    arguments = parse_arguments(words)
    if arguments.help or arguments.config_dir or arguments.config_path or arguments.config_name:
        return
    groups = {path.parent.name for path in Path(folder).glob("*/*.yaml")}
    overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    overrides = [one for one in overrides if not one.is_hydra_override()]
    choices = [one for one in overrides if one.key_or_group in groups]
    for choice in choices:
        _check_choice(choice)
    if any(choice.is_sweep_override() for choice in choices):
        return
    try:
        with initialize_config_dir(folder, version_base="1.3"):
            config = compose(config_name, [choice.input_line for choice in choices])
    except ConfigCompositionException as error:
        if refused := re.match(r"Could not override '([^'@]+)", str(error)):
            raise _unknown(refused[1], folder, config_name) from error
        raise
    keys = dict(items(OmegaConf.to_container(config)))
    for override in overrides:
        if override not in choices:
            if not _is_argument(override.key_or_group, keys):
                raise _unknown(override.key_or_group, folder, config_name)
            _check_value(override, config)


def items(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All keys, those of sections as ``section.key``, and their values."""
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from items(value, f"{prefix}{key}.")


def _check_choice(override: Override) -> None:
    for value in _values(override):
        # Hydra looks for a file of that name.
        is_name = isinstance(value, str) and len(value) < LONGEST_NAME
        if override.is_delete() or not is_name:
            raise ArgumentError(override.key_or_group, value, "give the name of a choice")


def _is_argument(key: str, keys: Iterable[str]) -> bool:
    inner = any(key == section or key.startswith(f"{section}.") for section in INNER)
    return key in keys and not inner and not key.rpartition(".")[2].startswith("_")


def _unknown(key: str, folder: str, config_name: str) -> HydraException:
    """With a hint: the choices that have such an argument, or else one of a similar name."""
    choices = [()]
    if group := VARIANTS.get(config_name):
        files = sorted(Path(folder, group).glob("*.yaml"))
        choices = [(f"{group}={file.stem}",) for file in files]
    arguments = {}
    with initialize_config_dir(folder, version_base="1.3"):
        for choice in choices:
            names = dict(items(OmegaConf.to_container(compose(config_name, [*choice]))))
            arguments[choice] = {name for name in names if _is_argument(name, names)}
    having = [choice for choice, names in arguments.items() if key in names]
    similar = difflib.get_close_matches(key, sorted(set().union(*arguments.values())), 1, LIKENESS)
    hint = ";"
    if having:
        hint = f", but with {' or '.join(*zip(*having, strict=True))};"
    elif similar:
        hint = f"; did you mean {similar[0]}?"
    return HydraException(UNKNOWN.format(key, hint))


def _check_value(override: Override, config: DictConfig) -> None:
    key = override.key_or_group
    section = key in OPTIONAL or isinstance(OmegaConf.select(config, key), DictConfig)
    for value in _values(override):
        if override.is_delete():
            raise ArgumentError(f"~{key}", value, "give it a value; it cannot be left out")
        if section and not (value is None and key in OPTIONAL):
            raise ArgumentError(key, value, f"a section; give its arguments as {key}.NAME=VALUE")
        if isinstance(value, dict):
            raise ArgumentError(key, value, "give a value, no section")


def _values(override: Override) -> list:
    """One of each kind that there is; none of those that Hydra makes, names by a pattern, say."""
    if not override.is_sweep_override():
        return [override.value()]
    if override.is_range_sweep():
        return [override.value().start]
    known = override.value_type in (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
    return [*override.sweep_iterator()] if known else []
