"""Examples run, in a folder of their own, and write what they say: scripts and the notebook."""

import json
import re
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
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "False" not in done.stdout
    for file in WRITTEN[name]:
        assert (tmp_path / "outputs" / file).is_file()


def test_notebook(tmp_path, monkeypatch, capsys):
    """Its cells in order, at a small size, without Jupyter; a last line that shows is a picture."""
    file = EXAMPLES / "style_transfer.ipynb"
    assert file.stat().st_size < 200_000
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    cells = json.loads(file.read_text("utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names, shown = {}, []
    for code in codes:
        exec(code.replace("SIZE = 256", "SIZE = 96"), names)
        if (last := code.splitlines()[-1]).startswith("show("):
            shown.append(eval(last, names))
    assert names["content"].shape[3] == 96
    assert len(shown) == 6
    assert all(picture.width > picture.height > 0 for picture in shown)
    residuals = re.findall(r"residual (\d+\.\d+) ΔE", capsys.readouterr().out)
    assert 0 < float(residuals[1]) < float(residuals[0])
    written = {path.name for path in Path("../outputs/notebook").iterdir()}
    assert {"content_mask.png", "sunset.cube", "stream_at_sunset.jpg"} <= written
