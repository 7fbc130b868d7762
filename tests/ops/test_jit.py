"""Compiled functions."""

import signal

import pytest
from numba.core import event

from photostyle.ops.jit import kernel


def new_function():
    """One that has not been compiled, and that no disk keeps."""
    return kernel(eval("lambda x: sum([x * i for i in range(10)])"))


class Interrupting(event.Listener):
    """Interrupts the compiler each time it begins with something and when it is done with it."""

    def __init__(self, number):
        self.number = number
        self.count = 0

    def on_start(self, _):
        self.count += 1
        signal.raise_signal(self.number)

    on_end = on_start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_is_compiled_comes_afterwards(number):
    """Raised where LLVM calls Python it would be dropped; and what is compiled is whole."""
    handler = signal.signal(number, signal.default_int_handler)
    function, listener = new_function(), Interrupting(number)
    try:
        with event.install_listener("numba:run_pass", listener), pytest.raises(KeyboardInterrupt):
            function(1)
    finally:
        signal.signal(number, handler)
    assert listener.count > 10
    assert function.signatures
    assert function(2) == 90


def test_options_are_numbas():
    assert kernel(fastmath=True)(eval("lambda x: x + 1.0")).targetoptions["fastmath"] is True
    assert new_function().targetoptions["nogil"] is True
