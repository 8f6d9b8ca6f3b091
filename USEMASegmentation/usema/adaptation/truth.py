"""What a network should say where the user has said what is right, in the terms of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..inference.outputs import Outputs
from ..models.parts import SIGMOID

UNKNOWN = -1  # a voxel of which nobody has said anything


def labels_of(outputs: Outputs) -> list[int]:
    """What each score is of: classes that share a label have one score together; of regions, each has its own."""
    return list(outputs.values) if outputs.activation == SIGMOID else list(dict.fromkeys(outputs.values))


def scores_by_label(outputs: Outputs, logits: torch.Tensor) -> torch.Tensor:
    """Logits (labels, ...) in the order of ``labels_of``: classes that share a label count together."""
    values = labels_of(outputs)
    if len(values) == outputs.count:
        return logits
    rows = [[row for row, value in enumerate(outputs.values) if value == one] for one in values]
    return torch.stack([logits[row].logsumexp(0) for row in rows])


def truth(outputs: Outputs, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each score should be, and where that is known.

    Where regions may lie in each other, a label tells of its own region and of later ones, which would be written over
    it; whether an earlier one lies under it is not known.

    Args:
        labels: (...) values of labels, or UNKNOWN.

    Returns:
        (labels, ...) float 0 or 1 in the order of ``labels_of``, and bool of the same shape.
    """
    values = labels_of(outputs)
    target = torch.stack([labels == value for value in values])
    known = (labels != UNKNOWN).expand_as(target)
    if outputs.activation == SIGMOID:
        later = torch.stack([_none_after(target, row) for row in range(len(values))])
        known = known & later
    return target.float(), known


def _none_after(target: torch.Tensor, row: int) -> torch.Tensor:
    """Where no later region is the one that is seen."""
    after: Sequence[torch.Tensor] = target[row + 1 :]
    return ~after.any(dim=0) if len(after) else torch.ones_like(target[row])


def probabilities(outputs: Outputs, logits: torch.Tensor) -> torch.Tensor:
    """(labels, ...) in the order of ``labels_of``, with the model's temperature."""
    scores = scores_by_label(outputs, outputs.scaled(logits))
    return scores.sigmoid() if outputs.activation == SIGMOID else scores.softmax(0)


def log_odds(outputs: Outputs, logits: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """(values, ...) of each of these labels against all others, with the model's temperature; not of regions."""
    scores = scores_by_label(outputs, outputs.scaled(logits))
    whole, found = scores.logsumexp(0), []
    for value in values:
        own = scores[labels_of(outputs).index(value)]
        # log(p / (1 - p)) of p = exp(own - whole); where p is nearly 1 the rest is too small to be seen
        found.append(own - whole - torch.log(-torch.expm1((own - whole).clamp(max=-1e-7))))
    return torch.stack(found)
