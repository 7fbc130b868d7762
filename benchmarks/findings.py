"""What a benchmark finds: tables that grow row by row and are kept in a file from the first on."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.common import table
from photostyle.data.paths import atomic_file


class Findings:
    """Tables of one benchmark.

    Args:
        file: holds all rows so far, ``{"tables": [{"title", "header", "rows"}]}``, replaced as a
            whole with each of them; ``None``: no file.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self.tables: list[dict] = []

    def table(self, title: str, header: Iterable[str]) -> Callable[..., None]:
        """Begin a table; the function that is returned takes the cells of a row."""
        rows: list[list[str]] = []
        self.tables.append({"title": title, "header": list(header), "rows": rows})

        def add(*cells: object) -> None:
            rows.append(list(map(str, cells)))
            print(*cells, sep="\t", file=sys.stderr, flush=True)
            self._keep()

        return add

    def _keep(self) -> None:
        if self.file is not None:
            write_json(self.file, {"tables": self.tables})

    def __str__(self) -> str:
        return markdown(self.tables)


def markdown(tables: Iterable[dict]) -> str:
    """Each table with its title."""
    parts = [f"**{part['title']}**\n\n{table(part['header'], part['rows'])}\n" for part in tables]
    return "\n".join(parts)


def write_json(file: Path, content: dict) -> None:
    """Replace a file as a whole."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replace a file as a whole."""
    with atomic_file(file) as stream:
        stream.write(text.encode())


def parser(description: str) -> argparse.ArgumentParser:
    """Of the command line of a part of `benchmarks.gpu_evidence`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--findings", type=Path, help="file for the tables; without it, printed")
    made.add_argument("--small", action="store_true", help="tiny sizes, to try it out")
    return made


def report(measure: Callable[[Findings, argparse.Namespace], None], options) -> None:
    """Call ``measure(findings, options)``, and print what it has found unless a file has it."""
    findings = Findings(options.findings)
    measure(findings, options)
    if options.findings is None:
        print(findings)
