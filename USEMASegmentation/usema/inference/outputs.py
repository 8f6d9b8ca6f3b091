"""What a network's outputs mean: classes of which a voxel has one, or regions that may lie in each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ..models.parts import SIGMOID, SOFTMAX, Part

_FEW = 50  # outputs; with more, comparing them one by one takes as long as max() does
_SURE = 0.995  # a probability that is told as 1.00

FirstLargest = tuple[torch.Tensor, torch.Tensor]  # argmax(dim=0), of any whole type, and amax(dim=0)


@dataclass
class Outputs:
    """The labels behind the channels of logits.

    Args:
        values: the label of each output. With softmax the first is 0, background, and further zeros are classes that
            are dropped; with sigmoid each label is written where its region's probability is above one half, later
            ones over earlier ones (nnU-Net's ``regions_class_order``).
        labels: how many the model has; they are 1 to ``labels``.
        activation: SOFTMAX or SIGMOID.
        temperatures: > 0; probabilities are the softmax or sigmoid of the logits divided by them (Guo et al. 2017,
            arXiv 1706.04599, equation 9): one number, or with sigmoid one an output. Labels do not depend on them.
    """

    values: Sequence[int]
    labels: int
    activation: str = SOFTMAX
    temperatures: Sequence[float] = field(default=(1.0,))

    @classmethod
    def of(cls, part: Part, labels: int) -> Outputs:
        """Those of one network of a model with so many labels."""
        return cls(part.values, labels, part.activation, part.temperatures)

    @classmethod
    def classes(cls, count: int, temperature: float = 1.0) -> Outputs:
        """Softmax over background and the labels 1 to ``count`` - 1."""
        return cls(range(count), count - 1, SOFTMAX, (temperature,))

    def only(self, indices: Sequence[int]) -> Outputs:
        """Some of them, with softmax; for logits in which the others cannot be the largest."""
        return replace(self, values=[self.values[index] for index in indices])

    @property
    def count(self) -> int:
        """How many channels the logits have."""
        return len(self.values)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Float32 (outputs, ...) of logits (outputs, ...)."""
        scaled = self.scaled(logits)
        return scaled.sigmoid() if self.activation == SIGMOID else scaled.softmax(dim=0)

    def first_largest(self, scores: torch.Tensor) -> FirstLargest | None:
        """Which of the scores (outputs, ...) is the first of the largest in each voxel, and that; None with sigmoid,
        where several count."""
        return None if self.activation == SIGMOID else _first_largest(scores)

    def to_labels(self, scores: torch.Tensor, boundary: float = 0.0, first: FirstLargest | None = None) -> torch.Tensor:
        """Labels (...) of scores (outputs, ...): logits, or with the boundary 0.5 probabilities.

        Args:
            first: their ``first_largest``, if that is known.
        """
        if self.activation == SIGMOID:
            labels = torch.zeros(scores.shape[1:], dtype=self._dtype, device=scores.device)
            for value, score in zip(self.values, scores, strict=True):
                labels.masked_fill_(score > boundary, value)
            return labels
        chosen, _ = first or _first_largest(scores)
        if list(self.values) == list(range(self.count)):
            return chosen.to(self._dtype)
        return torch.tensor(list(self.values), dtype=self._dtype, device=scores.device)[chosen.long()]

    def by_label(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(labels + 1, ...) of probabilities (outputs, ...): background, then each label.

        Of classes that share a label it is the sum, of regions the largest. The background of regions is one minus
        the largest of them.
        """
        if self.activation == SOFTMAX and list(self.values) == list(range(self.labels + 1)):
            return probabilities
        result = probabilities.new_zeros((self.labels + 1, *probabilities.shape[1:]))
        for value, probability in zip(self.values, probabilities, strict=True):
            if self.activation == SIGMOID:
                torch.maximum(result[value], probability, out=result[value])
            else:
                result[value] += probability
        if self.activation == SIGMOID:
            result[0] = 1 - result[1:].amax(dim=0)
        return result

    def highest(self, logits: torch.Tensor, known: float = 0.0, first: FirstLargest | None = None) -> float:
        """The largest probability of any label in any voxel of logits (outputs, ...), and no less than ``known``.

        It is told to people, with two digits: where 0.995 is known already, what is still larger is not looked for.

        Args:
            first: their ``first_largest``, if that is known.
        """
        if self.activation == SIGMOID:
            return max(known, self.scaled(logits).amax().sigmoid().item())
        if known >= _SURE:
            return known
        logits = logits.flatten(1)
        # Against background alone a label's probability is no smaller than against all classes: most voxels fall out.
        # Where background is the largest of all, a label has less than one half: of no matter once that is exceeded.
        spared = first is not None and _least_margin(known) > 0
        foreground = first[1].flatten() if spared else logits[1:].amax(dim=0)
        margin = (foreground - logits[0]) / self.temperatures[0]

        def highest_of(voxels: torch.Tensor) -> float:
            scaled = self.scaled(logits[:, voxels])
            return max(known, (scaled[1:].amax(dim=0) - scaled.logsumexp(dim=0)).amax().exp().item())

        if float(margin.max()) > _least_margin(known):
            known = highest_of(margin.argmax().reshape(1))
            voxels = (margin > _least_margin(known)).nonzero()[:, 0]
            known = highest_of(voxels) if len(voxels) else known
        return known

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (outputs, ...) divided by their temperatures, float32."""
        temperatures = torch.tensor(self.temperatures, dtype=torch.float32, device=logits.device)
        return logits.float() / temperatures.reshape(-1, *[1] * (logits.ndim - 1))

    @property
    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self.labels <= 255 else torch.int32


def _first_largest(scores: torch.Tensor) -> FirstLargest:
    """argmax(dim=0) and amax(dim=0). On a CPU max() with indices takes a third of argmax's time; for few, this half of
    that."""
    if scores.device.type != "cpu" or len(scores) > _FEW:
        largest, indices = scores.max(dim=0)
        return indices, largest
    # Of equal scores the first has the largest rank; bytes are compared many at a time.
    largest, rank = scores.amax(dim=0), torch.zeros(scores.shape[1:], dtype=torch.uint8)
    for index, score in enumerate(scores):
        torch.maximum(rank, (score == largest).view(torch.uint8) * (len(scores) - index), out=rank)
    return len(scores) - rank, largest


def _least_margin(probability: float) -> float:
    """By how much a logit must be above another for a probability to be larger than this; a little less, to be sure."""
    if not 0 < probability < 1:
        return -math.inf if probability <= 0 else math.inf
    return math.log(probability / (1 - probability)) - 1e-3
