"""Words of a command line that fit no argument: told before Hydra makes something odd of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from photostyle.ops.errors import ArgumentError

UNKNOWN = "{}: there is no such argument here; --cfg job lists all"
INNER = frozenset({"app", "data.photos", "evaluation", "files", "method", "options", "training"})
"""Sections that hand arguments on to functions; they have none of their own."""
OPTIONAL = frozenset({"photorealism.guided_filter"})
"""Sections that may be null."""
LONGEST_NAME = 200


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
    arguments = get_args_parser().parse_intermixed_args(words)
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
    with initialize_config_dir(folder, version_base="1.3"):
        config = compose(config_name, [choice.input_line for choice in choices])
    keys = dict(items(OmegaConf.to_container(config)))
    for override in overrides:
        if override not in choices:
            _check(override, keys, config)


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


def _check(override: Override, keys: dict[str, object], config: DictConfig) -> None:
    key = override.key_or_group
    inner = any(key == section or key.startswith(f"{section}.") for section in INNER)
    if key not in keys or inner or key.rpartition(".")[2].startswith("_"):
        raise HydraException(UNKNOWN.format(key))
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
