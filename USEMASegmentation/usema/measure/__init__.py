"""What is read off a two-dimensional result: numbers with names and units. Without torch.

``KNOWN`` is the whole table: a model names its measurements, and never brings code for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .ellipse import head_circumference
from .lungs import lung_field
from .objects import object_sizes
from .values import Measurement, Scale

__all__ = ["KNOWN", "Measurement", "Scale", "measure", "told"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a result.

    Attributes:
        labels: (y, x); 0 is background.
        objects: (y, x), the number of the object of each pixel; None: the model knows no objects.
        scale: of its pixels.
    """

    labels: np.ndarray
    objects: np.ndarray | None
    scale: Scale


KNOWN: Mapping[str, Callable[[Frame], tuple[list[Measurement], list[str]]]] = {
    "head_circumference": lambda frame: head_circumference(frame.labels == 1, frame.scale),
    "lung_field": lambda frame: lung_field(frame.labels != 0, frame.scale),
    "objects": lambda frame: (object_sizes(frame.objects, frame.scale), []) if frame.objects is not None else ([], []),
}


def measure(
    names: Sequence[str], labels: np.ndarray, objects: np.ndarray | None, scale: Scale
) -> tuple[list[list[Measurement]], list[str]]:
    """Measure a result.

    Args:
        names: of ``KNOWN``.
        labels: (n, y, x), frames.
        objects: the same shape, or None.
        scale: of a pixel.

    Returns:
        for each frame its measurements, none where there is nothing to measure; and what speaks against them, in
        sentences.
    """
    frames, doubts = [], []
    for index, plane in enumerate(labels):
        frame, found = Frame(plane, None if objects is None else objects[index], scale), []
        for name in names:
            values, words = KNOWN[name](frame)
            found += values
            doubts += [word if len(labels) == 1 else f"Frame {index + 1}: {word}" for word in words]
        frames.append(found)
    return frames, doubts


def told(frames: Sequence[Sequence[Measurement]]) -> str:
    """Measurements of all frames in a line: of several frames, the least and the greatest value of each."""
    if len(frames) == 1:
        return "; ".join(map(str, frames[0]))
    by_name: dict[tuple[str, str], list[Measurement]] = {}
    for one in (one for frame in frames for one in frame):
        by_name.setdefault((one.name, one.unit), []).append(one)
    return "; ".join(
        f"{_range([one.amount for one in sorted(group, key=lambda one: one.value)], name)} in {len(group)} of "
        f"{len(frames)} frames"
        for (name, _), group in by_name.items()
    )


def _range(amounts: Sequence[str], name: str) -> str:
    return f"{name} {amounts[0]}" if amounts[0] == amounts[-1] else f"{name} {amounts[0]} to {amounts[-1]}"
