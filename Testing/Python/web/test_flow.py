"""What a person does in the browser, without a browser: the flow on the real scene with the real worker."""

from __future__ import annotations

import sys
import time
from types import ModuleType

import numpy as np
import pytest
import slicer
import slicer.util
from image_models import blobs, write_disc_counter
from slicer_cases import addVolume

pytest_plugins = ["slicer_fixtures"]


class Seen:
    """A page that keeps what it is told."""

    def __init__(self):
        self.words, self.displayed, self.percents, self.places = {}, [], [], []

    def show(self, **words):
        self.words.update(words)
        self.percents.append(self.words["progress"])

    def display(self, volume, segmentation):
        self.displayed.append((volume, segmentation))

    def look(self, place):
        self.places.append(place)

    def __getattr__(self, name):
        return self.words[name]


@pytest.fixture
def flow(logic):
    if "slicer.i18n" not in sys.modules:
        words = ModuleType("slicer.i18n")
        words.tr, words.translate = (lambda text: text), (lambda context, text: text)
        sys.modules["slicer.i18n"] = words
    from usema_web.flow import Flow

    return Flow(Seen(), logic)


def finish(flow) -> None:
    end = time.monotonic() + 120
    while flow.busy:
        assert time.monotonic() < end
        flow.poll()
        time.sleep(0.02)


def titles(choices) -> list[str]:
    return [one["title"] for one in choices]


def test_without_a_volume_the_page_says_what_to_do(flow):
    assert not flow.page.ready
    assert flow.page.reason.startswith("Open a volume or an image first")


def test_one_click_makes_a_segmentation_that_is_shown_to_be_corrected(flow, head):
    flow.choose_volume(head.GetID())
    assert flow.page.ready
    flow.segment_or_cancel()
    assert flow.page.busy
    finish(flow)
    assert not flow.page.busy
    assert flow.page.message.startswith("Done in")
    assert not flow.page.failed
    volume, segmentation = flow.page.displayed[-1]
    assert volume is head
    assert segmentation.GetSegmentation().GetNumberOfSegments() > 0
    assert flow.page.segmentation == segmentation.GetID()
    assert titles(flow.page.segmentations) == [segmentation.GetName()]


def test_the_first_result_of_a_volume_comes_into_the_slices_and_later_ones_leave_them(flow, head):
    flow.choose_volume(head.GetID())
    for _ in range(2):
        flow.segment_or_cancel()
        finish(flow)
    (place,) = flow.page.places
    bounds = np.zeros(6)
    flow.segmentation.GetRASBounds(bounds)
    assert np.allclose(place, (bounds[::2] + bounds[1::2]) / 2)


def test_all_that_speaks_against_a_volume_is_said(flow):
    knee = addVolume(np.arange(4096, dtype=np.int16).reshape(16, 16, 16), np.diag([3.0, 4.0, 9.0, 1.0]), "Knee")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    hierarchy.SetItemAttribute(hierarchy.CreateItem(hierarchy.GetSceneItemID(), knee), attribute, "CT")
    flow.choose_volume(knee.GetID())
    warnings = flow.logic.check(inputVolume=knee, modelName=flow.page.model).warnings
    assert len(warnings) > 1
    assert flow.page.reason.splitlines() == list(warnings)


def test_a_second_click_cancels_and_nothing_is_written(flow, head):
    flow.choose_volume(head.GetID())
    flow.segment_or_cancel()
    flow.segment_or_cancel()
    assert not flow.page.ready
    finish(flow)
    assert flow.page.message == "The segmentation was cancelled."
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert flow.page.ready


def test_a_segmentation_made_earlier_comes_back_with_its_volume(flow, head):
    flow.choose_volume(head.GetID())
    flow.segment_or_cancel()
    finish(flow)
    first = flow.segmentation
    other = addVolume(np.zeros((8, 9, 10), np.int16), np.eye(4), "Other")
    flow.choose_volume(other.GetID())
    assert flow.page.displayed[-1] == (other, None)
    flow.choose_volume(head.GetID())
    assert flow.page.displayed[-1] == (head, first)
    flow.choose_volume(other.GetID())
    flow.choose_segmentation(first.GetID())
    assert flow.page.volume == head.GetID()


def test_a_person_who_went_on_to_another_volume_stays_there_and_is_told_of_the_result(flow, head):
    flow.choose_volume(head.GetID())
    flow.segment_or_cancel()
    other = addVolume(np.zeros((8, 9, 10), np.int16), np.eye(4), "Other")
    flow.choose_volume(other.GetID())
    finish(flow)
    assert flow.page.message.startswith("Done in")
    assert flow.page.displayed[-1] == (other, None)
    assert (flow.page.volume, flow.page.segmentation) == (other.GetID(), "")
    (made,) = titles(flow.page.segmentations)
    assert f"choose {made} under Segmentation" in flow.page.notes[-1]
    flow.choose_volume(head.GetID())
    assert flow.page.displayed[-1][1].GetName() == made


def test_what_was_painted_by_hand_can_be_downloaded_once_there_is_something(flow, head):
    flow.choose_volume(head.GetID())
    painted = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "By hand")
    painted.SetReferenceImageGeometryParameterFromVolumeNode(head)
    flow.look()
    assert (flow.page.segmentations, flow.page.segmentation) == ([], "")
    painted.GetSegmentation().AddEmptySegment("lesion")
    flow.look()
    assert titles(flow.page.segmentations) == ["By hand"]
    assert flow.page.segmentation == painted.GetID()
    flow.choose_volume(addVolume(np.zeros((8, 9, 10), np.int16), np.eye(4), "Other").GetID())
    assert flow.page.segmentation == ""


def test_what_cannot_be_segmented_is_said_and_not_raised(flow, head):
    flow.choose_volume(head.GetID())
    flow.choose_model("nobody")
    flow.segment_or_cancel()
    assert flow.page.failed
    assert "nobody" in flow.page.message
    assert not flow.busy


def test_a_volume_that_goes_away_while_it_is_segmented_ends_the_run_with_a_reason(flow, head):
    flow.choose_volume(head.GetID())
    flow.segment_or_cancel()
    slicer.mrmlScene.RemoveNode(head)
    finish(flow)
    assert "was removed" in flow.page.message
    flow.look()
    assert flow.page.volumes == []


def test_public_models_are_found_by_what_they_segment_and_asked_about_before_a_byte_is_fetched(flow):
    flow.search("spleen")
    assert any(one["value"].startswith("totalsegmentator") for one in flow.page.models)
    public = next(one["value"] for one in flow.page.models if one["value"].startswith("totalsegmentator"))
    flow.choose_model(public)
    assert flow.page.download.startswith("Download (")
    assert not flow.page.ready
    flow.ask_to_download()
    assert "MB" in flow.page.question
    flow.decline()
    assert flow.page.question == ""
    assert not flow.busy


def test_a_double_click_downloads_once(flow, monkeypatch):
    begun = []
    monkeypatch.setattr(flow.logic.store, "download", lambda name, **_: begun.append(name))
    flow.search("spleen")
    public = next(one["value"] for one in flow.page.models if one["value"].startswith("totalsegmentator"))
    flow.choose_model(public)
    flow.ask_to_download()
    flow.download()
    flow.download()
    assert begun == [public]


def test_words_that_no_model_knows_leave_nothing_to_click(flow):
    flow.search("unicorn")
    assert flow.page.models == []
    assert flow.page.finds == "No model is known by these words."
    assert not flow.page.ready
    flow.search("")
    assert titles(flow.page.models)


def test_doubtful_regions_of_a_result_are_found_accepted_and_counted(flow, head):
    assert not flow.page.reviewable
    flow.choose_volume(head.GetID())
    flow.segment_or_cancel()
    finish(flow)
    assert flow.page.reviewable
    review = flow.reviewing
    review.find()
    count = flow.page.regionsLeft
    assert count >= 2
    assert flow.page.region
    assert "ml of expected error left" in flow.page.regions
    bounds = np.zeros(6)
    head.GetRASBounds(bounds)
    for low, high, at in zip(bounds[::2], bounds[1::2], flow.page.places[-1], strict=True):
        assert low <= at <= high
    review.accept()
    assert flow.page.regionsLeft == count - 1
    review.skip()
    assert flow.page.regionsLeft == count - 1
    flow.choose_volume(head.GetID())  # what was said is kept with the segmentation
    assert flow.page.regionsLeft == count - 1


def test_a_picture_in_colour_is_listed_and_segmented(flow, host, tmp_path, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    (tmp_path / "Models").mkdir()
    write_disc_counter(tmp_path / "Models/discs")
    image, mask = blobs(100)
    picture = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Cells")
    slicer.util.updateVolumeFromArray(picture, np.stack([image] * 3, axis=-1)[None])
    flow.look()
    assert titles(flow.page.volumes) == ["Cells"]
    flow.search("")
    flow.choose_model("discs")
    assert flow.page.ready, flow.page.reason
    flow.segment_or_cancel()
    finish(flow)
    assert not flow.page.failed, flow.page.message
    assert "Objects" in flow.page.message
    volume, segmentation = flow.page.displayed[-1]
    assert volume is picture
    (segment,) = segmentation.GetSegmentation().GetSegmentIDs()
    found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, picture)[0] > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.98
    assert titles(flow.page.volumes) == ["Cells"]  # its objects are a label map, which is none
