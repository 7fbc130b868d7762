"""What a method did, for the person who called it."""

from dataclasses import dataclass
from pathlib import Path

from photostyle.data.lut_output import SavedLut
from photostyle.ops import LossTerms
from photostyle.ops.errors import printable


@dataclass(frozen=True)
class Report:
    """What a method did."""

    output: Path
    size: tuple[int, int]
    seconds: float
    terms: LossTerms | None = None
    stopped: str | None = None
    lut: SavedLut | None = None

    @property
    def exit_code(self) -> int:
        """0; 130 after Ctrl-C, 1 after a loss that was not finite."""
        return {None: 0, "interrupted": 130}.get(self.stopped, 1)

    def __str__(self) -> str:
        height, width = self.size
        text = f"{printable(self.output)}: {width} x {height}, {self.seconds:.1f} s"
        if self.lut is not None:
            text += f"\n{self.lut}"
        if self.terms is not None:
            text += f"\nlosses: {self.terms}"
        if self.stopped:
            text += f"\nended early ({self.stopped}); this is the best picture so far"
        return text
