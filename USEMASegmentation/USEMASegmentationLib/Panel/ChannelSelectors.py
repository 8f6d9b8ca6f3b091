"""One selector for each input volume of a model after the first. Knows the widgets' functions, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import slicer


class ChannelSelectors:
    """The selectors; hidden where a model has one channel.

    Args:
        section: the widget around them.
        layout: its form layout.
        chosen: called with the nodes of all channels, None where there is none, whenever one is chosen.
    """

    def __init__(self, section, layout, chosen: Callable[[list], None]):
        self.section = section
        self.layout = layout
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
            selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
            selector.showChildNodeTypes = False
            selector.addEnabled = selector.removeEnabled = False
            selector.setMRMLScene(slicer.mrmlScene)
            if index < len(nodes):
                selector.setCurrentNode(nodes[index])
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.onChosen)
            self.layout.addRow(name + ":", selector)
            self.selectors.append(selector)
        self.onChosen()

    def onChosen(self, node=None) -> None:
        self.chosen([selector.currentNode() for selector in self.selectors])
