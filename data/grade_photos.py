"""Photos by a LUT, from files to files."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from photostyle.data.cube_file import load_cube
from photostyle.data.full_resolution import apply_lut
from photostyle.data.image_io import load_photo
from photostyle.data.photo import Photo
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.photo_run import Job, Plan, Report, plan
from photostyle.data.run_log import check_log
from photostyle.ops.errors import ArgumentError, check_whole
from photostyle.ops.lut import Lut


def grade_photos(
    content: str | Path,
    lut: str | Path,
    output: str | Path | None = None,
    *,
    options: PhotoOptions = PhotoOptions(),
    workers: int | None = None,
    report: str | Path | None = None,
) -> Report:
    """Write photos in the colours of a LUT.

    A photo keeps its depth, transparency, colour space and metadata. Folders and patterns are
    treated as `feedforward.stylize_photos` does.

    Args:
        content: an image file, a folder or a pattern.
        lut: ``.cube`` file, see `data.cube_file.load_cube`; of sRGB.
        output: image file, for a folder or pattern a folder; ``None`` for ``<content>_<lut>`` in
            the current folder, a file with the content's own suffix.
        options: how photos are read and results are written.
        workers: how many threads read, compute and write; ``None`` for as many as PyTorch would
            use.
        report: ``.csv`` file to which a line is added for each photo, see `data.run_log`.

    Raises:
        ArgumentError: for anything the caller got wrong, before anything is written.
    """
    start = time.monotonic()
    check_log(report)
    if workers is not None:
        check_whole("workers", workers, 1)
    if lut is None:
        raise ArgumentError("lut", lut, "required; give a .cube file")
    photos = plan(content, Path(lut).stem, output, options)
    done = photos.run(_Grader(load_cube(lut), photos), workers=workers, log=report)
    return replace(done, seconds=time.monotonic() - start)


@dataclass(frozen=True)
class _Grader:
    """From files to files; any number of threads may call it."""

    lut: Lut
    plan: Plan

    def __call__(self, jobs: list[Job]) -> list[ArgumentError]:
        """Returns what failed."""
        failures = []
        for source, target in jobs:
            try:
                photo = load_photo(source, max_pixels=self.plan.options.max_pixels)
                self.plan.save(target, self._graded(photo))
            except ArgumentError as error:
                failures.append(error)
        return failures

    def _graded(self, photo: Photo) -> Photo:
        options = self.plan.options
        if options.full_resolution:
            return apply_lut(self.lut, photo, strength=options.strength, in_place=True)
        image = photo.tensor(options.size)
        return photo.with_image(image.lerp(self.lut(image), options.strength))
