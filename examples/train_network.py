"""A network trained for two steps: enough to see what training takes and gives."""

from functools import partial

from photostyle.data import TrainingPhotos
from photostyle.feedforward import (
    Intervals,
    RunOptions,
    Schedule,
    TransformNet,
    load_network,
    train_network,
)
from photostyle.ops import GuidedFilter, StyleObjective

if __name__ == "__main__":  # processes that load photos import this file
    report = train_network(
        "examples/dusk.jpg",
        "outputs/two_steps",
        photos=partial(TrainingPhotos, "examples", crop=96, batch_size=2, workers=1, held_out=1),
        network=partial(TransformNet, width=8, blocks=1),
        objective=StyleObjective(
            style_layers=["colours", "relu1_1"], layer_weights=[1, 1], matting_weight=0
        ),
        guided_filter=GuidedFilter(radius=4),
        schedule=Schedule(steps=2),
        intervals=Intervals(validation=2),
        options=RunOptions(size=96, device="cpu", resume=True),
    )
    print(report)
    print(load_network(report.network).metrics)
