"""Labels that are decided on the network's own grid, slab by slab, and go back by the nearest voxel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..volumes.margins import Margins
from .logit_margins import MarginCollector
from .outputs import Outputs
from .slab_resampling import chunk_of

Way = Callable[[np.ndarray, "np.ndarray | None"], "tuple[np.ndarray, np.ndarray | None]"]


class GridCollector:
    """A collector (see ``preprocessing.Collector``) that keeps labels, and never a float volume for each of them.

    Args:
        shape: of the network's grid.
        outputs: what the network's outputs mean.
        keep_probabilities: also keep the probability of background and of each label.
        way_back: from labels (a, b, c) and probabilities (labels + 1, a, b, c) or None on the network's grid to the
            same on the grid of the array that was prepared, (z, y, x).
        values_back: likewise from any array (a, b, c), 0 outside; keeps the margins, which are there after ``finish``.
            None: they are not kept.

    Attributes:
        highest: the largest probability of any label in any voxel so far.
        margins: on the grid of the array that was prepared; None: not kept.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: Outputs,
        keep_probabilities: bool,
        way_back: Way,
        values_back: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.highest = 0.0
        self.margins: Margins | None = None
        self._values_back = values_back
        self._collected = None if values_back is None else MarginCollector(shape, outputs)
        self._outputs, self._way_back = outputs, way_back
        self._labels = np.zeros(shape, np.uint8 if outputs.labels <= 255 else np.uint16)
        self._probabilities = np.zeros((outputs.labels + 1, *shape), np.float16) if keep_probabilities else None
        self._received: dict[int, int] = {}  # first row of a strip -> planes of it
        self._voxels = 0

    @torch.inference_mode()
    def add(self, start: int, logits: torch.Tensor, row: int = 0) -> None:
        """Take the slab (outputs, d, rows, c) that begins at plane ``start``.

        Args:
            row: of the second axis, at which the slab's strip begins.
        """
        end, rows = start + logits.shape[1], slice(row, row + logits.shape[2])
        if start != self._received.get(row, 0) or end > len(self._labels) or rows.stop > self._labels.shape[1]:
            raise ValueError(f"a slab at {start}, {row} after {self._received} planes")
        self._received[row] = end
        self._voxels += logits[0].numel()
        for part in logits.split(max(1, chunk_of(logits.device) // logits[:, 0].numel()), dim=1):
            planes = slice(start, start + part.shape[1])
            start = planes.stop
            self._labels[planes, rows] = self._outputs.to_labels(part).cpu().numpy()
            self.highest = self._outputs.highest(part, self.highest)
            if self._collected is not None:
                self._collected.add(planes.start, part, row=row)
            if self._probabilities is not None:
                probabilities = self._outputs.by_label(self._outputs.probabilities(part))
                self._probabilities[:, planes, rows] = probabilities.half().cpu().numpy()

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (z, y, x) and probabilities (labels + 1, z, y, x) float16 or None, on the volume's grid."""
        if self._voxels != self._labels.size:
            raise ValueError(f"{self._voxels} of {self._labels.size} voxels were received")
        if self._collected is not None:
            self.margins = self._collected.finish().through(self._values_back)
        return self._way_back(self._labels, self._probabilities)
