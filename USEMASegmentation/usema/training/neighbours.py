"""Trainers of USEMA's neighbours from the literature, MLLA-UNet and Attention-Mamba; both are 2D networks.

Each has a trainer with its paper's own recipe: loss, optimiser, schedule, augmentation, batch. Planning, preprocessing
and validation are nnU-Net's. What differs from the papers: weights start from random values instead of ImageNet's, and
an epoch has 50 iterations, so that a schedule that moves once per epoch follows short budgets smoothly.

Sources: MLLA-UNet, arXiv 2410.23738 and its code; Attention-Mamba, arXiv 2402.02286 and its code.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from .trainers import AdamWInShortEpochs, nnUNetTrainerUSEMA


class CosineDecay:
    """minimum + (initial - minimum) * (1 + cos(pi * half_periods * epoch / epochs)) / 2."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, initial_lr: float, minimum: float, epochs: int, half_periods: int = 1
    ):
        self.optimizer, self.initial_lr, self.minimum = optimizer, initial_lr, minimum
        self.epochs, self.half_periods = epochs, half_periods

    def step(self, epoch: int) -> None:
        share = (1 + math.cos(math.pi * self.half_periods * epoch / self.epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.minimum + (self.initial_lr - self.minimum) * share


class WeightedOutputs(nn.Module):
    """The loss of one output, or the weighted sum of the losses of several against one target."""

    def __init__(self, loss: nn.Module, weights: tuple[float, ...]):
        super().__init__()
        self.loss, self.weights = loss, weights

    def forward(self, outputs: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        if isinstance(outputs, torch.Tensor):
            return self.loss(outputs, target)
        return sum(weight * self.loss(output, target) for weight, output in zip(self.weights, outputs, strict=True))


class Neighbour(nnUNetTrainerUSEMA):
    """A network whose shape does not follow the plan, and whose outputs are all compared at full resolution."""

    output_weights: ClassVar[tuple[float, ...]] = (1.0,)

    @classmethod
    def from_plan(cls, arch_init_kwargs: dict) -> dict:
        return {}

    def initialize(self):
        # To nnU-Net it means targets at lower resolutions. A network's further outputs here share the one target.
        self.enable_deep_supervision = False
        super().initialize()
        self.bare_network().deep_supervision = len(self.output_weights) > 1

    def _get_deep_supervision_scales(self) -> None:
        """None; nnU-Net asks before it initialises."""

    def set_deep_supervision_enabled(self, enabled: bool):
        """Nothing to do: these networks return further outputs in training only."""

    def one_loss(self) -> nn.Module:
        """The loss of one output."""
        return super().make_loss()

    def make_loss(self) -> nn.Module:
        return WeightedOutputs(self.one_loss(), self.output_weights)


class _PaperRecipe(Neighbour, AdamWInShortEpochs):
    """What both papers share: AdamW with weight decay 1e-2 and half cross-entropy, half Dice of squares."""

    paper_batch_size: ClassVar[int]

    def _set_batch_size_and_oversample(self):
        super()._set_batch_size_and_oversample()
        self.batch_size = self.paper_batch_size

    def one_loss(self) -> nn.Module:
        from monai.losses import DiceCELoss

        return DiceCELoss(
            softmax=True,
            to_onehot_y=True,
            squared_pred=True,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
            lambda_dice=0.5,
            lambda_ce=0.5,
        )


class nnUNetTrainerMLLAUNet(_PaperRecipe):
    """MLLA-UNet with its paper's recipe: 30,000 iterations of batch 48, learning rate 4e-3 falling as a cosine."""

    architecture = "MLLA-UNet"
    paper_batch_size = 48

    def initialize(self):
        self.initial_lr = 0.002 * self.paper_batch_size / 24
        self.num_epochs = 600
        super().initialize()

    def make_schedule(self, optimizer: torch.optim.Optimizer):
        return CosineDecay(optimizer, self.initial_lr, 1e-6, self.num_epochs)


class nnUNetTrainerAttentionMamba(_PaperRecipe):
    """Attention-Mamba with its paper's recipe: batch 24, a learning rate that falls, rises and falls as a cosine.

    The nine outputs weigh 1 for the final one and the four levels, 1/4 for the four of the "in" supervision. The
    paper's augmentation is spatial: rotation, flips, zoom, with nnU-Net's own probabilities and ranges.
    """

    architecture = "Attention-Mamba"
    output_weights = (1.0,) * 5 + (0.25,) * 4
    paper_batch_size = 24

    def initialize(self):
        self.initial_lr = 5e-4
        self.num_epochs = 550  # 300 passes through the paper's about 2,200 slices
        super().initialize()

    def make_schedule(self, optimizer: torch.optim.Optimizer):
        return CosineDecay(optimizer, self.initial_lr, 1e-5, self.num_epochs, half_periods=3)

    @staticmethod
    def get_training_transforms(*arguments, **options):
        from batchgeneratorsv2.transforms.utils.random import RandomTransform

        every = nnUNetTrainerUSEMA.get_training_transforms(*arguments, **options)
        # nnU-Net wraps its intensity transforms, and these only, in RandomTransform.
        every.transforms = [transform for transform in every.transforms if not isinstance(transform, RandomTransform)]
        return every
