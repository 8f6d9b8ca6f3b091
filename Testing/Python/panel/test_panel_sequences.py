"""All frames of a sequence from the panel: the box is there where there is a sequence, and the bar tells the frames."""

from __future__ import annotations

import slicer
import slicer.util
from panel_cases import isShown, loadSample, sequenceOf, waitUntil

pytest_plugins = ["panel_fixtures"]


def test_a_ticked_box_segments_every_frame(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    assert not isShown(panel.ui.allFramesCheckBox)
    browser, shown = sequenceOf(volume)
    panel._parameterNode.inputVolume = shown
    assert isShown(panel.ui.allFramesCheckBox)
    panel.ui.allFramesCheckBox.click()
    assert panel.parameters().allFrames
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Cancel"
    waitUntil(lambda: not panel.logic.busy)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert browser.GetSequenceNode(node).GetNumberOfDataNodes() == 2
    assert panel._parameterNode.segmentation is node
    assert node.GetSegmentation().GetNumberOfSegments() == 2, "what crops do not tell, such as the side, is no segment"
    assert "2 frames" in panel.ui.messageLabel.text
    panel._parameterNode.inputVolume = volume  # which is no frame
    assert not isShown(panel.ui.allFramesCheckBox)
    assert not panel.parameters().allFrames


def test_the_panel_follows_the_frame_that_is_shown(app, openPanel):
    panel = openPanel()
    ui = panel.ui
    browser, volume = sequenceOf(loadSample(app))
    panel._parameterNode.inputVolume = volume
    assert "1 of 2" in ui.reasonLabel.text
    for number in (1, 0):
        browser.SetSelectedItemNumber(number)
        slicer.modules.sequences.logic().UpdateAllProxyNodes()
        waitUntil(lambda number=number: f"{number + 1} of 2" in ui.reasonLabel.text, 5)


def test_the_bar_tells_the_frame(app):
    from USEMASegmentationLib.Panel import RunTexts  # not before the application is there
    from USEMASegmentationLib.Parameters import Status

    assert RunTexts.plain("<b>Done in 7&nbsp;s.</b><br>1 &lt; 2") == " Done in 7 s.  1 < 2"
    status = Status("running", done=30, total=60, secondsLeft=20.0, frame=2, frames=3)
    assert RunTexts.progress(status) == "Frame 2 of 3, about 20 s left"
