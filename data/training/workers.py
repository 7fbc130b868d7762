"""The processes that load: they outlive no trainer, and no signal meant for it ends them."""

import logging
import os
import signal
import threading
from multiprocessing import forkserver, parent_process, resource_tracker


def start_server() -> None:
    """Start the process that workers are forked from, and have it import what they need.

    That takes seconds, which pass while the caller goes on. Ctrl-C, and a SIGTERM or SIGHUP to all
    processes, must reach the trainer alone: workers inherit a mask, so there is no moment in which
    it could hit them. Server and workers end with this process, even when it is killed.
    """
    forkserver.set_forkserver_preload(["photostyle.data.training.stream"])
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        # It lifts the mask again but for SIGHUP, which it does not ignore by itself.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start_worker(_: int) -> None:
    """What a worker does before it loads: it ignores Ctrl-C and SIGHUP, ends with the trainer."""
    # Someone else may have started the server.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A minute for the trainer to save and to end them in good order.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # What a photo's metadata lack would be told in every epoch anew.
    logging.disable()
    # A killed trainer leaves the server running, which ends after its workers, and for them it is
    # the server that DataLoader would watch.
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    parent_process().join()
    os._exit(1)
