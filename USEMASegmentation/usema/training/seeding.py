"""Seeds for nnU-Net's loader processes, which draw patches and augmentations.

nnU-Net leaves them unseeded: NumPy then draws anew in every run, while Python's and PyTorch's generators are copies of
the parent's, the same in every process, so that their augmentations are copies of each other. Here each process has
seeds of its own, made from the one of the training. What remains open is the order in which several processes deliver.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet


class Seeded:
    """A loader of nnU-Net's that seeds Python's generator in the process that it comes to.

    Args:
        loader: nnU-Net's.
        seeds: one for each process.
    """

    def __init__(self, loader: Any, seeds: list[int]):
        self.loader, self.seeds = loader, seeds

    def set_thread_id(self, thread_id: int) -> None:
        """Called first in each process, with its number."""
        random.seed(self.seeds[thread_id])
        self.loader.set_thread_id(thread_id)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.loader)


@contextmanager
def seeded_workers(*seed: int) -> Iterator[None]:
    """Within it, nnU-Net's loader processes get seeds of their own.

    Args:
        seed: whatever tells this training, this process and this start from others; not negative.
    """
    loaders = 0

    def augmenter(data_loader: Any, transform: Any, num_processes: int, *arguments: Any, **options: Any):
        nonlocal loaders
        seeds = [int(each) for each in np.random.SeedSequence((*seed, loaders)).generate_state(num_processes)]
        loaders += 1
        options["seeds"] = seeds  # of NumPy and PyTorch
        return NonDetMultiThreadedAugmenter(Seeded(data_loader, seeds), transform, num_processes, *arguments, **options)

    before = nnunet.NonDetMultiThreadedAugmenter
    nnunet.NonDetMultiThreadedAugmenter = augmenter
    try:
        yield
    finally:
        nnunet.NonDetMultiThreadedAugmenter = before
