"""The sample, what the bundled model finds in it, and what is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from usema.inference.predictor import Predictor
from usema.models.bundle import Bundle, read_bundle
from usema.resources import bundled_models, sample_volume
from usema.volumes.volume import Volume, load_volume, read_volume


@dataclass(frozen=True, eq=False)
class Case:
    """Attributes:
    predictor: of the bundled model, as it is.
    volume, labels, reference: the sample, what the model finds in it, and what is right.
    """

    bundle: Bundle
    predictor: Predictor
    volume: Volume
    labels: np.ndarray
    reference: np.ndarray

    def corrected(self, *slices: int) -> np.ndarray:
        """The labels with axial slices as they should be."""
        labels = self.labels.copy()
        labels[list(slices)] = self.reference[list(slices)]
        return labels


@pytest.fixture(scope="session")
def case() -> Case:
    bundle, volume = read_bundle(bundled_models()["hippocampus-mr"]), read_volume(sample_volume())
    predictor = Predictor(bundle, "cpu")
    (reference,) = (sample_volume().parent / "reference").glob("*.nii.gz")
    labels = predictor.segment(volume).labels.astype(np.int16)
    return Case(bundle, predictor, volume, labels, load_volume(reference).array.astype(np.int16))
