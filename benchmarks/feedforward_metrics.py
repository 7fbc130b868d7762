"""Networks of one style on a folder of photos, as evaluate.py measures, beside simpler methods.

python -m benchmarks.feedforward_metrics PHOTOS STYLE OUTPUT NETWORK [NETWORK ...] [--size 384]

OUTPUT/NETWORK holds the scores and contact sheets of each network.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.common import machine, table
from photostyle.data import load_photo, save_image
from photostyle.data.paths import find_photos
from photostyle.evaluation.evaluate_results import evaluate_results
from photostyle.evaluation.scores import GLOBAL_TRANSFER, RESULTS, TITLES, UNTOUCHED
from photostyle.feedforward import load_network


@torch.no_grad()
def stylize(network, photos: list[Path], size: int, results: Path) -> None:
    """Write what the network makes of each photo at working size, in 8 bits."""
    for path in photos:
        photo = load_photo(path).tensor(size)
        save_image(network(photo).clamp(0, 1), results / f"{path.stem}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--size", type=int, default=384)
    arguments = parser.parse_args()
    photos = [arguments.photos / name for name in find_photos(arguments.photos)]

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs"
        for path in photos:
            (pairs / path.stem).mkdir(parents=True)
            (pairs / path.stem / f"content{path.suffix}").symlink_to(path.resolve())
            (pairs / path.stem / f"style{arguments.style.suffix}").symlink_to(
                arguments.style.resolve()
            )
        for name in arguments.networks:
            results = Path(folder) / name.replace("/", "_")
            results.mkdir()
            network = load_network(name)
            stylize(network, photos, arguments.size, results)
            label = Path(name).parent.name if Path(name).is_file() else name
            evaluation = evaluate_results(
                results,
                pairs,
                output=arguments.output / label,
                size=arguments.size,
                overwrite=True,
            )
            means = evaluation.means
            for method, scores in (
                ("untouched", means[UNTOUCHED]),
                ("colour transfer", means[GLOBAL_TRANSFER]),
                (label, means[RESULTS]),
            ):
                below = 1 - scores.style_distance / means[GLOBAL_TRANSFER].style_distance
                rows[method] = [method, *scores.formatted(), f"{below:+.0%}"]
    print(f"{machine()}; {len(photos)} photos at {arguments.size} pixels\n")
    header = ["", *TITLES, "below the colour transfer"]
    print(table(header, rows.values()))


if __name__ == "__main__":
    main()
