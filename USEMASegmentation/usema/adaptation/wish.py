"""How corrections are to be heeded: what a caller may choose, and when which way is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..inference.speeds import EXACT
from .fitting import HEADS, Recipe
from .judging import CARRIED, LEARNED, PROPAGATED

AUTO = "auto"
WISHES = (AUTO, PROPAGATED, LEARNED, CARRIED)
CHECKED_FROM = 3  # corrected slices, with which one is left out to see whether learning helps
# Mean Dice of the model on the corrected slices. Above it, as in hippocampi, carrying was better on average; below it,
# as in sarcomas and in hippocampi of a side that a model had never seen, learning was.
RIGHT_FROM = 0.75
SECONDS_ALLOWED = 600.0
MOST_SEED = 2**63 - 1  # that PyTorch takes


@dataclass(frozen=True)
class Wish:
    """How it is to be done.

    Attributes:
        way: PROPAGATED, LEARNED, CARRIED, or AUTO: PROPAGATED, unless the corrected slices, each left out in turn, come
            out better by CARRIED or as the model has them. Where labels may lie in each other, nothing can be
            propagated: there AUTO is CARRIED where the model is nearly right on the corrected slices (RIGHT_FROM),
            likewise checked, else whichever comes out best on a slice that is left out; with fewer than CHECKED_FROM
            slices, LEARNED.
        overlap, speed, mirror, probabilities, margins, labels: of the result, see ``Predictor.segment``.
        seconds_allowed: if the estimate is above, nothing is learned.
        seed: the same one gives the same result; a whole number from 0 to MOST_SEED.
        recipe: of learning.

    Raises:
        InputError: no such time or seed can be.
    """

    way: str = AUTO
    overlap: float | None = None
    speed: str = EXACT
    mirror: bool = False
    probabilities: bool = False
    margins: bool = False
    labels: Sequence[str] = ()
    seconds_allowed: float = SECONDS_ALLOWED
    seed: int = 0
    recipe: Recipe = HEADS

    def __post_init__(self):
        if not self.seconds_allowed >= 0:  # nor is NaN
            raise InputError(f"{self.seconds_allowed} seconds are no time to learn in.", "Give 0 or more.")
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"{self.seed!r:.40} is no seed.", f"Give a whole number from 0 to {MOST_SEED}.")
