"""From the network's logits back to labels on the volume's own grid, a few slices at a time.

The result is that of nnU-Net's ``convert_predicted_logits_to_segmentation_with_correct_shape``: resample the logits,
take the largest, paste into the uncropped array, transpose back.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from .preprocessing import Preprocessed
from .resampling import linear_taps, nearest_indices, separate_axis

# Logits (classes x voxels) worked on at once. 4 million is 16 MB: larger chunks fall out of a processor's cache and
# took 1.5 times as long, smaller ones are a slice or less.
_CHUNK = 2**22


class LogitsToLabels:
    """Takes the logits of a preprocessed volume slab by slab and turns them into labels.

    Resampling along the first axis needs two neighbouring slices at most, so each slice of the result is made as soon
    as its slab is there and only its labels are kept. Beside the results (one or two bytes a voxel, with
    probabilities 2 x num_classes more) this holds one slice of logits, and chunks of some 16 MB or one slice of all
    classes on the device that the logits come from.

    Args:
        preprocessed: the volume that went into the network.
        num_classes: including background; at least 2.
        keep_probabilities: also return the softmax.
        temperature: > 0; probabilities are the softmax of the logits divided by it (Guo et al. 2017, arXiv 1706.04599,
            equation 9). It is applied after resampling, and labels are the same whatever it is.

    Attributes:
        max_foreground_probability: the largest probability of any class but background in any voxel so far, at the
            network's resolution: says why a result is empty.
    """

    def __init__(
        self,
        preprocessed: Preprocessed,
        num_classes: int,
        keep_probabilities: bool = False,
        temperature: float = 1.0,
    ):
        self.max_foreground_probability = 0.0
        self._temperature = temperature
        self._network_shape = (num_classes, *preprocessed.data.shape[1:])
        self._separate = separate_axis(preprocessed.spacing, preprocessed.input_spacing)
        length, *self._plane = preprocessed.cropped_shape
        if self._separate == 0:
            nearest = nearest_indices(self._network_shape[1], length)
            self._taps = list(zip(nearest, nearest, [0.0] * length, strict=True))
        else:
            self._taps = list(zip(*linear_taps(self._network_shape[1], length), strict=True))

        self._received = 0  # slices of logits
        self._written = 0  # slices of the result
        self._last: torch.Tensor | None = None  # the last slice of logits of the slab before

        # Writing through a transposed, cropped view puts every voxel where it belongs on the input's grid.
        forward, crop = preprocessed.transpose_forward, preprocessed.crop
        self._dtype = torch.uint8 if num_classes <= 256 else torch.int32
        self._labels = np.zeros(preprocessed.input_shape, np.uint8 if num_classes <= 256 else np.uint16)
        self._labels_view = self._labels.transpose(forward)[crop]
        self._probabilities = None
        if keep_probabilities:
            self._probabilities = np.zeros((num_classes, *preprocessed.input_shape), np.float16)
            self._probabilities[0] = 1  # outside the crop all is background
            transposed = self._probabilities.transpose(0, *(1 + axis for axis in forward))
            self._probabilities_view = transposed[(slice(None), *crop)]

    @torch.inference_mode()
    def add(self, start: int, logits: torch.Tensor) -> None:
        """Take the next slab.

        Args:
            start: its first slice along the network's first axis; slabs follow each other without gap or overlap.
            logits: (K, d, b, c), finite, of any floating type, on any device.

        Raises:
            ValueError: the slab is not the one that follows, or not of the volume's shape.
        """
        classes, depth, *plane = logits.shape
        expected = (self._network_shape[0], *self._network_shape[2:])
        if start != self._received or (classes, *plane) != expected or start + depth > self._network_shape[1]:
            raise ValueError(
                f"slab of shape {tuple(logits.shape)} at {start}: {self._received} slices of the shape "
                f"{self._network_shape} were received"
            )
        self._record_foreground(logits)
        self._received += depth
        ready = self._written
        while ready < len(self._taps) and self._taps[ready][1] < self._received:
            ready += 1
        step = max(1, _CHUNK // (classes * max(math.prod(plane), math.prod(self._plane))))
        for begin in range(self._written, ready, step):
            self._write(begin, min(begin + step, ready), start, logits)
        self._written = ready
        self._last = logits[:, -1].clone()  # a copy, so that the slab can be freed

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels (z, y, x), uint8 (uint16 beyond 256 classes), and the probabilities (K, z, y, x) float16 or None.

        Raises:
            ValueError: slabs are missing.
        """
        if self._received != self._network_shape[1]:
            raise ValueError(f"{self._received} of {self._network_shape[1]} slices of logits were received")
        return self._labels, self._probabilities

    def _record_foreground(self, logits: torch.Tensor) -> None:
        for part in logits.split(max(1, _CHUNK // logits[:, 0].numel()), dim=1):
            part = part.float() / self._temperature
            probability = (part[1:].amax(dim=0) - part.logsumexp(dim=0)).amax().exp().item()
            self.max_foreground_probability = max(self.max_foreground_probability, probability)

    def _write(self, begin: int, end: int, start: int, logits: torch.Tensor) -> None:
        """Make the slices ``begin`` to ``end`` of the result from the slab that starts at slice ``start``."""

        def source(index: int) -> torch.Tensor:
            return (self._last if index < start else logits[:, index - start]).float()

        slices = []
        for lower, upper, weight in self._taps[begin:end]:
            slices.append(torch.lerp(source(lower), source(upper), float(weight)) if weight else source(lower))
        chunk = self._resample_in_plane(torch.stack(slices, dim=1))
        # max() gives the same indices as argmax(), the first of equals, in a third of the time on a CPU.
        self._labels_view[begin:end] = chunk.max(dim=0).indices.to(self._dtype).cpu().numpy()
        if self._probabilities is not None:
            self._probabilities_view[:, begin:end] = (chunk / self._temperature).softmax(dim=0).half().cpu().numpy()

    def _resample_in_plane(self, chunk: torch.Tensor) -> torch.Tensor:
        """(K, n, b, c) on the network's grid to the input's; nearest along the separate axis, linear otherwise."""
        if self._separate in (1, 2):
            dim = self._separate + 1
            nearest = nearest_indices(chunk.shape[dim], self._plane[self._separate - 1])
            chunk = chunk.index_select(dim, torch.from_numpy(nearest).to(chunk.device))
        if list(chunk.shape[2:]) != self._plane:
            chunk = functional.interpolate(chunk, size=self._plane, mode="bilinear", align_corners=False)
        return chunk
