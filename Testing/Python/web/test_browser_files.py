"""Files that a browser sends: each gets into the folder, whatever it is called, and none anywhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("trame_slicer", reason="the browser front end (extra `web`) is not installed")


def sent(name: str, content: bytes = b"voxels") -> dict:
    """As trame has it."""
    return {"name": name, "size": len(content), "type": "", "lastModified": 0, "content": content}


def test_no_name_leads_out_of_the_folder_or_ends_the_reading(tmp_path):
    from usema_web.files import receive

    folder = tmp_path / "folder"
    folder.mkdir()
    names = [
        "..",
        ".",
        "",
        "/etc/passwd",
        "..\\..\\a.nii",
        "x/../../b.nrrd",
        "a\0b.nii",
        "\ud800.nii",
        "ü" * 300 + ".nii.gz",
    ]
    written = receive([sent(name, str(place).encode()) for place, name in enumerate(names)], folder)
    assert [path.read_bytes() for path in written] == [str(place).encode() for place in range(len(names))]
    assert all(folder in path.resolve().parents for path in written)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert written[-1].name.endswith("ü.nii.gz")


def test_slices_of_one_name_are_all_kept(tmp_path):
    """Two series whose slices are called 0, 1, 2: numbers of folders and of files at once."""
    from usema_web.files import receive

    names = ["0", "1", "2", "0", "1", "2"]
    written = receive([sent(name, str(place).encode()) for place, name in enumerate(names)], tmp_path)
    assert [path.read_bytes() for path in written] == [str(place).encode() for place in range(len(names))]


def test_files_that_end_the_reading_are_not_sent_again_with_the_next_ones(tmp_path):
    """The button keeps its list where what takes it raises an error."""
    from usema_web.application import Application

    def raises(paths):
        raise ValueError(f"{len(paths)} files that nothing was prepared for")

    files = [sent("a.dcm")]
    with pytest.raises(ValueError, match="1 files"):
        Application._open(SimpleNamespace(host=SimpleNamespace(folder=tmp_path), _add=raises), files)
    assert files == []
