"""Configuration, and what all entry points share; it needs Hydra where it is used, not here."""

import os

# OpenMP's threads that wait for work spin for milliseconds unless told otherwise, on the very cores
# that the operator's threads need then. Read when PyTorch is loaded, so it comes before the rest.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
