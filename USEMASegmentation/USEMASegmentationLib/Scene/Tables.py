"""Tables in the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import slicer
import vtk


def addTable(name: str, columns: Mapping[str, Sequence]):
    """A new table node: a column of whole numbers, of numbers or of text for each title, as its first value is."""
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(name))
    for title, values in columns.items():
        first = values[0] if len(values) else ""
        kinds = (str, vtk.vtkStringArray), (int, vtk.vtkIntArray), (float, vtk.vtkDoubleArray)
        column = next(array for kind, array in kinds if isinstance(first, kind))()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    return table
