"""The mean of several networks' probabilities, a few slices at a time: nnU-Net's ensemble of configurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import BundleError
from ..volumes.margins import Margins
from .logit_margins import MarginCollector
from .logits_to_labels import LabelCanvas
from .nnunet_recipe import Preprocessed
from .outputs import Outputs
from .slab_resampling import SlabResampler

Slabs = Iterator[tuple[int, torch.Tensor]]


class _Slices:
    """One network's probabilities on the volume's grid; made when they are asked for, a chunk at a time."""

    def __init__(self, slabs: Slabs, prepared: Preprocessed, outputs: Outputs):
        self._chunks = self._made(slabs, prepared, outputs)
        self._chunk: torch.Tensor | None = None

    @staticmethod
    def _made(slabs: Slabs, prepared: Preprocessed, outputs: Outputs) -> Iterator[torch.Tensor]:
        resampler = SlabResampler(prepared, outputs.count)
        for start, logits in slabs:
            for _, chunk in resampler.push(start, logits):
                yield outputs.probabilities(chunk)
        resampler.check_complete()

    def available(self) -> int:
        """How many slices can be taken at once: at least one, or 0 at the end."""
        if self._chunk is None or not self._chunk.shape[1]:
            self._chunk = next(self._chunks, None)
        return 0 if self._chunk is None else self._chunk.shape[1]

    def take(self, count: int) -> torch.Tensor:
        taken, self._chunk = self._chunk[:, :count], self._chunk[:, count:]
        return taken


@torch.inference_mode()
def mean_of_probabilities(
    slabs: Sequence[Slabs],
    prepared: Sequence[Preprocessed],
    outputs: Sequence[Outputs],
    keep_probabilities: bool,
    keep_margins: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, float, Margins | None]:
    """Labels from the mean of the probabilities of networks that ran on the same volume.

    The networks take turns, so that of each no more than a chunk of slices waits for the others.

    Args:
        slabs: for each network what ``predict_logits`` yields.
        prepared: for each network the volume as its recipe prepared it.
        outputs: of each network; their values and activations are the same.
        keep_probabilities: also return the means.
        keep_margins: also return their margins.

    Returns:
        labels (z, y, x); probabilities (labels + 1, z, y, x) float16, or None; the largest probability of any label;
        margins, or None.

    Raises:
        BundleError: the networks' grids lie differently in the volume.
    """
    first, shared = prepared[0], outputs[0]
    if any((one.transpose_forward, one.crop) != (first.transpose_forward, first.crop) for one in prepared):
        raise BundleError(
            "The model's parts turn the volume's axes differently, so their probabilities cannot be averaged.",
            "Ask whoever made the model to import its parts as models of their own.",
        )
    canvas = LabelCanvas(first, shared.labels, keep_probabilities)
    sources = [_Slices(*one) for one in zip(slabs, prepared, outputs, strict=True)]
    collected = MarginCollector(first.cropped_shape, shared) if keep_margins else None
    begin, highest = 0, 0.0
    while count := min(source.available() for source in sources):
        mean = sum(source.take(count).cpu() for source in sources) / len(sources)
        by_label = shared.by_label(mean)
        highest = max(highest, by_label[1:].amax().item())
        canvas.write(begin, shared.to_labels(mean, boundary=0.5), by_label)
        if collected is not None:
            collected.add(begin, mean, boundary=0.5)
        begin += count
    margins = None if collected is None else canvas.on_input(collected.finish())
    return canvas.labels, canvas.probabilities, highest, margins
