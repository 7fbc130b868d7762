"""The runner of the measurements on a GPU: parts that fail or take too long, and their files."""

import importlib
import json
import os
import shutil
import site
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_evidence, gpu_tests
from benchmarks.gpu_evidence import GROUPS, PARTS, Part, arguments, chosen, command, limit, run_part
from photostyle.feedforward import load_network

ROOT = Path(gpu_evidence.__file__).parents[1]
BEGIN = """
import sys
from pathlib import Path
from benchmarks.findings import Findings
file = Path(sys.argv[1])
add = Findings(file).table("Rows", ["name", "ms"])
add("first", 1)
add("second", 2)
"""


def run(folder, code, seconds=60.0):
    """Run code as the part "share"; how it ended, and its two files."""
    words = [sys.executable, "-c", code, str(folder / "share.json")]
    outcome = run_part("share", words, seconds, folder)
    assert {path.name for path in folder.iterdir()} == {"share.json", "share.md"}
    part = json.loads((folder / "share.json").read_text())
    assert part["outcome"] == outcome
    return part, (folder / "share.md").read_text()


def test_a_part_that_is_done(tmp_path):
    part, text = run(tmp_path, BEGIN)
    assert part["outcome"] == "done"
    assert part["tables"] == [
        {"title": "Rows", "header": ["name", "ms"], "rows": [["first", "1"], ["second", "2"]]}
    ]
    assert part["output"] == ""
    assert "**Rows**\n\n| name | ms |\n| --- | --- |\n| first | 1 |\n| second | 2 |\n" in text
    assert {"PyTorch", "CUDA", "CuPy", "date"} <= set(part["machine"])


def test_a_part_that_fails(tmp_path):
    """What it had found stays, and the end of its output is there."""
    part, text = run(tmp_path, BEGIN + "raise RuntimeError('out of luck')")
    assert part["outcome"] == "failed, exit code 1"
    assert len(part["tables"][0]["rows"]) == 2
    assert part["output"].endswith("RuntimeError: out of luck")
    assert "| second | 2 |" in text
    assert "RuntimeError: out of luck\n```" in text


def test_a_part_that_never_begins(tmp_path):
    """Nothing of an earlier run is taken for its own."""
    run(tmp_path, BEGIN)
    part, _ = run(tmp_path, "import sys; sys.exit('no such card')")
    assert part["tables"] == []
    assert part["output"] == "no such card"


def test_a_part_that_takes_too_long(tmp_path):
    """It ends with what it has started; what it had found stays."""
    late = tmp_path / "late"
    folder = tmp_path / "out"
    folder.mkdir()
    tables = {"tables": [{"title": "Rows", "header": ["name"], "rows": [["first"]]}]}
    child = f"import time; time.sleep(5); open({str(late)!r}, 'w')"
    code = f"""
import subprocess, sys, time
open(sys.argv[1], "w").write({json.dumps(tables)!r})
subprocess.Popen([sys.executable, "-S", "-c", {child!r}])
time.sleep(60)
"""
    part, text = run(folder, code, 3)
    assert part["outcome"] == "stopped after 3 s"
    assert part["tables"] == tables["tables"]
    assert "stopped after 3 s" in text
    assert "| first |" in text
    time.sleep(4)
    assert not late.exists()


def test_of_a_progress_bar_the_last_state_is_kept(tmp_path):
    part, _ = run(tmp_path, r"import sys; print('10 %\r20 %\r30 %'); sys.exit(3)")
    assert (part["outcome"], part["output"]) == ("failed, exit code 3", "30 %")


def test_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    """`this` is a module that every Python has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    parts = {"share": Part("benchmarks.no_such_module", 60), "operator": Part("this", 60)}
    monkeypatch.setattr(gpu_evidence, "PARTS", {**PARTS, **parts})
    words = ["--device", "cpu", "--output", str(tmp_path), "--parts", "share", "operator"]
    assert gpu_evidence.main(words) == 1
    assert "share: failed, exit code 1" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    outcomes = {part["part"]: part["outcome"] for part in summary["parts"]}
    assert outcomes == {
        "tests": "not run",
        "operator": "done",
        "share": "failed, exit code 1",
        "optimiser": "not run",
        "training": "not run",
    }
    assert {"PyTorch", "CUDA", "CuPy", "date"} <= set(summary["machine"])
    assert "| operator | done |" in (tmp_path / "summary.md").read_text()
    assert gpu_evidence.main([*words[:-2], "operator"]) == 0


def test_without_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="PyTorch sees no GPU here; --device cpu --small tries"):
        gpu_evidence.main(["--output", str(tmp_path)])


@pytest.mark.slow
def test_the_parts_on_a_cpu(tmp_path, monkeypatch):
    """All but the tests; what they find is in both files of each."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["--device", "cpu", "--small", "--training-seconds", "3", "--output", str(tmp_path)]
    assert gpu_evidence.main([*words, "--parts", "operator", "share", "methods"]) == 0
    titles = {
        "operator": [
            "Copy on the device, read and written",
            "The operator",
            "L p, r = 1, three channels",
            "Guided filter, with its set-up",
        ],
        "share": [
            "Share of the operator and of the map of colours in a step",
            "L p, r = 1, three channels",
            "Roots of covariances",
            "Map of colours of new photos",
        ],
        "optimiser": [
            "Optimiser",
            "One pass",
            "Kernels of the optimiser",
            "Wall time without the profiler",
        ],
        "training": ["Photos", "Training", "The network of any style, on photos held out"],
    }
    for name, expected in titles.items():
        tables = json.loads((tmp_path / f"{name}.json").read_text())["tables"]
        assert [table["title"] for table in tables] == expected
        for table in tables:
            assert table["rows"]
            assert {len(row) for row in table["rows"]} == {len(table["header"])}
            assert table["title"] in (tmp_path / f"{name}.md").read_text()
    assert load_network(tmp_path / "universal.safetensors").is_universal


def test_groups():
    assert chosen(list(GROUPS)) == list(PARTS)
    assert chosen(["share", "kernels"]) == ["share", "tests", "operator"]
    options = arguments([])
    assert options.parts == list(PARTS)
    for group in GROUPS.values():
        assert sum(limit(name, options) for name in group) < 600


def test_limits():
    options = arguments(["--limit-scale", "2", "--training-seconds", "100"])
    assert limit("share", options) == 2 * PARTS["share"].limit
    assert limit("training", options) == 2 * (PARTS["training"].limit + 100)


@pytest.mark.parametrize("name", PARTS)
def test_command_lines(name, tmp_path, monkeypatch):
    """Each part takes what it is given."""
    words = ["--output", str(tmp_path), "--small", "--photos", "photos", "--training-seconds", "7"]
    words = command(name, arguments(words))
    assert words[:3] == [sys.executable, "-m", PARTS[name].module]
    module = importlib.import_module(PARTS[name].module)
    taken = []
    monkeypatch.setattr(module, "report", lambda _, options: taken.append(options))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", words[2:])
    module.main()
    (options,) = taken
    assert options.findings == tmp_path / f"{name}.json"
    assert options.small
    if name == "training":
        assert (options.seconds, options.photos) == (7, Path("photos"))
        assert options.network == tmp_path / "universal.safetensors"


def test_what_the_sanitizer_runs(monkeypatch):
    """Both tools, on tests that exist, within the part's time."""
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}")
    checks = gpu_tests.checks(small=False)
    assert list(checks)[-2:] == ["memcheck", "racecheck"]
    for tool in ("memcheck", "racecheck"):
        words, _ = checks[tool]
        assert words[:3] == ["/bin/compute-sanitizer", "--tool", tool]
        assert words[words.index("--error-exitcode") + 1] == "9"
    assert sum(seconds for _, seconds in checks.values()) < PARTS["tests"].limit
    pytest_words = words[words.index(sys.executable) :]
    listed = subprocess.run(
        [*pytest_words, "--collect-only"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert "test_parity" in listed
    assert "test_half_precision" in listed
    assert "32_bits" not in listed


def test_the_checkout_is_the_package_where_it_is_not_installed(tmp_path):
    """Without Hydra; and so for the processes that are started from there."""
    libraries = [path for path in sys.path if path in site.getsitepackages()]
    code = f"""
import sys
sys.path[:0] = {[str(ROOT), *libraries]!r}
import benchmarks, photostyle.conf, os
print(os.path.realpath(photostyle.conf.__file__))
print("hydra" in sys.modules)
print(os.environ["PYTHONPATH"].split(os.pathsep)[0] in photostyle.conf.__file__)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(ROOT / "conf" / "__init__.py"), "False", "True"], done.stderr
    assert list(tmp_path.iterdir()) == []
