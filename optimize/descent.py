"""How the optimiser looks for a minimum."""

from collections.abc import Sequence
from dataclasses import dataclass

from photostyle.ops.errors import ArgumentError, check_choice, check_number, check_whole

OPTIMIZERS = ("lbfgs", "adam")
MOST_SCALES = 6
STEPS_TO_MAP = (10,)
"""For a map of colours, which is the same at every size."""
STEPS = (20, 20)
"""For what may differ from place to place: far more is to be found."""


@dataclass(frozen=True)
class Descent:
    """How the minimum is looked for, from coarse to fine.

    Attributes:
        name: ``"lbfgs"`` (strong Wolfe line search) or ``"adam"``.
        learning_rate: of the optimiser.
        steps: evaluations of the objective at each of 1 to 6 scales, at least 1 each. A scale has
            twice the size of the one before, the last one is the working size. ``None``: (10,),
            without a map of colours (20, 20).

    Raises:
        ArgumentError: for values other than these.
    """

    name: str = "lbfgs"
    learning_rate: float = 1.0
    steps: Sequence[int] | None = None

    def __post_init__(self):
        check_choice("optimizer", self.name, OPTIMIZERS)
        check_number("learning_rate", self.learning_rate, 0)
        if self.steps is None:
            return
        if not isinstance(self.steps, Sequence) or isinstance(self.steps, str):
            raise ArgumentError("steps", self.steps, "give a list, one number for each scale")
        if not 1 <= len(self.steps) <= MOST_SCALES:
            expected = f"give one number for each of 1 to {MOST_SCALES} scales"
            raise ArgumentError("steps", list(self.steps), expected)
        for count in self.steps:
            check_whole("steps", count, 1)

    def schedule(self, colour_map: bool) -> list[tuple[float, int]]:
        """Each scale, a share of the working size, and its steps.

        Args:
            colour_map: whether a map of colours is looked for.

        Returns:
            From coarse to fine; shares are 1 for the last, 0.5 for the one before, and so on.
        """
        steps = self.steps or (STEPS_TO_MAP if colour_map else STEPS)
        return [(0.5**halvings, steps[-1 - halvings]) for halvings in reversed(range(len(steps)))]
