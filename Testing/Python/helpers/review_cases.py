"""What the tests of reviewing share: a real result in a real scene, an editor that undoes, and strokes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import slicer
import slicer.util
from slicer_cases import voxels
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import ResultWriter
from USEMASegmentationLib.Scene.ReviewCase import ReviewCase, casesOf
from USEMASegmentationLib.Scene.Sequences import frameValueOf
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox

METADATA = read_bundle(bundled_models()["hippocampus-mr"]).metadata
ANTERIOR, POSTERIOR = "hippocampus-mr_1", "hippocampus-mr_2"


def writeFound(found, volume):
    """What the predictor found in the sample, into the scene as the logic writes it; gives the segmentation."""
    labels = [label.name for label in found.model_labels]  # a crop has no sides
    parameters = Parameters.fromWords({"inputVolume": volume, "labels": labels})
    margins, box = found.margins.to_text(), wholeBox(volume)
    frame = frameValueOf(volume)
    result = ResultWriter.Result(found.labels, None, found.provenance, METADATA, box, margins, frame=frame)
    return ResultWriter.write(result, parameters).segmentation


class Scene:
    """The sample, what the bundled model finds in it, and the Segment Editor's logic on it.

    Args:
        found: what the predictor found in the sample, with margins.
        worker: gives the client that segments again, for those that want it.
    """

    def __init__(self, host, found, worker):
        self.host, self._worker = host, worker
        self.volume = host.loadVolume(sample_volume())
        self.node = writeFound(found, self.volume)
        self.edit()

    @cached_property
    def logic(self) -> USEMASegmentationLogic:
        return USEMASegmentationLogic(self._worker())

    def segment(self, **options):
        """A result by the real worker."""
        return self.logic.segment(self.volume, "hippocampus-mr", overlap=0.0, device="cpu", **options)

    def edit(self) -> None:
        self.editor = self.host.editor(self.node, self.volume)
        self.editorNode = self.editor.GetSegmentEditorNode()

    def case(self) -> ReviewCase:
        cases, reason = casesOf(self.node, lambda node: self.editor.SaveStateForUndo(), self.editorNode)
        assert len(cases) == 1, reason
        return cases[0]

    def voxels(self, segmentId: str = ANTERIOR) -> np.ndarray:
        return voxels(self.node, segmentId, self.volume)

    def both(self) -> np.ndarray:
        return self.voxels(ANTERIOR) + 2 * self.voxels(POSTERIOR).astype(np.uint8)

    def paint(self, place, segmentId: str = ANTERIOR, value: int = 1) -> None:
        """As the user would: a step of its own, and other segments lose what this one wins."""
        self.editor.SaveStateForUndo()
        others = [one for one in (ANTERIOR, POSTERIOR) if value and one != segmentId and self.voxels(one)[place].any()]
        for one, label in [(segmentId, value), *((one, 0) for one in others)]:
            array = self.voxels(one).astype(np.uint8)
            array[place] = label
            slicer.util.updateSegmentBinaryLabelmapFromArray(array, self.node, one, self.volume)

    def editOnlyIn(self, mask: np.ndarray) -> str:
        """As the user sets the masks: only inside a new segment, and no segment loses anything; gives its ID."""
        name = self.node.GetSegmentation().AddEmptySegment("here")
        self.node.GetSegmentation().SeparateSegmentLabelmap(name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, self.node, name, self.volume)
        self.editorNode.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        self.editorNode.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        self.editorNode.SetMaskSegmentID(name)
        return name

    def reload(self, path) -> None:
        """Save the scene, close it and open it again."""
        self.host.saveBundle(path)
        self.host.openBundle(path)
        self.node = self.host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
        self.volume = self.host.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self.edit()
