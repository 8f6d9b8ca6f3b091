"""Stands in for the Python parts of the application that the slicer-core wheel lacks, around a real MRML scene.

``start()`` installs them, as far as the panel uses them; ``load()`` opens the panel as the application would.
"""

import importlib
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace

import parameter_nodes
import pythonqt
import slicer
import slicer.util
from mrml_host import MrmlHost
from PySide6 import QtWidgets
from PySide6.QtCore import QSettings

MODULE = Path(__file__).resolve().parents[2] / "USEMASegmentation" / "USEMASegmentation.py"


class App:
    """``slicer.app``. Has no attribute that is not written here."""

    applicationName, applicationVersion, revision, slicerHome = "Slicer", "5.12.3 (stand-in)", "0", ""

    def __init__(self, host, qapp):
        self.processEvents, self.clipboard = qapp.processEvents, qapp.clipboard
        self.temporaryPath, self.applicationLogic = host.app.temporaryPath, host.app.applicationLogic
        self.topLevelWidgets = lambda: [pythonqt.wrapped(widget) for widget in qapp.topLevelWidgets()]
        self.testingEnabled = lambda: True
        self.layoutManager = lambda: None  # as without a main window
        self.receivers = {"startupCompleted()": [], "aboutToQuit()": []}

    def connect(self, signal, receiver):
        self.receivers[signal].append(receiver)
        return True

    def disconnect(self, signal, receiver):
        self.receivers[signal].remove(receiver)


@pythonqt.standIn
class ModuleFrame(QtWidgets.QWidget):
    """What the application puts around a panel."""

    isEntered = pythonqt.stored(bool, "entered", False)


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent, self.layout = parent, parent.layout()

    def resourcePath(self, name):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self): ...

    def onReload(self):
        self.cleanup()
        self.reopened = load()


class ScriptedLoadableModuleLogic:
    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message): ...


def _publish(name, **members):
    module = ModuleType(f"slicer.{name}")
    vars(module).update(members)
    sys.modules[module.__name__] = module
    setattr(slicer, name, module)


def start():
    """The host: a scene, an application, settings of its own. Once per process."""
    folder = Path(tempfile.mkdtemp(prefix="usema-host-"))
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(folder))
    qapp = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
    qapp.setOrganizationName("USEMA")
    host = MrmlHost(folder)
    _publish("i18n", tr=lambda text: text, translate=lambda context, text: text)
    _publish("ScriptedLoadableModule", **{k: v for k, v in globals().items() if k.startswith("ScriptedLoadable")})
    names = ("Choice", "WithinRange", "parameterNodeWrapper")
    _publish("parameterNodeWrapper", **{name: getattr(parameter_nodes, name) for name in names})
    slicer.app = App(host, qapp)
    pythonqt.install()
    importlib.import_module("widgets")
    for name in pythonqt.NATIVE:
        if name.startswith("qMRML"):
            setattr(slicer, name, pythonqt.wrapperClass(name))
    sys.path.insert(0, str(MODULE.parent))
    slicer.modules.usemasegmentation = SimpleNamespace(path=str(MODULE))
    return host


def load():
    """Loads the module and opens its panel, as the module selector does; gives the panel."""
    sys.modules.pop(MODULE.stem, None)
    module = importlib.import_module(MODULE.stem)
    module.USEMASegmentation(SimpleNamespace(path=str(MODULE)))
    frame = pythonqt.wrapperClass("ModuleFrame")()
    frame.setLayout(pythonqt.wrapperClass("QVBoxLayout")())
    panel = module.USEMASegmentationWidget(frame)
    panel.setup()
    panel.parent.isEntered = True
    panel.enter()
    return panel
