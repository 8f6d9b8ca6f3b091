"""A first look at the result: where it lies, when it goes, and that it is nobody's volume."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from cli_cases import said, usema
from usema.cli.first_look import NOTE
from usema.resources import sample_volume
from usema.volumes import writing
from usema.volumes.volume import load_volume


def test_a_first_look_lies_beside_the_result_until_that_is_there(model, tmp_path, monkeypatch):
    seen = []
    write = writing.write_segmentation
    monkeypatch.setattr(
        writing, "write_segmentation", lambda *a: seen.append(sorted(p.name for p in tmp_path.iterdir())) or write(*a)
    )
    looks = []
    label_map = writing.write_label_map
    monkeypatch.setattr(
        writing, "write_label_map", lambda path, *a: (label_map(path, *a), looks.append(load_volume(path).array))
    )
    small = load_volume(sample_volume()).array[:24, :32, :24]
    volume = tmp_path / "in" / "volume.nii.gz"
    volume.parent.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.tile(small, (1, 2, 4))), volume)
    for speed in ("preview", "exact"):
        result = usema("segment", volume, "-o", tmp_path / f"{speed}.seg.nrrd", "--model", model, "--speed", speed)
        assert result.exit_code == 0, result.output
        assert ("preview, until the result is there" in result.output) == (speed == "preview")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exact.seg.nrrd", "in", "preview.seg.nrrd"]
    assert seen[0] == ["in"]
    found = [load_volume(tmp_path / f"{speed}.seg.nrrd").array for speed in ("preview", "exact")]
    np.testing.assert_array_equal(*found)
    assert looks[0].shape == found[0].shape


def test_a_first_look_that_a_killed_run_left_goes_and_a_file_of_its_name_stays(model, small_volume, tmp_path):
    volume = load_volume(small_volume)
    for name, note in (("killed", NOTE), ("own", "")):
        writing.write_label_map(tmp_path / f"{name}.preview.nii.gz", volume.array > 0, volume.geometry, note=note)
        result = usema("segment", small_volume, "-o", tmp_path / f"{name}.nii.gz", "--model", model)
        assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.nii.gz", "own.nii.gz", "own.preview.nii.gz"]


def test_a_first_look_that_a_killed_run_left_is_no_input_and_a_file_of_its_name_is(model, small_volume, tmp_path):
    volume, folder = load_volume(small_volume), tmp_path / "in"
    folder.mkdir()
    for name, note in (("killed", NOTE), ("own", "")):
        writing.write_label_map(folder / f"{name}.preview.nii.gz", volume.array, volume.geometry, note=note)
    result = usema("segment", folder, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 0, result.output
    assert "killed.preview.nii.gz is left out: a first look that a stopped run left." in said(result)
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["own.preview.nii.gz"]


def test_results_whose_names_have_dots_have_first_looks_of_their_own(model, small_volume, tmp_path):
    volume = load_volume(small_volume)
    for name in ("1.2.1", "1.2.2", "1"):
        look = tmp_path / f"{name}.preview.nii.gz"
        writing.write_label_map(look, volume.array > 0, volume.geometry, note=NOTE)
    assert usema("segment", small_volume, "-o", tmp_path / "1.2.1.seg.nrrd", "--model", model).exit_code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["1.2.1.seg.nrrd", "1.2.2.preview.nii.gz", "1.preview.nii.gz"]
