"""Models that nnU-Net's own trainer trained, and what is done with them in several tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from nnunet_models import train
from usema.inference.predictor import Predictor
from usema.volumes.volume import read_volume


@pytest.fixture(scope="session")
def trained(tmp_path_factory, data):
    """The configuration folder of a kind, trained when it is first asked for."""
    folders = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = train(kind, tmp_path_factory.mktemp("results"), data)
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def folds(tmp_path_factory, data) -> Path:
    """The results folder of a dataset: 3d_fullres with folds 0, 1 and all, and 2d."""
    results = tmp_path_factory.mktemp("results")
    for fold in (0, 1, "all"):
        folder = train("3D", results, data, fold=fold, steps=4)
    train("2D", results, data)
    return folder.parent


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of a model's folder, to be spoilt."""
    return shutil.copytree(trained("3D"), tmp_path / "spoilt" / trained("3D").name)


def segmented(bundle, files) -> np.ndarray:
    return Predictor(bundle, "cpu").segment([read_volume(file) for file in files]).labels


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert (theirs > 0).sum() > 50, "a model that finds nothing proves nothing"
    assert (ours == theirs).mean() > 0.999
    both = ((ours > 0) & (theirs > 0)).sum()
    assert 2 * both / ((ours > 0).sum() + (theirs > 0).sum()) > 0.97
