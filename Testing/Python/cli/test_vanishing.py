"""Shares that go away in the middle, and files that another program cuts off: a message, and nothing is lost."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk
from cli_cases import said, usema
from dicom_files import write_series
from small_disk import mounted
from usema.errors import InputError
from usema.volumes.volume import load_volume, read_volume


@pytest.fixture
def share(tmp_path) -> Path:
    """A disk of its own."""
    with mounted(tmp_path / "share", "size=16m") as place:
        yield place


def goes(share: Path) -> None:
    """As a cable that is pulled: what is open stays open, and nothing else is there any more."""
    subprocess.run(["umount", "-l", share], check=True)


def after(monkeypatch, place: str, event: Callable[[], None]) -> None:
    """Something happens right after the first call of this function has returned."""
    module, _, name = place.rpartition(".")
    module = importlib.import_module(module)
    whole = getattr(module, name)

    def followed(*arguments, **options):
        result = whole(*arguments, **options)
        monkeypatch.setattr(module, name, whole)
        event()
        return result

    monkeypatch.setattr(module, name, followed)


def test_a_series_whose_share_goes_after_its_headers_were_read_is_told(share, small_volume, monkeypatch):
    write_series(share / "series", load_volume(small_volume).array)
    after(monkeypatch, "usema.volumes.dicom.scan", lambda: goes(share))
    with pytest.raises(InputError, match=r"IM0000\.dcm"):
        read_volume(share / "series")


@pytest.mark.parametrize(
    ("suffix", "moment"),
    [
        (".nii", "usema.volumes.nifti._read_layout"),
        (".nii.gz", "usema.volumes.nifti._read_layout"),
        (".nrrd", "usema.volumes.image_files.check_file"),
        (".mha", "usema.volumes.image_files.check_file"),
    ],
)
@pytest.mark.parametrize("how", ["cut off", "gone"])
def test_a_file_that_changes_while_it_is_read_is_told(suffix, moment, how, small_volume, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(small_volume)), str(path))
    change = path.unlink if how == "gone" else lambda: os.truncate(path, path.stat().st_size // 2)
    after(monkeypatch, moment, change)
    with pytest.raises(InputError, match=f"a{suffix}"):
        read_volume(path)


def test_a_result_whose_share_went_lies_where_that_was(model, share, small_volume, monkeypatch):
    after(monkeypatch, "usema.inference.loading.predict_logits", lambda: goes(share))
    result = usema("segment", small_volume, "-o", share / "a.nii.gz", "--model", model)
    assert result.exit_code == 0, result.output
    assert load_volume(share / "a.nii.gz").array.any()


def test_an_output_share_that_takes_no_more_writes_is_named(model, share, small_volume, monkeypatch):
    after(
        monkeypatch,
        "usema.inference.loading.predict_logits",
        lambda: subprocess.run(["mount", "-o", "remount,ro", share], check=True),
    )
    result = usema("segment", small_volume, "-o", share / "a.nii.gz", "--model", model)
    assert result.exit_code == 1
    assert f"Nothing can be written to {share}: Read-only file system" in said(result)
    assert list(share.iterdir()) == []


def test_an_output_folder_that_is_removed_is_named_and_the_other_cases_go_on(
    model, small_volume, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "v.nii.gz").write_bytes(small_volume.read_bytes())
    after(monkeypatch, "usema.inference.loading.predict_logits", (tmp_path / "out" / "a").rmdir)
    result = usema("segment", tmp_path / "in", "-o", f"{tmp_path}/out/", "--model", model)
    assert result.exit_code == 1
    assert "1 of 2 failed" in result.output
    assert f"The folder {tmp_path}/out/a does not exist" in said(result)
    assert load_volume(tmp_path / "out" / "b" / "v.nii.gz").array.any()
    assert usema("segment", tmp_path / "in", "-o", f"{tmp_path}/out/", "--model", model).exit_code == 0
    assert load_volume(tmp_path / "out" / "a" / "v.nii.gz").array.any()
