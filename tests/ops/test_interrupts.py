"""Signals that wait."""

import signal
import threading

import pytest

from photostyle.ops.interrupts import interrupts_held

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handled():
    """Sets both handlers, and puts those of before back."""
    before = {number: signal.getsignal(number) for number in BOTH}

    def handle(handler):
        for number in BOTH:
            signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_what_is_raised_comes_afterwards(handled, number):
    handled(signal.default_int_handler)
    held = interrupts_held()
    held.__enter__()
    signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        held.__exit__(None, None, None)
    assert {signal.getsignal(number) for number in BOTH} == {signal.default_int_handler}


def test_each_signal_comes(handled):
    """Training stops in good order at the first, and at once at the second."""
    noted = []
    handled(lambda number, _: noted.append(number))
    with interrupts_held():
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert noted == []
    assert noted == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]


def test_an_interrupt_on_the_way_out_leaves_handlers_that_work(handled, monkeypatch):
    """When one handler is back in its place and the other is not."""
    handled(signal.default_int_handler)
    put_back = signal.signal

    def interrupted(number, handler):
        put_back(number, handler)
        if handler is signal.default_int_handler:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt), interrupts_held():
        monkeypatch.setattr(signal, "signal", interrupted)
    monkeypatch.undo()
    for number in BOTH:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_signals_that_are_ignored_stay_so(handled):
    handled(signal.SIG_IGN)
    with interrupts_held():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_another_thread_nothing_is_held(handled):
    handled(signal.default_int_handler)
    found = []

    def work():
        with interrupts_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
