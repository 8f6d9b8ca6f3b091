"""A disk that is full, or becomes so at any file that a command writes: told, nothing half stays, nothing old goes.

Of downloads, installed and imported models the tests of the store tell; of the worker's folder those of `serving`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cli_cases import said, usema
from small_disk import mounted
from usema.volumes.volume import load_volume

PAGE = 4096


@pytest.fixture
def disk(tmp_path) -> Path:
    with mounted(tmp_path / "disk", "size=2m") as place:
        yield place


@pytest.fixture
def leave(disk, tmp_path) -> Callable[[int], None]:
    """Fills the disk but for so many pages."""
    filling = disk / "filling"

    def fill(pages: int) -> None:
        filling.unlink(missing_ok=True)
        free = os.statvfs(disk).f_bavail
        filling.write_bytes(bytes(PAGE * (free - pages)))
        assert os.statvfs(disk).f_bavail == pages

    return fill


def corrected(volume: Path, folder: Path) -> Path:
    image = sitk.ReadImage(str(volume))
    labels = sitk.GetImageFromArray(np.full(image.GetSize()[::-1], 2, np.uint8))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(folder / "corrected.nii.gz"))
    return folder / "corrected.nii.gz"


def left(disk: Path) -> list[str]:
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.name != "filling")


SEGMENT = ["--probabilities", "{disk}/p.nii", "--preview", "{disk}/a.png", "--statistics", "{disk}/a.csv"]


@pytest.mark.parametrize(("name", "pages"), [("a.seg.nrrd", 0), ("a.nii.gz", 1), ("a.mha", 3), ("a.seg.nrrd", 70)])
def test_of_one_case_whole_files_stay_and_are_named(name, pages, disk, leave, model, small_volume):
    leave(pages)
    more = [text.format(disk=disk) for text in SEGMENT]
    result = usema("segment", small_volume, "-o", disk / name, "--model", model, *more)
    assert result.exit_code == 1
    assert "No space left on device" in said(result) or "cannot be written" in said(result), said(result)
    stayed = left(disk)
    assert set(stayed) <= {name, "p.nii", "a.png", "a.csv"}
    assert len(stayed) < 4
    for one in stayed:
        assert str(disk / one) in said(result).partition("Written before:")[2], said(result)
    if name in stayed:
        assert load_volume(disk / name).array.any()


def test_a_result_that_is_to_be_replaced_stays(disk, leave, model, small_volume):
    output = disk / "a.nii"
    output.write_bytes(before := bytes(range(256)) * 4)
    leave(1)
    result = usema("segment", small_volume, "-o", output, "--model", model, "--overwrite")
    assert result.exit_code == 1
    assert output.read_bytes() == before
    assert left(disk) == ["a.nii"]


@pytest.mark.parametrize("pages", [1, 6])
def test_a_cohort_goes_on_when_there_is_room_again(pages, disk, leave, model, small_volume, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        shutil.copyfile(small_volume, tmp_path / "in" / f"{name}.nii.gz")
    arguments = ("segment", tmp_path / "in", "-o", f"{disk}/out/", "--model", model, "--format", ".nii")
    leave(pages)
    result = usema(*arguments)
    assert result.exit_code == 1
    assert "No space left on device" in said(result) or "cannot be written" in said(result), said(result)
    assert not [name for name in left(disk) if Path(name).name.startswith(".")]
    leave(200)
    again = usema(*arguments)
    assert again.exit_code == 0, again.output
    assert all(load_volume(disk / "out" / f"{name}.nii").array.any() for name in ("a", "b"))
    assert (disk / "out" / "cohort.csv").read_text().count("done") == 2


def test_what_was_learned_and_its_result_are_whole_or_not_there(disk, leave, model, small_volume, tmp_path):
    leave(5)  # the result alone takes as much
    arguments = ("-o", disk / "r.nii", "--model", model, "--save-delta", disk / "d.safetensors")
    result = usema(
        "adapt", small_volume, corrected(small_volume, tmp_path), "--slices", "4", "--way", "learned", *arguments
    )
    assert result.exit_code == 1
    assert "No space left on device" in said(result) or "cannot be written" in said(result), said(result)
    for one in left(disk):
        assert one in ("r.nii", "d.safetensors")
        assert str(disk / one) in said(result), said(result)


def test_a_full_folder_for_temporary_files_is_no_obstacle_or_named(
    disk, leave, model, small_volume, tmp_path, monkeypatch
):
    """Where a name is no text, ITK reads and writes through a link there."""
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    leave(0)
    folder = tmp_path / os.fsdecode(b"any\xff")
    folder.mkdir()
    shutil.copyfile(small_volume, folder / "v.nii.gz")
    result = usema("segment", folder / "v.nii.gz", "-o", folder / "r.nii.gz", "--model", model)
    assert result.exit_code == 0 or str(disk) in said(result), said(result)
    assert result.exit_code in (0, 1)
    assert left(disk) == []
