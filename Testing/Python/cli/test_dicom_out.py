"""`usema segment series/ -o result.dcm`: what a department's archive takes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cli_cases import said, usema
from dicom_files import uid, write_series
from pydicom import dcmread
from usema.resources import sample_volume
from usema.volumes.volume import read_volume

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")


@pytest.fixture
def series(tmp_path) -> Path:
    voxels = read_volume(sample_volume()).array[:4, :40, :30].astype(np.uint16)
    for name in ("one", "two"):
        fields = {"SeriesInstanceUID": uid(name), "FrameOfReferenceUID": uid("frame")}
        write_series(tmp_path / "in" / name, voxels, step=(0, 0, 1.0), **fields)
    return tmp_path / "in"


def test_a_series_becomes_a_dicom_segmentation_with_the_models_codes(series, model, tmp_path):
    result = usema("segment", series / "one", "-o", tmp_path / "r.dcm", "--model", model)
    assert result.exit_code == 0, result.output
    dataset = dcmread(tmp_path / "r.dcm")
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == ["Anterior hippocampus", "Posterior hippocampus"]
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "5366008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Anterior"
    found = sum(float(amount) for amount in re.findall(r" ([\d.]+) ml", result.output))
    assert dataset.pixel_array.sum() / 1000 == pytest.approx(found, abs=0.011)
    assert found > 0


def test_a_segmentation_beside_its_series_is_left_out_with_one_word(series, model, tmp_path):
    usema("segment", series / "one", "-o", series / "one" / "r.dcm", "--model", model)
    result = usema("segment", series / "one", "-o", tmp_path / "r.nii.gz", "--model", model)
    assert result.exit_code == 0, result.output
    assert result.output.count("left out: r.dcm (Segmentation)") == 1


def test_results_in_a_folder_are_of_the_format_that_is_asked_for(series, model, tmp_path):
    result = usema("segment", series, "-o", f"{tmp_path}/out/", "--model", model, "--format", ".rtstruct.dcm")
    assert result.exit_code == 0, result.output
    for name in ("one", "two"):
        assert dcmread(tmp_path / "out" / f"{name}.rtstruct.dcm").Modality == "RTSTRUCT"


def test_a_volume_that_is_no_dicom_is_refused_before_the_model_is_loaded(model, tmp_path):
    result = usema("segment", sample_volume(), "-o", tmp_path / "r.dcm", "--model", model)
    assert result.exit_code == 1
    assert "a DICOM result refers to the series it was made of" in said(result)
    assert "Model " not in result.output
    assert not (tmp_path / "r.dcm").exists()
