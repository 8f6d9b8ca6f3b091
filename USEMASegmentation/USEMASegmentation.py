"""The module as 3D Slicer finds it: name, help, sample data, self test. The work is in USEMASegmentationLib."""

from __future__ import annotations

import traceback
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest
from usema.resources import sample_volume
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Panel.Widget import USEMASegmentationWidget
from USEMASegmentationLib.Scene import Terminologies

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
        slicer.app.connect("startupCompleted()", Terminologies.offer)


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
        loadFileTypes="VolumeFile",  # a .nii.gz could be a segmentation as well
    )


class USEMASegmentationTest(ScriptedLoadableModuleTest):
    """Goes the whole way through the panel, in 3D Slicer: by ctest, or with Reload and Test in the panel."""

    def runTest(self):
        test = _newSelfTest(Path(slicer.app.temporaryPath) / "USEMA-self-test")
        code = test.run()
        self.delayDisplay(f"The report and pictures are in {test.folder}.")
        assert code != test.FAILED, "\n".join(test.lines)
        if code != test.PASSED:
            self.skipTest("\n".join(test.lines))


def selfTest(folder: str) -> None:
    """Go the whole way, write report and pictures into a folder, and quit.

    The exit code is 0 if all went well, 1 if something failed, and 2 if nothing could be segmented because PyTorch is
    missing.
    """
    code = 1
    try:
        test = _newSelfTest(Path(folder))
        code = test.run()
        print("\n".join(test.lines))
        test.beginsToQuit()
    except Exception:  # such as a folder that cannot be written
        traceback.print_exc()
        code = 1
    slicer.util.exit(code)


def _newSelfTest(folder: Path):
    from USEMASegmentationLib.Panel.SelfTest import SelfTest  # not with the panel: nobody else needs it

    return SelfTest(openPanel, loadSample, folder)


def openPanel():
    """The panel: in the main window where there is one, else in a window of its own."""
    if slicer.util.mainWindow() is None:
        return USEMASegmentationWidget()
    slicer.util.selectModule("USEMASegmentation")
    return slicer.util.getModuleWidget("USEMASegmentation")


def loadSample():
    """The sample as the module Sample Data gives it."""
    import SampleData

    logic = SampleData.SampleDataLogic()
    if logic.sourceForSampleName(SAMPLE_NAME) is None:  # before startup was completed
        registerSampleData()
    return logic.downloadSamples(SAMPLE_NAME)[0]
