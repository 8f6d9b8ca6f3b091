"""A CT in the panel, the whole way: search a structure, see what it takes, download, segment, correct, provenance.

The weights are small networks that nnU-Net's and MONAI's own code wrote, under the publishers' file names.
"""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
import vtk
from model_shop import worker_at
from panel_cases import isShown, waitForStore, waitUntil
from slicer_cases import voxels
from usema.store import cache, shelf

pytest_plugins = ["panel_fixtures", "panel_store_fixtures"]
pytestmark = pytest.mark.slow(4)

WHOLE_BODY, MUSCLES = "totalsegmentator-total-6mm", "auto3dseg-muscles-3mm"
HOST = "https://github.com/"


@pytest.fixture(scope="module")
def ct(data, tmp_path_factory):
    """A piece of a real CT."""
    path = tmp_path_factory.mktemp("ct") / "abdomen.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(data / "volumes/body_ct/example_ct_sm.nii.gz"))[30:84, 25:73, :], str(path))
    return path


@pytest.fixture(scope="module")
def files(data, ct, tmp_path_factory):
    """Name of a zip -> where it lies, as the publishers have them."""
    pytest.importorskip("nnunetv2")
    pytest.importorskip("monai")
    import auto3dseg_models
    from nnunet_models import zipped
    from totalsegmentator_models import make, public

    root = tmp_path_factory.mktemp("weights")
    model = public("total-6mm")
    (dataset,) = model.recipe["datasets"]
    made = make(root, data, model, dataset)
    settings = auto3dseg_models.config(resample_resolution=[4.5, 4.5, 4.5], orientation_ras=True)
    folder = auto3dseg_models.save(root / "published", settings, auto3dseg_models.train(settings, [ct]))
    zips = [
        zipped(made, root / f"{dataset['folder']}.zip", f"{dataset['folder']}/"),
        auto3dseg_models.zipped(folder, root / "muscles-3mm-v2.0.0.zip", "model/"),
    ]
    return {path.name: path for path in zips}


@pytest.fixture
def publishers(app, shop, files, monkeypatch):
    """A web server on loopback in the place of github.com."""
    from USEMASegmentationLib import ModelStore  # not before the application is there

    for name in (WHOLE_BODY, MUSCLES):
        for file in shelf.find(name).model.files:
            place = shop.folder / file.url.removeprefix(HOST)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[PurePosixPath(urlsplit(file.url).path).name], place)
    here = shop.address.removesuffix("models.json")
    monkeypatch.setattr(ModelStore, "WorkerClient", lambda *_: worker_at(here, HOST, any_size=True))
    return shop


def find(panel, text: str, name: str):
    """Searches, marks the model and gives its row."""
    ui = panel.ui
    ui.shelfButton.click()
    ui.shelfEdit.text = text
    row = [found.model.name for found in panel.shelfSection.found].index(name)
    ui.shelfList.setCurrentRow(row)
    return ui.shelfList.item(row).text()


def segment(panel) -> None:
    panel.ui.segmentButton.click()
    waitForStore(panel)
    waitUntil(lambda: not panel.logic.busy, seconds=240)
    panel.onTimer()
    assert panel.ui.messageLabel.text.startswith("Done in"), panel.ui.messageLabel.text + panel.ui.downloadLabel.text


def result():
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    segmentation = node.GetSegmentation()
    return node, {segmentation.GetSegment(one).GetName(): one for one in segmentation.GetSegmentIDs()}


def terminology(node, segment_id: str) -> str:
    tag = vtk.reference("")
    assert node.GetSegmentation().GetSegment(segment_id).GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
    return str(tag)


def test_liver_is_searched_downloaded_segmented_and_corrected(app, openPanel, asked, publishers, ct):
    panel = openPanel(script=None, own=True)  # which keeps its time where this store is
    volume = app.loadVolume(ct)
    text = find(panel, "liver", WHOLE_BODY)
    assert "Liver" in text
    assert "135 MB" in text
    assert " here" in text
    assert "Needs at least " in panel.ui.shelfDetailsLabel.text
    assert "Please cite" in panel.ui.shelfDetailsLabel.toolTip
    panel.ui.useButton.click()
    segment(panel)
    (question,) = asked
    assert "github.com" in question
    node, segments = result()
    assert len(segments) == 117
    liver = segments["Liver"]
    assert "~SCT^10200004^Liver" in terminology(node, liver)
    assert node.GetSegmentation().GetSegment(liver).GetColor() == pytest.approx(
        (221 / 255, 130 / 255, 101 / 255), abs=1e-6
    )
    before = voxels(node, liver, volume)
    assert before.any()
    provenance = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
    assert provenance["USEMA.model"] == WHOLE_BODY
    assert provenance["USEMA.sourceFormat"] == "TotalSegmentator"
    assert len(provenance["USEMA.sourceSha256"]) == 64
    assert (cache.place(WHOLE_BODY, "1.0.0") / "card.md").is_file()
    for word in ("card.md", "Made by", "Wasserthal", "Openly available for any usage"):
        assert word in panel.ui.modelInfoLabel.text
    assert "the last time here" in find(panel, "liver", WHOLE_BODY)  # it ran on this computer
    panel.ui.shelfButton.click()

    corrected = before.copy()
    corrected[:2] = True
    panel.ui.existingSelector.setCurrentIndex(panel.ui.existingSelector.findData("replace"))
    slicer.util.updateSegmentBinaryLabelmapFromArray(corrected.astype(np.uint8), node, liver, volume)
    slicer.app.processEvents()
    assert isShown(panel.ui.overwriteCheckBox)
    segment(panel)
    assert np.array_equal(voxels(node, liver, volume), corrected)


def test_only_the_structure_that_was_searched_for_of_an_auto3dseg_model(app, openPanel, asked, publishers, ct):
    panel = openPanel(script=None, own=True)  # which keeps its time where this store is
    volume = app.loadVolume(ct)
    assert "42 s on its publisher's processor" in find(panel, "Muscles", MUSCLES)
    panel.ui.useButton.click()
    segment(panel)
    node, segments = result()
    assert len(segments) == 3
    name = next(name for name, one in segments.items() if voxels(node, one, volume).any())
    find(panel, name, MUSCLES)
    assert panel.ui.onlyButton.text == f"Only {name}"
    panel.ui.onlyButton.click()
    assert panel.parameters().labels == [name]
    slicer.mrmlScene.RemoveNode(node)
    segment(panel)
    node, segments = result()
    assert list(segments) == [name]
    assert "~" in terminology(node, segments[name])
    assert node.GetAttribute("USEMA.labels") == name
