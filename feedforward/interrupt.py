"""Ctrl-C and SIGTERM as a wish to stop in good order."""

import logging
import signal

logger = logging.getLogger(__name__)


class Interrupt:
    """Notes SIGINT and SIGTERM instead of dying; the second one is not waited for."""

    def __init__(self):
        self.received = False

    def __enter__(self) -> "Interrupt":
        signals = (signal.SIGINT, signal.SIGTERM)
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
