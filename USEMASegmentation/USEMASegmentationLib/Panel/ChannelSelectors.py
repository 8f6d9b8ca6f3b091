"""One selector for each input volume of a model after the first. Knows the widgets' functions, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import slicer

from ..Scene.VolumeBridge import VOLUME_KINDS
from .RunTexts import asHtml
from .Signals import connect


class ChannelSelectors:
    """The selectors; hidden where a model has one channel.

    Args:
        section: the widget around them, which has a form layout.
        chosen: called with the nodes of all channels, None where there is none, whenever one is chosen.
    """

    def __init__(self, section, chosen: Callable[[list], None]):
        self.section = section
        self.layout = section.layout()  # from here: in Python, an empty layout counts as false and has no name
        self.chosen = chosen
        self.selectors = []

    def show(self, names: Sequence[str], nodes: Sequence) -> None:
        """Makes the selectors.

        Args:
            names: of the channels after the first.
            nodes: the volumes chosen so far, in the same order.
        """
        self.section.visible = bool(names)
        for selector in self.selectors:
            self.layout.removeRow(selector)
        self.selectors = []
        for index, name in enumerate(names):
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = [*VOLUME_KINDS]
            selector.showChildNodeTypes = False
            selector.addEnabled = selector.removeEnabled = False
            selector.setMRMLScene(slicer.mrmlScene)
            if index < len(nodes):
                selector.setCurrentNode(nodes[index])
            connect(selector, "currentNodeChanged(vtkMRMLNode*)", self.onChosen)
            self.layout.addRow(asHtml(f"{name}:"), selector)
            self.selectors.append(selector)
        self.onChosen()

    def onChosen(self, node=None) -> None:
        self.chosen([selector.currentNode() for selector in self.selectors])
