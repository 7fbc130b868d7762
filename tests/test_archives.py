"""Folders by several processes: each result once and whole, whatever becomes of one of them."""

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photostyle import stylize
from photostyle.data.paths import EXISTS
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.photo_run import plan
from photostyle.data.run_log import RunLog
from photostyle.ops.devices import process_share
from photostyle.ops.errors import ArgumentError

STYLIZE = Path(stylize.__file__)
COUNT = 40


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A folder of photos in folders, and where results go."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        Path(f"photos/{number % 3}").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (6, 9, 3), np.uint8)
        image = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
        image.save(f"photos/{number % 3}/{number:02d}.png")
    return tmp_path


def words(*more):
    return [
        "method=feedforward",
        "network=autumn",
        "content=photos",
        "output=out",
        "size=64",
        *more,
    ]


def results():
    return sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())


def photos():
    return sorted(str(path.relative_to("photos")) for path in Path("photos").rglob("*.png"))


def share(monkeypatch, rank, count):
    """As one of several that a launcher has started, without waiting for the others."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setattr("photostyle.data.photo_run.wait_for_everyone", lambda: None)
    assert process_share() == (rank, count)


def recorder(seen):
    """Work that writes empty results."""

    def work(jobs):
        for photo, target in jobs:
            seen.append(photo.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        return []

    return work


def run(seen, *, overwrite=False, work=None, log=None):
    options = PhotoOptions(overwrite=overwrite)
    photos = plan("photos", "autumn", "out", options)
    return photos.run(work or recorder(seen), workers=1, log=log)


def test_each_begins_at_its_own_place(archive, monkeypatch):
    """And does what is missing, be it another's."""
    firsts = []
    for rank in range(4):
        share(monkeypatch, rank, 4)
        seen = []
        report = run(seen)
        firsts.append(seen[:1])
        assert (report.done, report.skipped) == ((COUNT, 0) if rank == 0 else (0, COUNT))
    assert firsts[1:] == [[]] * 3
    for path in Path("out").rglob("*.png"):
        path.unlink()
    share(monkeypatch, 2, 4)
    seen = []
    assert run(seen).done == COUNT
    expected = [Path(name).name for name in photos()]
    assert seen == expected[COUNT // 2 :] + expected[: COUNT // 2]


def test_runs_that_are_started_by_hand_have_orders_of_their_own(archive):
    """In the same one each would do at any moment what the other does."""
    orders = []
    for _ in range(2):
        seen = []
        assert run(seen).done == COUNT
        orders.append(seen)
        for path in Path("out").rglob("*.png"):
            path.unlink()
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(Path(name).name for name in photos())
    # Two random orders agree at one place on average.
    assert sum(one == other for one, other in zip(*orders, strict=True)) < COUNT / 2


def test_photos_of_a_batch_are_neighbours(archive):
    batches = []

    def work(jobs):
        batches.append([str(photo.relative_to("photos")) for photo, _ in jobs])
        return []

    plan("photos", "autumn", "out", PhotoOptions()).run(work, batch_size=4, workers=1)
    assert sorted(batches) == [photos()[first : first + 4] for first in range(0, COUNT, 4)]


def test_failures_are_told_in_order(archive):
    def work(jobs):
        return [ArgumentError("content", photo, "bad") for photo, _ in jobs]

    failures = run([], work=work).failures
    assert failures == tuple(f"content=photos/{name}: bad" for name in photos())


def test_what_appears_meanwhile_is_passed_over(archive):
    """Before its turn, and while it is worked on."""
    seen = []
    record = recorder(seen)

    def work(jobs):
        if not seen:
            others = [name for name in photos() if Path("photos", name) != jobs[0][0]]
            for name in others[5:9]:
                target = Path("out", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
        record(jobs)
        if len(seen) == 20:
            return [ArgumentError("output", jobs[0][1], EXISTS)]
        return []

    report = run(seen, work=work)
    assert (report.done, report.skipped, report.failures) == (COUNT - 5, 5, ())
    assert report.exit_code == 0


def test_with_overwrite_each_has_a_share(archive, monkeypatch):
    seen = []
    for rank in range(3):
        share(monkeypatch, rank, 3)
        assert run(seen, overwrite=True).skipped == 0
    assert sorted(seen) == sorted(Path(name).name for name in photos())


def test_a_line_for_each_photo(archive, command):
    Path("photos/0/00.png").write_bytes(b"no photo")
    code, out, _ = command(stylize.main, *words("report=log, 1.csv"))
    assert code == 1
    assert f"{COUNT - 1} photos" in out
    with open("log, 1.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["photo"] for row in rows) == [f"photos/{name}" for name in photos()]
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert [row["photo"] for row in failed] == ["photos/0/00.png"]
    assert failed[0]["reason"].startswith("not a picture that can be read")
    assert all(float(row["seconds"]) >= 0 for row in rows)
    # What goes on adds to it.
    Path("out/1/01.png").unlink()
    assert command(stylize.main, *words("report=log, 1.csv")).code == 1
    with open("log, 1.csv", encoding="utf-8", newline="") as file:
        more = list(csv.DictReader(file))[COUNT:]
    assert sorted(row["photo"] for row in more) == ["photos/0/00.png", "photos/1/01.png"]


@pytest.mark.parametrize("method", ["feedforward network=autumn size=64", "lut lut=a.cube"])
def test_a_line_for_a_single_photo(archive, command, method):
    Path("a.cube").write_text("LUT_1D_SIZE 2\n0 0 0\n1 1 1\n")
    Path("bad.png").write_bytes(b"no photo")
    more = [*f"method={method}".split(), "report=log.csv"]
    assert command(stylize.main, "content=photos/0/00.png", "output=a.png", *more).code == 0
    assert command(stylize.main, "content=bad.png", "output=b.png", *more).code == 2
    with open("log.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["photo"], row["output"], row["outcome"]) for row in rows] == [
        ("photos/0/00.png", "a.png", "done"),
        ("bad.png", "b.png", "failed"),
    ]
    assert rows[1]["reason"].startswith("not a picture that can be read")


@pytest.mark.parametrize(
    ("report", "message"),
    [("log.txt", "give a file that ends in .csv"), ("none/log.csv", "there is no folder none")],
)
def test_a_report_that_cannot_be(archive, command, report, message):
    code, _, err = command(stylize.main, *words(f"report={report}"))
    assert code == 2
    assert err.startswith(f"error: report={report}: {message}")
    assert not Path("out").exists()


@pytest.mark.reliability
def test_a_report_on_a_full_disk_ends_nothing(archive, monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert run(seen, log="log.csv").done == COUNT
    assert [record.getMessage() for record in caplog.records] == [
        "log.csv cannot be written and is left out: No space left"
    ]


@pytest.mark.reliability
def test_one_thread_gives_a_report_up_while_another_adds_to_it(archive, monkeypatch):
    log = RunLog("log.csv")
    real = os.open

    def meanwhile(path, *arguments):
        log.path = None
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", meanwhile)
    log.add([("a", "b")], [], 1.0)
    assert "a,b,done" in Path("log.csv").read_text()
    log.add([("c", "d")], [], 1.0)
    assert "c,d" not in Path("log.csv").read_text()


@pytest.mark.reliability
def test_a_report_has_no_half_line(archive, caplog):
    """A limit to the size of files stands for a disk that is full."""
    log = RunLog("log.csv")
    log.add([("a", "b")], [], 1.0)
    before = Path("log.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        log.add([("c", "d")], [], 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path("log.csv").read_bytes() == before
    assert [record.getMessage() for record in caplog.records] == [
        "log.csv cannot be written and is left out: No space left on device"
    ]


def start(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def whole():
    for name in results():
        with Image.open(Path("out", name)) as image:
            image.load()
            assert image.size == (96, 64)


@pytest.mark.reliability
@pytest.mark.slow
def test_two_processes_of_which_one_is_killed(archive):
    """Then the same command again: each result once and whole, and nothing else."""
    command = [str(STYLIZE), *words()]
    processes = [start(*command) for _ in range(2)]
    while len(results() if Path("out").exists() else []) < 5:
        assert processes[0].poll() is None or processes[1].poll() is None
        time.sleep(0.01)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    _, err = processes[1].communicate(timeout=120)
    assert processes[1].returncode == 0, err
    third = start(*command)
    out, err = third.communicate(timeout=120)
    assert third.returncode == 0, err
    assert f"skipped: {COUNT} photos" in out
    assert [name for name in results() if not name.endswith(".tmp")] == photos()
    whole_names = [name for name in results() if name.endswith(".png")]
    assert whole_names == photos()


@pytest.mark.slow
def test_by_torchrun(archive):
    """One command for all processes; a photo that fails in one does not end the other."""
    Path("photos/0/00.png").write_bytes(b"no photo")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(*launcher, str(STYLIZE), *words("report=log.csv"))
    out, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert results() == photos()[1:], err
    whole()
    with open("log.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    done = [row["photo"] for row in rows if row["outcome"] == "done"]
    assert sorted(done) == [f"photos/{name}" for name in photos()[1:]]
    assert out.count("failed: content=photos/0/00.png") in (1, 2)
