"""From the network's logits back to labels on the volume's own grid, a few slices at a time.

The result is that of nnU-Net's ``convert_predicted_logits_to_segmentation_with_correct_shape``: resample the logits,
take the largest (or of regions those above one half), paste into the uncropped array, transpose back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.parts import SOFTMAX
from ..volumes.margins import FURTHEST, Margins
from .logit_margins import MarginCollector
from .outputs import Outputs
from .slab_resampling import SlabResampler, chunk_of

if TYPE_CHECKING:
    from .nnunet_recipe import Preprocessed


class LabelCanvas:
    """Labels, and perhaps probabilities, of a whole volume, written slices at a time where the crop lies.

    Args:
        preprocessed: the volume that went into the network.
        labels: how many the model has.
        keep_probabilities: also keep the probability of background and of each label.
    """

    def __init__(self, preprocessed: Preprocessed, labels: int, keep_probabilities: bool):
        # Writing through a transposed, cropped view puts every voxel where it belongs on the input's grid.
        forward, crop = preprocessed.transpose_forward, preprocessed.crop
        self.labels = np.zeros(preprocessed.input_shape, np.uint8 if labels <= 255 else np.uint16)
        self._forward, self._crop = forward, crop
        self._labels_transposed = self.labels.transpose(forward)
        self._labels_view = self._labels_transposed[crop]
        self.probabilities = None
        if keep_probabilities:
            self.probabilities = np.zeros((labels + 1, *preprocessed.input_shape), np.float16)
            self.probabilities[0] = 1  # outside the crop all is background
            transposed = self.probabilities.transpose(0, *(1 + axis for axis in forward))
            self._probabilities_view = transposed[(slice(None), *crop)]

    def on_input(self, margins: Margins) -> Margins:
        """Margins of the crop, on the input's grid."""
        transposed = margins.pasted([part.start for part in self._crop], self._labels_transposed.shape)
        return transposed.transposed(np.argsort(self._forward))

    def write(self, begin: int, labels: torch.Tensor, probabilities: torch.Tensor | None) -> None:
        """Slices from ``begin`` on: labels (n, b, c), and probabilities (labels + 1, n, b, c) where they are kept."""
        end = begin + len(labels)
        self._labels_view[begin:end] = labels.cpu().numpy()
        if self.probabilities is not None:
            self._probabilities_view[:, begin:end] = probabilities.half().cpu().numpy()


class LogitsToLabels:
    """Takes the logits of a preprocessed volume slab by slab and turns them into labels.

    Only labels are kept: beside the results (one or two bytes a voxel, with probabilities 2 x (labels + 1) more) this
    holds what a SlabResampler holds.

    Args:
        preprocessed: the volume that went into the network.
        outputs: what the network's outputs mean.
        keep_probabilities: also return the probabilities.
        keep_margins: also keep the margins; they are there after ``finish``.

    Attributes:
        highest: the largest probability of any label in any voxel so far, at the network's resolution: says why a
            result is empty.
        margins: on the input's grid; None: not kept.
    """

    def __init__(
        self,
        preprocessed: Preprocessed,
        outputs: Outputs,
        keep_probabilities: bool = False,
        keep_margins: bool = False,
    ):
        self.highest = 0.0
        self.margins: Margins | None = None
        self._collected = MarginCollector(preprocessed.cropped_shape, outputs) if keep_margins else None
        self._outputs = outputs
        self._resampler = SlabResampler(preprocessed, outputs.count)
        self._canvas = LabelCanvas(preprocessed, outputs.labels, keep_probabilities)
        self._slack: float | None = None  # by how far outputs that are left out are behind; None: none is
        if outputs.activation == SOFTMAX and not keep_probabilities:
            self._slack = FURTHEST * max(outputs.temperatures) if keep_margins else 0.0

    @torch.inference_mode()
    def add(self, start: int, logits: torch.Tensor) -> None:
        """Take the next slab, as SlabResampler.push does."""
        for begin, chunk, kept in self._resampler.push_winners(start, logits, self._slack):
            outputs = self._outputs if kept is None else self._outputs.only(kept.tolist())
            probabilities = None
            if self._canvas.probabilities is not None:
                probabilities = outputs.by_label(outputs.probabilities(chunk))
            first = outputs.first_largest(chunk)
            self._canvas.write(begin, outputs.to_labels(chunk, first=first), probabilities)
            if self._collected is not None:
                self._collected.add(begin, chunk, outputs=outputs, first=first)
            if self._resampler.keeps_grid:
                self.highest = outputs.highest(chunk, self.highest, first)
        if self._resampler.keeps_grid:
            return
        for part in logits.split(max(1, chunk_of(logits.device) // logits[:, 0].numel()), dim=1):
            self.highest = self._outputs.highest(part, self.highest)

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels (z, y, x), uint8 (uint16 beyond 255 labels), and the probabilities or None.

        The probabilities are (labels + 1, z, y, x) float16 as Outputs.by_label has them.

        Raises:
            ValueError: slabs are missing.
        """
        self._resampler.check_complete()
        if self._collected is not None:
            self.margins = self._canvas.on_input(self._collected.finish())
        return self._canvas.labels, self._canvas.probabilities
