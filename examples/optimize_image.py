"""The optimiser on tensors, with an objective of your own choice."""

from pathlib import Path

from photostyle.data import load_image, save_image
from photostyle.ops import GRAM, GuidedFilter, StyleObjective, Transport
from photostyle.optimize import optimize_image

Path("outputs").mkdir(exist_ok=True)
content = load_image("examples/pavilion.jpg", size=192)
style = load_image("examples/sunset.jpg", size=192)

for name, style_loss in (("transport", Transport()), ("gram", GRAM)):
    objective = StyleObjective(
        style_loss=style_loss,
        style_layers=["relu1_1", "relu2_1", "relu3_1"],
        layer_weights=None,
        style_weight=100.0,
    )
    result = optimize_image(content, style, objective, guided_filter=GuidedFilter(radius=8))
    save_image(result.image, f"outputs/optimised_{name}.jpg")
    print(name, result.terms)
