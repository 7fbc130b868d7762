"""Time and peak memory of stylize.py by the size of the photo, reading and writing included.

python -m benchmarks.full_resolution [--megapixels 1 24 100]

The optimisation at working size is cut to one step; what grows with the photo is measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.common import machine, table

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def measure(megapixels: float, folder: Path) -> tuple[str, float, int]:
    """The size, seconds and peak resident bytes of one run in a process of its own."""
    width = round((megapixels * 1e6 * 3 / 2) ** 0.5)
    size = (width, round(width * 2 / 3))
    content = folder / "content.jpg"
    Image.open(EXAMPLES / "stream.jpg").resize(size, Image.Resampling.BICUBIC).save(content)
    command = [
        sys.executable, str(ROOT / "stylize.py"), f"content={content}",
        f"style={EXAMPLES / 'sunset.jpg'}", f"output={folder / 'output.jpg'}", "overwrite=true",
        "optimizer.steps=[1]",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stylize.py failed at {megapixels} megapixels")
    return f"{size[0]} x {size[1]}", time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 24, 100])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in parser.parse_args().megapixels:
            size, seconds, peak = measure(megapixels, Path(folder))
            rows.append([size, f"{megapixels:g}", f"{seconds:.1f}", f"{peak / 2**30:.2f}"])
            print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    print(f"{machine()}\n")
    print(table(["size", "megapixels", "seconds", "peak memory, GiB"], rows))


if __name__ == "__main__":
    main()
