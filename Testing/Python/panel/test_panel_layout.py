"""Where things stand in the panel: what an eye would stumble over."""

from __future__ import annotations

import pytest
import slicer
from panel_cases import isShown, loadSample, sequenceOf
from PySide6 import QtCore

pytest_plugins = ["panel_fixtures"]


@pytest.fixture
def panel(app, openPanel):
    """On the screen, as wide as the application shows it."""
    opened = openPanel()
    window = opened.parent.qtObject.window()
    window.resize(500, 1000)
    window.show()
    yield opened
    window.hide()


def middle(widget) -> int:
    """The height of its middle in the panel."""
    qtObject = widget.qtObject
    return qtObject.mapTo(qtObject.window(), QtCore.QPoint(0, qtObject.height() // 2)).y()


def test_labels_stand_beside_what_they_name_whatever_stands_below_it(app, panel):
    volume = loadSample(app)
    panel.ui.inputSelector.setCurrentNode(sequenceOf(volume)[1])
    slicer.app.processEvents()
    assert isShown(panel.ui.allFramesCheckBox)
    assert isShown(panel.ui.shelfButton)
    for name in ("input", "model"):
        label, selector = getattr(panel.ui, f"{name}Label"), getattr(panel.ui, f"{name}Selector")
        assert abs(middle(label) - middle(selector)) <= 2, name


def test_where_there_is_nothing_to_correct_the_hint_stands_at_the_top(panel):
    slicer.app.processEvents()
    assert isShown(panel.ui.correctHintLabel)
    assert panel.ui.correctHintLabel.qtObject.alignment() & QtCore.Qt.AlignmentFlag.AlignTop


def test_measure_stands_at_the_right_with_and_without_a_message(panel):
    def right() -> int:
        slicer.app.processEvents()
        button = panel.ui.measureButton.qtObject
        return button.mapTo(button.window(), QtCore.QPoint(button.width(), 0)).x()

    panel.ui.measureButton.visible = True  # as where there are Segment Statistics
    panel.runSection.say("Done in 3 s: Anterior hippocampus 1.7 ml.")
    beside = right()
    panel.runSection.say("")
    assert not isShown(panel.ui.messageLabel)
    assert right() == beside
