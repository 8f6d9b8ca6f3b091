"""The folder of a segmentation: what an application leaves there that was killed goes, what one uses stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from slicer_cases import GRIDS, MrmlHost, addVolume, blobs
from USEMASegmentationLib.Scene.ExchangeFolder import ExchangeFolder, removeAbandoned
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox
from USEMASegmentationLib.Scene.Watch import Watch
from workers import python

ANOTHER_APPLICATION = """
import sys
from USEMASegmentationLib.Scene.ExchangeFolder import ExchangeFolder
folder = ExchangeFolder()
(folder.path / "channel-0.npy").write_bytes(b"voxels")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path):
    host = MrmlHost(tmp_path)
    yield Path(host.app.temporaryPath)
    host.close()


@pytest.fixture
def application(temporary, root):
    """Another process that segments."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(python(ANOTHER_APPLICATION), env=environment, **pipes) as process:
        process.folder = Path(process.stdout.readline().strip())
        yield process
        process.kill()


def test_what_a_killed_application_left_is_removed_and_nothing_that_is_in_use(temporary, application):
    own = ExchangeFolder()
    assert application.folder.parent == temporary
    removeAbandoned()
    assert (application.folder / "channel-0.npy").is_file()
    application.kill()
    application.wait()
    removeAbandoned()
    assert os.listdir(temporary) == [own.path.name]
    assert own.remove()


def test_other_files_in_the_temporary_folder_stay(temporary):
    (temporary / "USEMA-notes").mkdir()
    (temporary / "other" / "in-use").mkdir(parents=True)
    removeAbandoned()
    assert sorted(os.listdir(temporary)) == ["USEMA-notes", "other"]


def test_an_untouched_volume_is_not_compared_voxel_by_voxel(temporary, monkeypatch):
    volume = addVolume(blobs().astype(np.int16), GRIDS["RAS"])
    folder, watch = ExchangeFolder(), Watch([volume])
    elsewhere = [vtk.vtkImageData() for _ in range(50)]  # where Python had the image before
    folder.export([volume], wholeBox(volume))
    with monkeypatch.context() as patch:
        patch.setattr(ExchangeFolder, "comparing", lambda *arguments: pytest.fail("all voxels were read"))
        assert watch.changes(folder, wholeBox(volume)) == ""
    assert len(elsewhere) == 50
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    assert "were changed while it was being segmented" in watch.changes(folder, wholeBox(volume))
    folder.remove()
