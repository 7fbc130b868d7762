"""Photos from shards to shards: each shard whole or not at all, its files in their order."""

import copy
import logging
import os
import tarfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from tqdm import tqdm

from photostyle.data.decoders import HEAD, kind_of
from photostyle.data.held_files import remove_leftovers
from photostyle.data.image_io import encode_photo, load_visible
from photostyle.data.paths import (
    AppearedError,
    atomic_file,
    check_folder,
    is_folder,
    is_photo,
    reason_of,
    written,
)
from photostyle.data.photo import Photo
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.photo_run import Outcome, Report, check_room_for, share, torch_threads
from photostyle.data.run_log import RunLog
from photostyle.data.shards import DAMAGED, MAX_BYTES, check_size, headers
from photostyle.ops.console import standard_error
from photostyle.ops.devices import process_share, wait_for_everyone
from photostyle.ops.errors import ArgumentError

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """A file on its way from one shard to another.

    Attributes:
        info: its header.
        source, target: its name in both, with the shard's.
        is_work: whether it is a photo by its first bytes or by its name, or too large.
        kind: the format that its first bytes tell, as `data.paths.FORMATS` has it; or None.
        content: of a photo.
        result: the content of what becomes of it; None until then.
    """

    info: tarfile.TarInfo
    source: str
    target: str
    is_work: bool = False
    kind: str | None = None
    content: bytes | None = None
    result: bytes | None = None


Work = Callable[[list[tuple[Member, Member]]], list[ArgumentError]]
"""As of `data.photo_run.Plan.run`; a photo's source and target are the same member."""


@dataclass(frozen=True)
class ShardPlan:
    """Which shards to read, and where to write them.

    Attributes:
        output: a folder.
        jobs: each shard and the one to write.
        options: how results are written.
    """

    output: Path
    jobs: list[tuple[Path, Path]]
    options: PhotoOptions

    def load(self, source: Member, _: Member) -> Photo:
        """Read a photo.

        Raises:
            ArgumentError: as `data.load_visible`, and for a file that is too large.
        """
        check_size(source.info, source.source, argument="content")
        return load_visible(
            source.source, max_pixels=self.options.max_pixels, content=source.content
        )

    def save(self, target: Member, photo: Photo) -> None:
        """Keep a result, in the format of its photo.

        Raises:
            ArgumentError: as `data.image_io.encode_photo`.
        """
        target.result = encode_photo(
            photo, target.kind, name=target.target, quality=self.options.quality
        )

    def run(
        self,
        work: Work,
        batch_size: int = 1,
        workers: int | None = None,
        log: str | Path | None = None,
    ) -> Report:
        """Make the shards that are not there yet, one after the other, several photos at once.

        Processes share the shards as they do photos, see `data.photo_run.Plan.run`. A photo that
        fails is left out of its shard, and one shard that is damaged does not stop the others.
        After Ctrl-C the shard begun is left out.

        Args:
            work: called with up to ``batch_size`` photos, by any number of threads; saves their
                results and returns what failed.
            batch_size: how many photos at once.
            workers: threads; ``None`` for as many as PyTorch would use.
            log: ``.csv`` file to which a line is added for each photo, see `data.run_log`.
        """
        start = time.monotonic()
        rank, count = process_share()
        todo = share(self.jobs, rank, count, self.options.overwrite)
        if self.options.full_resolution:
            check_room_for(self.output, [job for job in todo if not os.path.exists(job[1])])
        remove_leftovers(self.output)
        workers = workers or torch.get_num_threads()
        outcome, left = Outcome(), None
        with (
            torch_threads(max(1, torch.get_num_threads() // workers)),
            tqdm(unit="photo", file=standard_error()) as bar,
            ThreadPoolExecutor(workers) as executor,
        ):
            # Twice as many as can be worked on: a large photo need not keep others from beginning.
            pipeline = _Pipeline(work, executor, batch_size, ahead=2 * workers)
            convert = _Converter(pipeline, self.options.overwrite, RunLog(log), bar)
            for number, job in enumerate(todo):
                try:
                    outcome += convert(*job)
                except KeyboardInterrupt:
                    logger.warning("interrupted; the shard begun is left out")
                    left = len(todo) - number
                    break
        if count > 1 and left is None:
            wait_for_everyone()
        return outcome.report(self.output, left, time.monotonic() - start, unit="shard")


def plan_shards(
    shards: Sequence[Path],
    content: str | Path,
    name: str,
    output: str | Path | None,
    options: PhotoOptions,
) -> ShardPlan:
    """What there is to do.

    Args:
        shards: what ``content`` stands for, see `data.shards.shards_of`.
        content: a shard, or a folder or pattern of shards.
        name: of what is done to the photos, for ``<content>_<name>``.
        output: folder; ``None`` for ``<content>_<name>`` in the current folder, named after the
            shard or the folder of the shards.
        options: how results are written.

    Raises:
        ArgumentError: two shards have one name, or the output is no folder for them.
    """
    named = Counter(shard.name for shard in shards)
    twice = next((shard for shard, count in named.items() if count > 1), None)
    if twice is not None:
        raise ArgumentError("content", content, f"{named[twice]} shards are called {twice}")
    if output is None:
        alone = shards[0] == Path(content)
        output = f"{shards[0].stem if alone else shards[0].resolve().parent.name}_{name}"
    output = Path(output)
    if output.suffix == ".tar" and not is_folder(output, "output"):
        raise ArgumentError("output", output, "give a folder; shards keep their names in it")
    check_folder("output", output)
    jobs = [(shard, output / shard.name) for shard in shards]
    if any(os.path.realpath(shard) == os.path.realpath(target) for shard, target in jobs):
        raise ArgumentError("output", output, "holds the shards; give another folder")
    return ShardPlan(output, jobs, options)


@dataclass(frozen=True)
class _Pipeline:
    """Work on the photos among some members, several batches at once."""

    work: Work
    executor: Executor
    batch_size: int
    ahead: int

    def __call__(
        self, members: Iterable[Member]
    ) -> Iterator[tuple[list[Member], list[ArgumentError], float]]:
        """The members in their order, in parts: with what failed, and the seconds that it took."""
        waiting: deque[tuple[list[Member], Future]] = deque()
        try:
            for part in self._parts(members):
                waiting.append((part, self.executor.submit(self._timed, part)))
                if len(waiting) > self.ahead:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()

    def _parts(self, members: Iterable[Member]) -> Iterator[list[Member]]:
        """Members in parts of ``batch_size`` photos."""
        part, photos = [], 0
        for member in members:
            part.append(member)
            photos += member.is_work
            if photos == self.batch_size:
                yield part
                part, photos = [], 0
        if part:
            yield part

    def _timed(self, part: list[Member]) -> tuple[list[ArgumentError], float]:
        start = time.monotonic()
        jobs = [(member, member) for member in part if member.is_work]
        failures = self.work(jobs) if jobs else []
        # Anew: what was raised refers to the functions it went through, and they to the photos.
        failures = [ArgumentError(e.argument, e.value, e.expected) for e in failures]
        return failures, time.monotonic() - start

    @staticmethod
    def _next(waiting: deque) -> tuple[list[Member], list[ArgumentError], float]:
        part, future = waiting.popleft()
        return part, *future.result()


@dataclass(frozen=True)
class _Converter:
    """From a shard to a shard, unless another process has made it by now."""

    pipeline: _Pipeline
    overwrite: bool
    log: RunLog
    bar: tqdm

    def __call__(self, shard: Path, target: Path) -> Outcome:
        start = time.monotonic()
        try:
            with written("output", target):
                return self._made(shard, target)
        except ArgumentError as error:
            self.log.add([(shard, target)], [error], time.monotonic() - start)
            return Outcome(failures=[error])

    def _made(self, shard: Path, target: Path) -> Outcome:
        if self._is_there(target):
            return Outcome(skipped=1)
        self.bar.set_postfix_str(shard.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(target, overwrite=self.overwrite) as file:
                parts = self._written(shard, target, file)
        except AppearedError:
            return Outcome(skipped=1)
        outcome = Outcome()
        for jobs, failures, seconds in parts:
            self.log.add(jobs, failures, seconds)
            outcome += Outcome(len(jobs) - len(failures), failures=failures)
        return outcome

    def _written(self, shard: Path, target: Path, file) -> list[tuple]:
        """Write the shard; returns the photos, what failed and the seconds of each part."""
        done = []
        with _opened(shard) as archive, tarfile.open(fileobj=file, mode="w") as result:
            members = _members(archive, shard, target)
            with closing(self.pipeline(members)) as parts:
                for part, failures, seconds in parts:
                    if self._is_there(target):
                        raise AppearedError(target)
                    for member in part:
                        _add(member, archive, result)
                    jobs = [(member.source, member.target) for member in part if member.is_work]
                    self.bar.update(len(jobs))
                    done.append((jobs, failures, seconds))
        if not any(jobs for jobs, _, _ in done):
            raise ArgumentError("content", shard, "holds no photos")
        return done

    def _is_there(self, target: Path) -> bool:
        return not self.overwrite and os.path.exists(target)


def _opened(shard: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(shard, "r:")
    except DAMAGED as error:
        raise ArgumentError("content", shard, f"cannot be read: {reason_of(error)}") from error


def _members(archive: tarfile.TarFile, shard: Path, target: Path) -> Iterator[Member]:
    found = 0
    try:
        for info in headers(archive):
            member = Member(info, f"{shard}/{info.name}", f"{target}/{info.name}")
            if info.isreg():
                _look_into(member, archive)
            yield member
            found += 1
    except DAMAGED as error:
        expected = f"damaged or cut off after {found} files; give a complete shard"
        raise ArgumentError("content", shard, expected) from error


def _look_into(member: Member, archive: tarfile.TarFile) -> None:
    if member.info.size > MAX_BYTES:
        member.is_work = True
        return
    file = archive.extractfile(member.info)
    member.kind = kind_of(file.read(HEAD))
    member.is_work = member.kind is not None or is_photo(member.info.name)
    if member.is_work:
        file.seek(0)
        member.content = file.read()


def _add(member: Member, archive: tarfile.TarFile, result: tarfile.TarFile) -> None:
    """Add a result, or what is no photo as it is; of a photo that failed nothing."""
    if member.result is not None:
        result.addfile(_plain(member.info, len(member.result)), BytesIO(member.result))
    elif member.info.isreg() and not member.is_work:
        result.addfile(_plain(member.info, member.info.size), archive.extractfile(member.info))
    elif not member.info.isreg():  # a folder or a link
        info = copy.copy(member.info)
        info.size = 0
        result.addfile(info)


def _plain(info: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    """The header of a file of another size, which is not sparse."""
    plain = tarfile.TarInfo(info.name)
    for name in ("mode", "mtime", "uid", "gid", "uname", "gname"):
        setattr(plain, name, getattr(info, name))
    plain.size = size
    return plain
