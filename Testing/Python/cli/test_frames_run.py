"""`usema segment` of a 4D file: frames one after the other, volumes over time, and what a stop leaves."""

from __future__ import annotations

import csv
import os
import re
import signal
from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from cli_cases import said, usema
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.frames import find_frames, read_frame
from usema.volumes.volume import load_volume, read_volume

FRAMES = 3


@pytest.fixture(scope="module")
def beating(tmp_path_factory) -> Path:
    piece = read_volume(sample_volume()).array[4:10, 5:35, 5:30].astype(np.int16)
    image = nibabel.Nifti1Image(np.stack([piece, piece[::-1], piece[:, ::-1]]).T, np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0.5
    path = tmp_path_factory.mktemp("in") / "heart.nii.gz"
    nibabel.save(image, path)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_4d_file_becomes_a_4d_label_map_with_its_volumes_over_time(beating, model, tmp_path):
    result = usema("segment", beating, "-o", tmp_path / "r.nii.gz", "--model", model)
    assert result.exit_code == 0, result.output
    assert f"heart.nii.gz, frame 2 of {FRAMES}: Anterior hippocampus" in said(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.nii.gz", "r.volumes.csv"]
    assert find_frames(tmp_path / "r.nii.gz").names == ("0 s", "0.5 s", "1 s")
    for number, row in enumerate(table(tmp_path / "r.volumes.csv")):
        frame, source = read_frame(tmp_path / "r.nii.gz", number, FRAMES), read_frame(beating, number, FRAMES)
        assert frame.geometry.same_grid(source.geometry)
        assert (row["frame"], row["at"]) == (str(number + 1), f"{number * 0.5:g} s")
        assert float(row["Anterior hippocampus / ml"]) == pytest.approx((frame.array == 1).sum() / 1000, abs=1e-3)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_the_label_map_lies_on_the_grid_of_the_file_in_time_too(beating, model, tmp_path, suffix):
    given, path = tmp_path / f"heart{suffix}", tmp_path / f"r{suffix}"
    image = nibabel.load(beating)
    image.header.set_xyzt_units("mm", "unknown")
    source = sitk.GetImageFromArray(np.asarray(image.dataobj).T, isVector=False)
    source.SetSpacing((1, 1, 1, 0.5))
    if suffix == ".nii.gz":
        nibabel.save(image, given)
    else:
        sitk.WriteImage(source, str(given))
    result = usema("segment", given, "-o", path, "--model", model)
    assert result.exit_code == 0, result.output
    assert sitk.ReadImage(str(path)).GetSpacing() == source.GetSpacing()


def test_into_a_folder_each_frame_is_a_file_that_the_next_run_keeps(beating, model, tmp_path):
    command = ("segment", beating, "-o", f"{tmp_path}/out/", "--model", model, "--format", ".seg.nrrd")
    assert usema(*command).exit_code == 0
    folder = tmp_path / "out" / "heart"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["frame-1.seg.nrrd", "frame-2.seg.nrrd", "frame-3.seg.nrrd", "volumes.csv"]
    assert len(table(tmp_path / "out" / "cohort.csv")) == FRAMES
    (folder / "frame-1.seg.nrrd").write_bytes(b"corrected by a person")
    (folder / "frame-3.seg.nrrd").unlink()
    again = usema(*command)
    assert "2 of 3 were done before" in said(again)
    assert (folder / "frame-1.seg.nrrd").read_bytes() == b"corrected by a person"
    assert load_volume(folder / "frame-3.seg.nrrd").array.any()


def test_frames_may_lie_beside_their_input_which_no_result_replaces(beating, model, tmp_path):
    scan = tmp_path / "heart.nrrd"
    sitk.WriteImage(sitk.ReadImage(beating), scan)
    before = scan.read_bytes()
    replaced = usema("segment", scan, "-o", scan, "--overwrite", "--model", model)
    assert replaced.exit_code == 1
    assert "heart.nrrd would replace its input" in said(replaced)
    for told in ("", f"{FRAMES} of {FRAMES} were done before"):
        result = usema("segment", tmp_path, "-o", tmp_path, "--model", model)
        assert result.exit_code == 0, result.output
        assert told in said(result)
    assert scan.read_bytes() == before
    names = sorted(path.name for path in (tmp_path / "heart").iterdir())
    assert names == [*(f"frame-{number}.nrrd" for number in (1, 2, 3)), "volumes.csv"]


def test_a_table_of_volumes_is_of_one_input_and_replaces_nobody_elses(beating, model, tmp_path):
    own = tmp_path / "out/heart/volumes.csv"
    own.parent.mkdir(parents=True)
    own.write_text("patient,ml")
    refused = usema("segment", beating, "-o", f"{tmp_path}/out/", "--model", model)
    assert refused.exit_code == 1
    assert "volumes.csv is not a table of USEMA's" in said(refused)
    assert own.read_text() == "patient,ml"

    twins = tmp_path / "twins"
    twins.mkdir()
    for suffix in (".nii.gz", ".nii"):
        nibabel.save(nibabel.load(beating), twins / f"heart{suffix}")
    refused = usema("segment", twins, "-o", f"{tmp_path}/both/", "--model", model)
    assert refused.exit_code == 1
    assert re.search(r"heart\.nii(\.gz)? and \S*heart\.nii(\.gz)? would share \S*heart/volumes\.csv", said(refused))
    assert not (tmp_path / "both").exists()


def test_a_stop_keeps_finished_frames_and_the_same_command_goes_on(beating, model, tmp_path, monkeypatch):
    predict = import_module("usema.cli.work").predict_case

    def stop_at_the_last(case, *rest):
        if case.frame == (2, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return predict(case, *rest)

    command = ("segment", beating, "-o", tmp_path / "r.nii.gz", "--model", model)
    with monkeypatch.context() as patched:
        patched.setattr("usema.cli.work.predict_case", stop_at_the_last)
        stopped = usema(*command)
    assert stopped.exit_code == 130
    assert "2 of 3 cases were done before" in said(stopped)
    assert not (tmp_path / "r.nii.gz").exists()
    kept = tmp_path / "r.nii.gz.frames"
    assert len(list(kept.glob("frame-*.nii.gz"))) == 2
    (kept / "mine.txt").write_text("the user's own")
    assert "2 of 3 were done before" in said(usema(*command))
    assert find_frames(tmp_path / "r.nii.gz").names == ("0 s", "0.5 s", "1 s")
    assert [path.name for path in kept.iterdir()] == ["mine.txt"]


def test_a_run_that_finishes_no_frame_leaves_no_folder_of_them(beating, model, tmp_path, monkeypatch):
    predict = import_module("usema.cli.work").predict_case

    def fail_from(first):
        def failing(case, *rest):
            if case.frame[0] >= first:
                raise InputError("This frame cannot be segmented.")
            return predict(case, *rest)

        monkeypatch.setattr("usema.cli.work.predict_case", failing)

    command = ("segment", beating, "-o", tmp_path / "r.nii.gz", "--model", model)
    fail_from(0)
    failed = usema(*command)
    assert failed.exit_code == 1
    assert "3 of 3 failed" in said(failed)
    assert "This frame cannot be segmented" in said(failed)
    assert list(tmp_path.iterdir()) == []
    fail_from(1)
    assert "2 of 3 failed" in said(usema(*command))
    fail_from(0)
    assert "1 of 3 were done before" in said(usema(*command))
    assert (tmp_path / "r.nii.gz.frames/frame-1.nii.gz").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("-o", "r.seg.nrrd"), "has 3 frames, which r.seg.nrrd cannot hold"),
        (("-o", "r.nii.gz", "--preview", "p.png"), "probabilities, previews and statistics are of one"),
        (("-o", "there.nii.gz"), "there.nii.gz exists already"),
    ],
)
def test_what_could_not_be_put_together_is_refused_at_once(beating, model, tmp_path, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.nii.gz").write_text("mine")
    result = usema("segment", beating, "--model", model, *more)
    assert result.exit_code == 1
    assert words in said(result)
    assert "Model " not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["there.nii.gz"]
