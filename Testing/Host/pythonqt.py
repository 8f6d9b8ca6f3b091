"""Stands in for the modules ``qt`` and ``ctk``: Qt as PythonQt shows it, over PySide6.

A ``Wrapper`` shows each Qt object by PythonQt's rules: properties are attributes, a new attribute is refused, signals
connect in both ways, ``isinstance(button, qt.QWidget)`` is false. Two rules are harder, so that a slip fails a test:
what Slicer's class lacks is refused (``slicer_api_used.json``), and so is an unknown signal.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import traceback
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

API = json.loads(Path(__file__).with_name("slicer_api_used.json").read_text(encoding="utf-8"))["classes"]
# What PythonQt adds to every object, or its decorators to a class.
ADDED = {"connect", "disconnect", "className", "delete", "name", "children", "findChild", "findChildren", "layout"}
RENAMED = {"name": "objectName"}
NATIVE: dict[str, type] = {  # class name -> PySide class, the stand-ins of widgets.py among them
    name: getattr(module, name)
    for module in (QtCore, QtGui, QtWidgets)
    for name in dir(module)
    if isinstance(getattr(module, name), type)
}
slotErrors: list[str] = []  # what slots raised: Qt would only print it
_classes: dict[str, type] = {}
_wrappers: dict[int, Wrapper] = {}

if sys.version_info < (3, 12):
    # PySide6 6.12 gives away references to these, which are immortal only from Python 3.12 on.
    for constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(constant)).value += 2**40


class _Statics(type):
    """Enumerators and static functions: ``qt.QMessageBox.Yes``, ``qt.QTimer.singleShot``."""

    def __getattr__(cls, name):
        return _passed(getattr(NATIVE[cls.__name__], name))


class Wrapper(metaclass=_Statics):
    def __init__(self, *arguments):
        _adopt(self, NATIVE[type(self).__name__](*map(unwrapped, arguments)))

    def __getattr__(self, name):
        _checkKnown(self, "members", name)
        qtObject, name = self.__dict__["qtObject"], RENAMED.get(name, name)
        if qtObject.metaObject().indexOfProperty(name) >= 0:
            return wrapped(qtObject.property(name))
        attribute = getattr(qtObject, name)
        if not isinstance(attribute, QtCore.SignalInstance):
            return _passed(attribute)
        methods = map(qtObject.metaObject().method, range(qtObject.metaObject().methodCount()))
        arguments = max(one.parameterCount() for one in methods if one.name() == name.encode())
        return SimpleNamespace(connect=partial(_connect, attribute, arguments))

    def __setattr__(self, name, value):
        _checkKnown(self, "members", name)
        qtObject, name = self.__dict__["qtObject"], RENAMED.get(name, name)
        index = qtObject.metaObject().indexOfProperty(name)
        if index < 0 or not qtObject.metaObject().property(index).isWritable():
            raise AttributeError(f"{self.className()}.{name} cannot be set, or is new on a C++ object")
        qtObject.setProperty(name, unwrapped(value))

    def __bool__(self):
        """False for an object that Qt deleted, and for one that says of itself that it is empty or null."""
        if not shiboken6.isValid(qtObject := self.__dict__["qtObject"]):
            return False
        return not any(getattr(qtObject, name, bool)() for name in ("isEmpty", "isNull"))

    def className(self):
        return type(self).__name__

    def connect(self, signature, receiver):
        _checkKnown(self, "signals", signature)
        return getattr(self, signature.split("(")[0]).connect(receiver)


def _connect(signal, arguments, receiver):
    def slot(*values):
        try:
            receiver(*map(wrapped, values))
        except Exception:
            slotErrors.append(traceback.format_exc())

    # PySide gives as many arguments as a function declares; PythonQt gives all.
    signal.connect([lambda: slot(), lambda a: slot(a), lambda a, b: slot(a, b)][arguments])
    return True


def _adopt(wrapper, qtObject):
    wrapper.__dict__["qtObject"] = qtObject
    _wrappers[shiboken6.getCppPointer(qtObject)[0]] = wrapper  # keeps the PySide side of Qt's own children alive
    return wrapper


def _checkKnown(wrapper, kind, name):
    known = API.get(wrapper.className())
    if known and name not in (*known[kind], *API["QWidget"][kind], *ADDED) and not name.startswith("__"):
        raise AttributeError(f"Slicer's {wrapper.className()} has no {name}")


def wrapped(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(wrapped, value))
    if not isinstance(value, QtCore.QObject):
        return value
    found = _wrappers.get(shiboken6.getCppPointer(value)[0])
    if found is None or not shiboken6.isValid(found.qtObject):
        name = next(base.__name__ for base in type(value).__mro__ if base.__name__ in NATIVE)
        found = _adopt(object.__new__(wrapperClass(name)), value)
    return found


def unwrapped(value):
    return value.__dict__["qtObject"] if isinstance(value, Wrapper) else value


def _passed(attribute):
    """A function of PySide with wrappers going in and coming out; anything else as it is."""
    if not callable(attribute) or isinstance(attribute, type):
        return attribute
    return lambda *arguments: wrapped(attribute(*map(unwrapped, arguments)))


def wrapperClass(name):
    return _classes.setdefault(name, _classes.get(name) or _Statics(name, (Wrapper,), {}))


def standIn(cls):
    """Makes a PySide class known under its name."""
    NATIVE[cls.__name__] = cls
    return cls


def stored(kind, name, initial):
    """A property that is kept and, where the class can, followed by ``refresh()``."""

    def write(self, value):
        setattr(self, f"_{name}", value)
        getattr(self, "refresh", lambda: None)()

    return QtCore.Property(kind, lambda self: getattr(self, f"_{name}", initial), write)


class QUiLoader(QtUiTools.QUiLoader):
    def createWidget(self, className, parent=None, name=""):
        created = NATIVE[className](parent)
        created.setObjectName(name)
        return wrapped(created).qtObject

    def load(self, file, parent=None):
        # Signals and slots made in Python carry MRML objects as PyObject.
        text = re.sub(r"vtkMRML\w+\*", "PyObject", bytes(file.readAll().data()).decode())
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        return wrapped(super().load(buffer, unwrapped(parent)))


class _Module(ModuleType):
    def __getattr__(self, name):
        if name not in NATIVE:
            raise AttributeError(name)
        return wrapperClass(name) if issubclass(NATIVE[name], QtCore.QObject) else NATIVE[name]


def install():
    """Puts ``qt`` and ``ctk`` where an import finds them."""
    # a connection in a .ui that names no signal or slot
    QtCore.qInstallMessageHandler(lambda kind, context, text: slotErrors.append(text) if "No such s" in text else None)
    for name in ("qt", "ctk"):
        sys.modules[name] = _Module(name)
    sys.modules["qt"].QUiLoader = QUiLoader
