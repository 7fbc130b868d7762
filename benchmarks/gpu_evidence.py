"""Everything that shows what the program does on an NVIDIA GPU, in one go.

python -m benchmarks.gpu_evidence [--output FOLDER] [--parts NAME ...] [--limit-scale X]
    [--training-seconds S] [--photos FOLDER] [--device cpu --small]

Each part is a process of its own with a time limit, and leaves NAME.json and NAME.md in the folder
as it ends, however it ends; the next part follows. summary.md has the machine and how each part
ended. The groups ``kernels`` and ``methods`` take less than ten minutes each. Only Python, PyTorch,
CuPy and what `photostyle` computes with are needed, no Hydra and no decoders but Pillow's. With
``--device cpu --small`` the parts can be tried without a GPU, on tiny sizes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common import table
from benchmarks.findings import markdown, write_json, write_text
from benchmarks.gpu_machine import gpu_machine
from benchmarks.limited import ROOT, end_of, run_limited

OUTPUT_BYTES = 6000
"""So much of the end of a failed part's output is kept."""


@dataclass(frozen=True)
class Part:
    """A module of benchmarks, and the seconds that it may take."""

    module: str
    limit: float


PARTS = {
    "tests": Part("benchmarks.gpu_tests", 385),
    "operator": Part("benchmarks.gpu_operator", 125),
    "share": Part("benchmarks.gpu_share", 80),
    "optimiser": Part("benchmarks.gpu_optimiser", 150),
    "training": Part("benchmarks.gpu_training", 140),  # and what is given for training
}
GROUPS = {"kernels": ("tests", "operator", "share"), "methods": ("optimiser", "training")}


def chosen(names: list[str]) -> list[str]:
    """The parts that names of parts and groups stand for, each once."""
    return list(dict.fromkeys(part for name in names for part in GROUPS.get(name, (name,))))


def command(name: str, options: argparse.Namespace) -> list[str]:
    """The command line of a part."""
    words = [sys.executable, "-m", PARTS[name].module]
    words += ["--findings", str(options.output / f"{name}.json")]
    if options.small:
        words.append("--small")
    if name == "training":
        words += ["--seconds", str(options.training_seconds)]
        words += ["--network", str(options.output / "universal.safetensors")]
        words += ["--photos", str(options.photos)] if options.photos else []
    return words


def limit(name: str, options: argparse.Namespace) -> float:
    """The seconds that a part may take."""
    seconds = PARTS[name].limit + (options.training_seconds if name == "training" else 0)
    return seconds * options.limit_scale


def run_part(name: str, words: list[str], seconds: float, folder: Path) -> str:
    """Run a part, write its two files and return how it ended.

    Args:
        name: of the part; the process may write ``NAME.json`` with its tables while it runs.
        words: its command line.
        seconds: after which it is stopped.
        folder: for the files.
    """
    findings, for_people = (folder / f"{name}{suffix}" for suffix in (".json", ".md"))
    for file in (findings, for_people):  # of an earlier call
        file.unlink(missing_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        code = run_limited(words, seconds, output)
        end = end_of(output, OUTPUT_BYTES) if code != 0 else ""
    outcome = "done" if code == 0 else f"failed, exit code {code}"
    if code is None:
        outcome = f"stopped after {seconds:.0f} s"
    tables = json.loads(findings.read_text())["tables"] if findings.exists() else []
    part = {
        "part": name,
        "outcome": outcome,
        "seconds": round(time.monotonic() - start, 1),
        "command": words,
        "machine": gpu_machine(),
        "tables": tables,
        "output": end,
    }
    write_json(findings, part)
    write_text(for_people, as_markdown(part))
    return outcome


def as_markdown(part: dict) -> str:
    """A part's file for people."""
    text = f"# {part['part']}\n\n{_line(part['machine'])}\n\n"
    text += f"{part['outcome']}, {part['seconds']:.0f} s: `{' '.join(part['command'])}`\n\n"
    text += markdown(part["tables"])
    if part["output"]:
        text += f"\nThe end of its output:\n\n```\n{part['output']}\n```\n"
    return text


def _line(facts: dict[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items() if value)


def write_summary(folder: Path) -> None:
    """The machine, and how each part in the folder ended, those of an earlier call included."""
    files = {name: folder / f"{name}.json" for name in PARTS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    header = ["part", "outcome", "seconds", "card", "SM clock at its end", "date"]
    rows = []
    for name in PARTS:
        part = found.get(name, {})
        facts = part.get("machine", {})
        outcome = part.get("outcome", "not finished" if part else "not run")
        keys = ("card", "SM clock", "date")
        rows.append([name, outcome, part.get("seconds", ""), *(facts.get(key, "") for key in keys)])
    facts = gpu_machine()
    parts = [dict(zip(header, row, strict=True)) for row in rows]
    write_json(folder / "summary.json", {"machine": facts, "parts": parts})
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)
    write_text(folder / "summary.md", f"# On a GPU\n\n{lines}\n\n{table(header, rows)}\n")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "gpu_evidence")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=[*GROUPS, *PARTS])
    parser.add_argument("--limit-scale", type=float, default=1.0, help="of all time limits")
    parser.add_argument("--training-seconds", type=float, default=300.0)
    parser.add_argument("--photos", type=Path, help="to train with; without it those in examples/")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it out")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    options.output = options.output.absolute()
    options.photos = options.photos and options.photos.absolute()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here; --device cpu --small tries the parts without")
    options.output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in chosen(options.parts):
        print(f"{name} ...", flush=True)
        outcomes.append(
            run_part(name, command(name, options), limit(name, options), options.output)
        )
        print(f"{name}: {outcomes[-1]}", flush=True)
        write_summary(options.output)
    return int(any(outcome != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
