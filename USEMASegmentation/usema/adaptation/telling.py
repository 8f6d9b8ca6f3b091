"""In words: what was done with corrected slices, and why."""

from __future__ import annotations

from collections.abc import Mapping

from .. import __version__
from ..models.metadata import ModelMetadata
from .corrections import Corrections
from .judging import CARRIED, LEARNED, PROPAGATED, UNCHANGED, HeldOut


def message(
    way: str, count: int, held: HeldOut | None, right: float, lost: Mapping[str, float] | None, changed: int
) -> str:
    slices = "1 corrected slice" if count == 1 else f"{count} corrected slices"
    if not changed and way in (PROPAGATED, CARRIED):
        return f"What you changed on {slices} changes nothing on the others."
    compared = ""
    if held is not None:
        compared = (
            f" On slice {held.slice[1]}, which was left out to check, the Dice is {held.before:.2f} without, "
            f"{held.carried:.2f} with the corrections carried to neighbouring slices, and {held.learned:.2f} with what "
            "was learned."
        )
    if way == LEARNED:
        return f"The model learned from {slices}.{compared}"
    if way == PROPAGATED:
        return f"What you changed on {slices} was propagated to the others; the model itself stays as it was."
    if lost is not None and way == UNCHANGED:
        best = min(its for one, its in lost.items() if one != UNCHANGED)
        return (
            f"Nothing was changed: what you changed on one of {slices} does not hold on the others. With each left out "
            f"in turn, it comes out with Dice {1 - best:.2f} if it hears the others, and {1 - lost[UNCHANGED]:.2f} if "
            "not."
        )
    if lost is not None and PROPAGATED in lost:
        return (
            f"What you changed on {slices} was carried to the slices near them, and no farther: with each left out in "
            f"turn, it comes out with Dice {1 - lost[CARRIED]:.2f} so, and {1 - lost[PROPAGATED]:.2f} if it is "
            "propagated."
        )
    if lost is not None:
        return (
            f"On {slices} the model is nearly right (Dice {right:.2f}), where learning does not pay: what you changed "
            "was carried to the slices near them."
        )
    if way == CARRIED:
        return f"{slices} changed the slices near them; the model itself stays as it was.{compared}".capitalize()
    return f"Neither learning from {slices} nor carrying them on helps: nothing was changed.{compared}"


def delta_said(metadata: ModelMetadata, corrections: Corrections, steps: int, seed: int) -> dict[str, str]:
    """What a delta tells of itself."""
    return {
        "model": metadata.name,
        "model_version": metadata.version,
        "weights_sha256": metadata.weights["sha256"],
        "usema": __version__,
        "slices": corrections.told,
        "steps": str(steps),
        "seed": str(seed),
    }
