"""Where OpenVINO computes the networks, what was compiled of a model is not taken for what has learned."""

from __future__ import annotations

import numpy as np
import pytest
from bundles import FLAT_NETWORKS, write_tiny_bundle
from usema.adaptation.adapting import adapt
from usema.adaptation.corrections import Corrections
from usema.adaptation.judging import LEARNED
from usema.adaptation.wish import Wish
from usema.inference import cpu_engine, openvino_engine
from usema.inference.predictor import Predictor
from usema.volumes.volume import read_volume

pytestmark = pytest.mark.skipif(bool(openvino_engine.why_not()), reason="OpenVINO is not installed")
SOLID = {**FLAT_NETWORKS["PlainConvUNet"], "kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}


def test_the_result_is_that_of_pytorch_and_not_that_of_the_model_as_it_is(tmp_path, small_volume, monkeypatch):
    volume = read_volume(small_volume)
    bundle = write_tiny_bundle(tmp_path / "tiny", architecture={"name": "PlainConvUNet", "config": SOLID})
    corrections = Corrections(np.full(volume.array.shape, 2, np.uint8), ((0, 6),))
    wish = Wish(way=LEARNED, overlap=0.75)

    def both() -> tuple:
        predictor = Predictor(bundle, "cpu")
        own = predictor.segment(volume, overlap=0.75)
        return own, adapt(predictor, [volume], corrections, wish)

    slow = both()
    monkeypatch.delenv(cpu_engine.ENVIRONMENT_VARIABLE, raising=False)
    for name in ("COMPILING_PAYS", "LOADING_PAYS"):  # tiny networks would never pay
        monkeypatch.setattr(cpu_engine, name, -1.0)
    trusted = cpu_engine.why_not_trusted
    monkeypatch.setattr(cpu_engine, "why_not_trusted", lambda run, x, y, seconds: trusted(run, x, y, 1e9))
    for fast in (both(), both()):  # compiled, then as it was kept on disk
        assert "OpenVINO" in fast[0].provenance["attention"]
        assert "OpenVINO" in fast[1].segmentation.provenance["attention"]
        np.testing.assert_array_equal(fast[0].labels, slow[0].labels)
        assert (fast[1].segmentation.labels != slow[1].segmentation.labels).mean() < 1e-3
        assert (fast[1].segmentation.labels != fast[0].labels).mean() > 0.05
        again = Predictor(bundle, "cpu", delta=fast[1].delta).segment(volume, overlap=0.75)
        assert "OpenVINO" in again.provenance["attention"]
        assert (again.labels != fast[0].labels).any()
