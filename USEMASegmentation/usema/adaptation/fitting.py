"""Fits a few of a network's numbers to corrected slices of one case, and holds it to what it said elsewhere.

The loss is cross entropy: where the user changed a voxel, with what he made of it; elsewhere on his slices, and on
voxels anywhere else, with what the network said of them before (as Kontogianni et al. 2020, arXiv 1911.12709, hold an
interactive network). So who accepts all that the model says changes nothing. All of it is of calibrated logits: an
over-confident network would be held too tightly. Every voxel of a corrected slice weighs the same: to give those that
were changed more weight, as is usual, made most of eight sarcomas worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..inference.outputs import Outputs
from ..models.parts import SIGMOID
from .truth import UNKNOWN, probabilities, scores_by_label, truth


@dataclass(frozen=True)
class Recipe:
    """What learns, how much, and how fast.

    Attributes:
        deep: the last stage and the scales and shifts of all norms learn, too; else the heads alone, on maps that are
            computed once.
        steps: of the optimiser (Adam); a tile each where the network is deep, else all tiles.
        rate, norm_rate: its rates, for weights and for scales and shifts of norms.
        anchor: weight of staying with what the network said elsewhere.
        anchored: voxels of a tile that are held so.
        gain, noise: random changes of intensities, in standard deviations of the data; of deep ones.
    """

    deep: bool = False
    steps: int = 100
    rate: float = 0.02
    norm_rate: float = 2e-3
    anchor: float = 1.0
    anchored: int = 10_000
    gain: float = 0.1
    noise: float = 0.02


HEADS = Recipe()
STAGE = Recipe(deep=True, steps=60, rate=5e-4)
MOST_KNOWN = 40_000  # voxels of a tile that are learned from


@dataclass(frozen=True, eq=False)
class Sheet:
    """One tile to learn from.

    Attributes:
        image: (C, *tile); or what goes into the head, (features, voxels), voxels in the order of ``voxels``.
        voxels: flat indices of those that are known, then of those that are held.
        known: how many of them are known.
        target: the probabilities that all of them should have, (labels, voxels).
        told: bool (labels, voxels), where that is known.
    """

    image: torch.Tensor
    voxels: torch.Tensor
    known: int
    target: torch.Tensor
    told: torch.Tensor

    @classmethod
    def of(cls, image, labels: torch.Tensor, logits: torch.Tensor, outputs: Outputs, recipe: Recipe, generator):
        """A tile with what the network says of it before it learns.

        Args:
            image: (C, *tile).
            labels: (*tile), the user's, UNKNOWN where nothing is known.
            logits: (outputs, *tile).
        """
        flat = labels.flatten()
        known = _some(torch.nonzero(flat != UNKNOWN)[:, 0], MOST_KNOWN, generator)
        held = _some(torch.nonzero(flat == UNKNOWN)[:, 0], recipe.anchored, generator)
        voxels = torch.cat([known, held])
        target = probabilities(outputs, logits.flatten(1)[:, voxels])
        told = torch.ones_like(target, dtype=torch.bool)
        changed = torch.nonzero(outputs.to_labels(logits).flatten()[known].to(flat.dtype) != flat[known])[:, 0]
        target[:, changed], told[:, changed] = truth(outputs, flat[known][changed])
        return cls(image, voxels, len(known), target, told)

    def loss(self, logits: torch.Tensor, outputs: Outputs, anchor: float) -> torch.Tensor:
        """Of logits (outputs, voxels), in the order of ``voxels``."""
        scores = scores_by_label(outputs, outputs.scaled(logits))
        if outputs.activation == SIGMOID:
            each = functional.binary_cross_entropy_with_logits(scores, self.target, reduction="none")
            each = (each * self.told).sum(0) / self.told.sum(0).clamp_min(1)
        else:
            each = -(self.target * scores.log_softmax(0)).sum(0)
        total = logits.new_zeros(())
        if self.known:
            total = total + each[: self.known].mean()
        if self.known < len(each):
            total = total + anchor * each[self.known :].mean()
        return total


def fit(
    parameters: Mapping[str, nn.Parameter],
    of_norms: set[str],
    sheets: Sequence[Sheet],
    logits_of: Callable[[Sheet, torch.Tensor], torch.Tensor],
    outputs: Outputs,
    recipe: Recipe,
    seed: int,
    step_done: Callable[[int], None],
) -> int:
    """Changes the parameters in place; returns how many steps it took.

    Args:
        of_norms: the names of those that are scales and shifts of norms.
        logits_of: gives the logits (outputs, voxels) of a sheet, from its image or a changed one.
        step_done: called with the number of each step; may raise.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    groups = [
        {"params": [one for name, one in parameters.items() if name in of_norms], "lr": recipe.norm_rate},
        {"params": [one for name, one in parameters.items() if name not in of_norms], "lr": recipe.rate},
    ]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    chances = np.array([one.known + 1 for one in sheets], float)
    chances /= chances.sum()
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for step in range(1, recipe.steps + 1):
            optimiser.zero_grad()
            if recipe.deep:
                one = sheets[rng.choice(len(sheets), p=chances)]
                image = _changed(one.image, recipe, rng, generator)
                one.loss(logits_of(one, image), outputs, recipe.anchor).backward()
            else:
                for one, share in zip(sheets, chances, strict=True):
                    (share * one.loss(logits_of(one, one.image), outputs, recipe.anchor)).backward()
            nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
            optimiser.step()
            schedule.step()
            step_done(step)
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
    return recipe.steps


def _changed(image: torch.Tensor, recipe: Recipe, rng: np.random.Generator, generator) -> torch.Tensor:
    gain, shift = 1 + recipe.gain * rng.uniform(-1, 1), recipe.gain * rng.standard_normal()
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return image * gain + shift + recipe.noise * noise


def _some(indices: torch.Tensor, most: int, generator) -> torch.Tensor:
    if len(indices) <= most:
        return indices
    chosen = torch.randperm(len(indices), generator=generator)[:most]
    return indices[chosen.to(indices.device)]
