"""The folder format of pairs: what is found, and what each bad folder is told."""

import dataclasses

import pytest

from photostyle.evaluation.pairs import Pair, find_image, find_pairs
from photostyle.ops.errors import ArgumentError


def add(folder, *names):
    """Empty files: nothing is decoded here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_finds_pairs_by_name(tmp_path):
    second = add(tmp_path / "02", "content.jpg", "style.PNG", "content_mask.png", "style_mask.bmp")
    first = add(tmp_path / "01", "style.webp", "content.tif", "notes.txt", "content.txt")
    assert find_pairs(tmp_path) == [
        Pair("01", first / "content.tif", first / "style.webp"),
        Pair(
            "02",
            second / "content.jpg",
            second / "style.PNG",
            second / "content_mask.png",
            second / "style_mask.bmp",
        ),
    ]


def test_a_folder_as_text(tmp_path):
    add(tmp_path / "a", "content.png", "style.png")
    assert find_pairs(str(tmp_path)) == find_pairs(tmp_path)


def test_passes_over_what_is_no_pair(tmp_path):
    add(tmp_path / "pair", "content.png", "style.png")
    add(tmp_path / "notes", "readme.txt", "content.txt")
    add(tmp_path / ".hidden", "content.png")
    add(tmp_path, "content.png")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["pair"]


def test_the_named_baseline(tmp_path):
    folder = add(tmp_path / "01", "content.png", "style.png", "dpst.png", "other.png")
    assert find_pairs(tmp_path)[0].baseline is None
    assert find_pairs(tmp_path, "dpst.png")[0].baseline == folder / "dpst.png"


def test_a_pair_is_frozen(tmp_path):
    add(tmp_path / "01", "content.png", "style.png")
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_pairs(tmp_path)[0].name = "02"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["content.png"], "a pair without style; add style.*"),
        (["style.png"], "a pair without content; add content.*"),
        (
            ["content.png", "style.png", "style_mask.png"],
            "a pair with style_mask but without content_mask; give both or neither",
        ),
        (
            ["content.png", "style.png", "content_mask.png"],
            "a pair with content_mask but without style_mask; give both or neither",
        ),
        (
            ["content.png", "content.jpg", "style.png"],
            "holds content.jpg and content.png; leave one of them",
        ),
    ],
)
def test_incomplete_pairs(tmp_path, files, message):
    add(tmp_path / "01", "content.png", "style.png")
    folder = add(tmp_path / "02", *files)
    with pytest.raises(ArgumentError) as caught:
        find_pairs(tmp_path)
    assert str(caught.value) == f"pairs={folder}: {message}"
    assert caught.value.argument == "pairs"


def test_a_pair_without_the_baseline(tmp_path):
    add(tmp_path / "01", "content.png", "style.png", "dpst.png")
    folder = add(tmp_path / "02", "content.png", "style.png")
    with pytest.raises(ArgumentError) as caught:
        find_pairs(tmp_path, "dpst.png")
    assert str(caught.value) == (
        f"baseline=dpst.png: no such file in {folder}; give a file name that every pair has"
    )


@pytest.mark.parametrize("baseline", ["./dpst.png", "other/dpst.png"])
def test_a_baseline_that_is_no_bare_name(tmp_path, baseline):
    add(tmp_path / "01", "content.png", "style.png", "dpst.png")
    with pytest.raises(ArgumentError, match=f"^baseline={baseline}: no such folder, nor a file's"):
        find_pairs(tmp_path, baseline)


def test_no_folder_no_pairs(tmp_path):
    file = add(tmp_path, "file.png") / "file.png"
    empty = add(tmp_path / "empty")
    expectations = {
        tmp_path / "nowhere": "no such folder",
        file: "is a file; give a folder",
        empty: "holds no pairs; give a folder of folders with content.* and style.*",
    }
    for folder, message in expectations.items():
        with pytest.raises(ArgumentError) as caught:
            find_pairs(folder)
        assert str(caught.value) == f"pairs={folder}: {message}"


def test_find_image(tmp_path):
    add(tmp_path, "01.PNG", "01.txt", "010.png", "02.jpg", "02.png", "v1.2.jpg", "*.png")
    add(tmp_path / "03.png")
    assert find_image(tmp_path, "01", argument="results") == tmp_path / "01.PNG"
    assert find_image(tmp_path, "v1.2", argument="results") == tmp_path / "v1.2.jpg"
    assert find_image(tmp_path, "*", argument="results") == tmp_path / "*.png"
    assert find_image(tmp_path, "03", argument="results") is None
    with pytest.raises(ArgumentError, match=r"^results=.*: holds 02\.jpg and 02\.png; leave one"):
        find_image(tmp_path, "02", argument="results")
