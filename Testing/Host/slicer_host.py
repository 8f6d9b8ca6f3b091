"""Stands in for the Python parts of the application that the slicer-core wheel lacks, around a real MRML scene.

``start()`` installs them, as far as the panel uses them; ``load()`` opens the panel as the application would.
"""

import importlib
import json
import sys
import tempfile
import typing
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pythonqt
import slicer
import slicer.util
import vtk
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
        self.receivers = {"startupCompleted()": [], "aboutToQuit()": []}

    def connect(self, signal, receiver):
        self.receivers[signal].append(receiver)

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


ScriptedLoadableModuleTest = object

# As guiConnectors.py has them: widget class -> its signal, how it is read, how it is written.
CONNECTORS = {
    "qMRMLNodeComboBox": ("currentNodeChanged", lambda w: w.currentNode(), lambda w, value: w.setCurrentNode(value)),
    "QCheckBox": ("stateChanged", lambda w: w.checked, lambda w, value: setattr(w, "checked", value)),
    "ctkSliderWidget": ("valueChanged", lambda w: w.value, lambda w, value: setattr(w, "value", value)),
}


def parameterNodeWrapper(cls):
    """Keeps each field in a vtkMRMLScriptedModuleNode: nodes as references, anything else as JSON."""
    kinds = {}  # name -> (type of the field, whether it holds nodes)
    for name, kind in typing.get_type_hints(cls).items():
        element = (typing.get_args(kind) or (kind,))[0]
        kinds[name] = (typing.get_origin(kind) or kind, issubclass(element, slicer.vtkMRMLNode))
    return type(cls.__name__, (_ParameterNode,), {"kinds": kinds, "defaults": {**vars(cls)}})


class _ParameterNode:
    def __init__(self, parameterNode):
        vars(self).update(parameterNode=parameterNode, gui={}, isUpdating=False)
        parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self.updateGui())

    def __getattr__(self, name):
        node = self.parameterNode
        if name not in self.kinds:
            return getattr(node, name)  # AddObserver, StartModify, ...
        kind, holdsNodes = self.kinds[name]
        if holdsNodes:
            nodes = [node.GetNthNodeReference(name, n) for n in range(node.GetNumberOfNodeReferences(name))]
            return nodes if kind is list else nodes[0] if nodes else None
        return json.loads(node.GetParameter(name)) if node.GetParameter(name) else self.defaults.get(name, kind())

    def __setattr__(self, name, value):
        kind, holdsNodes = self.kinds[name]
        assert isinstance(value, kind) or (holdsNodes and value is None), f"{name} cannot be {value!r}"
        with slicer.util.NodeModify(self.parameterNode):
            if holdsNodes:
                self.parameterNode.RemoveNodeReferenceIDs(name)
                for node in filter(None, value if kind is list else [value]):
                    self.parameterNode.AddNodeReferenceID(name, node.GetID())
            else:
                self.parameterNode.SetParameter(name, json.dumps(value))

    def connectParametersToGui(self, widgets):
        self.gui.update(widgets)
        self.updateGui()
        for name, widget in widgets.items():
            getattr(widget, CONNECTORS[widget.className()][0]).connect(lambda *_, n=name: self.take(n))
        return 0

    def disconnectGui(self, tag):
        self.gui.clear()

    def take(self, name):
        if name in self.gui and not self.isUpdating:
            setattr(self, name, CONNECTORS[self.gui[name].className()][1](self.gui[name]))

    def updateGui(self):
        if not self.isUpdating:
            vars(self)["isUpdating"] = True
            for name, widget in self.gui.items():
                CONNECTORS[widget.className()][2](widget, getattr(self, name))
            vars(self)["isUpdating"] = False


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
    ignored = dict.fromkeys(("Choice", "WithinRange"), lambda *_: None)
    _publish("parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper, **ignored)
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
