"""What became of each photo of a run, line by line in a CSV file."""

import csv
import errno
import fcntl
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from photostyle.data.paths import check_file, reason_of
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)

COLUMNS = ("photo", "output", "outcome", "seconds", "reason")


def check_log(path: str | os.PathLike | None) -> None:
    """Check that a log can be written; call it before any work.

    Raises:
        ArgumentError: it does not end in .csv, or cannot be written.
    """
    if path is None:
        return
    if Path(path).suffix.lower() != ".csv":
        raise ArgumentError("report", path, "give a file that ends in .csv")
    check_file(path, overwrite=True, argument="report")


class RunLog:
    """A CSV file to which any number of threads and processes add lines.

    It is there from the first line on, also if the run is killed. One that goes on adds to it.
    Photos that are skipped have no line. A log that cannot be written is given up with a warning.

    Args:
        path: the file, see `check_log`; ``None``: there is none.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = path

    def add(
        self,
        jobs: Sequence[tuple[Path, Path]],
        failures: Sequence[ArgumentError],
        seconds: float,
    ) -> None:
        """A line for each job.

        Args:
            jobs: photos and their files.
            failures: of some of them, each of one of both.
            seconds: that all took.
        """
        path = self.path  # another thread may give it up meanwhile
        if path is None or not jobs:
            return
        reasons = {str(error.value): error.expected for error in failures}
        rows = []
        for job in jobs:
            reason = next((reasons[name] for name in map(str, job) if name in reasons), "")
            outcome = "failed" if reason else "done"
            rows.append((*job, outcome, f"{seconds / len(jobs):.2f}", reason))
        self._append(path, rows)

    def _append(self, path: str | os.PathLike, rows: Sequence[tuple]) -> None:
        text = StringIO()
        writer = csv.writer(text)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                with suppress(OSError):  # some network drives have none
                    fcntl.flock(file, fcntl.LOCK_EX)  # of two that begin one writes the head
                size = os.fstat(file).st_size
                if size == 0:
                    writer.writerow(COLUMNS)
                writer.writerows(rows)
                content = text.getvalue().encode("utf-8", "surrogateescape")
                # In one piece: others add to it as well.
                if os.write(file, content) < len(content):
                    os.ftruncate(file, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
        except OSError as error:
            logger.warning("%s cannot be written and is left out: %s", path, reason_of(error))
            self.path = None
