"""Numba, with its code kept on disk where there is a place for it."""

from numba import njit

from photostyle.ops.interrupts import interrupts_held


def kernel(function=None, **options):
    """Decorate a function to be compiled; it lets go of the GIL.

    The first run keeps the code in the package's folder or in the user's cache, for the next one.
    Where neither can be written to, each process compiles anew. Ctrl-C waits for the compiler.

    Args:
        function: what to compile.
        options: more of ``numba.njit``'s.
    """
    if function is None:
        return lambda function: kernel(function, **options)
    # NumPy's division: Python's, which stops at a zero, keeps loops from being vectorised.
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:
        compiled = njit(**options)(function)
    # LLVM calls Python when it has a function, or wants one from the disk.
    compiled.compile = interrupts_held()(compiled.compile)
    return compiled
