"""Ctrl-C where it must wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[None]:
    """While a library calls us from C: an exception raised there is dropped, so Ctrl-C waits.

    The same holds for a polite kill. Only the main thread is ever interrupted.
    """
    handlers, received, holding = {}, [], True

    def note(number, frame):
        if holding:
            received.append(number)
        else:  # before the handler is back in its place
            handlers[number](number, frame)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    handlers[number] = handler
                    signal.signal(number, note)
        yield
    finally:
        holding = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
