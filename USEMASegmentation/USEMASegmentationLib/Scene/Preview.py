"""A first look at a result, in a segmentation of its own until the result is there."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import slicer
import vtk

from ..Steps import Working, beside
from . import ResultWriter


class Preview:
    """A segmentation that goes again, and is not saved with the scene; unless the user has begun to work on it."""

    def __init__(self, node):
        self._node = vtk.vtkWeakReference()
        self._node.Set(node)
        self._shown = node.GetSegmentation().GetMTime()

    @classmethod
    def showing(cls, labels: str, run) -> Working:
        """Puts the labels of a file into the scene, a moment at a time.

        Args:
            run: parameters, bundle, box, folder and watch of what is under way.

        Returns:
            the preview, or None where it cannot be shown, which is no reason to give up the result.
        """
        try:
            if (yield from run.watch.changing(run.folder, run.box)):
                return None
            array = yield from beside(lambda: run.folder.load(labels, run.shape), math.prod(run.shape))
            metadata = run.bundle.metadata
            provenance = {"model": metadata.name, "modelVersion": metadata.version, "preview": "the result follows"}
            result = ResultWriter.Result(array, None, provenance, metadata, run.box)
            alone = replace(run.parameters, segmentation=None, existing="new", keepProbabilities=False, show3D=False)
            ready = yield from ResultWriter.preparing(result, alone)
            node = ready.commit().segmentation
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
