"""Hydra configuration: one folder per group, one file per choice."""

from conf.entry_point import entry_point

__all__ = ["entry_point"]
