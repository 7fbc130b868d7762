"""What several tests of the operator share."""

import numba
import pytest


@pytest.fixture(scope="session")
def cf_laplacian():
    """pymatting's matting Laplacian, as plain Python: (H, W, 3) -> a sparse matrix.

    On its import all of pymatting is compiled for half a minute; small photos do without.
    """
    compiled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        import pymatting
    finally:
        numba.config.DISABLE_JIT = compiled
    return pymatting.cf_laplacian
