"""The panel's choices in the scene: the parameter node, and the widgets that show it. Knows their functions, but no Qt.

A wrapper of the node hears of changes, but keeps what it read while a scene was being loaded: references to nodes that
were not there yet. So the scene's end, and each import, ask for a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from ..ParameterNode import USEMASegmentationParameterNode
from ..Scene.VolumeBridge import volumeInView
from .FrameWatch import FrameWatch


class ParameterBinding:
    """Holds the wrapper that counts.

    Args:
        moduleName: whose parameter node it is.
        widgets: those that have the property SlicerParameterName show the parameter of that name.
        changed: called when a parameter has changed, or the volume shows another frame of its sequence.
        newTimer: makes a timer that calls what it is given.

    Attributes:
        node: the wrapper; None while the scene is being closed or loaded.
    """

    def __init__(self, moduleName: str, widgets: Iterable, changed: Callable, newTimer: Callable):
        self.moduleName = moduleName
        # connectGui() finds them too, but gives no tag, so that it could not be undone.
        named = ((widget.property("SlicerParameterName"), widget) for widget in widgets)
        self.widgets = {name: widget for name, widget in named if name}
        self.changed = changed
        self._frames = FrameWatch(changed, newTimer)
        self.node = None
        self._raw = self._tag = self._guiTag = None

    def renew(self) -> None:
        """A new wrapper of the scene's parameter node, in place of the one before."""
        self.release()
        nodes = ScriptedLoadableModuleLogic()
        nodes.moduleName = self.moduleName
        self._raw = nodes.getParameterNode()
        node = USEMASegmentationParameterNode(self._raw)
        if node.inputVolume is None:
            node.inputVolume = volumeInView()
        self._guiTag = node.connectParametersToGui(self.widgets)
        self.node = node
        self._frames.watch(node.inputVolume)
        # after the wrapper's own observers, which bring its values up to date
        self._tag = self._raw.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)

    def isCurrent(self) -> bool:
        """Whether the wrapper is of the node that the scene has now."""
        return self.node is not None and self._raw.GetScene() is not None

    def release(self) -> None:
        """Lets go of the node."""
        node, self.node = self.node, None
        self._frames.close()
        if node is not None:
            self._raw.RemoveObserver(self._tag)
            node.disconnectGui(self._guiTag)
        self._raw = None

    def _onModified(self, caller, event) -> None:
        self._frames.watch(self.node.inputVolume)
        self.changed()
