"""What the panel names exists in 3D Slicer: widget classes, properties, signals and functions, read from a running one.

``Testing/Host/slicer_api_used.json`` is the part of that list that the project uses.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from panel_cases import pythonqt
from PySide6 import QtWidgets

pytest_plugins = ["panel_fixtures"]

HOST = Path(__file__).resolve().parents[2] / "Host"
MODULE = HOST.parents[1] / "USEMASegmentation"
FORMS = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
API = json.loads((HOST / "slicer_api_used.json").read_text("utf-8"))
CLASSES = API["classes"]
# Values, items and enumerators; PythonQt has them all, and the list of the running Slicer leaves them out.
VALUES = {"Qt", "QShortcut", "QKeySequence", "QColor", "QIcon", "QPixmap", "QHeaderView", "QTableWidgetItem"}
# Which parameter types Slicer can connect to a widget: its parameterNodeWrapper/guiConnectors.py.
CONNECTED = {"qMRMLNodeComboBox": r"vtkMRML\w+", "QCheckBox": "bool", "ctkSliderWidget": r"Annotated\[float,.*"}
# What the module may import from the application beside qt and slicer itself.
SLICER_FILES = {"i18n": {"tr", "translate"}, "parameterNodeWrapper": {"parameterNodeWrapper", "Choice", "WithinRange"}}
BASES = {"ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic"}
SLICER_FILES["ScriptedLoadableModule"] = {*BASES, "ScriptedLoadableModuleTest"}


def widgets(ui: str) -> dict[str, str]:
    """Name -> class of each widget of a form. Without layouts: an empty one is no attribute of ``ui`` in Slicer."""
    return {one.get("name"): one.get("class") for one in ElementTree.fromstring(ui).iter("widget")}


def has(className: str, kind: str, name: str) -> bool:
    return name in CLASSES.get(className, {}).get(kind, ()) or name in CLASSES["QWidget"][kind]


def formProblems(ui: str, parameters: dict[str, str]) -> Iterator[str]:
    tree = ElementTree.fromstring(ui)
    for element in tree.iter("widget"):
        name, className = element.get("name"), element.get("class")
        if className not in CLASSES:
            yield f"{name}: Slicer has no {className}"
            continue
        properties = {one.get("name"): one.findtext("string") for one in element.findall("property")}
        if className == "QLabel" and "textFormat" not in properties and not properties.get("text"):
            yield f"{name}: its text comes later, and Qt takes what looks like HTML for HTML: say its textFormat"
        for one in element.findall("property"):
            if one.get("name") == "SlicerParameterName":
                parameter = one.findtext("string")
                kind = parameters.get(parameter, "missing")
                if not re.fullmatch(CONNECTED.get(className, "nothing"), kind):
                    yield f"{name}: {className} cannot be connected to the parameter {parameter} ({kind})"
            elif not has(className, "properties", one.get("name")):
                yield f"{name}: {className} has no property {one.get('name')}"
    names = widgets(ui)
    for one in tree.iter("connection"):
        sender, signal, receiver, slot = (one.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))
        if not has(names[sender], "signals", signal):
            yield f"{sender} has no signal {signal}"
        if not has(names[receiver], "members", slot.split("(")[0]):
            yield f"{receiver} has no slot {slot}"


def codeProblems(source: str, names: dict[str, str]) -> Iterator[str]:
    tree = ast.parse(source)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        yield from widgetProblems(function, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slicer.") and not node.level:
            file = node.module.removeprefix("slicer.")
            known = SLICER_FILES.get(file) or API.get(node.module, {})
            yield from (f"{node.module} has no {one.name}" for one in node.names if one.name not in known)
        elif isinstance(node, ast.Attribute):
            yield from moduleProblems(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("slicer.util."):
            yield from argumentProblems(node)


def widgetProblems(function: ast.FunctionDef, names: dict[str, str]) -> Iterator[str]:
    """Attributes of ``self.ui.name``, also where a variable stands for it, and signals connected to it."""
    aliases = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and (found := re.fullmatch(r"(?:self\.)?ui\.(\w+)", ast.unparse(node.value))):
            aliases[ast.unparse(node.targets[0])] = found[1]
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if owner in ("ui", "self.ui") and node.attr not in names:
            yield f"the form has no {node.attr}"
        found = re.fullmatch(r"(?:self\.)?ui\.(\w+)", owner)
        name = aliases.get(owner) or (found and found[1])
        if name in names:
            className, written = names[name], isinstance(node.ctx, ast.Store)
            known = "properties" if written else "members"
            if not has(className, known, node.attr) and node.attr != "connect":
                yield f"{name}: {className} has no {known} {node.attr}"
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if re.search(r"\bui\.\w+\.connect$", function):
            yield f"{function}: PythonQt would not tell of a wrong signal; use Signals.connect"
        elif function == "connect" and (found := re.fullmatch(r"(?:self\.)?ui\.(\w+)", ast.unparse(node.args[0]))):
            signal = node.args[1].value
            if found[1] in names and not has(names[found[1]], "signals", signal):
                yield f"{found[1]}: {names[found[1]]} has no signal {signal}"


def moduleProblems(dotted: str) -> Iterator[str]:
    import slicer

    if found := re.fullmatch(r"(slicer\.(?:app|util|packaging))\.(\w+)", dotted):
        if found[2] not in API[found[1]]:
            yield f"{found[1]} has no {found[2]}"
    elif found := re.fullmatch(r"(?:qt|ctk)\.(\w+)", dotted):
        if found[1] not in CLASSES and found[1] not in VALUES:
            yield f"{dotted} is not known"
    elif found := re.fullmatch(r"slicer\.(q\w+)", dotted):
        if found[1] not in CLASSES:
            yield f"{dotted} is not known"
    elif found := re.fullmatch(r"slicer\.(vtk\w+)(?:\.(\w+))?", dotted):
        if not hasattr(getattr(slicer, found[1], None), found[2] or "__name__"):
            yield f"{dotted} is not in slicer-core"
    elif (found := re.fullmatch(r"slicer\.mrmlScene\.(\w+)", dotted)) and not hasattr(slicer.vtkMRMLScene, found[1]):
        yield f"the scene has no {found[1]}"


def argumentProblems(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func).removeprefix("slicer.util.")
    signature = API["slicer.util"].get(name, "")
    if signature.startswith("("):
        # only how many and which arguments are checked, not their types
        plain = re.sub(r": '[^']*'|-> .*", "", signature)
        plain = re.sub(r"=(<[^>]*>|\[[^\]]*\]|\([^)]*\)|'[^']*'|[^,)]+)", "=None", plain)
        function = eval(f"lambda {plain[1 : plain.rindex(')')]}: None")
        try:
            keywords = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(function).bind(*[None] * len(call.args), **keywords)
        except TypeError as error:
            yield f"slicer.util.{name}: {error}"


@pytest.fixture
def parameters(app) -> dict[str, str]:
    """Fields of the parameter node: name -> annotation."""
    from USEMASegmentationLib import ParameterNode  # not before the application is there

    kinds = ParameterNode._members()["__annotations__"]
    return {name: kind.__name__ if isinstance(kind, type) else str(kind)[7:] for name, kind in kinds.items()}


SOURCES = ["USEMASegmentation.py"]
SOURCES += [path.relative_to(MODULE).as_posix() for path in (MODULE / "USEMASegmentationLib").rglob("*.py")]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_names_nothing_that_slicer_lacks(form, parameters):
    assert list(formProblems(form.read_text("utf-8"), parameters)) == []


@pytest.mark.parametrize("path", sorted(SOURCES))
def test_the_code_names_nothing_that_slicer_lacks(path):
    source = (MODULE / path).read_text("utf-8")
    names = {name: cls for form in FORMS for name, cls in widgets(form.read_text("utf-8")).items()}
    problems = list(codeProblems(source, names))
    assert problems == [], "or used for the first time: then run Testing/Host/make_slicer_api_used.py"


FORM = """<ui><widget class="{}" name="box"><property name="{}"><string>x</string></property>
<property name="SlicerParameterName"><string>{}</string></property></widget><connections><connection>
<sender>box</sender><signal>{}</signal><receiver>box</receiver><slot>{}</slot></connection></connections></ui>"""
GOOD_FORM = ("QCheckBox", "checked", "mirror", "toggled(bool)", "setChecked(bool)")


def test_a_good_form_passes(parameters):
    assert list(formProblems(FORM.format(*GOOD_FORM), parameters)) == []


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(0, "QFancyBox"), (1, "ticked"), (2, "mirrors"), (2, "overlap"), (3, "ticked(bool)"), (4, "tick()")],
)
def test_a_slip_in_a_form_is_seen(place, wrong, parameters):
    values = [*GOOD_FORM]
    values[place] = wrong
    assert any(wrong.split("(")[0] in one for one in formProblems(FORM.format(*values), parameters))


def test_a_label_whose_text_may_come_from_a_file_says_that_it_is_no_html():
    label = '<ui><widget class="QLabel" name="findsLabel">{}</widget></ui>'
    said = '<property name="textFormat"><enum>Qt::PlainText</enum></property>'
    assert list(formProblems(label.format(said), {})) == []
    (problem,) = formProblems(label.format('<property name="text"><string/></property>'), {})
    assert problem.startswith("findsLabel: ")


@pytest.mark.parametrize(
    "slip",
    [
        "self.ui.buton.click()",
        "self.ui.button.press()",
        "self.ui.button.label = 'x'",
        "self.ui.button.connect('clicked(bool)', f)",
        "connect(self.ui.button, 'clicked(int)', f)",
        "button = self.ui.button; button.caption",
        "self.ui.button.click = 1",
        "qt.QPushButon()",
        "slicer.qMRMLNodeCombo()",
        "slicer.vtkMRMLSegmentationsNode()",
        "slicer.vtkMRMLSegmentationNode.GetReferenceRole()",
        "slicer.mrmlScene.AddNewNode('x')",
        "slicer.app.quitNow()",
        "slicer.util.loadUi('x')",
        "slicer.util.showStatusMessage('x', milliseconds=1)",
        "slicer.util.mainWindow('x')",
    ],
)
def test_a_slip_in_the_code_is_seen(slip):
    good = "self.ui.button.text = 'x'; connect(self.ui.button, 'clicked(bool)', f); slicer.util.mainWindow()"
    names = {"button": "QPushButton"}
    assert list(codeProblems(f"def f(self): {good}", names)) == []
    assert len(list(codeProblems(f"def f(self): {slip}", names))) == 1


# The stand-in keeps PythonQt's rules, see slicer-facts in its README


def test_the_stand_in_shows_properties_and_refuses_what_is_unknown(app):
    import qt

    button = qt.QPushButton("x")
    button.text = "y"
    assert button.text == "y"
    button.setText("z")
    assert button.text == "z"
    with pytest.raises(AttributeError):
        button.myThing = 3
    with pytest.raises(AttributeError):
        _ = button.myThing
    assert not isinstance(button, qt.QWidget)
    assert button.isWidgetType()


def test_what_only_a_newer_qt_has_is_refused(app):
    import qt

    assert hasattr(QtWidgets.QComboBox, "labelDrawingMode")  # since Qt 6.1
    with pytest.raises(AttributeError, match="Slicer's QComboBox has no labelDrawingMode"):
        _ = qt.QComboBox().labelDrawingMode


def test_the_stand_in_connects_both_ways_and_fails_on_an_unknown_signal(app):
    import qt

    button, heard = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda *values: heard.append(values))
    button.clicked.connect(lambda *values: heard.append(values))
    button.click()
    assert heard == [(False,), (False,)]
    with pytest.raises(AttributeError, match="nosuch"):
        button.connect("nosuch(bool)", print)
    button.clicked.connect(lambda: None)  # takes no argument, which is a slip
    button.click()
    assert "TypeError" in pythonqt.slotErrors.pop()


def test_the_stand_in_stays_small():
    files = ("pythonqt.py", "widgets.py", "slicer_host.py", "parameter_nodes.py")
    assert sum(len((HOST / name).read_text("utf-8").splitlines()) for name in files) < 800
