"""Paths on the command line, taken as they are: a file may be called "photo (1), ${a}.jpg"."""

import os
import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

PATHS = frozenset({
    "answers", "baseline", "blind", "content", "content_mask", "data.root", "data.validation",
    "encoder.weights", "examples", "init", "intermediate_dir", "log_dir", "lut", "masks_dir",
    "network", "output", "pairs", "report", "results", "save_style", "style", "style_mask",
    "styles",
})  # fmt: skip
"""Keys whose values are paths, or names in their place."""

LISTS = frozenset({"answers"})
"""Of these, those that may have several at once: ``[FILE,FILE]``."""

# Up to a comma; one within quotes does not count.
_ITEM = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*),""", re.DOTALL)


def quote_path(word: str, *, several: bool = False) -> str:
    r"""``key=path`` such that Hydra's grammar and OmegaConf leave the path alone.

    ``~`` and ``~user`` are expanded. ``null`` stays, and means none. Quotes around the whole are
    taken off, and what is in them is read as Hydra reads it (``\'`` is a quote), unless a file has
    this very name. Words of other keys are returned as they are.

    Args:
        word: of the command line.
        several: whether a comma separates paths, unless it is within quotes or a file has this very
            name.
    """
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    if name not in PATHS or not value:
        return word
    if name in LISTS and value[0] + value[-1] == "[]" and not _exists(value):
        return f"{key}=[{_quoted_items(value[1:-1])}]"
    return f"{key}={_quoted_items(value) if several and not _exists(value) else quoted(value)}"


def quoted(path: str) -> str:
    """The value for one path, as `quote_path` describes it."""
    if path == "null":
        return path
    path = os.path.expanduser(_without_quotes(path))
    # Its escape in OmegaConf, where backslashes count before ${ only.
    path = re.sub(r"(\\*)\$\{", r"\1\1\\${", path)
    return QuotedString(path, Quote.double).with_quotes()


def shield_paths(config: DictConfig) -> None:
    """Put a `Path` for each path with a ``${``: OmegaConf would resolve a text once more."""
    for key in PATHS:
        value = OmegaConf.select(config, key)
        if isinstance(value, ListConfig):
            OmegaConf.update(config, key, [_shielded(path) for path in value])
        elif isinstance(value, str):
            OmegaConf.update(config, key, _shielded(value))


def _shielded(path: str | None) -> str | Path | None:
    return Path(path) if "${" in str(path) else path


def _quoted_items(paths: str) -> str:
    return ",".join(map(quoted, _ITEM.findall(f"{paths},"))) if paths else ""


def _without_quotes(value: str) -> str:
    if value[:1] not in ("'", '"') or _exists(value):
        return value
    try:
        parsed = OverridesParser.create().parse_override(f"path={value}").value()
    except HydraException:  # such as 'it's
        return value
    return parsed if isinstance(parsed, str) else value


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))
