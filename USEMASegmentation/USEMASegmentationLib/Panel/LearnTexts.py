"""What is said of slices to learn from, and of learning. No Qt."""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _

from ..LearnTask import LearnStatus
from ..Review.Slices import Slice
from ..Scene.ReviewCase import ReviewCase
from . import RunTexts


def planeName(case: ReviewCase, axis: int) -> str:
    """What a radiologist calls the slices across an axis of the array."""
    across = np.abs(case.directions[:, 2 - axis])
    return (_("Sagittal"), _("Coronal"), _("Axial"))[int(across.argmax())]


def row(case: ReviewCase, one: Slice) -> str:
    """A slice of the list."""
    said = []
    if one.edited:
        said.append(_("{count} voxels corrected").format(count=f"{one.edited:,}"))
    if one.accepted:
        said.append(_("accepted"))
    text = _("{plane} slice {index}: {said}")
    return text.format(plane=planeName(case, one.axis), index=one.index, said=", ".join(said))


def ready(count: int, seconds: float | None) -> str:
    """What a click would do with so many slices, and how long it takes."""
    if count == 1:
        text = _("1 slice is ticked, and must be right as it stands; the others follow it")
    else:
        text = _("{count} slices are ticked, and must be right as they stand; the others follow them")
    text = text.format(count=count)
    return f"{text}." if seconds is None else _("{text}: {time}.").format(text=text, time=RunTexts.duration(seconds))


def learned(case: ReviewCase) -> str:
    """What the model has learned for a case; empty: nothing."""
    delta = case.delta
    if delta is None:
        return ""
    planes = [part.partition(": ") for part in delta.slices.removeprefix("axis ").split("; axis ")]
    slices = "; ".join(f"{planeName(case, int(axis))} {indices}" for axis, _sep, indices in planes if axis.isdigit())
    return _("The model has learned for this case, from slices: {slices}.").format(slices=slices or delta.slices)


def step(status: LearnStatus) -> str:
    """What is being done now."""
    names = {
        "looking": _("Looking at the slices"),
        "checking": _("Checking whether it helps, with slices left out"),
        "learning": _("Learning"),
        "propagating": _("Propagating what you changed"),
        "segmenting": _("Segmenting"),
    }
    return names.get(status.phase) or status.message


def timeLeft(status: LearnStatus) -> str:
    """Text of the progress bar."""
    left = status.secondsLeft
    return "" if left is None else _("{time} left").format(time=RunTexts.duration(left))


def result(status: LearnStatus) -> str:
    """How it ended."""
    parts = [status.message, status.hint]
    if status.changedVoxels:
        count = _("{count} voxels changed; what you corrected and accepted stayed. Undo takes it back.")
        parts.append(count.format(count=f"{status.changedVoxels:,}"))
    return " ".join(filter(None, [*parts, *status.warnings]))
