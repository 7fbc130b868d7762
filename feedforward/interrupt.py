"""Ctrl-C and SIGTERM as a wish to stop in good order."""

import logging
import signal
import threading

logger = logging.getLogger(__name__)


class Interrupt:
    """Notes SIGINT and SIGTERM instead of dying; the second one is not waited for.

    Other threads than the main one are never interrupted.
    """

    def __init__(self):
        self.received = False

    def __enter__(self) -> "Interrupt":
        is_main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._handlers = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        logger.info("stopping after this step; once more to stop at once")
