"""Effects of the Segment Editor that would look at all voxels of a volume before anybody uses them. No Qt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vtk

_THRESHOLD = "Threshold"


@contextmanager
def unused(editor) -> Iterator[None]:
    """Inside, *Threshold* sees two voxels of a new source volume, the least and the greatest: that is what it asks for.

    Every effect hears of a new source volume; this one then copies it and looks through the copy, for a second and a
    half at 700 x 512 x 512 voxels, while VTK remembers the range of the volume itself. When it is chosen, it asks
    again, and gets all voxels. Where it is chosen already, or is not as this file knows it, nothing is different.

    Args:
        editor: a qMRMLSegmentEditorWidget.
    """
    effect = editor.effectByName(_THRESHOLD)
    script = effect.self() if hasattr(effect, "self") else None
    if not hasattr(script, "scriptedEffect") or editor.activeEffect() == effect:
        yield
        return
    effect = script.scriptedEffect
    script.scriptedEffect = _Extremes(effect, editor)
    try:
        yield
    finally:
        script.scriptedEffect = effect


class _Extremes:
    """What an effect asks its questions: all are passed on, but the one for the voxels of the source volume."""

    def __init__(self, effect: Any, editor: Any):
        self._effect, self._editor = effect, editor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._effect, name)

    def sourceVolumeImageData(self) -> vtk.vtkImageData | None:
        """The least and the greatest value of the volume; None without one."""
        volume = self._editor.mrmlSegmentEditorNode().GetSourceVolumeNode()
        image = None if volume is None else volume.GetImageData()
        if image is None or image.GetPointData().GetScalars() is None:
            return None
        two = vtk.vtkImageData()
        two.SetDimensions(2, 1, 1)
        two.AllocateScalars(image.GetScalarType(), 1)
        for place, value in enumerate(image.GetScalarRange()):
            two.SetScalarComponentFromDouble(place, 0, 0, 0, value)
        return two
