"""What an action does to a segment, made ready beside the main thread, and written in one call for each part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from usema.volumes.masks import PlacedMask, box_around, mask_to_text

from ..Review.Port import Change
from .SegmentVoxels import newImage


@dataclass(frozen=True, eq=False)
class SegmentChange:
    """Attributes:
    lost, won: uint8 (z, y, x) and where it lies: 0 where the segment loses a voxel, else 255; 1 where it wins one.
    written: what counts as written by the model from then on, as text.
    """

    lost: tuple[np.ndarray, PlacedMask]
    won: tuple[np.ndarray, PlacedMask]
    written: str

    @classmethod
    def of(cls, change: Change, written: PlacedMask, toRas: np.ndarray) -> SegmentChange:
        """Touches nothing of the scene.

        Args:
            written: what counted as written by the model before. What is changed counts as well.
            toRas: (4, 4) of the volume's grid.
        """
        lost, won = change.removed.trimmed(), change.added.trimmed()
        box = box_around(written.box, lost.box, won.box)
        array = (written.on(box) & ~lost.on(box)) | won.on(box)
        text = mask_to_text(PlacedMask(array, tuple(part.start for part in box[::-1])), toRas)
        away = np.where(lost.array, np.uint8(0), np.uint8(255))
        return cls((away, lost), (np.ascontiguousarray(won.array).view(np.uint8), won), text)

    def write(self, part: tuple[np.ndarray, PlacedMask], segmentationNode, segmentId: str, toRas: np.ndarray) -> None:
        """``lost`` or ``won`` into the scene."""
        array, mask = part
        if array.size:
            logic = slicer.vtkSlicerSegmentationsModuleLogic
            image, mode = newImage(array, mask.box, toRas), logic.MODE_MERGE_MASK
            if part is self.lost:
                mode = logic.MODE_MERGE_MIN
            logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentId, mode, image.GetExtent())
