"""A file of TensorBoard's, written at once and in this thread.

TensorBoard's own writer works in a thread, which has no one to tell of an error and ends with the
first.
"""

import os
import socket
import time
from io import BytesIO
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """Curves and pictures of a run from a step on.

    Args:
        folder: made with the first event.
        first_step: what other files of the folder hold of this step and later ones is taken back,
            as after a checkpoint that a run is resumed from.
    """

    def __init__(self, folder: str | os.PathLike, first_step: int = 0):
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = Path(folder) / name
        self._size = 0
        self._head = (
            _event(first_step, file_version="brain.Event:2"),
            _event(first_step, session_log=SessionLog(status=SessionLog.START)),
        )

    def add(self, step: int, *summaries: Summary) -> None:
        """Write points and pictures of a step, all of them or none.

        Args:
            step: their number.
            summaries: as of ``torch.utils.tensorboard.summary``.

        Raises:
            OSError: they cannot be written; a later call may succeed.
        """
        content = BytesIO()
        records = RecordWriter(content)
        for event in () if self._size else self._head:
            records.write(event.SerializeToString())
        for summary in summaries:
            records.write(_event(step, summary=summary).SerializeToString())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # Off with what the disk had no more room for.
            file.truncate(self._size)
            file.write(content.getvalue())
        self._size += len(content.getvalue())


def _event(step: int, **values) -> Event:
    return Event(wall_time=time.time(), step=step, **values)
