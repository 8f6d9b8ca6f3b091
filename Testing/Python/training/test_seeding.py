"""Seeds of nnU-Net's loader processes: in every process another, in every run of one seed the same."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.data_loader import DataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet
from usema.training.seeding import seeded_workers


class Draws(DataLoader):
    """In place of patches: the process's number, and what the three generators draw in it."""

    def __init__(self):
        super().__init__(None, 1)

    def generate_train_batch(self):
        numbers = [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002 - as nnU-Net draws
        return {"thread": self.thread_id, "draws": np.array(numbers)}


def drawn(*seed: int, processes: int = 2) -> dict[int, tuple[float, ...]]:
    """Process -> the first that it draws."""
    with seeded_workers(*seed):
        augmenter = nnunet.NonDetMultiThreadedAugmenter(
            data_loader=Draws(), transform=None, num_processes=processes, num_cached=1, seeds=None, wait_time=0.002
        )
    found: dict[int, tuple[float, ...]] = {}
    try:
        while len(found) < processes:
            item = next(augmenter)
            found.setdefault(item["thread"], tuple(item["draws"]))
    finally:
        augmenter._finish()
    return found


@pytest.mark.timeout(60)
def test_each_process_draws_from_seeds_of_its_own_and_the_same_ones_in_each_run():
    first, again = drawn(3, 0, 0), drawn(3, 0, 0)
    assert first == again
    assert all(one != other for one, other in zip(first[0], first[1], strict=True)), "no generator is a copy"
    for other in (drawn(4, 0, 0), drawn(3, 1, 0), drawn(3, 0, 7)):  # another seed, another GPU, a run that goes on
        numbers = [number for draws in (*first.values(), *other.values()) for number in draws]
        assert len(set(numbers)) == len(numbers)


def test_training_and_validation_draw_differently_and_nnunet_is_left_as_it_was():
    before = nnunet.NonDetMultiThreadedAugmenter
    with seeded_workers(0):
        seeds = [
            nnunet.NonDetMultiThreadedAugmenter(
                data_loader=Draws(), transform=None, num_processes=3, num_cached=1, seeds=None
            ).seeds
            for _ in range(2)
        ]
    assert len({*seeds[0], *seeds[1]}) == 6
    assert nnunet.NonDetMultiThreadedAugmenter is before
