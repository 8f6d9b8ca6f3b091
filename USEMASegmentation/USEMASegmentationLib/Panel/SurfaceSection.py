"""The button *Show 3D*, and a 3D view that shows what it made. Knows the widgets, but no Qt."""

from __future__ import annotations

import slicer

from ..Scene.Images import isFlat
from .Signals import connect

# What can be seen in a 3D view, by its display node.
_DISPLAYS = (
    "vtkMRMLModelDisplayNode",
    "vtkMRMLSegmentationDisplayNode",
    "vtkMRMLMarkupsDisplayNode",
    "vtkMRMLVolumeRenderingDisplayNode",
)


class SurfaceSection:
    """Shown where the volume has more than one slice.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui):
        self.ui = ui
        self._segmentation = None
        connect(ui.show3DButton, "toggled(bool)", self.onToggled)

    def update(self, segmentationNode, volumeNode) -> None:
        """Whose surfaces the button shows."""
        self._segmentation = segmentationNode
        self.ui.show3DButton.setSegmentationNode(segmentationNode)
        self.ui.show3DButton.visible = not isFlat(volumeNode)

    def onToggled(self, shown: bool) -> None:
        """By the user: what other programs show of it is none of his clicks."""
        if shown and self._segmentation is not None and isAlone(self._segmentation):
            centre()


def isAlone(segmentationNode) -> bool:
    """Whether the 3D views show nothing but this segmentation, so that nobody has chosen what to look at."""
    for kind in _DISPLAYS:
        for display in slicer.util.getNodesByClass(kind):
            node = display.GetDisplayableNode()
            if node in (None, segmentationNode) or node.GetHideFromEditors() or not display.GetVisibility():
                continue
            if node.IsA("vtkMRMLSegmentationNode"):
                if not (display.GetVisibility3D() and node.GetSegmentation().ContainsRepresentation("Closed surface")):
                    continue
            elif node.IsA("vtkMRMLMarkupsNode") and not node.GetNumberOfControlPoints():
                continue
            return False
    return True


def centre() -> None:
    """The 3D views look at all that they show, as their own button *Center* does; where there are views."""
    manager = slicer.app.layoutManager()
    for number in range(manager.threeDViewCount if manager is not None else 0):
        view = manager.threeDWidget(number).threeDView()
        view.resetFocalPoint()
        view.resetCamera(False)  # whichever way the user has turned it
