"""Shards in and out: each is there once and whole, in its order, or not at all."""

import csv
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from photostyle import stylize
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.shard_run import plan_shards
from photostyle.data.shards import MAX_BYTES, shards_of
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops.errors import ArgumentError

STYLIZE = Path(stylize.__file__)
EACH = 5
RIGHT = (
    "give a folder of photos, a folder of .tar shards, one shard, or a pattern of shards such as "
    "train-{0000..0099}.tar"
)
PICTURE = "not a picture that can be read; give a JPEG, PNG, WebP, AVIF, HEIC, TIFF, JPEG 2000 or "


def encoded(number, kind="PNG", **options):
    random = np.random.default_rng(number)
    image = Image.fromarray(random.integers(0, 256, (6, 9, 3), np.uint8)).resize((48, 32))
    file = BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(file)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def rich():
    """A photo of each kind that keeps something which the others have no place for."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide, tiff = np.random.default_rng(0).integers(0, 65_536, (32, 48, 4), np.uint16), BytesIO()
    wide[..., 3] |= 0x8000
    tifffile.imwrite(tiff, wide, photometric="rgb", extrasamples=["unassalpha"])
    return {
        "a/0.jpg": encoded(0, "JPEG", exif=exif.tobytes(), icc_profile=profile, comment=b"words"),
        "a/1.tif": tiff.getvalue(),
        "a/2.webp": encoded(2, "WEBP", exif=exif.tobytes()),
        "b/3.png": encoded(3, icc_profile=profile),
        "b/4.heic": encoded(4, "HEIC"),
        "b/5.bmp": encoded(5, "BMP"),
    }


def write(path, files, more=()):
    """A shard of ``files``, names and contents, and of ``more`` headers without content."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), 1_700_000_000, 0o640
            archive.addfile(info, BytesIO(content))
        for info in more:
            archive.addfile(info)


def read(path):
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}


def numbered(shard, each=EACH):
    """Photos with captions."""
    files = {}
    for number in range(shard * each, (shard + 1) * each):
        files[f"{number:03}.png"] = encoded(number)
        files[f"{number:03}.txt"] = f"caption {number}".encode()
    return files


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Three shards of five photos each."""
    monkeypatch.chdir(tmp_path)
    for shard in range(3):
        write(f"shards/photos-{shard:06}.tar", numbered(shard))
    return tmp_path


@pytest.fixture
def run(command):
    def call(*words, **more):
        more = {"content": "shards", "output": "out", "network": "autumn", "size": 64, **more}
        more = [f"{key}={value}" for key, value in more.items() if value is not None]
        return command(stylize.main, "method=feedforward", *more, *words)

    return call


def written(folder="out"):
    return sorted(os.listdir(folder)) if os.path.exists(folder) else []


def rows(path="log.csv"):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def process(work, **options):
    """All shards by some work that takes the place of a network."""
    options = PhotoOptions(**options)
    shards = plan_shards(shards_of("shards"), "shards", "autumn", "out", options)
    return shards.run(work(shards), workers=1)


def copies(shards):
    """Work of which the results are the photos."""

    def work(jobs):
        for source, target in jobs:
            shards.save(target, shards.load(source, target))
        return []

    return work


# ----------------------------------------------------------------------------- what becomes of them


def test_photos_become_what_they_become_in_a_folder(tmp_path, monkeypatch, run):
    """To the byte; and all else is as it was, in the same order."""
    monkeypatch.chdir(tmp_path)
    files = {}
    for name, content in rich().items():
        Path("folder", name).parent.mkdir(parents=True, exist_ok=True)
        Path("folder", name).write_bytes(content)
        files |= {name: content, f"{name[:3]}.json": b"{}", f"{name[:3]}.cls": b"7"}
    files |= {"a/6.txt": b"BMW, by night", "a/7.npy": b"\x93NUMPY", "a/8.gif": b"GIF89a", "9": b""}
    link = tarfile.TarInfo("latest.png")
    link.type, link.linkname = tarfile.SYMTYPE, "b/3.png"
    write("shards/a.tar", files, [link])
    assert run(content="folder", output="expected").code == 0
    assert run().code == 0
    results = read("out/a.tar")
    assert list(results) == list(files)
    for name, content in files.items():
        is_photo = Path("folder", name).exists()
        assert results[name] == (Path("expected", name).read_bytes() if is_photo else content)
        assert not is_photo or results[name] != content
    with tarfile.open("out/a.tar") as archive:
        assert archive.getmember("latest.png").linkname == "b/3.png"
        assert {(info.mtime, info.mode) for info in archive if info.isfile()} == {
            (1_700_000_000, 0o640)
        }


def test_a_photo_is_told_by_its_content(tmp_path, monkeypatch, run):
    """And its result has its format, whatever its name."""
    monkeypatch.chdir(tmp_path)
    write("shards/a.tar", {"0.img": encoded(0, "JPEG"), "1": encoded(1), "2.jpg": encoded(2)})
    assert run().code == 0
    kinds = [Image.open(BytesIO(content)).format for content in read("out/a.tar").values()]
    assert kinds == ["JPEG", "PNG", "PNG"]


@pytest.mark.parametrize(
    ("content", "output", "count"),
    [
        ("shards", "shards_autumn", 3),
        ("shards/photos-{000000..000001}.tar", "shards_autumn", 2),
        ("shards/*.tar", "shards_autumn", 3),
        ("shards/photos-000002.tar", "photos-000002_autumn", 1),
    ],
)
def test_what_stands_for_shards(shards, run, content, output, count):
    result = run(content=content, output=None)
    assert result.code == 0
    assert result.out.startswith(f"{output}: {count * EACH} photos, ")
    expected = written("shards")[-count:] if count == 1 else written("shards")[:count]
    assert written(output) == expected
    assert all(list(read(f"{output}/{name}")) == list(read(f"shards/{name}")) for name in expected)


def test_photos_beside_their_shards_are_what_a_folder_is_for(shards, run):
    Path("shards/one.png").write_bytes(encoded(0))
    assert "passed over: 3 .tar" in run().out
    assert written() == ["one.png"]


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_keeps_the_order(shards, run, workers):
    assert run(workers=workers, batch_size=2).code == 0
    for name in written("shards"):
        assert list(read(f"out/{name}")) == list(read(f"shards/{name}"))


def test_a_style_photo(shards, run):
    Path("style.png").write_bytes(encoded(99))
    result = run(network=None, style="style.png", masks="auto", output=None)
    assert result.code == 0
    assert len(written("shards_style")) == 3


# ---------------------------------------------------------------------------- stopped and taken up


def test_shards_that_are_there_are_skipped(shards, run):
    write("out/photos-000001.tar", {"mine.txt": b""})
    result = run()
    assert result.code == 0
    assert result.out.splitlines()[1:] == [
        "skipped: 1 shard that exist; overwrite=true replaces them"
    ]
    assert list(read("out/photos-000001.tar")) == ["mine.txt"]
    assert run("overwrite=true").code == 0
    assert len(read("out/photos-000001.tar")) == 2 * EACH


def test_an_interrupt_leaves_whole_shards_alone(shards):
    def interrupted(plan):
        work, done = copies(plan), []

        def interrupt(jobs):
            done.extend(jobs)
            if len(done) > EACH + 2:
                raise KeyboardInterrupt
            return work(jobs)

        return interrupt

    report = process(interrupted)
    assert (report.done, report.left, report.exit_code) == (EACH, 2, 130)
    assert str(report).endswith("\ninterrupted; 2 shards left")
    assert len(written()) == 1
    report = process(copies)
    assert (report.done, report.skipped) == (2 * EACH, 1)


@pytest.mark.reliability
@pytest.mark.slow
def test_a_killed_run_is_taken_up_again(shards, run):
    for shard in range(3):
        write(f"shards/photos-{shard:06}.tar", numbered(shard, 60))
    options = {"output": "out", "network": "autumn", "content": "shards"}
    words = [f"{key}={value}" for key, value in options.items()]
    first = subprocess.Popen(
        [sys.executable, STYLIZE, "method=feedforward", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not any(name.endswith(".tar") for name in written()):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    there = [name for name in written() if name.endswith(".tar")]
    before = {name: os.stat(f"out/{name}").st_mtime_ns for name in there}
    result = run()
    assert result.code == 0
    assert f"skipped: {len(there)} shard" in result.out
    assert [name for name in written() if name.endswith(".tar")] == written("shards")
    assert all(os.stat(f"out/{name}").st_mtime_ns == time_ for name, time_ in before.items())
    for name in written("shards"):
        assert list(read(f"out/{name}")) == list(read(f"shards/{name}"))


def share(monkeypatch, rank, count):
    """As one of several that a launcher has started, without waiting for the others."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setattr("photostyle.data.shard_run.wait_for_everyone", lambda: None)


@pytest.mark.parametrize(("overwrite", "expected"), [(False, [1, 2, 0]), (True, [1])])
def test_processes_share_the_shards(shards, monkeypatch, overwrite, expected):
    """The second of two begins with the second shard, and with overwrite does no other."""
    share(monkeypatch, 1, 2)
    seen = []

    def recording(plan):
        work = copies(plan)
        return lambda jobs: seen.append(jobs[0][0].source[:20]) or work(jobs)

    process(recording, overwrite=overwrite)
    names = [f"shards/photos-{shard:06}" for shard in expected]
    assert list(dict.fromkeys(seen)) == names


def test_what_another_process_makes_meanwhile_is_kept(shards):
    """The rest of such a shard is not worked on."""
    theirs = []

    def slow(plan):
        work = copies(plan)

        def record(jobs):
            if not theirs:
                theirs.append(Path("out", Path(jobs[0][0].source).parent.name))
                write(theirs[0], {"theirs.txt": b""})
            return work(jobs)

        return record

    report = process(slow)
    assert (report.done, report.skipped, report.exit_code) == (2 * EACH, 1, 0)
    assert list(read(theirs[0])) == ["theirs.txt"]
    assert len(written()) == 3


# ------------------------------------------------------------------------------------- what fails


def test_a_photo_that_cannot_be_read(shards, run, sparse_header):
    """It is left out and named; what belongs to it stays."""
    good, noise = encoded(0), encoded(1)
    files = {"0.png": good, "1.jpg": b"none", "1.txt": b"1", "2.png": noise[:-40], "3.png": noise}
    write("shards/photos-000001.tar", {**files, "4.jpg": b""})
    shard = Path("shards/photos-000001.tar")
    content = shard.read_bytes()
    end = content.index(b"4.jpg")
    shard.write_bytes(content[:end] + sparse_header("5.jpg", 3 << 30) + content[end:])
    result = run("report=log.csv")
    reasons = {
        "1.jpg": f"{PICTURE}BMP file",
        "2.png": "truncated or damaged",
        "5.jpg": f"3,221,225,472 bytes by its header are too many; give at most {MAX_BYTES:,}",
        "4.jpg": f"the file is empty; give {PICTURE[37:]}BMP file",
    }
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0].startswith(f"out: {2 * EACH + 2} photos, ")
    assert len(lines) == 1 + len(reasons)
    for line, (name, reason) in zip(lines[1:], reasons.items(), strict=True):
        assert line.startswith(f"failed: content={shard}/{name}: {reason}")
    assert list(read("out/photos-000001.tar")) == ["0.png", "1.txt", "3.png"]
    logged = {row["photo"]: row for row in rows()}
    assert len(logged) == 2 * EACH + 2 + len(reasons)
    assert logged[f"{shard}/0.png"]["output"] == "out/photos-000001.tar/0.png"
    for name, row in logged.items():
        reason = reasons.get(name.removeprefix(f"{shard}/"), "")
        assert row["outcome"] == ("failed" if reason else "done")
        assert row["reason"].startswith(reason)


def damaged(content, how):
    if how == "cut off within a file":
        return content[:1500]
    if how == "cut off between two files":
        return content[: content.index(b"007.png")]
    place = content.index(b"007.png")
    header = bytearray(content[place : place + 512])
    if how == "a size below 0":
        header[124:136] = b"\xff" * 11 + b"\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    else:
        header[148:156] = b"another "  # its check sum
    return content[:place] + header + content[place + 512 :]


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("cut off within a file", 0),
        ("cut off between two files", 4),
        ("a damaged header", 4),
        ("a size below 0", 4),
    ],
)
def test_a_damaged_shard(shards, run, how, found):
    """It is named, the others are made, and it is tried again next time."""
    shard = Path("shards/photos-000001.tar")
    whole = shard.read_bytes()
    shard.write_bytes(damaged(whole, how))
    expected = f"damaged or cut off after {found} files; give a complete shard"
    result = run("report=log.csv")
    assert result.code == 1
    assert result.out.splitlines()[1:] == [f"failed: content={shard}: {expected}"]
    assert written() == ["photos-000000.tar", "photos-000002.tar"]
    failed = [row for row in rows() if row["outcome"] == "failed"]
    assert [(row["photo"], row["reason"]) for row in failed] == [(str(shard), expected)]
    shard.write_bytes(whole)
    assert run().code == 0
    assert len(written()) == 3


@pytest.mark.parametrize("files", [{}, {"0.txt": b"a caption"}])
def test_a_shard_without_photos(shards, run, files):
    write("shards/photos-000001.tar", files)
    result = run()
    assert result.code == 1
    assert result.out.splitlines()[1:] == [
        "failed: content=shards/photos-000001.tar: holds no photos"
    ]
    assert written() == ["photos-000000.tar", "photos-000002.tar"]


@pytest.mark.reliability
def test_a_full_disk(shards, run, disk):
    disk.fills("out", writes=8)
    result = run("full_resolution=false")
    assert result.code == 1
    failures = sorted(result.out.splitlines()[1:])
    assert len(failures) == 3
    assert "failed: output=out/photos-000002.tar: cannot be written: No space left" in failures[-1]
    assert written() == []


def nothing():
    pass


def none_is_a_tar():
    Path("shards/photos-000001.tar").write_text("no archive")


def one_is_empty():
    Path("shards/photos-000002.tar").write_bytes(b"")


def one_is_compressed():
    with tarfile.open("shards/photos-000000.tar", "w:gz"):
        pass


def one_is_a_pipe():
    os.unlink("shards/photos-000000.tar")
    os.mkfifo("shards/photos-000000.tar")


def twice():
    write("more/photos-000001.tar", numbered(0))


def a_file():
    Path("out").write_text("")


NO_TAR = f"is no tar file without compression; {RIGHT}"


@pytest.mark.parametrize(
    ("before", "words", "message"),
    [
        (none_is_a_tar, {}, f"content=shards: photos-000001.tar {NO_TAR}"),
        (one_is_empty, {}, f"content=shards: photos-000002.tar {NO_TAR}"),
        (one_is_compressed, {}, f"content=shards: photos-000000.tar {NO_TAR}"),
        (one_is_a_pipe, {}, f"content=shards: photos-000000.tar is no file; {RIGHT}"),
        (nothing, {"content": "none.tar"}, f"content=none.tar: no such file or folder; {RIGHT}"),
        (nothing, {"content": "no*.tar"}, f"content=no*.tar: no such file or folder; {RIGHT}"),
        (
            nothing,
            {"content": "shards/photos-{000001..000004}.tar"},
            "content=shards/photos-{000001..000004}.tar: no such file or folder as "
            f"shards/photos-000003.tar (2 are missing); {RIGHT}",
        ),
        (twice, {"content": "*/*.tar"}, "content=*/*.tar: 2 shards are called photos-000001.tar"),
        (a_file, {}, "output=out: HERE/out is a file, or a link to nothing; give a folder"),
        (
            nothing,
            {"output": "a.tar", "content": "shards/photos-000000.tar"},
            "output=a.tar: give a folder; shards keep their names in it",
        ),
        (nothing, {"output": "shards"}, "output=shards: holds the shards; give another folder"),
        (nothing, {"lut": "a.cube"}, "lut=a.cube: is that of one photo; give one as content"),
        (
            nothing,
            {"content_mask": "a.png", "style": "b.png", "network": None},
            "content_mask=a.png: painted masks are those of one photo; give one as content",
        ),
    ],
)
def test_bad_input(shards, run, before, words, message):
    before()
    code, out, err = run(**words)
    assert (code, out) == (2, "")
    assert err == f"error: {message.replace('HERE', str(shards))}\n"
    assert not os.path.isdir("out")


def test_the_library_takes_shards_as_well(shards):
    report = stylize_photos("shards", "autumn", "out", options=PhotoOptions(size=64))
    assert (report.done, report.failures, report.exit_code) == (3 * EACH, (), 0)
    with pytest.raises(ArgumentError, match=r"^content=none\.tar: no such file or folder; "):
        stylize_photos("none.tar", "autumn", "out")
