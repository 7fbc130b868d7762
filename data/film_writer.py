"""The result of a film: its pictures encoded, its other streams copied."""

import io
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import lazy_loader
import numpy as np

from photostyle.data.film_frame import FilmFrame, Planes
from photostyle.ops.errors import ArgumentError
from photostyle.ops.interrupts import interrupts_held

av = lazy_loader.load("av")

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Containers that are written."""
RATE = 25
"""Pictures a second, for what says nothing of it."""


@dataclass(frozen=True)
class Encoder:
    """An encoder of FFmpeg's.

    Attributes:
        name: FFmpeg's.
        crf: its constant quality, from ``quality=100`` to 0.
        options: more of its options.
    """

    name: str
    crf: tuple[int, int]
    options: dict[str, str]

    def with_quality(self, quality: int) -> dict[str, str]:
        """All options, for a quality from 1 to 100."""
        best, worst = self.crf
        return self.options | {"crf": str(round(worst - (worst - best) * quality / 100))}


# At 95 crf is 16, where differences are hard to see; presets are those that keep up with the rest.
X264 = Encoder("libx264", (14, 51), {"preset": "veryfast"})
X265 = Encoder("libx265", (14, 51), {"preset": "ultrafast", "x265-params": "log-level=error"})
VP9 = Encoder("libvpx-vp9", (14, 63), {"cpu-used": "6", "deadline": "realtime", "row-mt": "1"})
AV1 = Encoder("libsvtav1", (14, 63), {"preset": "9"})
os.environ.setdefault("SVT_LOG", "1")  # of AV1 errors alone; it has no option for that


class FilmWriter:
    """One stream of pictures and the copies of all others.

    Args:
        film: a `video.Film`.
        container: PyAV's, open to be written.
        container_format: FFmpeg's name of it.
        quality: 1 to 100.

    Attributes:
        count: how many pictures have been written.
    """

    def __init__(self, film, container, container_format: str, quality: int):
        self.film = film
        self.container = container
        self.count = 0
        self._pts = None
        self._held = []
        self._copies = {}
        container.metadata.update(film.container.metadata)
        container.set_chapters(film.container.chapters())
        for stream in film.container.streams:
            if stream.index == film.stream.index:
                encoder = _encoder(container_format, stream.codec_context.name, film.levels.bits)
                self._add_pictures(encoder, container_format, quality)
            elif stream.type != "data":  # such as the chapters again, as a track of their own
                self._add_copy(stream, container_format)

    def copy(self, packet) -> None:
        """Write a packet of another stream."""
        if (stream := self._copies.get(packet.stream.index)) is None or packet.size == 0:
            return
        if packet.dts is None:  # as of a cover
            packet.dts = packet.pts = packet.pts or 0
        packet.stream = stream
        if self.count:
            self.container.mux(packet)
        else:  # the first one writes the header, and that says how the pictures are turned
            self._held.append(packet)

    def write(self, frame, change: Callable[[FilmFrame, Planes], None]) -> None:
        """Encode a decoded picture, changed; see `video.Film.rewrite`."""
        if self.count == 0:
            self._keep_rotation(frame)
        new = av.VideoFrame(self.film.width, self.film.height, self._layout)
        new.pts = self._pts = self._next_pts(frame)
        new.time_base = self.film.stream.time_base
        time = float(self._pts * self.film.stream.time_base)
        source, levels = self._in_layout(frame), self.film.levels
        picture = FilmFrame(_planes(source), self._bits, levels.luma, levels.full_range, time)
        change(picture, _planes(new))
        self.count += 1
        self.container.mux(self._pictures.encode(new))
        while self._held:
            self.container.mux(self._held.pop(0))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        self.container.mux(self._pictures.encode(None))

    @property
    def _bits(self) -> int:
        return 10 if self._layout.endswith("10le") else 8

    def _add_pictures(self, encoder: Encoder, container_format: str, quality: int) -> None:
        source, levels = self.film.stream, self.film.levels
        self._layout = _nearest_layout(self.film.path, encoder, levels)
        self._pictures = self.container.add_stream(
            encoder.name,
            source.average_rate or RATE,
            encoder.with_quality(quality),
            width=self.film.width,
            height=self.film.height,
            time_base=source.time_base,
        )
        context, given = self._pictures.codec_context, source.codec_context
        context.pix_fmt = self._layout
        context.color_range = 2 if levels.full_range else given.color_range
        context.colorspace = given.colorspace
        context.color_primaries, context.color_trc = given.color_primaries, given.color_trc
        if levels.from_rgb:
            context.color_range, context.colorspace = 1, 1
        if (ratio := source.sample_aspect_ratio) is not None:
            context.sample_aspect_ratio = ratio
        if encoder is X265 and container_format in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # called otherwise, some players do not know it
        self._pictures.metadata.update(source.metadata)
        self._pictures.disposition = source.disposition

    def _add_copy(self, stream, container_format: str) -> None:
        context = stream.codec_context
        if not _holds(container_format, stream):
            what = stream.type if context is None else f"{stream.type} ({context.name})"
            logger.warning("%s: the result cannot hold its %s", self.film.path, what)
            return
        copy = self.container.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._copies[stream.index] = copy

    def _keep_rotation(self, frame) -> None:
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                self._pictures.set_display_matrix(np.frombuffer(data, np.int32).tolist())

    def _next_pts(self, frame) -> int:
        """The picture's time; where it has none, or one that is past, one after the last."""
        pts = frame.dts if frame.pts is None else frame.pts
        if self._pts is None:
            return pts or 0
        return self._pts + 1 if pts is None else max(pts, self._pts + 1)

    def _in_layout(self, frame):
        film = self.film
        found = frame.format.name.replace("yuvj", "yuv"), frame.width, frame.height
        if found == (self._layout, film.width, film.height):
            return frame
        if re.fullmatch(r"gray(\d+[lb]e)?", found[0]):
            grey = frame.reformat(film.width, film.height, found[0].replace("be", "le"))
            return _with_chroma(grey, self._layout)
        to = {"dst_colorspace": "ITU709", "dst_color_range": "MPEG"} if film.levels.from_rgb else {}
        return frame.reformat(film.width, film.height, self._layout, **to)


def _with_chroma(frame, layout: str):
    """A grey picture in a layout with chroma: FFmpeg would take its levels for full range."""
    new = av.VideoFrame(frame.width, frame.height, layout)
    bits, new_bits = (picture.format.components[0].bits for picture in (frame, new))
    (grey,), (luma, *chroma) = _planes(frame), _planes(new)
    luma[:] = grey >> max(0, bits - new_bits)
    for plane in chroma:
        plane[:] = 1 << new_bits - 1
    return new


def _holds(container_format: str, stream) -> bool:
    """Whether a container can hold a stream: it is tried out.

    Some refuse it at once, some when they write their header, and some at the end alone.
    """
    try:
        # An interrupt that comes while FFmpeg calls Python would be lost.
        with interrupts_held(), av.open(io.BytesIO(), "w", format=container_format) as container:
            copy = container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
            packet = av.Packet(bytes(64))
            packet.pts = packet.dts = 0
            packet.duration, packet.time_base, packet.stream = 1, stream.time_base, copy
            container.mux(packet)
    except (ValueError, av.FFmpegError):
        return False
    return True


def _encoder(container_format: str, codec: str, bits: int) -> Encoder:
    """For pictures that had a codec. 10 bits of H.264 are what many players cannot show."""
    if "av1" in codec and container_format != "mov":  # which cannot hold it
        return AV1
    if container_format == "webm":
        return AV1 if bits == 10 else VP9
    return X265 if codec == "hevc" or bits == 10 else X264


def _nearest_layout(path, encoder: Encoder, levels) -> str:
    try:
        layouts = {layout.name for layout in av.Codec(encoder.name, "w").video_formats}
    except ValueError as error:
        expected = f"this FFmpeg has no encoder {encoder.name}"
        raise ArgumentError("content", path, expected) from error
    coarser = levels.layout.replace("422", "420").replace("444", "420")
    return next(name for name in (levels.layout, coarser, "yuv420p") if name in layouts)


def _planes(frame) -> Planes:
    """The memory of a picture's planes."""
    dtype = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    return tuple(
        np.frombuffer(plane, dtype, plane.height * plane.line_size // dtype.itemsize).reshape(
            plane.height, -1
        )[:, : plane.width]
        for plane in frame.planes
    )
