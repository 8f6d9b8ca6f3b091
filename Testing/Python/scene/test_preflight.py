"""What is said before a segmentation is started: what can be chosen, what is refused, what is only warned of."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import slicer
import slicer.util
from bundles import write_tiny_bundle
from slicer_cases import addVolume, transformNode, write
from usema.errors import BundleError
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.serving.client import WorkerClient
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import Preflight
from USEMASegmentationLib.Scene.VolumeBridge import ijkToRas

pytest_plugins = ["slicer_fixtures"]

SHAPE = (24, 32, 24)
RAMP = np.arange(24 * 32 * 24, dtype=np.float32).reshape(SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models: one for MR, one for two channels, one for CT, and one that is broken."""
    folder = tmp_path_factory.mktemp("resources")
    (folder / "Models" / "broken").mkdir(parents=True)
    (folder / "Models" / "broken" / "model.json").write_text("{")
    write_tiny_bundle(folder / "Models" / "mr")
    write_tiny_bundle(folder / "Models" / "two-channels", channels=[{"name": "T1"}, {"name": "T2"}])
    write_tiny_bundle(folder / "Models" / "ct", modality="CT", expected_intensity_range=[-1000, 1000])
    return folder


@pytest.fixture(autouse=True)
def models(folder, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(folder))


@pytest.fixture
def volume(host):
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


# What can be chosen


def test_models_that_cannot_be_read_are_left_out_and_the_log_says_why(host, caplog):
    with caplog.at_level(logging.WARNING):
        found = USEMASegmentationLogic(WorkerClient([sys.executable])).models()
    assert [bundle.path.name for bundle in found] == ["ct", "mr", "two-channels"]
    assert "broken" in caplog.text


# What is refused before anything is done


def test_a_model_is_parsed_once_and_again_when_a_file_of_it_has_changed(host, tmp_path):
    path = tmp_path / "again"
    write_tiny_bundle(path)
    before = Preflight.modelHere(str(path))
    assert Preflight.modelHere(str(path)).metadata is before.metadata
    document, weights = path / "model.json", path / "weights.safetensors"
    document.write_text(document.read_text("utf-8").replace(before.metadata.title, "Another title"), "utf-8")
    assert Preflight.modelHere(str(path)).metadata.title == "Another title"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match="bytes"):
        Preflight.modelHere(str(path))
    weights.write_bytes(whole)
    assert Preflight.modelHere(str(path)).metadata.title == "Another title"
    weights.unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        Preflight.modelHere(str(path))


def reasonFor(**changes) -> str:
    readiness = Preflight.check(Parameters(**{"modelName": "mr", **changes}))
    assert readiness.ready == (not readiness.reason)
    return readiness.reason


def emptyVolume(kind="vtkMRMLScalarVolumeNode"):
    return slicer.mrmlScene.AddNewNodeByClass(kind, "Strange")


def test_a_volume_can_be_segmented(volume):
    readiness = Preflight.check(Parameters(inputVolume=volume, modelName="mr"))
    assert readiness.ready
    assert readiness.warnings == []


def test_what_is_not_chosen_is_named(volume):
    assert "volume" in reasonFor()
    assert "No model" in reasonFor(inputVolume=volume, modelName="")
    assert "'no-such'" in reasonFor(inputVolume=volume, modelName="no-such")


def test_a_volume_without_voxels_is_refused(host):
    assert "'Strange' has no voxels" in reasonFor(inputVolume=emptyVolume())


def test_a_volume_of_colours_is_refused(host):
    colours = emptyVolume("vtkMRMLVectorVolumeNode")
    slicer.util.updateVolumeFromArray(colours, np.zeros((4, 5, 6, 3), np.uint8))
    assert "3 values in each voxel" in reasonFor(inputVolume=colours)


def test_a_label_map_is_refused(host):
    labels = emptyVolume("vtkMRMLLabelMapVolumeNode")
    slicer.util.updateVolumeFromArray(labels, np.zeros(SHAPE, np.uint8))
    assert "label map" in reasonFor(inputVolume=labels)


def test_a_single_slice_is_refused_before_anything_is_loaded(host):
    assert "'Volume' is a 2D image, size (24, 32, 1)" in reasonFor(
        inputVolume=addVolume(np.ones((1, 32, 24)), np.eye(4))
    )


def with_values(value, at=np.s_[:], kind=np.float32):
    array = RAMP.astype(kind)
    array[at] = value
    return addVolume(array, np.eye(4))


@pytest.mark.parametrize(
    ("value", "at", "kind", "said"),
    [
        (7, np.s_[:], np.int16, "The volume 'Volume' has the value 7 in every voxel"),
        (0, np.s_[:], np.float64, "The volume 'Volume' has the value 0.0 in every voxel"),
        (np.nan, np.s_[:], np.float32, "The volume 'Volume' is NaN in every voxel"),
        (np.inf, np.s_[3, 4, 5], np.float32, "1 NaN or infinite voxels; the first is inf at x 5, y 4, z 3"),
        (-np.inf, np.s_[:], np.float32, "18432 NaN or infinite voxels"),
        (1e300, np.s_[3, 4, 5], np.float64, "The volume 'Volume' has values from 0 to 1e+300"),
    ],
)
def test_a_volume_that_holds_nothing_to_segment_is_refused_before_the_click(host, value, at, kind, said):
    assert said in reasonFor(inputVolume=with_values(value, at, kind))


def test_a_channel_that_holds_nothing_is_refused_by_its_name(volume):
    channel = addVolume(np.ones(SHAPE, np.int16), np.eye(4), "Second")
    reason = reasonFor(inputVolume=volume, channels=[channel], modelName="two-channels")
    assert "The volume 'Second' has the value 1 in every voxel" in reason


def test_nan_that_may_be_outside_the_field_of_view_is_no_reason_and_new_values_count_at_once(host):
    volume = with_values(np.nan, np.s_[:3])
    assert reasonFor(inputVolume=volume) == ""
    slicer.util.arrayFromVolume(volume)[3:] = 5  # the engine takes what is outside for 0, and has two values then
    slicer.util.arrayFromVolumeModified(volume)
    assert reasonFor(inputVolume=volume) == ""
    slicer.util.arrayFromVolume(volume)[:] = 5
    slicer.util.arrayFromVolumeModified(volume)
    assert "has the value 5.0 in every voxel" in reasonFor(inputVolume=volume)


def test_a_volume_that_is_not_in_the_scene_is_refused(volume):
    slicer.mrmlScene.RemoveNode(volume)
    assert "'Head' is not in the scene" in reasonFor(inputVolume=volume)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("inputVolume", "Head", "The option 'inputVolume' is 'Head'. It takes a vtkMRMLScalarVolumeNode."),
        ("inputVolume", "vtkMRMLModelNode", "The option 'inputVolume' is a vtkMRMLModelNode."),
        (
            "channels",
            [3],
            "The option 'channels' is [3]. It takes a list of nodes of the class vtkMRMLScalarVolumeNode.",
        ),
        ("labels", [1], "The option 'labels' is [1]. It takes a list of names."),
        ("segmentation", "vtkMRMLScalarVolumeNode", "It takes a vtkMRMLSegmentationNode."),
        ("roi", "vtkMRMLModelNode", "It takes a vtkMRMLMarkupsROINode."),
        ("overlap", "0.5", "The option 'overlap' is '0.5'. It takes a number."),
        ("mirror", 2, "The option 'mirror' is 2. It takes True or False."),
        ("modelName", 3, "The option 'modelName' is 3. It takes text."),
        ("device", ["cpu"], "The option 'device' is ['cpu']. It takes text."),
    ],
)
def test_an_option_of_another_kind_is_named(volume, option, value, message):
    if isinstance(value, str) and value.startswith("vtkMRML"):
        value = emptyVolume(value)
    assert message in reasonFor(**{"inputVolume": volume, option: value})


def test_the_number_of_channels_has_to_be_the_models(volume):
    other = addVolume(RAMP, np.eye(4))
    assert "1 volume(s) (T1), not 2" in reasonFor(inputVolume=volume, channels=[other])
    assert "2 volume(s) (T1, T2), not 1" in reasonFor(inputVolume=volume, modelName="two-channels")
    assert "has no volume" in reasonFor(inputVolume=volume, channels=[None], modelName="two-channels")
    assert reasonFor(inputVolume=volume, channels=[other], modelName="two-channels") == ""


def test_channels_that_transforms_bend_differently_are_refused(volume):
    other = addVolume(RAMP, np.eye(4))
    other.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode").GetID())
    assert "not linear" in reasonFor(inputVolume=volume, channels=[other], modelName="two-channels")


@pytest.mark.parametrize(("place", "value"), [((2, 2), 0.0), ((0, 3), np.nan), ((0, 0), np.inf), ((0, 1), 1.0)])
def test_a_transform_that_leaves_no_grid_is_the_reason(volume, place, value):
    matrix = np.eye(4)
    matrix[place] = value
    if place == (0, 1):
        matrix[1, 1] = 0  # two axes fall together
    volume.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
    assert "transform above the volume 'Head' leaves no grid" in reasonFor(inputVolume=volume)


@pytest.mark.parametrize("spacing", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("further", [False, True])
def test_a_spacing_that_leaves_no_grid_is_the_reason(volume, spacing, further):
    other = addVolume(RAMP, np.eye(4), "Other")
    (other if further else volume).SetSpacing(spacing, 1, 1)
    reason = reasonFor(inputVolume=volume, channels=[other], modelName="two-channels")
    assert f"'{'Other' if further else 'Head'}' has no grid: its spacing" in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["Anterior hippocampus", "Liver"]}, "no label 'Liver'"),
        ({"overlap": 0.95}, "0.95"),
        ({"existing": "overwrite"}, "'overwrite'"),
    ],
)
def test_options_out_of_range_are_named(volume, changes, words):
    assert words in reasonFor(inputVolume=volume, **changes)


def test_a_device_that_the_worker_does_not_have_is_refused(volume):
    wanted = Parameters(inputVolume=volume, modelName="mr", device="cuda")
    assert Preflight.check(wanted, None).ready  # not known yet
    assert Preflight.check(wanted, ["cpu", "cuda:0"]).ready
    assert "'cuda'" in Preflight.check(wanted, ["cpu"]).reason


def test_too_little_memory_is_refused_with_both_numbers(volume, monkeypatch):
    monkeypatch.setattr(Preflight, "free_memory", lambda in_a_new_process: 2**28)
    assert "0.5 GiB are needed, 0.2 GiB are free" in reasonFor(inputVolume=volume)
    monkeypatch.setattr(Preflight, "free_memory", lambda in_a_new_process: None)
    assert reasonFor(inputVolume=volume) == ""


def test_the_memory_estimate_grows_with_all_that_takes_memory(host):
    metadata = read_bundle(bundled_models()["mr"]).metadata
    large = addVolume(np.zeros((200, 100, 100), np.int8), np.eye(4))
    whole = Preflight.leastBytes(Parameters(inputVolume=large), metadata)
    # v = w = 2 million voxels, C = 1, K = 3, tiles of 24 of 200 slices.
    assert whole == 2**29 + 2_000_000 * (4 * 2 + 4) + 4 * 3 * 2_000_000 * 24 // 200
    kept = Preflight.leastBytes(Parameters(inputVolume=large, keepProbabilities=True), metadata)
    assert kept - whole == 2_000_000 * (2 * 3 + 4 * 2)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(50, 50, 100)
    roi.SetSize(10, 10, 10)
    assert Preflight.leastBytes(Parameters(inputVolume=large, roi=roi), metadata) < 2**29 + 2**20


def test_an_roi_beside_the_volume_is_refused(volume):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(1000, 0, 0)
    roi.SetSize(10, 10, 10)
    assert "'R' lies outside" in reasonFor(inputVolume=volume, roi=roi)


def test_an_roi_that_lies_nowhere_is_refused(volume):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(-10, -12, 11)
    roi.SetSize(10, 10, 10)
    matrix = np.eye(4)
    matrix[0, 3] = np.nan
    roi.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
    assert "'R'" in reasonFor(inputVolume=volume, roi=roi)


def test_a_segmentation_that_cannot_take_the_result_is_refused_unless_a_new_one_is_made(volume):
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    target.SetAndObserveTransformNodeID(transformNode(np.eye(4)).GetID())
    for existing in ("replace", "keep"):
        assert "'Other'" in reasonFor(inputVolume=volume, segmentation=target, existing=existing)
    assert reasonFor(inputVolume=volume, segmentation=target, existing="new") == ""


# What is only warned of


def warningsFor(**changes) -> list[str]:
    readiness = Preflight.check(Parameters(**{"modelName": "mr", **changes}))
    assert readiness.ready
    return readiness.warnings


def test_spacing_and_intensity_far_from_the_models_are_warned_of(host):
    thick = addVolume(np.random.default_rng(0).random(SHAPE), np.diag([1.0, 1.0, 5.0, 1.0]))
    assert [one[:22] for one in warningsFor(inputVolume=thick)] == ["The spacing along z is"]
    assert any("intensities run from" in one for one in warningsFor(inputVolume=thick, modelName="ct"))


def test_spacing_is_judged_in_the_world(volume):
    volume.SetAndObserveTransformNodeID(transformNode(np.diag([1.0, 1.0, 5.0, 1.0])).GetID())
    assert any("spacing along z is 5" in one for one in warningsFor(inputVolume=volume))


def test_another_modality_is_warned_of_where_dicom_tells_it(host, volume):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    assert warningsFor(inputVolume=volume) == ["The volume is CT; the model was made for MR."]
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    assert warningsFor(inputVolume=volume) == []


def test_one_volume_for_two_channels_is_warned_of(volume):
    warnings = warningsFor(inputVolume=volume, channels=[volume], modelName="two-channels")
    assert warnings == ["The same volume is chosen for more than one channel."]


def test_a_transform_that_is_not_linear_is_warned_of(volume):
    volume.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode").GetID())
    (warning,) = warningsFor(inputVolume=volume)
    assert "not linear: it is segmented as it is stored" in warning


@pytest.mark.parametrize("existing", ["replace", "keep", "new"])
def test_a_segmentation_on_another_grid_is_warned_of_where_it_would_be_written_into(volume, existing):
    other = addVolume(np.ones(SHAPE, np.int16), np.diag([1.0, 2.0, 1.0, 1.0]), "Other")
    target = write(np.ones(SHAPE, np.uint8), other)
    warnings = warningsFor(inputVolume=volume, segmentation=target, existing=existing)
    assert [one.endswith("A new segmentation will be made.") for one in warnings] == [True] * (existing != "new")


@pytest.mark.parametrize("existing", ["replace", "keep", "new"])
def test_that_the_result_of_another_volume_would_be_replaced_is_warned_of(volume, existing):
    other, target = addVolume(RAMP, ijkToRas(volume), "Next patient"), write(np.ones(SHAPE, np.uint8), volume)
    assert warningsFor(inputVolume=volume, segmentation=target, existing=existing) == []
    told = f"'{target.GetName()}' was made of another volume, 'Head', whose result is replaced."
    stays = f"{told} What was corrected in it stays, unless this is to be replaced, too."
    for overwrites, expected in ((False, stays), (True, told)):
        options = {"segmentation": target, "existing": existing, "overwriteCorrections": overwrites}
        assert (expected in warningsFor(inputVolume=other, **options)) == (existing == "replace")
    target.GetSegmentation().RemoveAllSegments()
    assert stays not in warningsFor(inputVolume=other, segmentation=target, existing=existing)


def sequence(frames: int):
    """(the browser of a sequence, the volume that shows its frames)."""
    frame = addVolume(np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16), np.eye(4))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    for number in range(frames):
        node.SetDataNodeAtValue(frame, str(number))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    slicer.mrmlScene.RemoveNode(frame)
    return browser, browser.GetProxyNode(node)


def test_of_a_sequence_only_the_frame_that_is_shown_is_segmented_and_it_is_said_which(host):
    browser, shown = sequence(3)
    assert shown.IsA("vtkMRMLScalarVolumeNode")
    options = {"inputVolume": shown, "modelName": "mr"}
    told = "Only the frame that is shown is segmented: {} of 3 of a sequence."
    assert told.format(1) in Preflight.check(Parameters(**options)).warnings
    browser.SetSelectedItemNumber(2)
    assert told.format(3) in Preflight.check(Parameters(**options)).warnings


def test_a_volume_that_is_no_frame_or_the_only_one_is_not_warned_of(volume):
    sequence(2)
    assert Preflight.check(Parameters(inputVolume=volume, modelName="mr")).warnings == []
    alone = sequence(1)[1]
    assert "frame" not in str(Preflight.check(Parameters(inputVolume=alone, modelName="mr")).warnings)
