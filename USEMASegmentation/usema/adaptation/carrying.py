"""What the user changed on a slice, carried to its neighbours: no learning, and gone after a few slices.

On a corrected slice the difference between what is right and the probability is known. It is added to the logits of the
slices around, the less the farther away they are; a slice between two corrected ones hears both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..inference.outputs import Outputs
from .drawn import Drawn
from .lesson import Lesson, Shown, Slice, along
from .truth import labels_of, probabilities, truth

PULL = 6.0  # what a difference of 1 adds to a calibrated logit, on the slice itself
# Over how many of the network's voxels it falls to 1/e. Not slices: where these are thicker than the voxels, what lies
# one slice on has changed more, and a third of the hippocampi with slices of two voxels got worse.
REACH = 1.5
SHORT_REACH = 1.0  # where the model is nearly right: what is left are small errors, each of its own slice
_LEAST = 0.01


@dataclass(frozen=True, eq=False)
class Carried:
    """Differences on slices, ready to be added to logits as they come.

    Attributes:
        parts: for each slice the axis of the data, the weights of its planes, and the difference (outputs, 1 on that
            axis, ...).
    """

    parts: tuple[tuple[int, np.ndarray, torch.Tensor], ...]

    @classmethod
    def of(
        cls,
        lesson: Lesson,
        logits: Mapping[Slice, torch.Tensor],
        outputs: Outputs,
        shown: Sequence[Shown],
        reach: float,
    ) -> Carried:
        """Of what a network says on corrected slices.

        Args:
            logits: (outputs, ...) of the planes of each slice, as ``looking.on_slices`` gives them.
            shown: the slices that are taken.
            reach: voxels of the network, REACH or SHORT_REACH.
        """
        parts = []
        for one in shown:
            weights = _weights(one, [other for other in shown if other.axis == one.axis], lesson, reach)
            labels = torch.from_numpy(np.ascontiguousarray(lesson.labels[one.index]))
            target, known = truth(outputs, labels)
            difference = (target - probabilities(outputs, logits[one.slice].float().cpu())) * known
            difference = difference.mean(dim=1 + one.axis, keepdim=True)
            # Of a slice that was accepted nothing is left: it only ends what others carry.
            reached = Drawn.of(lesson.changed(one).any(axis=one.axis)).weight(0.0)
            difference *= torch.from_numpy(np.expand_dims(reached, one.axis))
            parts.append((one.axis, weights, _by_output(outputs, difference)))
        return cls(tuple(parts))

    def __call__(self, start: int, logits: torch.Tensor) -> torch.Tensor:
        """A slab of logits (outputs, d, b, c) that begins at plane ``start``, changed in place."""
        for axis, weights, difference in self.parts:
            if axis == 0:
                weights = weights[start : start + logits.shape[1]]
                change = difference
            else:
                change = difference[:, start : start + logits.shape[1]]
            near = np.flatnonzero(weights > _LEAST)
            if not len(near):
                continue
            part = slice(int(near[0]), int(near[-1]) + 1)
            window = logits[(slice(None),) * (1 + axis) + (part,)]
            window += change.to(logits.device) * along(axis, weights[part], logits)
        return logits

    def at(self, shown: Shown, logits: torch.Tensor) -> torch.Tensor:
        """The same for the planes of one slice alone."""
        planes = torch.from_numpy(shown.planes)
        for axis, weights, difference in self.parts:
            if axis == shown.axis:
                weights = weights[shown.planes]
            else:
                difference = difference.index_select(1 + shown.axis, planes)
            logits = logits + difference * along(axis, weights, logits)
        return logits


def _weights(one: Shown, others: Sequence[Shown], lesson: Lesson, reach: float) -> np.ndarray:
    """float32, of the planes along an axis: 1 on the slice, less away from it, and 0 beyond the next corrected one."""
    positions = np.arange(lesson.data.shape[1 + one.axis])
    weights = np.exp(-np.abs(positions - one.middle) / reach)
    for other in others:
        if other.middle > one.middle:
            weights[positions > other.middle] = 0
        elif other.middle < one.middle:
            weights[positions < other.middle] = 0
    return weights.astype(np.float32)


def _by_output(outputs: Outputs, difference: torch.Tensor) -> torch.Tensor:
    """As logits: for each output the difference of its label."""
    values = labels_of(outputs)
    rows = [values.index(value) for value in outputs.values]
    temperatures = torch.tensor(outputs.temperatures).reshape(-1, *[1] * (difference.ndim - 1))
    return PULL * temperatures * difference[rows]
