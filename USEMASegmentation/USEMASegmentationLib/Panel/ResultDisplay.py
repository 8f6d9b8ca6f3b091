"""A result becomes what the panel, the views and the editor show, a turn of the application for each. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from ..Steps import NextTurn, Working
from . import SliceViews
from .CorrectSection import CorrectSection


class ResultDisplay:
    """Between two turns the user may do anything: what is gone by then is not touched.

    Args:
        correctSection: the editor.
        parameterNode: gives the panel's choices; None while the scene is being closed or loaded.
        isShown: whether the panel is on the screen.
    """

    def __init__(self, correctSection: CorrectSection, parameterNode: Callable, isShown: Callable[[], bool]):
        self._correctSection = correctSection
        self._parameterNode = parameterNode
        self._isShown = isShown
        self._isShowing = False

    def showing(self, segmentation) -> Working:
        """Chooses a result, brings it into the views, and opens it in the editor."""
        self._isShowing = True
        try:
            node = self._parameterNode()
            if node is not None:
                with slicer.util.NodeModify(node):
                    node.segmentation = segmentation
                    node.overwriteCorrections = False  # that was said of this result alone
                yield NextTurn()
            yield from SliceViews.showingOnce(segmentation)
            yield NextTurn()
        finally:
            self._isShowing = False
        self.open()
        yield NextTurn()

    def open(self) -> None:
        """Opens the chosen segmentation in the editor; a result that is being shown comes to that by itself."""
        node = self._parameterNode()
        if node is not None and self._isShown() and not self._isShowing:
            self._correctSection.show(node.segmentation, node.inputVolume)
