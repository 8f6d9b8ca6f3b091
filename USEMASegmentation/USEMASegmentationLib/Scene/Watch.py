"""Whether volumes are what they were when the engine got them: a sequence or a filter may change them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from usema.errors import InputError

from ..Steps import Working, atOnce
from .ExchangeFolder import ExchangeFolder
from .VolumeBridge import Box, ijkToRas, shapeOf, worldGeometries


class Watch:
    """Remembers the volumes of a run."""

    def __init__(self, volumeNodes: Sequence):
        self._volumes = list(volumeNodes)
        self._times = [_timeOf(node) for node in self._volumes]
        self._shapes = [shapeOf(node) for node in self._volumes]
        self._grid, self._world = ijkToRas(self._volumes[0]), worldGeometries(self._volumes)[0]

    def changes(self, folder: ExchangeFolder, box: Box) -> str:
        """As `changing`, without a pause."""
        return atOnce(self.changing(folder, box))

    def times(self) -> list:
        """What tells, without looking at voxels, whether something may have touched them."""
        return [(_timeOf(node), node.GetMTime(), node.GetTransformNodeID()) for node in self._volumes]

    def changing(self, folder: ExchangeFolder, box: Box) -> Working:
        """Looks, a moment at a time, what has happened to their voxels; returns a sentence, empty: nothing.

        Args:
            folder: has the voxels that were sent.
            box: of the first volume.

        Raises:
            InputError: the first one's grid has changed, so that there is no place for a result.
        """
        first = self._volumes[0]
        # A transform may have moved or been hardened meanwhile: one of the two is as before.
        if first.GetImageData() is None or shapeOf(first) != self._shapes[0] or not self._isInPlace():
            raise InputError(
                f"The grid of the volume '{first.GetName()}' was changed while it was being segmented.",
                "Segment it again.",
            )
        if [_timeOf(node) for node in self._volumes] == self._times:
            return ""
        there = all(node.GetImageData() is not None for node in self._volumes)
        if there and (yield from folder.comparing(self._volumes, box)):
            return ""
        return f"The voxels of '{first.GetName()}' were changed while it was being segmented: the result is of before."

    def _isInPlace(self) -> bool:
        first = self._volumes[0]
        if np.allclose(ijkToRas(first), self._grid, rtol=1e-6, atol=1e-6):
            return True
        return worldGeometries([first])[0].same_grid(self._world)


def _timeOf(node) -> int:
    """VTK's one clock for all objects: another image, or other voxels, have another time. Not the image's identity in
    Python, which is new whenever nobody held it: all voxels would then be compared, half a second of a large volume."""
    image = node.GetImageData()
    return 0 if image is None else image.GetMTime()
