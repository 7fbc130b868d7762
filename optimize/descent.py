"""How the optimiser looks for a minimum."""

from collections.abc import Sequence
from dataclasses import dataclass

from photostyle.ops.errors import ArgumentError, check_choice, check_number, check_whole

OPTIMIZERS = ("lbfgs", "adam")


@dataclass(frozen=True)
class Descent:
    """How the minimum is looked for, from coarse to fine.

    Attributes:
        name: ``"lbfgs"`` (strong Wolfe line search) or ``"adam"``.
        learning_rate: of the optimiser.
        scales: shares of the working size, from coarse to fine, each at most 1.
        steps: evaluations of the objective at each scale.

    Raises:
        ArgumentError: for values other than these.
    """

    name: str = "lbfgs"
    learning_rate: float = 1.0
    scales: Sequence[float] = (0.5, 1.0)
    steps: Sequence[int] = (20, 20)

    def __post_init__(self):
        check_choice("optimizer", self.name, OPTIMIZERS)
        check_number("learning_rate", self.learning_rate, 0)
        _check_schedule(self.scales, self.steps)


def _check_schedule(scales, steps) -> None:
    for argument, values in (("scales", scales), ("steps", steps)):
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ArgumentError(argument, values, "give a list, one number for each scale")
    if len(scales) != len(steps) or not scales:
        expected = f"give one number for each of the scales {list(scales)}"
        raise ArgumentError("steps", list(steps), expected)
    for scale in scales:
        check_number("scales", scale, 0.01, 1)
    for count in steps:
        check_whole("steps", count, 1)
