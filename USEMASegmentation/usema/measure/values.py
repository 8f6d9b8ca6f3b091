"""A number with its name and unit, and what a pixel is worth. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN_PIXEL_SIZE = "not known"  # as the provenance of a result tells it
MEASURED_KEY = "measured"  # under which it names what was measured, so that a corrected result can be measured again
SPLIT_KEY = "splitLabel"  # and the label that was split into objects


@dataclass(frozen=True)
class Measurement:
    """Something that was measured.

    Attributes:
        name: what, in words.
        value: the number, finite.
        unit: "mm", "mm2", "pixels" (of a length or an area), "%"; "" of a count or ratio.
    """

    name: str
    value: float
    unit: str = ""

    @property
    def amount(self) -> str:
        """The number with its unit."""
        whole = self.unit in ("", "pixels") and float(self.value).is_integer()
        number = f"{self.value:.0f}" if whole or abs(self.value) >= 1000 else f"{self.value:.{_digits(self.value)}f}"
        unit = self.unit.replace("mm2", "mm²")
        return f"{number} {unit}".replace(" %", "%").strip()

    @property
    def column(self) -> str:
        """What a table calls it."""
        return f"{self.name} / {self.unit}" if self.unit else self.name

    def __str__(self) -> str:
        return f"{self.name} {self.amount}"


@dataclass(frozen=True)
class Scale:
    """The size of a pixel along x and y in mm; both 1 where nobody knows it, and then lengths are in pixels."""

    x: float = 1.0
    y: float = 1.0
    known: bool = False

    @property
    def length(self) -> str:
        """The unit of lengths."""
        return "mm" if self.known else "pixels"

    @property
    def area(self) -> str:
        """The unit of areas."""
        return "mm2" if self.known else "pixels"


def _digits(value: float) -> int:
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
