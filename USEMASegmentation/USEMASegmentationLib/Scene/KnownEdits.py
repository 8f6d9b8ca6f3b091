"""What the user changed in segments that a model wrote: looked for once in each state of a segment, and beside the
application's main thread where that takes long.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..Steps import Working, beside, isSmall
from .EditMask import Edits, Held, timesOf
from .SegmentVoxels import SegmentVoxels
from .VolumeBridge import ijkToRas


class KnownEdits:
    """Of one segmentation at a time; of the others it forgets."""

    def __init__(self):
        # ID of a segment -> its state, what it held then, and what was found
        self._known: dict[str, tuple[tuple, tuple, Edits | None]] = {}

    def of(self, segmentationNode, segmentIds: Iterable[str], volumeNode) -> dict[str, Edits | None]:
        """By segment, in the indices of the volume's voxels; None: it does not tell. What is not known takes time."""
        ids = list(segmentIds)
        missing = _Missing(self._known, segmentationNode, ids, volumeNode)
        if missing.held:
            self._keep(segmentationNode, missing, missing.look())
        return {one: self._known[one][2] for one in ids}

    def looking(self, segmentationNode, segmentIds: Iterable[str], volumeNode) -> Working:
        """Makes them known, a moment at a time. What is changed meanwhile is not known then."""
        missing = _Missing(self._known, segmentationNode, segmentIds, volumeNode)
        if missing.held:
            size = missing.voxels.size
            if not isSmall(size):
                yield from missing.voxels.copying()
            self._keep(segmentationNode, missing, (yield from beside(missing.look, size)))

    def _keep(self, segmentationNode, missing: _Missing, found: dict[str, Edits | None]) -> None:
        own = segmentationNode.GetID()
        self._known = {name: one for name, one in self._known.items() if one[0][0] == own}
        self._known |= {name: (missing.states[name], missing.contents[name], one) for name, one in found.items()}


class _Missing:
    """What is not known, taken out of the scene. What only got another colour, status or name is known: its state
    is brought up to date.

    Attributes:
        states: what tells, by segment, whether it may be another than it was.
        contents: what tells, by segment, whether it is.
        held: what these segments hold.
        voxels: of their images.
    """

    def __init__(self, known: dict, segmentationNode, segmentIds: Iterable[str], volumeNode):
        self._toRas: np.ndarray = ijkToRas(volumeNode)
        grid, segmentation = (volumeNode.GetID(), self._toRas.tobytes()), segmentationNode.GetSegmentation()
        self.states = {one: (*timesOf(segmentationNode, [one]), *grid) for one in segmentIds}
        self.voxels, self.held, self.contents = SegmentVoxels(), {}, {}
        for name, state in self.states.items():
            former = known.get(name)
            if former is not None and former[0] == state:
                continue
            held = Held.by(segmentation.GetSegment(name), self.voxels)
            content = (state[0], state[1][2], *grid, held.value, held.written)
            if former is not None and former[1] == content:
                known[name] = state, *former[1:]
            else:
                self.held[name], self.contents[name] = held, content

    def look(self) -> dict[str, Edits | None]:
        """Touches nothing of the scene."""
        found = {name: one.editsOn(self._toRas, self.voxels) for name, one in self.held.items()}
        for one in found.values():
            if one is not None:
                _ = one.changed  # which is remembered, and is what everybody asks for
        return found
