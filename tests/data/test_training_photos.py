"""The stream of training photos: its order, its crops, and what bad folders and shards are told."""

import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
import webdataset
from PIL import Image

from photostyle.data.image_io import load_photo
from photostyle.data.shards import MAX_BYTES
from photostyle.data.training.stream import MAX_UNREADABLE, TrainingPhotos
from photostyle.ops.errors import ArgumentError

SIZE = (80, 72)
STEP = 8
RIGHT = (
    "give a folder of photos, a folder of .tar shards, one shard, or a pattern of shards such as "
    "train-{0000..0099}.tar"
)
SUFFIXES = ".jpg .jpeg .png .webp .tif .tiff .bmp .avif .jpe .jfif .mpo .heic .heif .jp2"


def plain(index):
    """A photo that each of its crops can be told by: see `seen`."""
    return Image.new("RGB", SIZE, (STEP * index, 255 - STEP * index, 128))


def seen(batch):
    """Which of the plain photos a batch shows."""
    assert batch.dtype == torch.uint8
    return [round(level / STEP) for level in batch[:, 0].float().mean((1, 2)).tolist()]


def detailed(index, size=SIZE):
    """A photo whose crops all differ."""
    rng = np.random.default_rng(index)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image):
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_photos(folder, count, make=plain):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        make(index).save(folder / f"{index:03}.png")
    return folder


def write_shards(folder, count, each, make=plain):
    """WebDataset shards whose photos are numbered through."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        with webdataset.TarWriter(str(folder / f"train-{shard:04}.tar")) as writer:
            for index in range(shard * each, (shard + 1) * each):
                writer.write({"__key__": f"{index:03}", "png": make(index), "txt": "a caption"})
    return folder


def stream(root, count, start=0, **options):
    """The first batches, (count, batch_size, 3, crop, crop)."""
    photos = TrainingPhotos(root, **{"crop": 64, "batch_size": 2, "workers": 0, **options})
    return torch.stack(list(islice(photos.batches(start), count)))


def message(root, **options):
    with pytest.raises(ArgumentError) as caught:
        TrainingPhotos(root, **{"crop": 64, "workers": 0, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """Ten plain photos."""
    return write_photos(tmp_path / "photos", 10)


@pytest.fixture
def details(tmp_path):
    """Five photos without two equal crops."""
    return write_photos(tmp_path / "details", 5, detailed)


# ------------------------------------------------------------------------------------- the stream


def test_batches(details):
    batches = stream(details, 3)
    assert batches.shape == (3, 2, 3, 64, 64)
    assert batches.dtype == torch.uint8
    assert batches[0].is_contiguous()
    assert TrainingPhotos(str(details), crop=64, workers=0).size == 5


def test_each_epoch_holds_each_photo_once_in_an_order_of_its_own(folder):
    numbers = seen(stream(folder, 15).flatten(0, 1))
    epochs = [numbers[:10], numbers[10:20], numbers[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_may_be_larger_than_an_epoch(folder):
    numbers = seen(stream(folder, 1, batch_size=25)[0])
    assert sorted(numbers[:10]) == sorted(numbers[10:20]) == list(range(10))


def test_the_seed_decides(details):
    first = stream(details, 4, seed=1)
    torch.manual_seed(5)
    assert torch.equal(first, stream(details, 4, seed=1))
    assert not torch.equal(first, stream(details, 4, seed=2))


def test_the_global_random_numbers_are_left_alone(details):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    stream(details, 2)
    assert torch.equal(torch.rand(3), expected)


def test_heic(tmp_path):
    """What phones store: Pillow alone does not know it."""
    for index in range(3):
        pillow_heif.from_pillow(plain(10 + index)).save(tmp_path / f"{index}.heic")
    assert TrainingPhotos(tmp_path, crop=64, workers=0).size == 3
    shown = {round(value) for batch in stream(tmp_path, 6) for value in seen(batch)}
    assert shown == {10, 11, 12}


def test_crops_differ_between_epochs(details):
    epochs = stream(details, 20, batch_size=5)
    crops = {crop.numpy().tobytes() for crop in epochs.flatten(0, 1)}
    assert len(crops) == 100


def test_half_of_the_crops_are_mirrored(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (72, 1))
    write_photos(tmp_path, 1, lambda _: Image.fromarray(ramp).convert("RGB"))
    crops = stream(tmp_path, 40, batch_size=1)[:, 0, 0].float()
    mirrored = crops[:, :, 0].mean(1) > crops[:, :, -1].mean(1)
    assert 10 < mirrored.sum() < 30


def test_min_scale(tmp_path):
    """Of a ramp over the photo's width, a crop of its whole area shows all but the shape's cut."""
    ramp = np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (80, 1))
    write_photos(tmp_path, 1, lambda _: Image.fromarray(ramp).convert("RGB"))

    def ranges(min_scale):
        crops = stream(tmp_path, 30, batch_size=1, min_scale=min_scale)[:, 0, 0].int()
        return crops.amax((1, 2)) - crops.amin((1, 2))

    # Side lengths, of 1: sqrt(3/4) with the narrowest shape, less some pixels for resizing.
    assert ranges(1).min() > 255 * 0.8
    assert ranges(0.05).min() < 255 * 0.4


@pytest.mark.parametrize("start", [0, 1, 4, 23])
def test_resumed_is_uninterrupted(details, start):
    whole = stream(details, 27, seed=3)
    assert torch.equal(stream(details, 27 - start, start, seed=3), whole[start:])


def test_processes_share_one_stream(details):
    whole = stream(details, 6, batch_size=4)
    parts = [stream(details, 6, process_index=index, process_count=2) for index in range(2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_the_number_of_workers_does_not_matter(details):
    (details / "002.png").write_text("no picture")
    expected = stream(details, 7, start=2)
    assert torch.equal(stream(details, 7, start=2, workers=2), expected)


def test_closing_ends_the_workers(details):
    batches = TrainingPhotos(details, crop=64, workers=2).batches()
    next(batches)
    (server,) = (pid for pid in children(os.getpid()) if children(pid))
    batches.close()
    assert not children(server)


@pytest.mark.reliability
def test_workers_ignore_an_interrupt_and_end_with_a_killed_trainer(details, tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(
        "from data.training.stream import TrainingPhotos\n"
        "if __name__ == '__main__':\n"
        f"    batches = TrainingPhotos({str(details)!r}, crop=64).batches()\n"
        "    next(batches)\n"
        "    print('ready', flush=True)\n"
        "    input()\n"
        "    print(sum(1 for _ in zip(range(20), batches)), flush=True)\n"
        "    input()\n"
    )
    root = str(Path(__file__).parents[2])
    trainer = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    )
    with trainer:
        try:
            assert trainer.stdout.readline() == "ready\n"
            (server,) = (pid for pid in children(trainer.pid) if children(pid))
            workers = children(server)
            assert len(workers) == 2
            for process in (server, *workers):
                os.kill(process, signal.SIGINT)
            print(file=trainer.stdin, flush=True)
            assert trainer.stdout.readline() == "20\n"
        finally:
            trainer.kill()
    deadline = time.monotonic() + 20
    while any(alive(process) for process in (server, *workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(parent):
    return [pid for pid, of, _ in processes() if of == parent]


def alive(process):
    return any(pid == process and state not in "ZX" for pid, _, state in processes())


def processes():
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        yield int(status.parent.name), int(parent), state


# -------------------------------------------------------------------------------------- the files


def test_finds_photos_below_a_folder(tmp_path):
    names = ["b/c/0.jpg", "1.JPEG", "a/2.webp", "b/3.bmp", "b/4.tif"]
    passed_over = [".hidden.png", ".git/5.png", "a/._2.png"]
    for index, name in enumerate(names + passed_over):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        plain(index).save(tmp_path / name)
    (tmp_path / "a" / "labels.txt").touch()
    elsewhere = write_photos(tmp_path.with_name(f"{tmp_path.name}_linked"), 6) / "005.png"
    (tmp_path / "z").symlink_to(elsewhere.parent)
    (tmp_path / "a" / "again").symlink_to(tmp_path)  # a circle
    for number in range(5):
        (elsewhere.parent / f"{number:03}.png").unlink()
    assert TrainingPhotos(tmp_path, crop=64, workers=0).size == 6
    assert sorted(seen(stream(tmp_path, 3).flatten(0, 1))) == list(range(6))


def test_held_out_photos_are_evenly_spaced_and_never_seen(folder):
    photos = TrainingPhotos(folder, crop=64, batch_size=2, workers=0, held_out=3)
    assert photos.held_out == [folder / f"{index:03}.png" for index in (0, 3, 6)]
    assert photos.size == 7
    batches = torch.cat(list(islice(photos.batches(), 14)))
    assert set(seen(batches)) == {1, 2, 4, 5, 7, 8, 9}
    assert TrainingPhotos(folder, crop=64, workers=0).held_out == []


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full(SIZE[::-1], 65_535, np.uint16))
    else:
        image = Image.new("RGBA", SIZE, "white").convert("RGB").convert(mode)
    image.save(tmp_path / "photo.tif")
    batch = stream(tmp_path, 1)[0]
    assert batch.shape == (2, 3, 64, 64)
    assert (batch == 255).all()


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((72, 80, 3), np.uint8)
    stored[:, 40:] = 255  # the right half, which is the lower one after a quarter turn
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    crops = stream(tmp_path, 4)[:, :, 0].float().flatten(0, 1)
    assert (crops[:, -1] - crops[:, 0] == 255).all()


# ------------------------------------------------------------------------------ unreadable photos


def test_an_unreadable_photo_gives_its_place_to_the_next(folder, caplog):
    expected = seen(stream(folder, 5).flatten(0, 1))
    (folder / "004.png").write_text("no picture")
    whole = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(whole[: len(whole) // 2])
    photos = TrainingPhotos(folder, crop=64, batch_size=2, workers=0)
    numbers = seen(torch.cat(list(islice(photos.batches(), 5))))
    for place, number in enumerate(expected):
        following = [n for n in expected[place:] + expected[:place] if n not in (4, 7)]
        assert numbers[place] == (number if number not in (4, 7) else following[0])
    assert set(photos.unreadable) == {"004.png", "007.png"}
    assert photos.unreadable["004.png"].startswith("not a picture that can be read")
    assert photos.unreadable["007.png"].startswith("truncated or damaged")
    assert photos.size == 10

    parts = [stream(folder, 5, 2, batch_size=1, process_index=k, process_count=2) for k in (0, 1)]
    assert torch.equal(torch.cat(parts, dim=1), stream(folder, 5, 2))

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        list(islice(photos.batches(), 20))
    assert caplog.records == []


@pytest.mark.parametrize("workers", [0, 2])
def test_each_unreadable_photo_is_named_once(folder, caplog, workers):
    (folder / "004.png").write_text("no picture")
    photos = TrainingPhotos(folder, crop=64, batch_size=2, workers=workers)
    list(islice(photos.batches(), 25))
    assert [record.getMessage() for record in caplog.records] == [
        "004.png is passed over: not a picture that can be read; give a JPEG, PNG, WebP, "
        "AVIF, HEIC, TIFF, JPEG 2000 or BMP file"
    ]


def test_a_photo_with_too_many_pixels_is_passed_over(folder, monkeypatch):
    monkeypatch.setattr("photostyle.data.training.crops.MAX_PIXELS", 10_000)
    Image.new("RGB", (101, 100)).save(folder / "004.png")
    photos = TrainingPhotos(folder, crop=64, workers=0)
    list(islice(photos.batches(), 3))
    expected = "101 x 100 pixels are too many; give at most 10,000 in all"
    assert photos.unreadable == {"004.png": expected}


@pytest.mark.parametrize("workers", [0, 2])
def test_no_photo_can_be_read(details, workers):
    for photo in details.iterdir():
        photo.write_bytes(photo.read_bytes()[:2000])
    photos = TrainingPhotos(details, crop=64, workers=workers)
    with pytest.raises(ArgumentError) as caught:
        next(photos.batches())
    text = f"root={details}: none of 5 photos can be read (00"
    assert str(caught.value).startswith(text)
    assert "truncated or damaged" in str(caught.value)


def test_no_header_can_be_read(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    os.mkfifo(tmp_path / "b.jpg")
    assert message(tmp_path) == (
        f"root={tmp_path}: none of 2 photos can be read (the first: not a picture)"
    )


# ------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"crop": 63}, "crop=63: give a number at least 64"),
        ({"crop": 64.0}, "crop=64.0: give a whole number of at least 64"),
        ({"batch_size": 0}, "batch_size=0: give a number at least 1"),
        ({"batch_size": True}, "batch_size=True: give a whole number of at least 1"),
        ({"workers": -1}, "workers=-1: give a number at least 0"),
        ({"min_scale": 0}, "min_scale=0: give a number above 0"),
        ({"min_scale": 1.5}, "min_scale=1.5: give a number from 0 to 1"),
        ({"min_scale": float("nan")}, "min_scale=nan: give a number from 0 to 1"),
        ({"seed": -1}, "seed=-1: give a number at least 0"),
        ({"seed": "1"}, "seed=1: give a whole number of at least 0"),
        ({"held_out": -1}, "held_out=-1: give a number at least 0"),
    ],
)
def test_bad_arguments(folder, options, expected):
    assert message(folder, **options) == expected


def test_bad_start(folder):
    with pytest.raises(ArgumentError, match=r"^start=-1: give a number at least 0$"):
        TrainingPhotos(folder, crop=64, workers=0).batches(-1)
    with pytest.raises(ValueError, match="there is no process 2 of 2"):
        TrainingPhotos(folder, process_index=2, process_count=2)


def test_all_photos_held_out(folder):
    expected = f"held_out=10: give fewer than the 10 photos in {folder}"
    assert message(folder, held_out=10) == expected


def test_photos_smaller_than_the_crop(tmp_path):
    for index, side in enumerate([70, 71, 72, 500, 600]):
        Image.new("RGB", (side, 700)).save(tmp_path / f"{index}.png")
    expected = "the photos' short side is 72 pixels (median of 5); give at most 72"
    assert message(tmp_path, crop=73) == f"crop=73: {expected}"
    assert stream(tmp_path, 1, crop=72).shape == (1, 2, 3, 72, 72)


def test_photos_too_small_for_any_crop(tmp_path):
    Image.new("RGB", (300, 40)).save(tmp_path / "photo.png")
    expected = "the photos' short side is 40 pixels (median of 1); give larger photos"
    assert message(tmp_path) == f"root={tmp_path}: {expected}"


def test_bad_roots(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "photo.jpg").write_text("no archive")
    with tarfile.open(tmp_path / "shard.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "photo.jpg", "photo.jpg")
    attributes = tarfile.TarInfo("attributes")
    attributes.type, attributes.size = tarfile.XHDTYPE, 1 << 62
    (tmp_path / "boast.tar").write_bytes(attributes.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    nothing = f"holds neither photos ({SUFFIXES}) nor .tar shards; {RIGHT}"
    expectations = {
        tmp_path / "empty": nothing,
        tmp_path / "nowhere": f"no such file or folder; {RIGHT}",
        tmp_path / "photo.jpg": f"photo.jpg is no tar file without compression; {RIGHT}",
        tmp_path / "shard.tar.gz": f"shard.tar.gz is no tar file without compression; {RIGHT}",
        tmp_path / "boast.tar": f"boast.tar is no tar file without compression; {RIGHT}",
        "": RIGHT,
        None: RIGHT,
    }
    for root, expected in expectations.items():
        assert message(root) == f"root={root}: {expected}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(folder):
    try:
        folder.chmod(0)
        assert message(folder) == f"root={folder}: cannot be read: Permission denied"
    finally:
        folder.chmod(0o700)


# --------------------------------------------------------------------------------------- shards


@pytest.fixture
def shards(tmp_path):
    """Four shards of six plain photos each."""
    return write_shards(tmp_path / "shards", 4, 6)


def test_shards(shards, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    photos = TrainingPhotos(shards, crop=64, batch_size=2, workers=0, held_out=2)
    assert photos.size is None
    assert photos.held_out == []
    numbers = seen(torch.cat(list(islice(photos.batches(), 24))))
    assert sorted(numbers[:24]) == sorted(numbers[24:]) == list(range(24))
    assert numbers[:24] != numbers[24:]
    assert numbers[:6] != sorted(numbers[:6])
    assert list((tmp_path / "work").iterdir()) == []
    assert len(list(shards.iterdir())) == 4


def test_one_shard_a_pattern_and_a_relative_path(shards, monkeypatch):
    assert sorted(seen(stream(shards / "train-0002.tar", 3).flatten(0, 1))) == list(range(12, 18))
    pattern = str(shards / "train-{0000..0003}.tar")
    assert torch.equal(stream(pattern, 5), stream(shards, 5))
    monkeypatch.chdir(shards.parent)
    assert torch.equal(stream("shards", 5), stream(shards, 5))


def test_photos_beside_their_archive(shards):
    write_photos(shards / "unpacked", 3)
    assert TrainingPhotos(shards, crop=64, workers=0).size == 3


@pytest.mark.parametrize(
    ("workers", "start"), [(0, 0), (0, 1), (0, 15), (1, 3), (2, 1), (2, 6), (2, 13)]
)
def test_shards_resumed_are_uninterrupted(tmp_path, workers, start):
    shards = write_shards(tmp_path, 3, 4, detailed)
    damaged = shards / "train-0001.tar"
    damaged.write_bytes(damaged.read_bytes().replace(b"IDAT", b"????", 1))
    options = {"workers": workers, "seed": 7, "batch_size": 1}
    whole = stream(shards, start + 8, **options)
    assert torch.equal(stream(shards, 8, start, **options), whole[start:])


def test_processes_and_workers_share_the_shards(shards):
    """Each of four streams reads one shard in an epoch, so three batches of two are an epoch."""
    options = {"workers": 2, "process_count": 2}
    parts = [stream(shards, 6, process_index=index, **options) for index in range(2)]
    assert sorted(seen(torch.stack(parts).flatten(0, 2))) == list(range(24))


def test_fewer_shards_than_workers(shards, caplog):
    expected = stream(shards, 3, workers=2, process_count=2)
    caplog.clear()
    assert torch.equal(stream(shards, 3, workers=9, process_count=2), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "workers: 2 instead of 9, since there are only 4 shards"
    ]
    assert message(shards, process_count=5) == (
        f"root={shards}: 4 shards for 5 processes; give one shard or more each"
    )


def test_unreadable_photos_in_shards(tmp_path, caplog):
    shard = tmp_path / "train.tar"
    with webdataset.TarWriter(str(shard)) as writer:
        for index in range(6):
            writer.write({"__key__": f"{index:03}", "png": plain(index)})
        writer.write({"__key__": "006", "png": b"no picture"})
    photos = TrainingPhotos(shard, crop=64, batch_size=1, workers=0)
    numbers = [seen(batch)[0] for batch in islice(photos.batches(), 7)]
    # The order has a seventh photo in it, whose place the one after it took.
    assert set(numbers) == set(range(6))
    assert list(photos.unreadable) == [f"{shard}/006.png"]
    list(islice(photos.batches(), 14))
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert text.startswith(f"{shard}/006.png is passed over: not a picture that can be read;")


def test_a_truncated_shard_ends_early(shards):
    damaged = shards / "train-0001.tar"
    content = damaged.read_bytes()
    with tarfile.open(damaged) as archive:
        end = archive.getmember("009.png").offset_data + 10
    damaged.write_bytes(content[:end])
    photos = TrainingPhotos(shards, crop=64, batch_size=3, workers=0)
    numbers = seen(torch.cat(list(islice(photos.batches(), 7))))
    assert sorted(numbers) == [*range(9), *range(12, 24)]
    assert photos.unreadable == {str(damaged): "truncated, damaged or gone after 3 photos"}


def test_a_damaged_header_ends_a_shard(shards):
    """As damage within a photo does, though tarfile takes it for the end."""
    damaged = shards / "train-0001.tar"
    with tarfile.open(damaged) as archive:
        place = archive.getmember("009.png").offset
    content = damaged.read_bytes()
    damaged.write_bytes(content[:place] + b"?" * 512 + content[place + 512 :])
    photos = TrainingPhotos(shards, crop=64, batch_size=3, workers=0)
    numbers = seen(torch.cat(list(islice(photos.batches(), 7))))
    assert sorted(numbers) == [*range(9), *range(12, 24)]
    assert photos.unreadable == {str(damaged): "truncated, damaged or gone after 3 photos"}


def test_a_photo_in_a_shard_that_claims_too_much(shards, sparse_header):
    """It takes no memory: its header tells."""
    shard = shards / "train-0001.tar"
    shard.write_bytes(sparse_header("a.jpg", 7 << 30) + shard.read_bytes())
    photos = TrainingPhotos(shards, crop=64, batch_size=4, workers=0)
    assert sorted(seen(torch.cat(list(islice(photos.batches(), 6))))) == list(range(24))
    reason = f"{7 << 30:,} bytes by its header are too many; give at most {MAX_BYTES:,}"
    assert photos.unreadable == {f"{shard}/a.jpg": reason}


@pytest.mark.parametrize("workers", [0, 2])
def test_no_photo_in_shards_can_be_read(tmp_path, workers):
    write_shards(tmp_path, 2, 6, lambda index: encoded(detailed(index))[:2000])
    photos = TrainingPhotos(tmp_path, crop=64, workers=workers)
    with pytest.raises(ArgumentError) as caught:
        next(photos.batches())
    text = f"root={tmp_path}: none of {MAX_UNREADABLE} photos can be read ({tmp_path}/train-"
    assert str(caught.value).startswith(text)


def test_shards_that_are_gone(shards):
    photos = TrainingPhotos(shards, crop=64, workers=0)
    for shard in shards.iterdir():
        shard.unlink()
    with pytest.raises(ArgumentError, match=r"train-\d*\.tar: truncated, damaged or gone after 0"):
        next(photos.batches())


def test_bad_shards(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a-0.tar")) as writer:
        writer.write({"__key__": "000", "txt": "a caption"})
    (tmp_path / "b-0.tar").write_text("no archive")
    (tmp_path / "b-1.tar").touch()
    expectations = {
        "a-0.tar": f"a-0.tar holds no photos ({SUFFIXES}); {RIGHT}",
        "b-{0..1}.tar": f"b-0.tar is no tar file without compression; {RIGHT}",
        "": f"b-0.tar is no tar file without compression; {RIGHT}",
        "a-{0..2}.tar": "no such file or folder as "
        f"{tmp_path / 'a-1.tar'} (2 are missing); {RIGHT}",
        "a-{0..2.tar": f"no such pattern; {RIGHT}",
    }
    for name, expected in expectations.items():
        root = tmp_path / name if name else tmp_path
        assert message(root) == f"root={root}: {expected}"


def test_crop_and_the_photos_in_shards(shards):
    expected = "the photos' short side is 72 pixels (median of 6); give at most 72"
    assert message(shards, crop=80) == f"crop=80: {expected}"


def test_a_shard_and_a_folder_show_the_same_photo(tmp_path):
    """Members go through the same decoder; here the whole photo is shown, or its mirror image."""
    write_photos(tmp_path / "photos", 1, lambda _: detailed(1, (72, 72)))
    shards = write_shards(tmp_path / "shards", 1, 1, lambda _: detailed(1, (72, 72)))
    pixels = load_photo(tmp_path / "photos" / "000.png").pixels
    options = {"crop": 72, "batch_size": 8, "seed": 2}
    batches = [stream(root, 2, **options) for root in (tmp_path / "photos", shards)]
    assert torch.equal(*batches)
    assert batches[0].max() <= pixels.max()
