"""Measurements, run as ``python -m benchmarks.NAME``."""

import photostyle.conf  # noqa: F401  the same settings of the process as the programs have
