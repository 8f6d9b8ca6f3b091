"""The module as 3D Slicer finds it: name, help, sample data, self test. The work is in USEMASegmentationLib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest
from usema.resources import resources_folder, sample_volume
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Panel.Widget import USEMASegmentationWidget

__all__ = ["USEMASegmentation", "USEMASegmentationLogic", "USEMASegmentationTest", "USEMASegmentationWidget"]

SAMPLE_NAME = "USEMAHippocampusMR"
SAMPLE_SHA256 = "b7ccb2911acc20d6f8b739da4de3a267cf2116ceda088f3ab0e08b2ac34edad1"


class USEMASegmentation(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("USEMA Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor"]
        parent.contributors = ["The USEMA developers"]
        parent.helpText = _(
            "Choose a volume and a model, click Segment, and correct the result in the same panel. The model runs on "
            "this computer, in a process of its own; no image is sent anywhere, and models are downloaded only after a "
            "question. Not a medical device: for research."
        )
        parent.acknowledgementText = _(
            "USEMA networks are U-Nets whose stages pair convolutions with SEMA attention. Each model names its data, "
            "licence and citation in the panel."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offers the volume that comes with the extension in the module Sample Data."""
    import SampleData

    sample = sample_volume()
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="USEMA",
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(Path(__file__).parent / "Resources" / "Icons" / f"{SAMPLE_NAME}.png"),
        uris=sample.as_uri(),
        fileNames=sample.name,
        nodeNames=SAMPLE_NAME,
        checksums=f"SHA256:{SAMPLE_SHA256}",
    )


class USEMASegmentationTest(ScriptedLoadableModuleTest):
    """Runs inside 3D Slicer: by ctest, or with Reload and Test in the panel."""

    def setUp(self):
        slicer.mrmlScene.Clear(False)
        slicer.util.selectModule("USEMASegmentation")
        self.panel = slicer.util.getModuleWidget("USEMASegmentation")

    def runTest(self):
        self.setUp()
        self.test_thePanelSaysWhatIsMissing()
        self.setUp()
        self.test_theSampleIsSegmentedAndCorrected()

    def test_thePanelSaysWhatIsMissing(self):
        assert not self.panel.ui.segmentButton.enabled
        assert self.panel.ui.reasonLabel.text
        assert "hippocampus-mr" in [bundle.metadata.name for bundle in self.panel.logic.models()]

    def test_theSampleIsSegmentedAndCorrected(self):
        volume = slicer.util.loadVolume(str(sample_volume()))
        if self.panel.installer.missing():
            self.delayDisplay(f"Not segmented: {self.panel.installer.words()}")
            return
        self.panel.ui.inputSelector.setCurrentNode(volume)
        self.panel.ui.segmentButton.click()
        while self.panel.logic.busy:
            slicer.app.processEvents()
        segmentation = self.panel.ui.outputSelector.currentNode()
        assert segmentation is not None, self.panel.ui.messageLabel.text
        reference = slicer.util.loadVolume(str(resources_folder() / "Samples" / "reference" / sample_volume().name))
        expected = slicer.util.arrayFromVolume(reference)
        segmentIds = segmentation.GetSegmentation().GetSegmentIDs()
        for value, segmentId in enumerate(segmentIds, 1):
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) > 0
            both = np.count_nonzero(found & (expected == value))
            dice = 2 * both / (np.count_nonzero(found) + np.count_nonzero(expected == value))
            self.delayDisplay(f"{segmentId}: Dice {dice:.2f}")
            assert dice > 0.7
        self._correctAndUndo(segmentation, segmentIds[0], volume)

    def _correctAndUndo(self, segmentation, segmentId, volume):
        def voxels():
            return int(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume).sum())

        editor, before = self.panel.ui.segmentEditor, voxels()
        assert editor.segmentationNode() == segmentation
        assert editor.sourceVolumeNode() == volume
        editor.saveStateForUndo()
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8), segmentation, segmentId, volume
        )
        assert voxels() == 0
        editor.undo()
        assert voxels() == before
