"""DICOM images of one series that lie at the same places: phases of a movement, echoes, weightings, points in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dicom_headers import Slice

# What may tell images of one place apart, the plainest word first; values of the last ones differ from place to place.
_ORDER = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "AcquisitionTime",
)
_SAME_PLACE = 1e-2  # mm


def phases_of(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """The slices of each phase, by what tells it from the others; all under one empty name where there are no phases.

    Phases are there if each place along the stack has the same number of images, which one of DICOM's words for phase,
    echo or time tells apart at every place.
    """
    places = _places(slices)
    counts = {len(images) for images in places}
    if len(counts) != 1 or counts == {1} or not places:
        return {"": list(slices)}
    for word in _ORDER:
        values = [[_number(image, word) for image in images] for images in places]
        if all(None not in told and len(set(told)) == len(told) for told in values):
            ordered = [
                [images[i] for i in np.argsort(told, kind="stable")]
                for images, told in zip(places, values, strict=True)
            ]
            return {f"{word} {phase[0].phase[word]}": list(phase) for phase in zip(*ordered, strict=True)}
    return {"": list(slices)}


def _places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The images at each place along the normal of the first one."""
    if not slices:
        return []
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    placed = sorted(((float(one.position @ normal), i) for i, one in enumerate(slices)))
    places: list[list[Slice]] = []
    last = None
    for height, i in placed:
        if last is None or height - last > _SAME_PLACE:
            places.append([])
            last = height
        places[-1].append(slices[i])
    return places


def _number(one: Slice, word: str) -> float | None:
    try:
        return float(one.phase[word])
    except (KeyError, ValueError):
        return None
