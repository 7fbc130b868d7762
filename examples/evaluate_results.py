"""Results measured as figures, and as sheets for judges who do not know which is whose."""

import shutil
from pathlib import Path

from photostyle.data import load_image, save_image
from photostyle.evaluation.blind import write_sheets
from photostyle.evaluation.evaluate_results import evaluate_results
from photostyle.ops.affine import apply_affine
from photostyle.ops.colour_transfer import colour_transfer

pair = Path("outputs/pairs/1")
pair.mkdir(parents=True, exist_ok=True)
for name, example in (("content", "pavilion"), ("style", "sunset")):
    shutil.copy(f"examples/{example}.jpg", pair / f"{name}.jpg")

content, style = (load_image(pair / f"{name}.jpg", 256) for name in ("content", "style"))
for folder, gains in (("limited", (0.85, 1.8)), ("exact", (0.0, float("inf")))):
    Path("outputs", folder).mkdir(exist_ok=True)
    maps = colour_transfer(content, style, gains=gains)
    save_image(apply_affine(maps, content), f"outputs/{folder}/1.png")

where = {"size": 256, "overwrite": True}
print(evaluate_results("outputs/limited", "outputs/pairs", output="outputs/figures", **where))
sheets = write_sheets(
    "outputs/limited", "outputs/pairs", "outputs/exact", output="outputs/sheets", **where
)
print(*sheets)
