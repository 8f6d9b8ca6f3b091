"""A result becomes what the panel and the views show, a turn of the application for each part. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from ..Steps import NextTurn, Working
from . import SliceViews


class ResultDisplay:
    """Between two turns the user may do anything: what is gone by then is not touched.

    Args:
        parameterNode: gives the panel's choices; None while the scene is being closed or loaded.
        update: brings the panel up to date; opens the result in the editor unless ``busy``.

    Attributes:
        busy: whether a result is being shown.
    """

    def __init__(self, parameterNode: Callable, update: Callable[[], None]):
        self._parameterNode = parameterNode
        self._update = update
        self.busy = False

    def showing(self, segmentation) -> Working:
        """Chooses a result, brings it into the views, and opens it in the editor."""
        self.busy = True
        try:
            node = self._parameterNode()
            if node is not None:
                with slicer.util.NodeModify(node):
                    node.segmentation = segmentation
                    node.overwriteCorrections = False  # that was said of this result alone
                yield NextTurn()
            SliceViews.showOnce(segmentation)
            yield NextTurn()
        finally:
            self.busy = False
        self._update()
