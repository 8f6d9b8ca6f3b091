"""Volumes that are the frame of a sequence which is shown just now."""

from __future__ import annotations

import slicer


def frameOf(volumeNode) -> tuple[int, int] | None:
    """(which frame from 1, of how many) a volume shows; None where it belongs to no sequence of several."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        number = browser.GetNumberOfItems()
        if number > 1 and browser.GetSequenceNode(volumeNode) is not None:
            return browser.GetSelectedItemNumber() + 1, number
    return None
