"""The feed-forward mode from files to files."""

import glob
import itertools
import logging
import os
import stat
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from photostyle.data import (
    Photo,
    PhotoOptions,
    apply_to_photo,
    check_output,
    load_visible,
    save_photo,
)
from photostyle.data.image_io import check_holds
from photostyle.data.paths import (
    FORMATS,
    check_folder,
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
from photostyle.data.rescue import save_or_rescue
from photostyle.feedforward.style_network import UNIVERSAL, load_network
from photostyle.feedforward.style_source import Styled, StyleSource
from photostyle.ops.affine import blend_affine
from photostyle.ops.console import Console
from photostyle.ops.devices import convolution_dtype, return_free_memory, select_device
from photostyle.ops.errors import ArgumentError, check_whole

logger = logging.getLogger(__name__)

GPU_BATCH = 4
LARGE = 3 * 10_000_000
"""Values of a photo whose memory is worth a hundredth of a second."""

Job = tuple[Path, Path]
"""A photo and the file to write."""


@dataclass(frozen=True)
class Report:
    """What `stylize_photos` did."""

    output: Path
    done: int
    skipped: int
    failures: tuple[str, ...]
    left: int | None  # what Ctrl-C prevented
    seconds: float
    passed_over: Mapping[str, int]  # files that are no photos, by their kind
    unreadable: tuple[str, ...]  # folders, and why

    @property
    def exit_code(self) -> int:
        """0; 130 after Ctrl-C, 1 when a photo failed or a folder could not be read."""
        return int(bool(self.failures or self.unreadable)) if self.left is None else 130

    def __str__(self) -> str:
        text = f"{self.output}: {_count(self.done)}, {self.seconds:.1f} s"
        if self.skipped:
            text += f"\nskipped: {_count(self.skipped)} that exist; overwrite=true replaces them"
        if self.passed_over:
            kinds = (f"{number} {kind}" for kind, number in self.passed_over.items())
            text += f"\npassed over: {', '.join(kinds)}"
        if self.unreadable:
            text += f"\n{_count(len(self.unreadable), 'folder')} not read: "
            text += ", ".join(self.unreadable)
        for failure in self.failures:
            text += f"\nfailed: {failure}"
        if self.left is not None:
            text += f"\ninterrupted; {_count(self.left)} left"
        return text


def stylize_photos(
    content: str | Path,
    network: str | Path | None = None,
    output: str | Path | None = None,
    *,
    style: StyleSource = StyleSource(),
    options: PhotoOptions = PhotoOptions(),
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Report:
    """Write photos in the style of a trained network, or in any style by one that takes any.

    Of a folder, with all below it, and of a pattern such as ``trip/**/*.jpg``, each photo goes to
    the same place below ``output``. Hidden files and what is in ``output`` are passed over, and
    photos that ``output`` has already are skipped. A photo that cannot be read or written does not
    stop the others, nor does a folder below that cannot be read. After Ctrl-C the photos begun are
    finished. Of a single photo the result goes elsewhere where its place cannot be written, see
    `data.rescue`; those of many the next run makes again.

    Args:
        content: an image file, a folder or a pattern.
        network: see `feedforward.load_network`; ``None``: ``universal``, which takes any style.
        output: image file, for a folder or pattern a folder; ``None`` for ``<content>_<style>`` or
            ``<content>_<network>`` in the current folder, a file with the content's own suffix.
        style: of a network that takes any.
        options: how photos are read and results are written; a network without a guided filter
            gives the working size all the same.
        batch_size: how many photos a worker reads, to show the network those of equal size at
            once; ``None`` for 1 on a CPU and 4 on a GPU.
        workers: how many threads read, compute and write, each its own photos; ``None`` for as
            many as PyTorch would use. Memory grows with ``batch_size`` times ``workers``.
        device: see `ops.devices.select_device`.
        precision: of the network's convolutions, see `ops.devices.convolution_dtype`.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    for argument, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None:
            check_whole(argument, value, 1)
    if content is None:
        raise ArgumentError("content", content, "required; give a photo, a folder or a pattern")
    if network is None and style.style is None:
        expected = "required: a photo whose style to take; or give network=NAME_OR_FILE"
        raise ArgumentError("style", None, expected)
    network = UNIVERSAL if network is None else network
    device = select_device(device)
    trained = load_network(network, device, convolution_dtype(precision, device))
    single = _is_one(content)
    style.check_for(trained, network, single=single, overwrite=options.overwrite)
    named = Path(network if style.style is None else style.style).stem
    plan = _plan(content, named, output, options)
    todo = [job for job in plan.jobs if options.overwrite or not os.path.exists(job[1])]
    styled, statistics = style.styled(trained, options, device, single=single)
    stylist = _Stylist(styled, device, options, save_or_rescue if single else save_photo)
    if trained.guided_filter is None and options.full_resolution:
        logger.info("without a guided filter the results have the working size")
    if single:
        failures, left = stylist(todo), None
        if failures:
            raise failures[0]
    else:
        if options.full_resolution:
            _check_room(plan.output, todo)
        if style.masks == "auto":  # each photo has regions of its own
            batch_size = 1
        batch_size = batch_size or (1 if device.type == "cpu" else GPU_BATCH)
        failures, left = _run(stylist, todo, batch_size, workers or torch.get_num_threads())
    done = len(todo) - len(failures) - (left or 0)
    try:
        style.save(statistics)
    except ArgumentError as error:
        if single:
            raise
        failures.append(error)
    return Report(
        plan.output,
        done,
        len(plan.jobs) - len(todo),
        tuple(map(str, failures)),
        left,
        time.monotonic() - start,
        _by_kind(plan.passed_over),
        tuple(plan.unreadable),
    )


def _is_one(content: str | Path) -> bool:
    """Whether this is one photo, be it there or not; otherwise it is a folder or a pattern."""
    status = file_status(content, "content")
    if status is None:
        return glob.escape(str(content)) == str(content)
    return not stat.S_ISDIR(status.st_mode)


@dataclass(frozen=True)
class _Plan:
    """Where to write, and each photo with its place there; and what is left out."""

    output: Path
    jobs: list[Job]
    passed_over: Sequence[Path] = ()
    unreadable: Sequence[str] = ()


def _plan(
    content: str | Path, network: str, output: str | Path | None, options: PhotoOptions
) -> _Plan:
    path = Path(content)
    if _is_one(path):
        output = Path(output or f"{path.stem}_{network}{suffix_like(path)}")
        needed = expected_size(path, output) if options.full_resolution else 0
        check_output(output, overwrite=options.overwrite, needed=needed)
        return _Plan(output, [(path, output)])

    parts = path.parts
    if not is_folder(path, "content"):
        parts = tuple(itertools.takewhile(lambda part: glob.escape(part) == part, path.parts))
    folder, pattern = Path(*parts), path.parts[len(parts) :]
    output = Path(output or f"{folder.resolve().name}_{network}")
    check_folder("output", output)
    places = [Path(os.path.realpath(place)) for place in (folder, output)]
    if places[0] == places[1]:
        raise ArgumentError("output", output, "holds the photos; give another folder")
    files, unreadable = _matching(folder, pattern, content)
    files = [name for name in files if places[1] not in (places[0] / name).parents]
    photos = [name for name in files if is_photo(name)]
    if not photos:
        if unreadable:
            expected = f"no photos there, and not read: {', '.join(unreadable)}"
            raise ArgumentError("content", content, expected)
        expected = f"no photos there; give a photo, or a folder or pattern of {' '.join(FORMATS)}"
        raise ArgumentError("content", content, expected)
    jobs = [(folder / photo, output / photo) for photo in photos]
    passed_over = [name for name in files if not is_photo(name)]
    return _Plan(output, jobs, passed_over, unreadable)


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


def _check_room(output: Path, jobs: list[Job]) -> None:
    """Refuse a disk without room for the largest photo, warn of one without room for all."""
    sizes = [expected_size(*job) for job in jobs]
    check_room("output", output, output, max(sizes, default=0))
    if (free := free_space(output)) < sum(sizes):
        message = "%s: %.1f MB are free there, the photos take %.1f MB: not all may fit"
        logger.warning(message, output, free / 1e6, sum(sizes) / 1e6)


@dataclass(frozen=True)
class _Stylist:
    """From files to files, a few photos at a time; any number of threads may call it."""

    styled: Styled
    device: torch.device
    options: PhotoOptions
    save: Callable[..., None]

    @torch.inference_mode()
    def __call__(self, jobs: list[Job]) -> list[ArgumentError]:
        """Returns what failed."""
        failures = []
        options = {"quality": self.options.quality, "overwrite": self.options.overwrite}
        by_kind = defaultdict(list)
        for source, target in jobs:
            try:
                photo = load_visible(source, max_pixels=self.options.max_pixels)
                check_holds(target, self.options.size_of(photo))
            except ArgumentError as error:
                failures.append(error)
            else:
                guide = photo.tensor(self.options.size)
                # What is transparent is a matter of each photo's own.
                kind = guide.shape if photo.is_opaque else target
                by_kind[kind].append((target, photo, guide))
        for equals in by_kind.values():
            targets, photos, guides = zip(*equals, strict=True)
            results = self._results(photos, torch.cat(guides))
            for target, result in zip(targets, results, strict=True):
                try:
                    with written("output", target):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        self.save(target, result, **options)
                except ArgumentError as error:
                    failures.append(error)
        return failures

    def _results(self, photos: Sequence[Photo], guides: Tensor) -> Iterator[Photo]:
        """The photos in the style, from their working sizes (B, 3, h, w)."""
        guides = guides.to(self.device)
        network = self.styled(guides, photos[0].opacity(self.options.size))
        coefficients = network.coefficients(guides) if self.options.full_resolution else None
        if coefficients is None:
            blend = torch.lerp(guides, network(guides), self.options.strength)
            return (
                photo.with_image(image) for photo, image in zip(photos, blend.split(1), strict=True)
            )
        if self.options.strength < 1:
            coefficients = blend_affine(coefficients, self.options.strength)
        if max(photo.pixels.size for photo in photos) > LARGE:
            return_free_memory()
        # In place: two large photos would be too many.
        return (
            apply_to_photo(maps, photo, in_place=True)
            for maps, photo in zip(coefficients.cpu().split(1), photos, strict=True)
        )


def _run(
    stylist: Callable[[list[Job]], list[ArgumentError]],
    jobs: list[Job],
    batch_size: int,
    workers: int,
) -> tuple[list[ArgumentError], int | None]:
    """Do all jobs, several batches at once.

    Returns what failed and, after Ctrl-C, how many jobs are left.

    Every worker takes its photos from file to file with its share of PyTorch's threads: two that
    compute at the same time do not wait for each other, as the threads within one operation do.
    """
    batches = [jobs[first : first + batch_size] for first in range(0, len(jobs), batch_size)]
    workers = max(1, min(workers, len(batches)))
    futures: dict[Future, int] = {}
    interrupted = False
    with (
        _torch_threads(max(1, torch.get_num_threads() // workers)),
        tqdm(total=len(jobs), unit="photo", disable=not jobs, file=Console(sys.stderr)) as bar,
        ThreadPoolExecutor(workers) as executor,
    ):
        try:
            for batch in batches:
                futures[executor.submit(stylist, batch)] = len(batch)
            for future in as_completed(futures):
                future.result()  # a defect ends the run
                bar.update(futures[future])
        except KeyboardInterrupt:
            interrupted = True
            logger.warning("interrupted; finishing the photos begun")
        finally:
            executor.shutdown(cancel_futures=True)
    done = [future for future in futures if not future.cancelled()]
    left = len(jobs) - sum(futures[future] for future in done)
    failures = itertools.chain.from_iterable(future.result() for future in done)
    return list(failures), left if interrupted else None


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(number: int, what: str = "photo") -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
