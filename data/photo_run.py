"""From a photo, a folder or a pattern to a file or a folder: what to do, and doing it."""

import glob
import itertools
import logging
import os
import random
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from photostyle.data.decoders import READABLE
from photostyle.data.held_files import remove_leftovers
from photostyle.data.image_io import check_holds, load_visible, save_photo
from photostyle.data.lut_output import SavedLut
from photostyle.data.paths import (
    EXISTS,
    FORMATS,
    check_apart,
    check_folder,
    check_output,
    check_room,
    expected_size,
    file_status,
    free_space,
    is_folder,
    is_photo,
    suffix_like,
    walk_files,
    written,
)
from photostyle.data.photo import Photo
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.reading import check_present
from photostyle.data.rescue import save_or_rescue
from photostyle.data.run_log import RunLog
from photostyle.ops.console import standard_error
from photostyle.ops.devices import process_share, wait_for_everyone
from photostyle.ops.errors import ArgumentError, printable

logger = logging.getLogger(__name__)

Job = tuple[Path, Path]
"""A photo and the file to write."""


@dataclass(frozen=True)
class Report:
    """What became of a photo or many.

    ``unit`` is what ``skipped`` and ``left`` count.
    """

    output: Path
    done: int
    skipped: int
    failures: tuple[str, ...]
    left: int | None  # what Ctrl-C prevented
    seconds: float
    # Files that are no photos, by their kind.
    passed_over: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()  # folders, and why
    lut: SavedLut | None = None
    unit: str = "photo"

    @property
    def exit_code(self) -> int:
        """0; 130 after Ctrl-C, 1 when a photo failed or a folder could not be read."""
        return int(bool(self.failures or self.unreadable)) if self.left is None else 130

    def __str__(self) -> str:
        text = f"{printable(self.output)}: {_count(self.done)}, {self.seconds:.1f} s"
        if self.lut is not None:
            text += f"\n{self.lut}"
        if self.skipped:
            text += f"\nskipped: {_count(self.skipped, self.unit)} that exist"
            text += "; overwrite=true replaces them"
        if self.passed_over:
            kinds = (f"{number} {kind}" for kind, number in self.passed_over.items())
            text += f"\npassed over: {printable(', '.join(kinds))}"
        if self.unreadable:
            text += f"\n{_count(len(self.unreadable), 'folder')} not read: "
            text += printable(", ".join(self.unreadable))
        for failure in self.failures:
            text += f"\nfailed: {failure}"
        if self.left is not None:
            text += f"\ninterrupted; {_count(self.left, self.unit)} left"
        return text


def is_one(content: str | Path | None) -> bool:
    """Whether this is one photo, be it there or not; otherwise it is a folder or a pattern.

    Raises:
        ArgumentError: there is no content, or it cannot be reached.
    """
    if content is None:
        raise ArgumentError("content", content, "required; give a photo, a folder or a pattern")
    status = file_status(content, "content")
    if status is None:
        return glob.escape(str(content)) == str(content)
    return not stat.S_ISDIR(status.st_mode)


@dataclass(frozen=True)
class Plan:
    """Which photos to read, and where to write them; and what is left out.

    Attributes:
        output: the file of a single photo, the folder of many.
        jobs: each photo and its file.
        options: how results are written.
        single: whether `content` was one photo.
        passed_over, unreadable: files that are no photos; folders, and why.
    """

    output: Path
    jobs: list[Job]
    options: PhotoOptions
    single: bool = False
    passed_over: Sequence[Path] = ()
    unreadable: Sequence[str] = ()

    def load(self, source: Path, target: Path) -> Photo:
        """Read a photo.

        Raises:
            ArgumentError: as `data.load_visible`; or its result is too large for its format.
        """
        photo = load_visible(source, max_pixels=self.options.max_pixels)
        check_holds(target, self.options.size_of(photo))
        return photo

    def save(self, target: Path, photo: Photo) -> None:
        """Write a result; that of a single photo elsewhere if need be, see `data.rescue`.

        Raises:
            ArgumentError: it could not be written to its place.
        """
        save = save_or_rescue if self.single else save_photo
        with written("output", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            save(target, photo, quality=self.options.quality, overwrite=self.options.overwrite)

    def run(
        self,
        work: Callable[[list[Job]], list[ArgumentError]],
        batch_size: int = 1,
        workers: int | None = None,
        log: str | Path | None = None,
    ) -> Report:
        """Do what is to do: of many photos those that are not there yet, several at once.

        Any number of processes, on one machine or several, may do so with the same output: each
        has an order of its own, see `share`, and passes over what is there by then, so that they
        share the work whatever becomes of one of them. With ``overwrite`` each does a share of its
        own instead, which takes a launcher (`ops.devices.process_share`).

        Args:
            work: called with up to ``batch_size`` jobs, by any number of threads; returns what
                failed.
            batch_size: how many jobs at once.
            workers: threads; ``None`` for as many as PyTorch would use.
            log: ``.csv`` file to which a line is added for each photo, see `data.run_log`.

        Raises:
            ArgumentError: a single photo failed.
        """
        start = time.monotonic()
        if self.single:
            failures = work(self.jobs)
            RunLog(log).add(self.jobs, failures, time.monotonic() - start)
            if failures:
                raise failures[0]
            outcome, left = Outcome(done=1), None
        else:
            rank, count = process_share()
            jobs, overwrite = self.jobs, self.options.overwrite
            if self.options.full_resolution:
                check_room_for(self.output, [job for job in jobs if not os.path.exists(job[1])])
            for folder in {target.parent for _, target in jobs}:
                remove_leftovers(folder)
            # Neighbours are often of one size, and so go through a network together.
            firsts = range(0, len(jobs), batch_size)
            batches = [jobs[first : first + batch_size] for first in firsts]
            todo = share(batches, rank, count, overwrite)
            attempt = _Attempt(work, overwrite, RunLog(log))
            outcome, left = _run(attempt, todo, workers or torch.get_num_threads())
            if count > 1 and left is None:
                wait_for_everyone()
        return outcome.report(
            self.output,
            left,
            time.monotonic() - start,
            passed_over=_by_kind(self.passed_over),
            unreadable=tuple(self.unreadable),
        )


def plan(
    content: str | Path | None,
    name: str,
    output: str | Path | None,
    options: PhotoOptions,
    **others: str | Path | None,
) -> Plan:
    """What there is to do.

    Args:
        content: an image file, a folder or a pattern such as ``trip/**/*.jpg``.
        name: of what is done to the photos, for ``<content>_<name>``.
        output: image file, for a folder or pattern a folder; ``None`` for ``<content>_<name>`` in
            the current folder, a file with the content's own suffix.
        options: how results are written.
        others: files that are read, too, by their arguments; ``None``: not given.

    Raises:
        ArgumentError: there is nothing to do, or the output cannot be written, or would replace
            what is read.
    """
    if is_one(content):
        path = Path(content)
        output = Path(output or f"{path.stem}_{name}{suffix_like(path)}")
        needed = expected_size(path, output) if options.full_resolution else 0
        check_present(READABLE, content=path)
        check_apart("output", output, content=path, **others)
        check_output(output, overwrite=options.overwrite, needed=needed)
        return Plan(output, [(path, output)], options, single=True)

    path = Path(content)

    parts = path.parts
    if not is_folder(path, "content"):
        parts = tuple(itertools.takewhile(lambda part: glob.escape(part) == part, path.parts))
    folder, pattern = Path(*parts), path.parts[len(parts) :]
    output = Path(output or f"{folder.resolve().name}_{name}")
    check_folder("output", output)
    places = [Path(os.path.realpath(place)) for place in (folder, output)]
    if places[0] == places[1]:
        raise ArgumentError("output", output, "holds the photos; give another folder")
    if places[0] in places[1].parents and (not pattern or "**" in pattern):
        logger.warning("%s is within %s: for another run its photos are content", output, folder)
    files, unreadable = _matching(folder, pattern, content)
    files = [file for file in files if places[1] not in (places[0] / file).parents]
    photos = [file for file in files if is_photo(file)]
    if not photos:
        if unreadable:
            expected = f"no photos there, and not read: {', '.join(unreadable)}"
            raise ArgumentError("content", content, expected)
        expected = f"no photos there; give a photo, or a folder or pattern of {' '.join(FORMATS)}"
        raise ArgumentError("content", content, expected)
    jobs = [(folder / photo, output / photo) for photo in photos]
    if options.overwrite:  # results may be links to photos
        sources, targets = zip(*jobs, strict=True)
        check_apart("output", targets, content=sources, **others)
    passed_over = [file for file in files if not is_photo(file)]
    return Plan(output, jobs, options, False, passed_over, unreadable)


def _matching(
    folder: Path, pattern: tuple[str, ...], content: str | Path
) -> tuple[list[Path], list[str]]:
    """The files of a folder that match a pattern, or all below it; and folders not read."""
    unreadable = []
    if not pattern:
        files = walk_files(
            folder,
            argument="content",
            unreadable=lambda path, reason: unreadable.append(f"{path} ({reason})"),
        )
        return sorted(map(Path, files)), unreadable
    if pattern[-1] == "**":
        pattern = (*pattern, "*")
    try:
        found = [path.relative_to(folder) for path in folder.glob(str(Path(*pattern)))]
        searched = [folder]
        for length in range(1, len(pattern)):
            searched += folder.glob(str(Path(*pattern[:length])))
    except ValueError as error:
        raise ArgumentError("content", content, f"no pattern: {error}") from error
    except OSError as error:
        raise ArgumentError("content", content, f"cannot be read: {error}") from error
    files = {name for name in found if not _in_hidden(name) and not os.path.isdir(folder / name)}
    # The search passes over folders that it must not enter without a word.
    closed = {
        f"{path} (no permission)"
        for path in searched
        if not _in_hidden(path.relative_to(folder) / "*")
        and os.path.isdir(path)
        and not os.access(path, os.R_OK | os.X_OK)
    }
    return sorted(files), sorted(closed)


def _in_hidden(name: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.parts[:-1])


def _by_kind(files: Sequence[Path]) -> dict[str, int]:
    """How many there are of each kind, most first: by suffix, and those that are hidden."""
    kinds = Counter(
        "hidden" if name.name.startswith(".") else name.suffix.lower() or "without a suffix"
        for name in files
    )
    return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def check_room_for(output: Path, jobs: list[Job]) -> None:
    """Refuse a disk without room for the largest photo, warn of one without room for all."""
    sizes = [expected_size(*job) for job in jobs]
    check_room("output", output, output, max(sizes, default=0))
    if (free := free_space(output)) < sum(sizes):
        message = "%s: %.1f MB are free there, the photos take %.1f MB: not all may fit"
        logger.warning(message, output, free / 1e6, sum(sizes) / 1e6)


def share(jobs: list, rank: int, count: int, overwrite: bool) -> list:
    """The jobs of a process, in its order.

    Without a launcher that is a random one: of two runs in the same order each would do at any
    moment what the other does.
    """
    if overwrite:
        return jobs[rank::count]
    if count == 1:
        return random.Random().sample(jobs, len(jobs))
    start = len(jobs) * rank // count
    return jobs[start:] + jobs[:start]


@dataclass
class Outcome:
    """What became of some jobs; sums up."""

    done: int = 0
    skipped: int = 0
    failures: Sequence[ArgumentError] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.done + other.done,
            self.skipped + other.skipped,
            (*self.failures, *other.failures),
        )

    def report(self, output: Path, left: int | None, seconds: float, **found) -> Report:
        """What to tell of it; ``found`` are fields of `Report` that have no part in it."""
        failures = tuple(map(str, self.failures))
        return Report(output, self.done, self.skipped, failures, left, seconds, **found)


@dataclass(frozen=True)
class _Attempt:
    """Do jobs unless another process has done them by now."""

    work: Callable[[list[Job]], list[ArgumentError]]
    overwrite: bool
    log: RunLog

    def __call__(self, jobs: list[Job]) -> Outcome:
        todo = [job for job in jobs if self.overwrite or not os.path.exists(job[1])]
        start = time.monotonic()
        failures = self.work(todo) if todo else []
        # What has appeared meanwhile is as good.
        appeared = {str(error.value) for error in failures if error.expected == EXISTS}
        failed = [error for error in failures if error.expected != EXISTS]
        tried = [job for job in todo if str(job[1]) not in appeared]
        self.log.add(tried, failed, time.monotonic() - start)
        return Outcome(len(tried) - len(failed), len(jobs) - len(tried), failed)


def _run(
    attempt: Callable[[list[Job]], Outcome], batches: list[list[Job]], workers: int
) -> tuple[Outcome, int | None]:
    """Do all batches of jobs, several at once.

    Returns what became of them and, after Ctrl-C, how many are left.

    Every worker takes its photos from file to file with its share of PyTorch's threads: two that
    compute at the same time do not wait for each other, as the threads within one operation do.
    """
    total = sum(map(len, batches))
    workers = max(1, min(workers, len(batches)))
    futures: dict[Future, int] = {}
    interrupted = False
    with (
        torch_threads(max(1, torch.get_num_threads() // workers)),
        tqdm(total=total, unit="photo", disable=not batches, file=standard_error()) as bar,
        ThreadPoolExecutor(workers) as executor,
    ):
        try:
            for batch in batches:
                futures[executor.submit(attempt, batch)] = len(batch)
            for future in as_completed(futures):
                future.result()  # a defect ends the run
                bar.update(futures[future])
        except KeyboardInterrupt:
            interrupted = True
            logger.warning("interrupted; finishing the photos begun")
        finally:
            executor.shutdown(cancel_futures=True)
    done = [future for future in futures if not future.cancelled()]
    left = total - sum(futures[future] for future in done)
    outcome = sum((future.result() for future in done), Outcome())
    outcome.failures = sorted(outcome.failures, key=str)
    return outcome, left if interrupted else None


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Have PyTorch compute with so many threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(number: int, what: str = "photo") -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
