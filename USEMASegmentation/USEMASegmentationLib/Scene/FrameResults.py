"""Results of the frames of a sequence: a sequence of segmentations, browsed with the volume, and volumes over time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import slicer
from usema.models.metadata import ModelMetadata

from .Hierarchy import createDisplay, placeBeside
from .ResultArrays import Prepared
from .SegmentationWriter import fill
from .Sequences import Frames
from .Summary import Summary
from .Tables import addTable


class FrameResults:
    """Takes the result of one frame after the other; ``show`` puts them beside the volume.

    Args:
        earlier: the sequence of segmentations that a stopped run left, to go on with; None: a new one.
    """

    def __init__(self, frames: Frames, metadata: ModelMetadata, earlier=None):
        self._frames, self._metadata = frames, metadata
        self._name = f"{frames.volumes[0].GetName()} {metadata.title}"
        self._isNew = earlier is None
        if self._isNew:
            self._name = slicer.mrmlScene.GenerateUniqueName(self._name)  # a list tells the two apart by nothing else
        self.sequence = earlier
        self._amounts: dict[int, Mapping[str, float]] = {}
        self._unit = "ml"

    def add(self, number: int, prepared: Prepared, found: Summary) -> None:
        """The result of a frame, into the sequence; nothing that is shown changes."""
        if self.sequence is None:
            self.sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{self._name} sequence")
            for copied in ("IndexName", "IndexUnit", "IndexType"):
                getattr(self.sequence, f"Set{copied}")(getattr(self._frames.sequence, f"Get{copied}")())
        node = slicer.vtkMRMLSegmentationNode()
        fill(node, prepared)
        self.sequence.SetDataNodeAtValue(node, self._frames.value(number))
        self._amounts[number], self._unit = found.amounts, found.unit

    def show(self, show3D: bool = False):
        """Browse the results with the volume, and make the table and the plot of the volumes, of images the areas.

        Returns:
            the segmentation node that follows the browser; None where there is no result.
        """
        if self.sequence is None:
            return None
        browser, volume = self._frames.browser, self._frames.volumes[0]
        if self._isNew:
            # What the user corrects in a frame stays in it. A frame without a result gets none of another, which the
            # browser would make of it as soon as it hears of the sequence: it hears of all at once.
            with slicer.util.NodeModify(browser):
                browser.AddSynchronizedSequenceNode(self.sequence)
                browser.SetMissingItemMode(self.sequence, browser.MissingItemDisplayHidden)
                browser.SetSaveChanges(self.sequence, True)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        node = browser.GetProxyNode(self.sequence)
        if self._isNew:
            node.SetName(self._name)
            node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
            node.SetNodeReferenceID(role, volume.GetID())
            placeBeside(node, volume)
        with ExitStack() as undo:
            createDisplay(node, undo)
            undo.pop_all()
        if show3D:
            node.CreateClosedSurfaceRepresentation()
            node.GetDisplayNode().SetVisibility3D(True)
        self._plot(self._table())
        return node

    def _table(self):
        """A row a frame: what the sequence calls it, and the volume or the area of each label."""
        names = list(dict.fromkeys(name for amounts in self._amounts.values() for name in amounts))
        frames, numbers = self._frames.sequence, sorted(self._amounts)
        kind = float if frames.GetIndexType() == 0 else str
        columns = {
            f"{frames.GetIndexName() or 'frame'} ({frames.GetIndexUnit() or '-'})": [
                kind(self._frames.value(number)) for number in numbers
            ]
        }
        for name in names:
            columns[self._title(name)] = [float(self._amounts[number].get(name, 0.0)) for number in numbers]
        return addTable(f"{self._name} {self._what}", columns)

    def _title(self, label: str) -> str:
        return f"{label} ({self._unit.replace('mm2', 'mm²')})"

    @property
    def _what(self) -> str:
        return "volumes" if self._unit == "ml" else "areas"

    def _plot(self, table) -> None:
        """A line a label, in its colour; where frames have no numbers, over their order."""
        scene = slicer.mrmlScene
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{self._name} {self._what} over time")
        colours = {self._title(label.name): label.color for label in self._metadata.labels}
        x = table.GetColumnName(0)
        for index in range(1, table.GetNumberOfColumns()):
            name = table.GetColumnName(index)
            series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetPlotType(series.PlotTypeScatter)
            series.SetXColumnName(x)
            series.SetYColumnName(name)
            series.SetColor(*(channel / 255 for channel in colours[name]))
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        chart.SetTitle(self._name)
        chart.SetXAxisTitle(x)
        chart.SetYAxisTitle(self._unit)
