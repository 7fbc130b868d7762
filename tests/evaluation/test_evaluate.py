"""Scores, files and contact sheets of small pairs cut from the example photos."""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photostyle.data.photo import resize
from photostyle.evaluation import report
from photostyle.evaluation.evaluate_results import evaluate_results
from photostyle.evaluation.scores import TITLES, Evaluation, Scores
from photostyle.ops.errors import ArgumentError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIZE = 96
OPTIONS = {"size": SIZE, "baseline": "other.png"}
METHODS = [
    "untouched", "global colour transfer", "colour transfer", "other.png", "results",
]  # fmt: skip
CONTENTS = {"01": "pavilion.jpg", "02": "stream.jpg", "03": "autumn.jpg"}


def photo(name, shape=(96, 128)):
    """The middle of an example photo, (height, width)."""
    with Image.open(EXAMPLES / name) as image:
        scale = max(shape[0] / image.height, shape[1] / image.width)
        image = image.convert("RGB")
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        return image.crop((0, 0, shape[1], shape[0]))


def mask(shape=(96, 128)):
    """Red above, blue below."""
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[: shape[0] // 2, :, 0] = 255
    pixels[shape[0] // 2 :, :, 2] = 255
    return Image.fromarray(pixels)


def make_pairs(folder):
    """Three pairs: one with masks, one whose photos are upright, one plain; and a baseline each."""
    for name, content in CONTENTS.items():
        shape = (128, 96) if name == "02" else (96, 128)
        pair = folder / "pairs" / name
        pair.mkdir(parents=True)
        photo(content, shape).save(pair / "content.png")
        photo("dusk.jpg").save(pair / "style.png")
        photo("sunset.jpg", shape).save(pair / "other.png")
        if name == "01":
            mask().save(pair / "content_mask.png")
            mask().save(pair / "style_mask.png")
    return folder / "pairs"


def make_results(folder, pairs, source="content.png"):
    results = folder / "results"
    results.mkdir()
    for pair in pairs.iterdir():
        shutil.copy(pair / source, results / f"{pair.name}.png")
    return results


@pytest.fixture
def pairs(tmp_path):
    return make_pairs(tmp_path)


@pytest.fixture
def results(tmp_path, pairs):
    return make_results(tmp_path, pairs)


@pytest.fixture
def no_network(monkeypatch):
    """The mean brightness for the style distance, where only files and sizes matter."""
    monkeypatch.setattr(
        "photostyle.evaluation.evaluate_results.StyleDistance",
        lambda: lambda image, *_: float(image.mean()),
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One evaluation of the untouched contents as results: the table and its folder."""
    folder = tmp_path_factory.mktemp("evaluation")
    pairs = make_pairs(folder)
    output = folder / "new" / "output"
    table = evaluate_results(make_results(folder, pairs), pairs, output=output, **OPTIONS)
    return table, output


# ----------------------------------------------------------------------------------------- scores


def test_every_pair_and_method_in_order(evaluated):
    table, _ = evaluated
    assert list(table.scores) == ["01", "02", "03"]
    assert all(list(methods) == METHODS for methods in table.scores.values())
    assert list(table.means) == METHODS


def test_untouched_contents(evaluated):
    table, _ = evaluated
    for methods in table.scores.values():
        assert methods["untouched"].edge_ssim == 1
        assert methods["results"] == methods["untouched"]
        assert 0 <= methods["untouched"].matting_loss < methods["other.png"].matting_loss / 100


def test_colour_transfers_move_towards_the_style(evaluated):
    table, _ = evaluated
    for methods in table.scores.values():
        transferred = methods["global colour transfer"]
        assert transferred.style_distance < methods["untouched"].style_distance
        assert 0.5 < transferred.edge_ssim < 1


def test_masks_are_used_where_there_are_some(evaluated):
    table, _ = evaluated
    with_masks, *without = table.scores.values()
    both = "global colour transfer", "colour transfer"
    whole, masked = (with_masks[method] for method in both)
    assert masked.style_distance != whole.style_distance
    assert masked.style_distance < with_masks["untouched"].style_distance
    # Without masks they differ by the limits of contrast alone.
    for methods in without:
        assert methods[both[1]].edge_ssim >= methods[both[0]].edge_ssim - 0.02


def test_means(evaluated):
    table, _ = evaluated
    for method, mean in table.means.items():
        for metric, value in asdict(mean).items():
            values = [getattr(methods[method], metric) for methods in table.scores.values()]
            assert value == pytest.approx(sum(values) / 3, rel=1e-12)


def test_the_style_as_result_has_distance_zero(tmp_path, pairs):
    shutil.rmtree(pairs / "02")
    shutil.rmtree(pairs / "01")
    results = make_results(tmp_path, pairs, "style.png")
    table = evaluate_results(results, pairs, output=tmp_path / "output", size=SIZE)
    assert list(table.scores["03"]) == [method for method in METHODS if method != "other.png"]
    assert table.scores["03"]["results"].style_distance == 0
    assert table.scores["03"]["results"].edge_ssim < 1


@pytest.mark.usefixtures("no_network")
def test_results_of_any_format_and_size(tmp_path, pairs):
    results = tmp_path / "results"
    results.mkdir()
    # Twice the size and a row less, which is what other programs' rounding may do.
    for name, suffix in (("01", ".jpg"), ("02", ".webp"), ("03", ".BMP")):
        with Image.open(pairs / name / "content.png") as content:
            enlarged = content.resize((content.width * 2, content.height * 2 - 1))
        enlarged.save(results / f"{name}{suffix}", quality=95)
    table = evaluate_results(results, pairs, output=tmp_path / "output", size=SIZE)
    for methods in table.scores.values():
        assert methods["results"].edge_ssim > 0.9
        assert methods["results"].style_distance == pytest.approx(
            methods["untouched"].style_distance, abs=0.01
        )


@pytest.mark.usefixtures("no_network")
def test_a_panorama_saved_at_working_size(tmp_path, pairs):
    """Rounding changes its aspect ratio by 3 %."""
    pair = pairs / "wide"
    pair.mkdir()
    panorama = photo("dusk.jpg", (26, 150))
    panorama.save(pair / "content.png")
    panorama.save(pair / "style.png")
    results = tmp_path / "results"
    results.mkdir()
    result = Image.fromarray(resize(np.array(panorama), (96, 17)))
    result.save(results / "wide.png", icc_profile=panorama.info["icc_profile"])
    table = evaluate_results(results, pairs, output=tmp_path / "output", size=SIZE)
    assert table.scores["wide"]["results"] == table.scores["wide"]["untouched"]


@pytest.mark.usefixtures("no_network")
def test_photos_are_not_enlarged(tmp_path, pairs, results):
    tables = [
        evaluate_results(results, pairs, output=tmp_path / str(size), size=size)
        for size in (96, 128, 1000)
    ]
    assert tables[0].means["untouched"] != tables[1].means["untouched"]
    assert tables[1] == tables[2]


@pytest.mark.usefixtures("no_network")
def test_pairs_without_result_are_named_and_left_out(tmp_path, pairs, results, caplog):
    (results / "01.png").unlink()
    (results / "03.png").unlink()
    with caplog.at_level(logging.WARNING):
        table = evaluate_results(results, pairs, output=tmp_path / "output", size=SIZE)
    assert caplog.messages == [f"{results} holds no result for 01, 03; left out"]
    assert list(table.scores) == ["02"]
    document = json.loads((tmp_path / "output" / "evaluation.json").read_text("utf-8"))
    assert document["settings"]["pairs_without_result"] == ["01", "03"]


def test_the_table_as_text():
    first = {
        "untouched": Scores(0.5, 1, 1e-6, 1, 0, 1),
        "results": Scores(0.25, 0.75, 2e-4, 2, 8, 0.5),
    }
    second = {
        "untouched": Scores(1.5, 1.0, 3e-6, 2, 0, 1),
        "results": Scores(0.125, 0.5, 4e-4, 0.5, 3, 1.5),
    }
    lines = [
        "pair       method     style distance  edge SSIM  matting loss  roughness  residual  "
        "sharpness",
        "a          untouched           0.500      1.000      1.00e-06       1.00       0.0       "
        "1.00",
        "           results             0.250      0.750      2.00e-04       2.00       8.0       "
        "0.50",
        "b          untouched           1.500      1.000      3.00e-06       2.00       0.0       "
        "1.00",
        "           results             0.125      0.500      4.00e-04       0.50       3.0       "
        "1.50",
        "mean of 2  untouched           1.000      1.000      2.00e-06       1.50       0.0       "
        "1.00",
        "           results             0.188      0.625      3.00e-04       1.25       5.5       "
        "1.00",
    ]
    scores = {"a": first, "b": second}
    assert str(Evaluation(scores)).splitlines() == lines
    assert str(Evaluation(scores, "untouched")).splitlines() == [
        *lines,
        "",
        "results better than untouched, of 2 pairs: style distance 2, edge SSIM 0, residual 0, "
        "all three 0; roughness 1",
    ]


def test_wins_are_counted_pair_by_pair():
    def against(*results):
        pair = {"other.png": Scores(0.5, 0.7, 1e-5, 1.0, 9.0, 1), "results": Scores(*results, 1)}
        return Evaluation({"a": pair}, "other.png").wins

    names = "style_distance", "edge_ssim", "colour_map_residual", "all_three", "flat_roughness"
    assert against(0.4, 0.8, 1e-5, 0.5, 5.0) == dict(zip(names, (1, 1, 1, 1, 1), strict=True))
    assert against(0.4, 0.8, 1e-5, 0.5, 9.0) == dict(zip(names, (1, 1, 0, 0, 1), strict=True))
    assert against(0.4, 0.6, 1e-5, 2.0, 5.0) == dict(zip(names, (1, 0, 1, 0, 0), strict=True))
    assert against(0.6, 0.8, 1e-5, 0.5, 9.5) == dict(zip(names, (0, 1, 0, 0, 1), strict=True))
    assert against(0.5, 0.7, 1e-5, 1.0, 9.0) == dict(zip(names, (0, 0, 0, 0, 0), strict=True))


# ------------------------------------------------------------------------------------------ files


def test_writes_nothing_else(evaluated):
    _, output = evaluated
    names = sorted(path.name for path in output.iterdir())
    assert names == ["contact_sheet.png", "evaluation.csv", "evaluation.json"]


def test_json(evaluated):
    table, output = evaluated
    document = json.loads((output / "evaluation.json").read_text("utf-8"))
    assert list(document) == ["settings", "metrics", "versions", "wins", "mean", "pairs"]
    settings = document["settings"]
    assert (settings["size"], settings["baseline"]) == (SIZE, "other.png")
    assert (settings["number_of_pairs"], settings["pairs_without_result"]) == (3, [])
    assert list(document["metrics"]) == [field.name for field in fields(Scores)]
    assert document["wins"] == table.wins
    assert torch.__version__.startswith(document["versions"]["torch"])
    assert document["mean"] == {method: asdict(mean) for method, mean in table.means.items()}
    for pair, methods in table.scores.items():
        assert document["pairs"][pair] == {name: asdict(row) for name, row in methods.items()}


def test_csv(evaluated):
    table, output = evaluated
    with (output / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(METHODS)
    for line in lines:
        scores = table.scores[line.pop("pair")][line.pop("method")]
        assert {name: float(value) for name, value in line.items()} == asdict(scores)


def test_contact_sheet(evaluated):
    """A row for each pair; the content is on it, and as the untouched result a second time."""
    _, output = evaluated
    with Image.open(output / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
    content = resize(np.array(photo("pavilion.jpg")), (96, 72))
    windows = np.lib.stride_tricks.sliding_window_view(pixels[:90], content.shape)[:, :, 0]
    found = (windows[:, :, ::12, ::12] == content[::12, ::12]).all((2, 3, 4))
    assert found.sum() == 2


@pytest.mark.usefixtures("no_network")
def test_the_sheet_compares_with_the_transfer_per_mask_without_a_baseline(
    tmp_path, pairs, results, monkeypatch
):
    titles = []
    cell = report._cell
    monkeypatch.setattr(
        report,
        "_cell",
        lambda image, title, *rest: titles.append(title) or cell(image, title, *rest),
    )
    shutil.rmtree(pairs / "02")
    shutil.rmtree(pairs / "03")
    evaluate_results(results, pairs, output=tmp_path / "a", size=SIZE)
    assert titles == ["01  content", "01  style", "01  results", "01  colour transfer"]
    titles.clear()
    evaluate_results(results, pairs, output=tmp_path / "b", **OPTIONS)
    assert titles == ["01  content", "01  style", "01  results", "01  other.png"]


@pytest.mark.usefixtures("no_network")
def test_pages_and_what_an_earlier_evaluation_left(tmp_path, pairs, results, monkeypatch):
    output = tmp_path / "output"
    monkeypatch.setattr(report, "ROWS_PER_PAGE", 2)
    evaluate_results(results, pairs, output=output, size=SIZE)
    (output / "notes.txt").touch()
    pages = sorted(output.glob("*.png"))
    assert [page.name for page in pages] == ["contact_sheet_1.png", "contact_sheet_2.png"]
    with Image.open(pages[0]) as first, Image.open(pages[1]) as second:
        assert (first.height, second.height) == (72 + 96 + 2 * 52, 72 + 52)

    (results / "03.png").unlink()
    evaluate_results(results, pairs, output=output, size=SIZE, overwrite=True)
    names = sorted(path.name for path in output.iterdir())
    assert names == ["contact_sheet.png", "evaluation.csv", "evaluation.json", "notes.txt"]


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.reliability
@pytest.mark.usefixtures("no_network")
def test_full_disk(tmp_path, pairs, results, disk):
    """One line; of files with these names there are whole ones alone."""
    output = tmp_path / "output"
    for writes in (0, 1, 2, 5):
        disk.fills(output, writes=writes)
        with pytest.raises(ArgumentError, match="cannot be written: No space left on device"):
            evaluate_results(results, pairs, output=output, size=SIZE, overwrite=True)
        written = {path.name for path in output.iterdir()}
        assert written == set(["evaluation.json", "evaluation.csv"][:writes])


@pytest.mark.usefixtures("no_network")
def test_pair_whose_name_is_no_text(tmp_path, pairs, results):
    name = os.fsdecode(b"caf\xe9")
    (pairs / "01").rename(pairs / name)
    (results / "01.png").rename(results / f"{name}.png")
    output = tmp_path / "output"
    evaluate_results(results, pairs, output=output, size=SIZE)
    assert set(json.loads((output / "evaluation.json").read_text())["pairs"]) == {"02", "03", name}


def refused(results, pairs, output, **options):
    with pytest.raises(ArgumentError) as caught:
        evaluate_results(results, pairs, output=output, **{"size": SIZE, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_scoring(monkeypatch):
    """Fail where a mistake is found only after the first measurements."""

    def fail():
        raise AssertionError("the networks were loaded before the arguments were checked")

    monkeypatch.setattr("photostyle.evaluation.evaluate_results.StyleDistance", fail)


@pytest.mark.usefixtures("no_scoring")
@pytest.mark.parametrize("size", [15, 0, -1, 96.5, "512", None, True])
def test_refuses_a_size(tmp_path, pairs, results, size):
    message = refused(results, pairs, tmp_path / "output", size=size)
    assert message.startswith(f"size={size}: give a ")
    assert message.endswith("at least 16")
    assert not (tmp_path / "output").exists()


@pytest.mark.usefixtures("no_scoring")
def test_refuses_pairs_and_baseline(tmp_path, pairs, results):
    output = tmp_path / "output"
    assert refused(results, tmp_path / "no", output) == f"pairs={tmp_path / 'no'}: no such folder"
    message = refused(results, pairs, output, baseline="none.png")
    assert message.startswith("baseline=none.png: no such file in ")
    assert not output.exists()


@pytest.mark.usefixtures("no_scoring")
def test_refuses_results(tmp_path, pairs, results):
    output = tmp_path / "output"
    nowhere, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    assert refused(nowhere, pairs, output) == f"results={nowhere}: no such folder"
    expected = "holds no result; name them after their pairs, 01.png and so on"
    assert refused(empty, pairs, output) == f"results={empty}: {expected}"
    shutil.copy(results / "02.png", results / "02.jpg")
    expected = "holds 02.jpg and 02.png; leave one of them"
    assert refused(results, pairs, output) == f"results={results}: {expected}"
    assert not output.exists()


@pytest.mark.usefixtures("no_scoring")
def test_refuses_output(tmp_path, pairs, results):
    file, used = tmp_path / "file", tmp_path / "used"
    file.touch()
    used.mkdir()
    (used / "contact_sheet_3.png").touch()
    assert refused(results, pairs, file) == f"output={file}: is a file; give a folder"
    message = refused(results, pairs, file / "below")
    assert message == f"output={file / 'below'}: cannot be created: Not a directory"
    expected = "holds an evaluation; give another folder or overwrite=true"
    assert refused(results, pairs, used) == f"output={used}: {expected}"
    expected = "overwrite=no: give true or false"
    assert refused(results, pairs, used, overwrite="no") == expected


@pytest.mark.parametrize("argument", ["results", "baseline"])
def test_refuses_pictures_of_another_shape(tmp_path, pairs, results, argument):
    file = results / "01.png" if argument == "results" else pairs / "01" / "other.png"
    photo("dusk.jpg", (80, 128)).save(file)
    message = refused(results, pairs, tmp_path / "output", baseline="other.png")
    expected = (
        "is 128 x 80, which is not the shape of its content (128 x 96); give the whole picture"
    )
    assert message == f"{argument}={file}: {expected}"
    assert list((tmp_path / "output").iterdir()) == []


def test_refuses_damaged_pictures(tmp_path, pairs, results):
    (results / "01.png").write_text("no picture")
    message = refused(results, pairs, tmp_path / "output")
    assert message.startswith(f"results={results / '01.png'}: not a picture")
    (pairs / "01" / "content.png").write_bytes(b"")
    message = refused(results, pairs, tmp_path / "output")
    assert message.startswith(f"pairs={pairs / '01' / 'content.png'}: the file is empty")


# ------------------------------------------------------------------------------------ entry point


def run_entry_point(folder, *arguments):
    command = [sys.executable, str(ROOT / "evaluate.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_entry_point(tmp_path, pairs, results):
    (results / "02.png").unlink()
    arguments = ["results=results", "pairs=pairs", "baseline=other.png", f"size={SIZE}"]
    before = {path.name for path in tmp_path.iterdir()}
    done = run_entry_point(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "results holds no result for 02; left out" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["pair", "method", *" ".join(TITLES).split()]
    assert re.match(r"mean of 2 +untouched +\d\.\d{3} +1\.000 ", lines[-7])
    assert lines[-1].startswith("results better than other.png, of 2 pairs: style distance ")
    assert (tmp_path / "outputs" / "evaluation" / "evaluation.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == before | {"outputs"}

    again = run_entry_point(tmp_path, *arguments)
    assert again.returncode == 2
    assert again.stdout == ""
    assert again.stderr.count("\n") == 1
    assert "output=outputs/evaluation: holds an evaluation" in again.stderr


@pytest.mark.slow
def test_entry_point_without_results(tmp_path):
    done = run_entry_point(tmp_path, "pairs=pairs")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "results" in done.stderr
