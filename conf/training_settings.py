"""What a resumed training run must share, and what a network's file may tell."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

NOT_RECORDED = frozenset({
    "output", "options", "resume", "device", "backend", "data.root", "styles", "data.workers",
    "data.photos", "data.validation", "photorealism.guided_filter.backend",
    "objective.backend", "intervals.log",
    "intervals.pictures", "intervals.checkpoint", "intervals.keep", "training",
})  # fmt: skip
"""Keys that do not change what a run computes, or repeat others: a resumed run may differ.

For those that it compares in another way, by content say, see `feedforward.training_run`."""

PRIVATE = frozenset({"style", "init", "encoder.weights", "objective.encoder.weights"})
"""Of the others, those that name files of this machine: a network may be given away."""


def training_settings(config: DictConfig) -> dict[str, dict]:
    """``settings`` and ``published`` for `feedforward.train_network`."""
    settings = _without(OmegaConf.to_container(config, resolve=True), NOT_RECORDED)
    return {"settings": settings, "published": _without(settings, PRIVATE)}


def _without(config: dict, keys: frozenset[str], prefix: str = "") -> dict:
    """A nested dict without some dotted keys, paths as texts."""
    return {
        key: _plain(value, keys, f"{prefix}{key}.")
        for key, value in config.items()
        if f"{prefix}{key}" not in keys
    }


def _plain(value: object, keys: frozenset[str], prefix: str) -> object:
    if isinstance(value, dict):
        return _without(value, keys, prefix)
    return str(value) if isinstance(value, Path) else value
