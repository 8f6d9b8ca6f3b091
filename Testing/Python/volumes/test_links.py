"""What is written under the name of a link: into the file that it leads to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from usema.errors import OutputError
from usema.files import replace_file
from usema.resources import sample_volume
from usema.volumes.volume import load_volume, read_volume
from usema.volumes.writing import check_writable, write_label_map, write_segmentation

VOLUME = read_volume(sample_volume())
LABELS = (VOLUME.array > VOLUME.array.mean()).astype(np.uint8)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_any(path: Path, overwrite: bool = False) -> None:
    if path.name.endswith(".seg.nrrd"):
        write_segmentation(path, LABELS, VOLUME.geometry, [], {}, overwrite)
    else:
        write_label_map(path, LABELS, VOLUME.geometry, overwrite)


def linked(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """A link, and the file in another folder that it leads to by a second one."""
    for folder in ("archive", "here"):
        (tmp_path / folder).mkdir()
    file, link = tmp_path / "archive" / name, tmp_path / "here" / name
    file.write_bytes(b"old")
    (tmp_path / "archive" / "latest").symlink_to(name)
    link.symlink_to("../archive/latest")
    return link, file


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_result_is_written_through_a_link_to_the_file_that_it_leads_to(tmp_path, suffix):
    link, file = linked(tmp_path, f"r{suffix}")
    with pytest.raises(OutputError, match="exists"):
        write_any(link)
    assert file.read_bytes() == b"old"
    write_any(link, overwrite=True)
    assert link.is_symlink()
    assert np.array_equal(load_volume(file).array, LABELS)
    assert [entries(tmp_path / one) for one in ("archive", "here")] == [sorted(["latest", file.name]), [link.name]]


@pytest.mark.parametrize("what", ["a table", "a training's state"])
def test_whatever_else_is_written_goes_through_links_too(what, tmp_path):
    link, file = linked(tmp_path, "table.csv")
    if what == "a table":
        replace_file(link, b"new")
    else:
        pytest.importorskip("nnunetv2")
        from usema.training.trainers import checkpoint_file

        with checkpoint_file(link) as temporary:
            temporary.write_bytes(b"new")
            assert temporary.parent == file.parent  # the link may lead to another disk
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert [entries(tmp_path / one) for one in ("archive", "here")] == [["latest", "table.csv"], ["table.csv"]]


def test_a_link_that_leads_to_nothing_or_in_a_circle_is_refused_before_the_work(tmp_path):
    (tmp_path / "lost.nii.gz").symlink_to("gone/file.nii.gz")
    (tmp_path / "a.nii.gz").symlink_to("b.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to("a.nii.gz")
    for name, target in (("lost.nii.gz", "gone/file.nii.gz"), ("a.nii.gz", "b.nii.gz")):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=rf"{name} is a link to {target}, which leads to no file.*Delete it"):
                check_writable(tmp_path / name, overwrite)
            with pytest.raises(OutputError, match="leads to no file"):
                write_any(tmp_path / name, overwrite)
    assert entries(tmp_path) == ["a.nii.gz", "b.nii.gz", "lost.nii.gz"]
