"""What the panel's logic expects of the application around it, made of trame-slicer's."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import slicer
import slicer.util
import vtk
from trame_slicer.core import SlicerApp
from usema.cli.streams import DEBUG


class Host:
    """Fills ``slicer.mrmlScene``, ``slicer.modules.<name>.logic()`` and the members of ``slicer.app`` that are used.

    Attributes:
        app: trame-slicer's application.
        folder: for files of this process; nobody else may read it.
    """

    def __init__(self):
        self.app = SlicerApp()
        self.folder = Path(tempfile.mkdtemp(prefix="usema-web-"))
        if DEBUG not in os.environ:  # the libraries' own lines are not for the person at the terminal
            log = vtk.vtkFileOutputWindow()
            log.SetFileName(str(self.folder / "vtk.log"))
            vtk.vtkOutputWindow.SetInstance(log)
            vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
        self.app.app_logic.SetTemporaryPath(str(self.folder))
        logics = {
            "segmentations": self.app.segmentations_logic,
            "volumes": self.app.volumes_logic,
            "terminologies": self.app.terminologies_logic,
            "subjecthierarchy": self.app.subject_hierarchy_logic,
            "colors": self.app.color_logic,
        }
        slicer.mrmlScene = self.app.scene
        slicer.modules = SimpleNamespace(**{name: _module(logic) for name, logic in logics.items()})
        slicer.app = SimpleNamespace(
            temporaryPath=str(self.folder),
            applicationVersion=version("slicer-core"),
            revision=f"trame-slicer {version('trame-slicer')}",
            applicationLogic=lambda: self.app.app_logic,
        )
        if "slicer.i18n" not in sys.modules:  # 3D Slicer's translations, which the wheel lacks; the page is English
            words = ModuleType("slicer.i18n")
            words.tr = lambda text, *_: text
            sys.modules["slicer.i18n"] = words

    def close(self) -> None:
        """Remove the files of this process."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _module(logic) -> SimpleNamespace:
    return SimpleNamespace(logic=lambda: logic)
