"""Folders to be compared, and real labels to put into them."""

from __future__ import annotations

import pytest


@pytest.fixture
def folders(tmp_path):
    """For predictions and for references."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    predictions.mkdir()
    references.mkdir()
    return predictions, references


@pytest.fixture
def labels(data):
    """The label file of a hippocampus case. Cases 1 and 351 happen to have the same grid."""
    return lambda number: data / f"nnUNet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_{number:03}.nii.gz"
