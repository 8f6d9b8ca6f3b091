"""Stands in for ``slicer.parameterNodeWrapper``, by the rules that the application's own follows.

- A parameter that the node lacks is written whenever it is read; every writing is validated first.
- Reading gives what was last written through this wrapper, or read when the node last said that it was modified. Who
  keeps a wrapper while the scene is closed and another loaded, goes on hearing what was true before.
- A list is kept element by element, and a list of nodes may have None in it.
"""

from __future__ import annotations

import typing
import weakref
from collections.abc import MutableSequence

import slicer
import slicer.util
import vtk


class Choice:
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


class WithinRange:
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not between {self.minimum} and {self.maximum}")


class _Scalar:
    """A number, a text or a truth value: one parameter of the node."""

    def __init__(self, kind, validators):
        self.kind, self.validators, self.default = kind, validators, kind()

    def isIn(self, node, name):
        return node.HasParameter(name)

    def read(self, node, name):
        text = node.GetParameter(name)
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node, name, value):
        if value is None:
            raise ValueError(f"{name} cannot be None")
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            raise TypeError(f"{name} cannot be {value!r}: it is no {self.kind.__name__}")
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(name, str(value))

    def remove(self, node, name):
        node.UnsetParameter(name)


class _Node(_Scalar):
    """A node of the scene: a reference, and an empty parameter that tells None from not there."""

    def __init__(self, kind, validators):
        self.kind, self.validators, self.default = kind, validators, None

    def read(self, node, name):
        return node.GetNodeReference(name)

    def write(self, node, name, value):
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"{name} cannot be {value!r}: it is no {self.kind.__name__}")
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def remove(self, node, name):
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _List:
    def __init__(self, element):
        self.element, self.default = element, []

    def isIn(self, node, name):
        return node.HasParameter(f"{name}.len")

    def read(self, node, name):
        count = int(node.GetParameter(f"{name}.len"))
        return _ObservedList(self, node, name, [self.element.read(node, f"{name}.{n}") for n in range(count)])

    def write(self, node, name, values):
        before = list(self.read(node, name)) if self.isIn(node, name) else []
        try:
            self._replace(node, name, values, len(before))
        except Exception:
            self._replace(node, name, before, len(values))
            raise

    def _replace(self, node, name, values, lengthBefore):
        for n, value in enumerate(values):
            self.element.write(node, f"{name}.{n}", value)
        node.SetParameter(f"{name}.len", str(len(values)))
        for n in range(len(values), lengthBefore):
            self.element.remove(node, f"{name}.{n}")


class _ObservedList(MutableSequence):
    """What a list is read as: no ``list``, cannot be added to one, and writes each change into the node."""

    def __init__(self, serializer, node, name, values):
        self.serializer, self.node, self.name, self.values = serializer, node, name, values

    def __eq__(self, other):
        return self.values == (other.values if isinstance(other, _ObservedList) else other)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]

    def __setitem__(self, index, value):
        self.values[index] = value
        self._save()

    def __delitem__(self, index):
        del self.values[index]
        self._save()

    def insert(self, index, value):
        self.values.insert(index, value)
        self._save()

    def _save(self):
        with slicer.util.NodeModify(self.node):
            self.serializer.write(self.node, self.name, self.values)


def _serializer(annotation):
    kind, *others = typing.get_args(annotation) if hasattr(annotation, "__metadata__") else [annotation]
    if typing.get_origin(kind) is list:
        return _List(_serializer(typing.get_args(kind)[0]))
    isNode = issubclass(kind, slicer.vtkMRMLNode)
    return (_Node if isNode else _Scalar)(kind, [one for one in others if hasattr(one, "validate")])


# widget class -> the kind of its parameter, its signal, how it is read, how it is written
CONNECTORS = {
    "qMRMLNodeComboBox": (_Node, "currentNodeChanged", lambda w: w.currentNode(), lambda w, v: w.setCurrentNode(v)),
    "QCheckBox": (_Scalar, "stateChanged", lambda w: w.checked, lambda w, v: setattr(w, "checked", v)),
    "ctkSliderWidget": (_Scalar, "valueChanged", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
}


class _Wrapper:
    allParameters: dict

    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._guis, self._isUpdating, self._writing, self._cached = {}, False, "", {}
        self._readAll()
        me = weakref.ref(self)
        self._tag = parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: me()._onModified())

    def __del__(self):
        self.parameterNode.RemoveObserver(self._tag)

    def _readAll(self):
        for name, (serializer, default) in self.allParameters.items():
            if name == self._writing:
                continue
            if not serializer.isIn(self.parameterNode, name):  # new, or emptied with the scene
                serializer.write(self.parameterNode, name, default)
            self._cached[name] = serializer.read(self.parameterNode, name)

    def _onModified(self):
        self._readAll()
        self._updateGui()

    def getValue(self, name):
        return self._cached[name]

    def setValue(self, name, value):
        serializer, before = self.allParameters[name][0], self._writing
        self._writing = name
        try:
            with slicer.util.NodeModify(self.parameterNode):
                serializer.write(self.parameterNode, name, value)
                self._cached[name] = serializer.read(self.parameterNode, name)
        finally:
            self._writing = before

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, before):
        self.parameterNode.EndModify(before)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def connectParametersToGui(self, widgets):
        for name, widget in widgets.items():
            kind, signal, read, write = CONNECTORS[widget.className()]
            assert type(self.allParameters[name][0]) is kind, f"{name} cannot be shown by {widget.className()}"
            write(widget, self.getValue(name))
            getattr(widget, signal).connect(lambda *_, n=name, w=widget, r=read: self._take(n, w, r))
        tag = len(self._guis)
        self._guis[tag] = dict(widgets)
        return tag

    def disconnectGui(self, tag):
        self._guis[tag] = {}

    def _take(self, name, widget, read):
        if not self._isUpdating and any(gui.get(name) is widget for gui in self._guis.values()):
            self.setValue(name, read(widget))

    def _updateGui(self):
        if self._isUpdating:
            return
        self._isUpdating = True
        try:
            with slicer.util.NodeModify(self.parameterNode):
                for name, widget in [pair for gui in self._guis.values() for pair in gui.items()]:
                    CONNECTORS[widget.className()][3](widget, self.getValue(name))
        finally:
            self._isUpdating = False


def _property(name):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def parameterNodeWrapper(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    serializers = {name: _serializer(annotation) for name, annotation in hints.items()}
    parameters = {name: (one, getattr(cls, name, one.default)) for name, one in serializers.items()}
    return type(cls.__name__, (_Wrapper,), {"allParameters": parameters, **{name: _property(name) for name in hints}})
