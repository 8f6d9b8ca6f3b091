"""Volumes that are a frame of a sequence. Frames are read from the sequence: what the user looks at stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import slicer
from usema.errors import InputError


@dataclass(frozen=True)
class Frames:
    """All frames of a volume that shows one.

    Attributes:
        browser: the sequence browser node.
        sequence: the sequence node of the volume.
        volumes: the volume, and those of further channels.
    """

    browser: Any
    sequence: Any
    volumes: tuple

    def __len__(self) -> int:
        return self.sequence.GetNumberOfDataNodes()

    def value(self, number: int) -> str:
        """What the sequence calls a frame, such as its time."""
        return self.sequence.GetNthIndexValue(number)

    def nodes(self, number: int) -> list:
        """The volume nodes of a frame, inside of the sequences; a channel that is no sequence is the same for all.

        Raises:
            InputError: a channel has no such frame, or a frame no voxels.
        """
        nodes = [self._node(volume, number) for volume in self.volumes]
        for node, volume in zip(nodes, self.volumes, strict=True):
            if node is None or node.GetImageData() is None or not node.GetImageData().GetNumberOfPoints():
                raise InputError(
                    f"Frame {number + 1} of '{volume.GetName()}' has no voxels.", "Remove it from the sequence."
                )
        return nodes

    def isThere(self) -> bool:
        """Whether the scene still has the sequence and its browser."""
        return all(map(slicer.mrmlScene.IsNodePresent, (self.browser, self.sequence)))

    def _node(self, volume, number: int):
        sequence = self.browser.GetSequenceNode(volume)
        return volume if sequence is None else sequence.GetDataNodeAtValue(self.value(number), True)


def frameOf(volumeNode) -> tuple[int, int] | None:
    """(which frame from 1, of how many) a volume shows; None without one, or where it is of no sequence of several."""
    browser = None if volumeNode is None else _browserOf(volumeNode)
    return None if browser is None else (browser.GetSelectedItemNumber() + 1, browser.GetNumberOfItems())


def frameValueOf(volumeNode) -> str:
    """What the sequence calls the frame that a volume shows, such as its time; empty: see `frameOf`."""
    browser = None if volumeNode is None else _browserOf(volumeNode)
    if browser is None:
        return ""
    return browser.GetMasterSequenceNode().GetNthIndexValue(browser.GetSelectedItemNumber())


def framesOf(volumeNodes: Sequence) -> Frames | None:
    """All frames of what the first volume shows one of; None where it belongs to no sequence of several."""
    browser = _browserOf(volumeNodes[0])
    return None if browser is None else Frames(browser, browser.GetSequenceNode(volumeNodes[0]), tuple(volumeNodes))


def framesIn(kind: str) -> list:
    """The frames of all sequences that are nodes of a class; they are in no list of the scene's nodes."""
    sequences = slicer.util.getNodesByClass("vtkMRMLSequenceNode")
    nodes = [one.GetNthDataNode(number) for one in sequences for number in range(one.GetNumberOfDataNodes())]
    return [node for node in nodes if node is not None and node.IsA(kind)]


def _browserOf(volumeNode):
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.GetNumberOfItems() > 1 and browser.GetSequenceNode(volumeNode) is not None:
            return browser
    return None
