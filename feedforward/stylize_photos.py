"""The feed-forward mode from files to files."""

import glob
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from photostyle.data.paths import FORMATS, check_folder, is_photo, suffix_like, walk_photos
from photostyle.feedforward.style_network import UNIVERSAL, load_network
from photostyle.feedforward.style_source import Styled, StyleSource
from photostyle.ops.affine import blend_affine
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

    @property
    def exit_code(self) -> int:
        """0; 130 after Ctrl-C, 1 when a photo failed."""
        return int(bool(self.failures)) if self.left is None else 130

    def __str__(self) -> str:
        text = f"{self.output}: {_photos(self.done)}, {self.seconds:.1f} s"
        if self.skipped:
            text += f"\nskipped: {_photos(self.skipped)} that exist; overwrite=true replaces them"
        for failure in self.failures:
            text += f"\nfailed: {failure}"
        if self.left is not None:
            text += f"\ninterrupted; {_photos(self.left)} left"
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
    stop the others. After Ctrl-C the photos begun are finished.

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
    output, jobs = _plan(content, named, output, options.overwrite)
    todo = [job for job in jobs if options.overwrite or not job[1].exists()]
    styled, statistics = style.styled(trained, options, device, single=single)
    stylist = _Stylist(styled, device, options)
    if trained.guided_filter is None and options.full_resolution:
        logger.info("without a guided filter the results have the working size")
    if single:
        failures, left = stylist(todo), None
        if failures:
            raise failures[0]
    else:
        if style.masks == "auto":  # each photo has regions of its own
            batch_size = 1
        batch_size = batch_size or (1 if device.type == "cpu" else GPU_BATCH)
        failures, left = _run(stylist, todo, batch_size, workers or torch.get_num_threads())
    style.save(statistics)
    return Report(
        output,
        len(todo) - len(failures) - (left or 0),
        len(jobs) - len(todo),
        tuple(map(str, failures)),
        left,
        time.monotonic() - start,
    )


def _is_one(content: str | Path) -> bool:
    """Whether this is one photo, be it there or not; otherwise it is a folder or a pattern."""
    path = Path(content)
    return not path.is_dir() and (path.exists() or glob.escape(str(path)) == str(path))


def _plan(
    content: str | Path, network: str, output: str | Path | None, overwrite: bool
) -> tuple[Path, list[Job]]:
    """Where to write, and each photo with its place there."""
    path = Path(content)
    if _is_one(path):
        output = Path(output or f"{path.stem}_{network}{suffix_like(path)}")
        check_output(output, overwrite=overwrite)
        return output, [(path, output)]

    parts = path.parts
    if not path.is_dir():
        parts = tuple(itertools.takewhile(lambda part: glob.escape(part) == part, path.parts))
    folder, pattern = Path(*parts), path.parts[len(parts) :]
    output = Path(output or f"{folder.resolve().name}_{network}")
    check_folder("output", output)
    if output.resolve() == folder.resolve():
        raise ArgumentError("output", output, "holds the photos; give another folder")
    photos = [
        photo
        for photo in _matching(folder, pattern, content)
        if output.resolve() not in (folder.resolve() / photo).parents
    ]
    if not photos:
        expected = f"no photos there; give a photo, or a folder or pattern of {' '.join(FORMATS)}"
        raise ArgumentError("content", content, expected)
    return output, [(folder / photo, output / photo) for photo in photos]


def _matching(folder: Path, pattern: tuple[str, ...], content: str | Path) -> list[Path]:
    """The photos of a folder that match a pattern, or all below it; sorted, relative to it."""
    if not pattern:
        return [Path(name) for name in sorted(walk_photos(folder, argument="content"))]
    if pattern[-1] == "**":
        pattern = (*pattern, "*")
    try:
        found = {path.relative_to(folder) for path in folder.glob(str(Path(*pattern)))}
    except ValueError as error:
        raise ArgumentError("content", content, f"no pattern: {error}") from error
    return sorted(
        photo
        for photo in found
        if is_photo(photo)
        and not any(part.startswith(".") for part in photo.parts)
        and (folder / photo).is_file()
    )


@dataclass(frozen=True)
class _Stylist:
    """From files to files, a few photos at a time; any number of threads may call it."""

    styled: Styled
    device: torch.device
    options: PhotoOptions

    @torch.inference_mode()
    def __call__(self, jobs: list[Job]) -> list[ArgumentError]:
        """Returns what failed."""
        failures = []
        by_kind = defaultdict(list)
        for source, target in jobs:
            try:
                photo = load_visible(source, max_pixels=self.options.max_pixels)
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
                    target.parent.mkdir(parents=True, exist_ok=True)
                    save_photo(target, result, quality=self.options.quality)
                except ArgumentError as error:
                    failures.append(error)
                except OSError as error:
                    expected = f"cannot be written: {error.strerror or error}"
                    failures.append(ArgumentError("output", target, expected))
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
        tqdm(total=len(jobs), unit="photo", disable=not jobs) as bar,
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


def _photos(number: int) -> str:
    return f"{number} photo{'' if number == 1 else 's'}"
