"""A first look at a result, in a segmentation of its own until the result is there."""

from __future__ import annotations

import logging
from dataclasses import replace

import slicer
import vtk

from . import ResultWriter


class Preview:
    """A segmentation that goes again, and is not saved with the scene; unless the user has begun to work on it."""

    def __init__(self, node):
        self._node = vtk.vtkWeakReference()
        self._node.Set(node)
        self._shown = node.GetSegmentation().GetMTime()

    @classmethod
    def show(cls, labels: str, run) -> Preview | None:
        """Puts the labels of a file into the scene.

        Args:
            run: parameters, bundle, box and folder of what is under way.

        Returns:
            None where it cannot be shown, which is no reason to give up the result.
        """
        try:
            shape = tuple(part.stop - part.start for part in run.box)
            array, metadata = run.folder.load(labels, shape), run.bundle.metadata
            provenance = {"model": metadata.name, "modelVersion": metadata.version, "preview": "the result follows"}
            result = ResultWriter.Result(array, None, provenance, metadata, run.box)
            alone = replace(run.parameters, segmentation=None, existing="new", keepProbabilities=False, show3D=False)
            node = ResultWriter.write(result, alone).segmentation
        except Exception:
            logging.exception("USEMA: the preview cannot be shown")
            return None
        node.SetName(f"Preview of {node.GetName()}")
        node.SaveWithSceneOff()
        return cls(node)

    def remove(self) -> None:
        """Takes it away, or leaves it to the user who has changed it."""
        node = self._node.Get()
        if node is None or not slicer.mrmlScene.IsNodePresent(node):
            return
        if node.GetSegmentation().GetMTime() == self._shown:
            slicer.mrmlScene.RemoveNode(node)
        else:
            node.SaveWithSceneOn()
