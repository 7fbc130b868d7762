"""Films: what a rewritten one keeps, and levels of pictures to RGB and back.

The films are made here, by FFmpeg's encoders in PyAV; what is in them is known.
"""

import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from photostyle.data import paths
from photostyle.data.film_frame import BT601, BT709, FilmFrame
from photostyle.data.video import check_film_output, open_film, suffix_of_result
from photostyle.ops import ArgumentError

av = pytest.importorskip("av", reason="films need PyAV, the extra 'video'")

WIDTH, HEIGHT, RATE = 64, 48, 24


def picture(number, width=WIDTH, height=HEIGHT):
    """(height, width, 3) uint8: smooth, and a little different each time."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [40 + 2 * x, 60 + 2 * y, 100 + 40 * np.sin((x + 3 * number) / 9)]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def make_film(
    path, frames=24, *, times=None, codec="libx264", layout="yuv420p", sound=False, rotation=None,
    colours=(1, 1), size=(WIDTH, HEIGHT), title=None,
):  # fmt: skip
    """``sound``: an encoder, or True for AAC; ``colours``: FFmpeg's numbers of range and matrix."""
    with av.open(f"file:{path}", "w") as film:
        tick = Fraction(1, 600)
        options = {"crf": "4"} if codec == "libx264" else {}
        stream = film.add_stream(codec, RATE, options, time_base=tick)
        stream.width, stream.height = size
        stream.pix_fmt = layout
        stream.codec_context.color_range, stream.codec_context.colorspace = colours
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if title is not None:
            film.metadata["title"] = title
        tone = film.add_stream("aac" if sound is True else sound, 48000) if sound else None
        for number in range(frames):
            rgb = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            frame = rgb.reformat(
                format=layout,
                dst_colorspace="ITU709" if colours[1] == 1 else "ITU601",
                dst_color_range="JPEG" if colours[0] == 2 else "MPEG",
            )
            frame.pts = times[number] if times else number * 600 // RATE
            frame.time_base = tick
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
        for number in range(frames * 2 if sound else 0):
            wave = 0.3 * np.sin((np.arange(1024) + 1024 * number) / 17, dtype=np.float32)
            samples = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
            samples.sample_rate, samples.pts = 48000, 1024 * number
            samples.time_base = Fraction(1, 48000)
            if sound is not True:
                (samples,) = av.AudioResampler(tone.codec_context.format.name).resample(samples)
            film.mux(tone.encode(samples))
        if sound:
            film.mux(tone.encode(None))
    return path


def unchanged(frame, out):
    for plane, new in zip(frame.planes, out, strict=True):
        new[:] = plane


def rewrite(source, target, change=unchanged, **options):
    with open_film(source) as film:
        return film.rewrite(target, change, **options)


def decoded(path):
    with av.open(str(path)) as film:
        return list(film.decode(video=0))


def packets(path, kind):
    with av.open(str(path)) as film:
        stream = getattr(film.streams, kind)[0]
        return [(bytes(p), p.pts * p.time_base) for p in film.demux(stream) if p.size]


def names(folder):
    return sorted(os.listdir(folder))


# ------------------------------------------------------------------------------ levels of pictures


def random_frame(bits, chroma, height=24, width=32, full_range=False, luma=BT709):
    generator = np.random.default_rng(0)
    unit = 2 ** (bits - 8)
    dtype = np.uint8 if bits == 8 else np.uint16
    down, across = chroma
    small = -(-height // down), -(-width // across)
    shapes = (height, width), small, small
    planes = (generator.integers(60 * unit, 180 * unit, shape, dtype) for shape in shapes)
    return FilmFrame(tuple(planes), bits, luma, full_range, 0.0)


def empty_like(frame):
    return tuple(np.zeros_like(plane) for plane in frame.planes)


LAYOUTS = pytest.mark.parametrize("chroma", [(1, 1), (1, 2), (2, 2)], ids=["444", "422", "420"])


@pytest.mark.parametrize("bits", [8, 10])
@LAYOUTS
def test_where_nothing_is_added_levels_stay(bits, chroma):
    frame = random_frame(bits, chroma, 23, 31)
    out = empty_like(frame)
    frame.change(np.zeros((9, 9, 9, 3), np.float32), out)
    for plane, new in zip(frame.planes, out, strict=True):
        np.testing.assert_array_equal(new, plane)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("matrix", "luma"), [("ITU601", BT601), ("ITU709", BT709)])
def test_rgb_is_that_of_ffmpeg(full_range, matrix, luma):
    rgb = av.VideoFrame.from_ndarray(picture(0), "rgb24")
    coded = rgb.reformat(
        format="yuv444p",
        dst_colorspace=matrix,
        dst_color_range="JPEG" if full_range else "MPEG",
    )
    planes = tuple(coded.to_ndarray())
    found = FilmFrame(planes, 8, luma, full_range, 0.0).tensor(WIDTH)
    # One level of luma or chroma is up to two of blue; measured 1.8.
    assert np.abs(255 * found[0].movedim(0, -1).numpy() - picture(0)).max() < 2.5


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_table_adds_to_rgb(bits, full_range):
    """A table is linear between its entries, so one that is linear adds the same everywhere."""
    frame = random_frame(bits, (1, 1), full_range=full_range)
    frame.planes[1][:] = frame.planes[2][:] = 2 ** (bits - 1)  # grey: nothing is clamped
    lattice = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3, indexing="ij"), -1)
    matrix = np.array([[0.9, 0.05, 0], [0.02, 0.8, 0.1], [0.1, 0, 0.7]])
    added = (lattice @ matrix.T + [0.04, 0.02, 0.1] - lattice).astype(np.float32)
    out = empty_like(frame)
    frame.change(added, out)
    before = frame.tensor(64)[0].movedim(0, -1).numpy()
    after = FilmFrame(out, bits, BT709, full_range, 0.0).tensor(64)[0].movedim(0, -1).numpy()
    expected = before @ matrix.T + [0.04, 0.02, 0.1]
    # Half a level of luma and of chroma; measured 1.3 levels.
    assert np.abs(after - expected).max() < 1.6 / (2**bits - 1) * (1 if full_range else 1.17)


@LAYOUTS
def test_chroma_gets_the_mean_of_its_pixels(chroma):
    frame = random_frame(10, chroma)
    fine = random_frame(10, (1, 1))
    down, across = chroma
    chromas = (np.kron(plane, np.ones(chroma, np.uint16)) for plane in frame.planes[1:])
    fine = FilmFrame((frame.planes[0], *chromas), 10, BT709, False, 0.0)
    added = np.random.default_rng(1).normal(0, 0.05, (9, 9, 9, 3)).astype(np.float32)
    coarse_out, fine_out = empty_like(frame), empty_like(fine)
    frame.change(added, coarse_out)
    fine.change(added, fine_out)
    np.testing.assert_array_equal(coarse_out[0], fine_out[0])
    for coarse, plane in zip(coarse_out[1:], fine_out[1:], strict=True):
        blocks = plane.reshape(coarse.shape[0], down, coarse.shape[1], across)
        assert np.abs(blocks.mean((1, 3)) - coarse).max() <= 1


def test_what_runs_over_is_clamped():
    frame = random_frame(8, (2, 2))
    frame.planes[1][:] = frame.planes[2][:] = 128
    out = empty_like(frame)
    frame.change(np.ones((9, 9, 9, 3), np.float32), out)
    assert (out[0].min(), out[0].max()) == (235, 235)
    assert {*out[1].flat, *out[2].flat} == {128}


def test_sorted_levels_do_not_depend_on_places():
    frame = random_frame(8, (1, 1), 96, 96)
    turned = FilmFrame(tuple(plane[::-1] for plane in frame.planes), 8, BT709, False, 1.0)
    np.testing.assert_array_equal(frame.sorted_levels(), turned.sorted_levels())


# ------------------------------------------------------------------------------------ what is kept


def test_times_of_a_variable_rate(tmp_path):
    times = [0, 25, 40, 100, 350, 355, 600, 601, 640, 1000]
    make_film(tmp_path / "a.mp4", 10, times=times)
    assert rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4") == 10
    source, result = (decoded(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert [frame.pts * frame.time_base for frame in result] == [Fraction(t, 600) for t in times]
    assert [frame.time for frame in result] == [frame.time for frame in source]


def test_change_sees_all_pictures_in_order(tmp_path):
    make_film(tmp_path / "a.mp4", 30)
    seen, shown = [], []

    def change(frame, out):
        seen.append(frame.time)
        unchanged(frame, out)

    rewrite(
        tmp_path / "a.mp4", tmp_path / "b.mp4", change, progress=lambda: shown.append(len(seen))
    )
    assert seen == pytest.approx([number / RATE for number in range(30)])
    assert shown == list(range(1, 31))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation(tmp_path, rotation):
    make_film(tmp_path / "a.mp4", 5, rotation=rotation, sound=True)
    rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4")
    source, result = (decoded(tmp_path / name)[0] for name in ("a.mp4", "b.mp4"))
    assert abs(source.rotation) == abs(rotation)
    assert result.rotation == source.rotation


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_and_title(tmp_path, suffix):
    source, result = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    make_film(source, sound=True, title="Two days")
    rewrite(source, result)
    assert packets(result, "audio") == packets(source, "audio")
    with av.open(str(result)) as film:
        assert film.metadata.get("title", film.metadata.get("TITLE")) == "Two days"


def test_a_clip_of_a_phone(tmp_path):
    """All at once: pictures at times of their own, turned, and a sound that they go with."""
    source, result = tmp_path / "a.mp4", tmp_path / "b.mp4"
    times = [number * 20 + number % 3 * 7 + number // 9 * 11 for number in range(40)]
    make_film(source, 40, times=times, rotation=-90, sound=True)
    rewrite(source, result)
    before, after = decoded(source), decoded(result)
    assert [frame.pts * frame.time_base for frame in after] == [Fraction(t, 600) for t in times]
    assert {frame.rotation for frame in after} == {before[0].rotation} == {-90}
    assert packets(result, "audio") == packets(source, "audio")


def test_subtitles(tmp_path):
    make_film(tmp_path / "a.mkv")
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as film:
        pictures = film.add_stream_from_template(source.streams.video[0], opaque=True)
        texts = film.add_stream("subrip")
        texts.codec_context.subtitle_header = b"[Script Info]\n"
        for packet in source.demux():
            if packet.size:
                packet.stream = pictures
                film.mux(packet)
        line = av.Packet(b"Good morning")
        line.stream, line.time_base = texts, Fraction(1, 1000)
        line.pts = line.dts = 200
        line.duration = 300
        film.mux(line)
    rewrite(tmp_path / "b.mkv", tmp_path / "c.mkv")
    assert packets(tmp_path / "c.mkv", "subtitles") == [(b"Good morning", Fraction(1, 5))]


def test_chapters_and_cover(tmp_path):
    cover = av.VideoFrame.from_ndarray(picture(9), "rgb24")
    make_film(tmp_path / "a.mp4", 48)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as film:
        pictures = film.add_stream_from_template(source.streams.video[0], opaque=True)
        still = film.add_stream("png", 1)
        still.width, still.height, still.pix_fmt = WIDTH, HEIGHT, "rgb24"
        still.disposition = av.stream.Disposition.attached_pic
        chapter = {"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000)}
        film.set_chapters([chapter | {"metadata": {"title": "Morning"}}])
        film.mux(still.encode(cover))
        for packet in source.demux():
            if packet.size:
                packet.stream = pictures
                film.mux(packet)
    assert rewrite(tmp_path / "b.mp4", tmp_path / "c.mp4") == 48
    with av.open(str(tmp_path / "c.mp4")) as film:
        (chapter,) = film.chapters()
        assert chapter["metadata"] == {"title": "Morning"}
        assert (chapter["end"] - chapter["start"]) * chapter["time_base"] == Fraction(9, 10)
        (still,) = (stream for stream in film.streams.video if stream.name == "png")
        (frame,) = film.decode(still)
    np.testing.assert_array_equal(frame.to_ndarray(), picture(9))


def test_what_the_container_cannot_hold(tmp_path, caplog):
    make_film(tmp_path / "a.mp4", sound=True)
    rewrite(tmp_path / "a.mp4", tmp_path / "b.webm")
    assert "the result cannot hold its audio (aac)" in caplog.text
    with av.open(str(tmp_path / "b.webm")) as film:
        assert [stream.type for stream in film.streams] == ["video"]


@pytest.mark.parametrize(
    ("sound", "source", "result", "named"),
    [
        ("flac", "a.mkv", "b.mov", "flac"),  # refused when the header is written
        ("pcm_s16le", "a.mkv", "b.mp4", "pcm_s16le"),  # and at the end
    ],
)
def test_what_the_container_refuses_late(tmp_path, caplog, sound, source, result, named):
    make_film(tmp_path / source, sound=sound)
    assert rewrite(tmp_path / source, tmp_path / result) == 24
    assert f"the result cannot hold its audio ({named})" in caplog.text
    with av.open(str(tmp_path / result)) as film:
        assert [stream.type for stream in film.streams] == ["video"]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_encoders_keep_silent(tmp_path, capfd, codec):
    make_film(tmp_path / "a.mkv", 3, codec=codec)
    capfd.readouterr()
    rewrite(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert capfd.readouterr() == ("", "")


def test_av1_in_mov(tmp_path):
    make_film(tmp_path / "a.mkv", 3, codec="libsvtav1")
    rewrite(tmp_path / "a.mkv", tmp_path / "b.mov")
    with av.open(str(tmp_path / "b.mov")) as film:
        assert film.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_times_that_begin_late(tmp_path, suffix):
    """What a file calls its duration begins at its first picture, or at 0."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    times = [2400 + 25 * number for number in range(30)]
    make_film(tmp_path / f"a{suffix}", 30, codec=codec, times=times)
    assert rewrite(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}") == 30
    result = decoded(tmp_path / f"b{suffix}")
    assert result[0].time == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize(("layout", "levels"), [("gray", (16, 235)), ("gray10le", (64, 940))])
def test_grey(tmp_path, layout, levels):
    """Its levels stay; it becomes luma with no colours beside it."""
    make_film(tmp_path / "a.mkv", 3, codec="ffv1", layout=layout)
    seen = []

    def change(frame, out):
        seen.append([plane.copy() for plane in frame.planes])
        unchanged(frame, out)

    rewrite(tmp_path / "a.mkv", tmp_path / "b.mkv", change)
    for frame, (luma, *chroma) in zip(decoded(tmp_path / "a.mkv"), seen, strict=True):
        np.testing.assert_array_equal(luma, frame.to_ndarray())
        assert {*np.unique(chroma)} == {128 * levels[0] // 16}
    result = decoded(tmp_path / "b.mkv")[0]
    assert result.format.name == ("yuv420p" if layout == "gray" else "yuv420p10le")


LEVELS = {
    "8 bits, BT.709": ("libx264", "yuv420p", (1, 1)),
    "8 bits, BT.601": ("libx264", "yuv420p", (1, 6)),
    "full range": ("libx264", "yuvj420p", (2, 1)),
    "4:2:2": ("libx264", "yuv422p", (1, 1)),
    "4:4:4": ("libx264", "yuv444p", (1, 1)),
    "10 bits": ("libx265", "yuv420p10le", (1, 1)),
    "10 bits of H.264": ("libx264", "yuv420p10le", (1, 1)),
    "10 bits, 4:2:2": ("prores_ks", "yuv422p10le", (1, 1)),
    "half-planar": ("libx264", "nv12", (1, 1)),
}


@pytest.mark.parametrize("case", LEVELS)
def test_levels(tmp_path, case):
    """Depth, chroma, range and matrix are kept, and an unchanged film has the same colours."""
    codec, layout, colours = LEVELS[case]
    make_film(tmp_path / "a.mov", 6, codec=codec, layout=layout, colours=colours)
    rewrite(tmp_path / "a.mov", tmp_path / "b.mov", quality=100)
    source, result = (decoded(tmp_path / name) for name in ("a.mov", "b.mov"))
    for one, other in zip(source, result, strict=True):
        assert one.format.name == other.format.name
        assert (one.color_range, one.colorspace) == (other.color_range, other.colorspace)
        before, after = (frame.to_ndarray().astype(float) for frame in (one, other))
        unit = 4 if "10" in one.format.name else 1
        # Measured 1.2, of 4:4:4, and mostly below 0.8.
        assert np.sqrt(((after - before) ** 2).mean()) / unit < 1.5


def test_rgb_of_a_film(tmp_path):
    """A film of RGB becomes one of luma and chroma, BT.709."""
    make_film(tmp_path / "a.mkv", 3, codec="ffv1", layout="bgr0", colours=(2, 0))
    rewrite(tmp_path / "a.mkv", tmp_path / "b.mkv", quality=100)
    result = decoded(tmp_path / "b.mkv")[0]
    assert (result.format.name, result.colorspace) == ("yuv444p", 1)
    found = FilmFrame(tuple(result.to_ndarray()), 8, BT709, False, 0.0).tensor(WIDTH)
    # The encoder's loss with it; measured 5.
    assert np.abs(255 * found[0].movedim(0, -1).numpy() - picture(0)).mean() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sides(tmp_path, suffix):
    make_film(tmp_path / "a.mkv", 3, codec="ffv1", layout="yuv420p", size=(63, 47))
    rewrite(tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    result = decoded(tmp_path / f"b{suffix}")
    assert {(frame.width, frame.height) for frame in result} == {(63, 47)}
    assert len(result) == 3


def test_high_dynamic_range_is_told(tmp_path, caplog):
    with av.open(str(tmp_path / "a.mkv"), "w") as film:
        stream = film.add_stream("libx265", RATE, {"x265-params": "log-level=error"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        stream.codec_context.color_trc = 18
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
        film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    with open_film(tmp_path / "a.mkv"):
        assert "its HLG levels are treated as those of ordinary films" in caplog.text


# ------------------------------------------------------------------------------------------ errors


def no_pictures(path):
    with av.open(str(path), "w") as film:
        tone = film.add_stream("aac", 48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        samples.sample_rate = 48000
        film.mux(tone.encode(samples))
        film.mux(tone.encode(None))


def text(path):
    path.write_text("This is no film.\n" * 99)


def without_index(path):
    make_film(path, 48)
    path.write_bytes(path.read_bytes()[:-400])


def unknown_codec(path):
    make_film(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


BAD = {
    "no pictures": (no_pictures, "holds no moving pictures"),
    "text": (text, "no film that can be read: Invalid data"),
    "empty": (Path.touch, "no film that can be read"),
    "no index": (without_index, "no film that can be read"),
    "unknown codec": (unknown_codec, "its pictures cannot be decoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_no_film(tmp_path, case):
    make, message = BAD[case]
    make(tmp_path / "bad.mp4")
    with pytest.raises(ArgumentError, match=f"bad.mp4: {message}"):
        rewrite(tmp_path / "bad.mp4", tmp_path / "out.mp4")
    assert names(tmp_path) == ["bad.mp4"]


def test_a_film_that_is_cut_off(tmp_path):
    make_film(tmp_path / "whole.mkv", 96)
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "part.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ArgumentError, match=r"part.mkv: cut off: of 4.0 seconds [12]\.\d are there"
    ):
        rewrite(tmp_path / "part.mkv", tmp_path / "out.mkv")
    assert names(tmp_path) == ["part.mkv", "whole.mkv"]


def test_no_pyav(tmp_path, monkeypatch):
    monkeypatch.setattr("photostyle.data.video.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"films need PyAV: pip install 'photostyle\[video\]'"):
        rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4")


@pytest.mark.reliability
def test_no_room_for_the_result(tmp_path):
    """A limit to the size of files stands for a disk that is full."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    make_film(tmp_path / "a.mp4", 96)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ArgumentError, match=r"b.mp4: cannot be written: File too large"):
            rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4", quality=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["a.mp4"]


def test_a_name_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_film(tmp_path / "http:a.mp4", 3)
    assert rewrite("http:a.mp4", "http:b.mp4") == 3
    assert names(".") == ["http:a.mp4", "http:b.mp4"]


@pytest.mark.reliability
@pytest.mark.parametrize("number", [signal.SIGINT, None], ids=["Ctrl-C", "a defect"])
def test_nothing_is_left_half_written(tmp_path, number):
    make_film(tmp_path / "a.mp4", 30)

    def stop(frame, out):
        if frame.time > 0.5:
            if number is not None:
                signal.raise_signal(number)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError if number is None else KeyboardInterrupt):
        rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4", stop)
    assert names(tmp_path) == ["a.mp4"]


def test_overwrite(tmp_path):
    make_film(tmp_path / "a.mp4", 3)
    (tmp_path / "b.mp4").write_text("old")
    with pytest.raises(ArgumentError, match=f"b.mp4: {paths.EXISTS}"):
        check_film_output(tmp_path / "b.mp4", overwrite=False)
    check_film_output(tmp_path / "b.mp4", overwrite=True)
    rewrite(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert len(decoded(tmp_path / "b.mp4")) == 3


def test_names_of_results(tmp_path):
    assert [suffix_of_result(name) for name in ("a.MOV", "a.webm", "a.avi")] == [
        ".MOV", ".webm", ".mkv",
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match=r"a film: end its name in one of \.mp4 \.m4v \.mov"):
        check_film_output(tmp_path / "b.jpg", overwrite=False)
