"""The section on failures: what kinds of errors there are, and the worst cases with what went wrong in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...models.card_files import PICTURES
from .results import VOLUMES, CaseResult, LabelResult, Results, Units

DISPLACED = 0.03  # gain in Dice by moving the reference one voxel from which it is told


def failures(results: Results, pictures: Sequence[str]) -> list[str]:
    """The section as paragraphs; ``pictures`` are those that are there."""
    blocks = [
        _kinds_of_errors(results),
        "The cases with the lowest mean Dice follow. References are drawn by people: a case is also here if its "
        "reference is off.",
    ]
    if any(picture in pictures for picture in PICTURES) and not results.images:
        blocks[-1] += " Each picture shows the slices in which result and reference differ most."
    cases = {case.case: case for case in results.cases}
    planes = "" if results.images else " in three planes"
    for picture, shown in zip(PICTURES, results.pictured, strict=False):
        case = cases[shown.case]
        low, high = case.intensity_range
        said = [
            failure(case, results.units),
            f"{results.units.element.title()}s: {case.intensity_type}, {low:.0f} to {high:.0f}.",
        ]
        if shown.moved_dice > case.dice + DISPLACED:
            said.append(
                f"With the reference moved {shown.moved_to}, the mean Dice would be {shown.moved_dice:.3f}: one of "
                "the two may be displaced, or the result lacks one side."
            )
        blocks += [f"### {shown.case}: mean Dice {case.dice:.3f}", " ".join(said)]
        if picture in pictures:
            blocks.append(f"![{shown.case}: contours of result and reference{planes}]({picture})")
    return blocks


def failure(case: CaseResult, units: Units = VOLUMES) -> str:
    """Says of a case's worst segment what is missing and what was added, and what it was mistaken for."""
    worst = min((label for label in case.labels if not math.isnan(label.dice)), key=lambda label: label.dice)
    return (
        f"Worst segment: {worst.label}, Dice {worst.dice:.3f}, with {units.amount(worst.predicted_ml)} in the "
        f"result and {units.amount(worst.reference_ml)} in the reference. "
        f"{_part(worst.missing_ml, units, 'missing', 'called')} "
        f"{_part(worst.added_ml, units, 'added', 'in the reference')}"
    )


def _part(parts: dict[str, float], units: Units, what: str, how: str) -> str:
    """ "0.38 ml are added (in the reference 0.30 ml background, 0.08 ml Posterior hippocampus)." """
    known = sorted(parts.items(), key=lambda part: -part[1])
    if not known:
        return f"Nothing is {what}."
    names = [known[0][0]] if len(known) == 1 else [f"{units.amount(size)} {name}" for name, size in known[:3]]
    return f"{units.amount(sum(parts.values()))} are {what} ({how} {', '.join(names)})."


def _kinds_of_errors(results: Results) -> str:
    """How much of all errors is confusion between segments, and how much is with the background."""
    labels: list[LabelResult] = [label for case in results.cases for label in case.labels]
    missed = sum(label.missing_ml.get("background", 0.0) for label in labels)
    added = sum(label.added_ml.get("background", 0.0) for label in labels)
    confused = sum(sum(label.missing_ml.values()) for label in labels) - missed
    total = missed + added + confused
    if total == 0:
        return "Result and reference are the same in every case."
    between = f", {confused / total:.0%} is one segment taken for another" if len({x.label for x in labels}) > 1 else ""
    return (
        f"Of all {results.units.extent} that is labelled wrongly, {missed / total:.0%} was left out (called "
        f"background), {added / total:.0%} was added (background in the reference){between}."
    )
