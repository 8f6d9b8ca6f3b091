"""Tells that the volume shows another frame of a sequence: the choice of the volume stays the same, and nobody clicked
in the panel. Knows timers, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import vtk

from ..Scene.Sequences import frameValueOf


class FrameWatch:
    """Watches one volume.

    Args:
        told: called when it shows another frame; a moment later, and once for all that a playing sequence goes through
            until then.
        newTimer: makes a timer that calls what it is given.
    """

    def __init__(self, told: Callable[[], None], newTimer: Callable):
        self._told = told
        self._timer = newTimer(self._tell)
        self._volume, self._tag, self._frame = vtk.vtkWeakReference(), None, ""

    def watch(self, volumeNode) -> None:
        """This volume, instead of the one before; None: nothing."""
        if volumeNode is not self._volume.Get():
            self.close()
            self._volume.Set(volumeNode)
            if volumeNode is not None:
                self._tag = volumeNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)
        self._frame = frameValueOf(volumeNode)

    def close(self) -> None:
        """Nothing is watched any more."""
        self._timer.stop()
        volume = self._volume.Get()
        if volume is not None:
            volume.RemoveObserver(self._tag)
        self._volume.Set(None)

    def _onModified(self, caller, event) -> None:
        if frameValueOf(caller) != self._frame:
            self._timer.start()

    def _tell(self) -> None:
        self._timer.stop()
        self._frame = frameValueOf(self._volume.Get())
        self._told()
