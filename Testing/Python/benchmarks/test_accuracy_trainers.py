"""The trainers of the accuracy experiment: each takes a step on a real slice."""

from __future__ import annotations

import math
import os
import re

import pytest
from trainings import make_dataset, plan_only, step
from usema.training import run, trainers


@pytest.fixture(scope="module")
def results(data, tmp_path_factory):
    """Where nnU-Net would put what it trains on a data set that is planned and preprocessed."""
    folder = tmp_path_factory.mktemp("accuracy")
    dataset = make_dataset(data, folder / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_run", plan_only)
        return run.train_dataset(
            dataset, folder / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA", device="cpu"
        )


def test_every_trainer_of_the_experiment_takes_a_step(results):
    import accuracy
    import accuracy_trainers

    own = [name for name in vars(accuracy_trainers) if re.match("nnUNetTrainer(Control|.*(Small|Half)$)", name)]
    names = [trainer for trainer, _ in accuracy.NETWORKS.values()]
    assert set(own) == set(names)
    for name in names:
        trainer = getattr(trainers, name, None) or getattr(accuracy_trainers, name)
        told = step(results, trainer, USEMA_ITERATIONS="101", USEMA_THREADS="1")
        assert math.isfinite(told["loss"]), name
        assert told["moved"] > 0.5, name
        assert told["epochs"] == 3, name
        # Training on a control compares the decoder's levels; a neighbour's further outputs are for training alone.
        assert told["outputs"] == (1 if re.search("MLLA|Mamba", name) else 3), name


def test_nnunet_finds_them_by_name(results):
    import accuracy_trainers
    from nnunetv2 import __path__ as nnunet
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from usema.training.plugin import check_trainer

    link = accuracy_trainers.link()
    try:
        place = os.path.join(nnunet[0], "training", "nnUNetTrainer")
        found = recursive_find_python_class(place, "nnUNetTrainerMLLAUNetHalf", "nnunetv2.training.nnUNetTrainer")
        assert found.__module__ == "accuracy_trainers"
        check_trainer("nnUNetTrainerControlPlain")  # no file of nnU-Net's or USEMA's has its text
    finally:
        link.unlink()
