"""Films: decoded, changed picture by picture and encoded again; all else in them is copied."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import lazy_loader

from photostyle.data.film_frame import BT601, BT709, BT2020, FilmFrame, Planes
from photostyle.data.film_writer import FORMATS, FilmWriter
from photostyle.data.paths import EXISTS, AppearedError, atomic_file, check_file, reason_of
from photostyle.ops.errors import ArgumentError

av = lazy_loader.load("av")

logger = logging.getLogger(__name__)

CUT_OFF = 0.5
"""Seconds that may be missing of what a film announces: the last packets' durations are guesses."""
FULL = 2
MATRICES = {1: BT709, 5: BT601, 6: BT601, 9: BT2020, 10: BT2020}
HDR = {16: "PQ", 18: "HLG"}
"""What a file says of range, matrix and curve, numbered as in ISO/IEC 23091-2 (range: FFmpeg)."""


@dataclass(frozen=True)
class Levels:
    """How pictures are stored, and what their numbers mean.

    Attributes:
        layout: FFmpeg's name of planar luma and chroma, of 8 or 10 bits.
        bits: 8 or 10.
        luma, full_range: see `FilmFrame`.
        from_rgb: whether the film itself has RGB, which is converted to this.
    """

    layout: str
    bits: int
    luma: tuple[float, float]
    full_range: bool
    from_rgb: bool

    @classmethod
    def of(cls, context) -> Self:
        """Those of a decoder's pictures, in the planar layout that is nearest."""
        layout = context.format
        from_rgb = layout.is_rgb or layout.name == "pal8"
        bits = 10 if max(component.bits for component in layout.components) > 8 else 8
        if from_rgb or context.width % 2 or context.height % 2:
            chroma = "44"  # of odd sides most encoders take no other
        elif len(layout.components) < 3 or layout.chroma_height(64) < 64:
            chroma = "20"
        else:
            chroma = "22" if layout.chroma_width(64) < 64 else "44"
        # What players take for what says nothing: HD from its size on, else SD.
        unsaid = BT709 if from_rgb or context.width >= 1280 or context.height > 576 else BT601
        return cls(
            f"yuv4{chroma}p{'10le' if bits == 10 else ''}",
            bits,
            unsaid if from_rgb else MATRICES.get(context.colorspace, unsaid),
            not from_rgb and (context.color_range == FULL or layout.name.startswith("yuvj")),
            from_rgb,
        )


class Film:
    """An open film, see `open_film`.

    Attributes:
        width, height: in pixels, as stored; a film may be shown turned.
        frames: how many pictures it has, about; ``None`` where it says nothing of it.
    """

    def __init__(self, path: str | os.PathLike, container):
        self.path = path
        self.container = container
        self.stream = self._pictures()
        context = self.stream.codec_context
        self.width, self.height = context.width, context.height
        self.levels = Levels.of(context)
        if (curve := HDR.get(context.color_trc)) is not None:
            logger.warning("%s: its %s levels are treated as those of ordinary films", path, curve)
        rate = self.stream.average_rate
        seconds = None if container.duration is None else container.duration / av.time_base
        self.frames = self.stream.frames or (round(seconds * rate) if seconds and rate else None)

    def rewrite(
        self,
        path: str | os.PathLike,
        change: Callable[[FilmFrame, Planes], None],
        *,
        quality: int = 95,
        overwrite: bool = True,
        progress: Callable[[], object] = lambda: None,
    ) -> int:
        """Write the film with other pictures; returns how many there are.

        Sound, subtitles, covers, chapters and metadata are copied as they are; a warning names what
        the container of ``path`` cannot hold. Times, rotation, chroma's resolution, bits (8, or 10
        for more) and the meaning of levels are kept. Nothing is there under the name of ``path``
        until all of it is. Memory does not grow with the film.

        Args:
            path: with one of the suffixes in `film_writer.FORMATS`.
            change: called with each picture, in order, and the planes to write the new one to.
            quality: 1 to 100.
            overwrite: whether ``path`` may exist.
            progress: called after each picture.

        Raises:
            ArgumentError: the film is cut off or damaged, or ``path`` cannot be written.
        """
        container_format = FORMATS[Path(path).suffix.lower()]
        with (
            _written(path),
            atomic_file(path, overwrite=overwrite) as file,
            _container(file.name, container_format) as container,
        ):
            writer = FilmWriter(self, container, container_format, quality)
            for packet in self._packets():
                if packet.stream.index != self.stream.index:
                    writer.copy(packet)
                    continue
                for frame in self._decoded(packet):
                    writer.write(frame, change)
                    progress()
            if writer.count == 0:
                raise ArgumentError("content", self.path, "none of its pictures can be read")
            writer.finish()
        return writer.count

    def _pictures(self):
        """The first stream of moving pictures; covers of albums are streams, too."""
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self.container.streams.video if not s.disposition & cover]
        if not streams:
            raise ArgumentError("content", self.path, "holds no moving pictures")
        context = streams[0].codec_context
        if context is None or context.format is None or not (context.width and context.height):
            raise ArgumentError("content", self.path, "its pictures cannot be decoded")
        context.thread_type = "AUTO"
        return streams[0]

    def _packets(self) -> Iterator:
        end = Fraction(0)
        with _read(self.path):
            for packet in self.container.demux():
                end = max(end, _end(packet))
                yield packet
        if self.container.duration is None:
            return
        # Matroska's duration counts from 0, that of others from the first picture.
        from_zero = "matroska" in self.container.format.name
        start = 0 if from_zero else (self.container.start_time or 0) / av.time_base
        seconds = float(end) - start
        announced = self.container.duration / av.time_base
        if seconds < announced - CUT_OFF:
            expected = f"cut off: of {announced:.1f} seconds {max(seconds, 0):.1f} are there"
            raise ArgumentError("content", self.path, expected)

    def _decoded(self, packet) -> list:
        with _read(self.path):
            return packet.decode()


@contextmanager
def open_film(path: str | os.PathLike) -> Iterator[Film]:
    """Open a film, until the block ends.

    Raises:
        ArgumentError: PyAV is missing, or this is no film that can be read.
    """
    if find_spec("av") is None:
        raise ArgumentError("content", path, "films need PyAV: pip install 'photostyle[video]'")
    with _read(path):
        container = av.open(_url(path))
    with container:
        yield Film(path, container)


def suffix_of_result(path: str | os.PathLike) -> str:
    """A film's own suffix or, of a container that is not written, ``.mkv``."""
    suffix = Path(path).suffix
    return suffix if suffix.lower() in FORMATS else ".mkv"


def check_film_output(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Check that a film can be written to ``path``; call it before any work.

    Raises:
        ArgumentError: as `paths.check_file`, and for a suffix that belongs to no container.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ArgumentError("output", path, f"a film: end its name in one of {' '.join(FORMATS)}")
    check_file(path, overwrite=overwrite, argument="output")


def _url(path: str | os.PathLike) -> str:
    """A path for FFmpeg, which would take ``a:b.mp4`` for an address."""
    return f"file:{os.fspath(path)}"


def _end(packet) -> Fraction:
    """When what is in a packet is over, in seconds."""
    time = packet.pts if packet.pts is not None else packet.dts
    return Fraction(0) if time is None else (time + (packet.duration or 0)) * packet.time_base


@contextmanager
def _container(path: str, container_format: str) -> Iterator:
    """To be written, closed in any case; of several errors the first is the one to tell.

    By its path, not as a file of Python's: what Ctrl-C raises while FFmpeg calls Python is lost.
    """
    container = av.open(_url(path), "w", format=container_format)
    try:
        yield container
    except BaseException:
        with suppress(OSError, av.FFmpegError):
            container.close()
        raise
    container.close()


@contextmanager
def _read(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        expected = f"no film that can be read: {reason_of(error)}"
        raise ArgumentError("content", path, expected) from error


@contextmanager
def _written(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except AppearedError as error:
        raise ArgumentError("output", path, EXISTS) from error
    except (OSError, av.FFmpegError) as error:
        raise ArgumentError("output", path, f"cannot be written: {reason_of(error)}") from error
