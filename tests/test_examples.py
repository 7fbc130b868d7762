"""Every example script runs, in a folder of its own, and writes what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WRITTEN = {
    "matting_laplacian": [],
    "guided_filter": ["filtered.png", "filtered_at_full_size.jpg"],
    "colour_transfer": ["closed_form.jpg", "closed_form_half.jpg", "masks/content_mask.png"],
    "optimize_image": ["optimised_transport.jpg", "optimised_gram.jpg"],
    "stylize_photos": ["stream_in_autumn.jpg", "at_dusk/pavilion.jpg", "autumn.safetensors"],
    "train_network": ["two_steps/network.safetensors"],
    "evaluate_results": ["figures/evaluation.json", "sheets/sheet_01.png"],
}


def test_every_script_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_example(name, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "outputs").mkdir()
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "False" not in done.stdout
    for file in WRITTEN[name]:
        assert (tmp_path / "outputs" / file).is_file()
