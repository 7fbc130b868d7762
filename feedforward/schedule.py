"""When things happen in a training run, and how fast the weights move."""

import math
from dataclasses import dataclass

from photostyle.ops.errors import check_number, check_whole


@dataclass(frozen=True)
class Schedule:
    """How the weights move.

    Attributes:
        steps: of the optimiser, Adam.
        learning_rate: grows linearly during ``warmup`` steps, then falls to 0 as half a cosine.
        warmup: number of steps.
        max_gradient_norm: longer gradients are cut to it.
        ema_decay: of the moving average of the weights, which is what is exported.
        gradient_accumulation: batches per step.
    """

    steps: int = 2000
    learning_rate: float = 1e-3
    warmup: int = 50
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.99
    gradient_accumulation: int = 1

    def __post_init__(self):
        check_whole("steps", self.steps, 1)
        check_number("learning_rate", self.learning_rate, 0)
        check_whole("warmup", self.warmup, 0)
        check_number("max_gradient_norm", self.max_gradient_norm, 0)
        check_number("ema_decay", self.ema_decay, 0, 1)
        check_whole("gradient_accumulation", self.gradient_accumulation, 1)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        growth = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * growth * (1 + math.cos(math.pi * step / self.steps)) / 2

    def ema_decay_at(self, step: int) -> float:
        """Of the moving average: shorter at first, so that it forgets the untrained network."""
        return min(self.ema_decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Intervals:
    """Steps between points and pictures in TensorBoard, validation, and
    checkpoints; and how many checkpoints are kept."""

    log: int = 10
    pictures: int = 200
    validation: int = 500
    checkpoint: int = 200
    keep: int = 3

    def __post_init__(self):
        for name, value in vars(self).items():
            check_whole(name, value, 1)
