"""What a network says: on a few slices, without running over the whole volume, or of all of it, kept as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..inference.loading import LoadedPart
from ..inference.outputs import Outputs
from ..inference.sliding_window import predict_logits
from .lesson import Lesson, Shown, Slice
from .truth import log_odds

MOST_KEPT = 2**30  # bytes of logits, so that the network need not run again
SUREST = 30.0  # log odds; more could not be told apart, and not be kept in 16 bits


@dataclass(frozen=True)
class Window:
    """Some planes of the data, about a tile thick, that hold corrected slices well inside.

    Attributes:
        axis: along which it is cut out.
        start, stop: its planes.
        shown: the slices in it.
    """

    axis: int
    start: int
    stop: int
    shown: tuple[Shown, ...]


def windows(lesson: Lesson, shown: Sequence[Shown], tile: Sequence[int]) -> list[Window]:
    """Few windows that hold all the slices.

    Args:
        tile: three sides, or two of a network that sees each plane of the first axis alone.
    """
    sides = tile if len(tile) == 3 else (1, *tile)
    found = []
    for axis in range(3):
        rest = sorted((one for one in shown if one.axis == axis), key=lambda one: int(one.planes[0]))
        length, side = lesson.data.shape[1 + axis], sides[axis]
        if rest and length <= 2 * side and side > 1:
            found.append(Window(axis, 0, length, tuple(rest)))
            continue
        while rest:
            first, last = int(rest[0].planes[0]), int(rest[0].planes[-1])
            thick = max(side, last - first + 1)
            margin = 0 if side == 1 else side // 8
            start = first - margin if len(rest) > 1 else (first + last + 1 - thick) // 2
            start = max(0, min(start, length - thick))
            stop = min(length, start + thick)
            inside = [one for one in rest if one.planes[-1] < stop - (margin if stop < length else 0)] or rest[:1]
            found.append(Window(axis, start, stop, tuple(inside)))
            rest = rest[len(inside) :]
    return found


def tiles_in(part: LoadedPart, lesson: Lesson, several: Sequence[Window], overlap: float) -> int:
    """How many tiles the windows take."""
    return sum(_tiling(part, lesson, window, overlap).count for window in several)


def on_slices(
    part: LoadedPart,
    network: nn.Module,
    lesson: Lesson,
    several: Sequence[Window],
    overlap: float,
    device: torch.device,
    tile_done: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> dict[Slice, torch.Tensor]:
    """The logits (outputs, ...) of the planes of each slice, float32 in main memory, shaped as ``Shown.index`` cuts.

    Args:
        network: the part's, or one that has learned.
        tile_done: called with how many tiles are done.

    Raises:
        Cancelled, DeviceError: as ``predict_logits``.
    """
    found: dict[Slice, torch.Tensor] = {}
    before = 0
    for window in several:
        cut = (slice(None),) * (1 + window.axis) + (slice(window.start, window.stop),)

        def progress(tiles: int, total: int, left: float | None, before=before) -> None:
            tile_done(before + tiles)

        pieces: dict[Slice, list[torch.Tensor]] = {one.slice: [] for one in window.shown}
        for start, logits in _slabs(part, network, lesson.data[cut], overlap, device, progress, should_stop):
            for one in window.shown:
                pieces[one.slice] += _planes(one, logits, window.start + (0 if window.axis else start))
        found |= {one: torch.cat(parts, dim=1) for one, parts in pieces.items()}
        before += _tiling(part, lesson, window, overlap).count
    return found


class Looked:
    """What a network says of all of the data, kept as logits come: they themselves, or the scores of some labels.

    Attributes:
        scores: by label, float16 (a, b, c), its log odds.
        slabs: (start, logits) in order, or None.
    """

    def __init__(self, outputs: Outputs, shape: Sequence[int], values: Sequence[int] | None = None):
        """Args: ``values``: labels whose scores are kept; None: the logits are."""
        self._outputs, self._shape = outputs, shape
        self.scores: dict[int, np.ndarray] = {}
        self.slabs: list[tuple[int, torch.Tensor]] | None = [] if values is None else None
        self._begin(values or ())

    def __call__(self, start: int, logits: torch.Tensor) -> torch.Tensor:
        """A slab of logits (outputs, d, b, c) that begins at plane ``start``; it is given back as it is."""
        if self.slabs is not None:
            self.slabs.append((start, logits.clone()))
        else:
            self._add(start, logits)
        return logits

    def score(self, values: Sequence[int]) -> None:
        """Makes scores of logits that were kept."""
        self._begin(values)
        for start, logits in self.slabs:
            self._add(start, logits)

    def on_slices(self, shown: Sequence[Shown]) -> dict[Slice, torch.Tensor]:
        """Of logits that were kept, as ``on_slices`` gives them."""
        found: dict[Slice, list[torch.Tensor]] = {one.slice: [] for one in shown}
        for start, logits in self.slabs:
            for one in shown:
                found[one.slice] += _planes(one, logits, 0 if one.axis else start)
        return {one: torch.cat(parts, dim=1) for one, parts in found.items()}

    def _begin(self, values: Sequence[int]) -> None:
        self.scores = {value: np.empty(self._shape, np.float16) for value in values}

    def _add(self, start: int, logits: torch.Tensor) -> None:
        if not self.scores:
            return
        scores = log_odds(self._outputs, logits.float(), list(self.scores)).clamp(-SUREST, SUREST).cpu().numpy()
        for whole, score in zip(self.scores.values(), scores, strict=True):
            whole[start : start + len(score)] = score


def _planes(one: Shown, logits: torch.Tensor, start: int) -> list[torch.Tensor]:
    """Those planes of a slice that a piece of logits holds, or nothing; ``start``: where it begins along their axis."""
    planes = torch.from_numpy(one.planes) - start
    planes = planes[(planes >= 0) & (planes < logits.shape[1 + one.axis])]
    return [logits.index_select(1 + one.axis, planes.to(logits.device)).cpu()] if len(planes) else []


def _slabs(part: LoadedPart, network: nn.Module, data: np.ndarray, overlap: float, device, progress, should_stop):
    return predict_logits(
        network,
        data,
        patch_size=part.recipe.patch_size,
        num_classes=part.outputs.count,
        overlap=overlap,
        device=device,
        progress=progress,
        should_stop=should_stop,
        tiling_type=part.recipe.tiling,
    )


def _tiling(part: LoadedPart, lesson: Lesson, window: Window, overlap: float):
    shape = list(lesson.data.shape[1:])
    shape[window.axis] = window.stop - window.start
    return part.recipe.tiling.of(shape, part.recipe.patch_size, overlap)
