"""Nothing in the panel tests the truth of a Qt or MRML object: in the application an empty layout is false, not None.

The application leaves what is false out of ``childWidgetVariables``; a widget that Qt has deleted is false as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["panel_fixtures"]

MODULE = Path(__file__).resolve().parents[3] / "USEMASegmentation"
SOURCES = [MODULE / "USEMASegmentation.py", *sorted((MODULE / "USEMASegmentationLib").rglob("*.py"))]
# What is such an object by its name, or by the function that gives it.
NAMES = re.compile(
    r"(^(ui|node|volume|segmentation|roi|widget|layout|window|selector|button|label|editor|table|target|image|timer)"
    r"|(Node|Volume|Segmentation|Widget|Layout|Window|Selector|Button|Label|Section|Editor|Table|Frame|Bar|Timer|Image))$"
)
GIVERS = re.compile(
    r"^(currentNode|segmentationNode|sourceVolumeNode|mrmlSegmentEditorNode|mainWindow|layout|parent|layoutManager"
    r"|Get\w*(Node|NodeReference|NodeByID|ByName|ImageData|Scalars|Segment|Segmentation|Transform|DisplayNode))$"
)


def isObject(node: ast.expr) -> bool:
    """Whether an expression gives a Qt or MRML object, as far as its words tell."""
    if isinstance(node, ast.Attribute):
        return ast.unparse(node.value) in ("ui", "self.ui") or bool(NAMES.search(node.attr))
    if isinstance(node, ast.Name):
        return bool(NAMES.search(node.id))
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return bool(GIVERS.match(name))
    return False


def truths(tree: ast.AST) -> Iterator[ast.expr]:
    """Every expression whose truth is tested."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            yield node.test
        elif isinstance(node, ast.BoolOp):
            yield from node.values[:-1]  # the last one is only handed on
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.operand
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("bool", "filter", "any", "all"):
            yield from node.args[:1] if ast.unparse(node.func) == "bool" else ()


def problems(source: str) -> list[str]:
    found = (one for one in truths(ast.parse(source)) if isObject(one))
    return [f"line {one.lineno}: {ast.unparse(one)}" for one in found]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(MODULE).as_posix())
def test_no_truth_of_an_object_is_tested(path):
    assert problems(path.read_text("utf-8")) == [], "compare with None"


@pytest.mark.parametrize(
    "slip",
    [
        "if self.ui.channelsSection: pass",
        "if not ui.manageFrame: pass",
        "layout = section.layout() or other",
        "volume = node.GetNodeReference(role) or volume",
        "x = a if parameters.inputVolume else b",
        "while self.segmentationNode: pass",
        "[one for node in nodes if node]",
        "bool(slicer.util.mainWindow())",
        "assert scene.GetNodeByID('x')",
    ],
)
def test_a_slip_is_seen(slip):
    assert len(problems(slip)) == 1


@pytest.mark.parametrize("good", ["if node is None: pass", "if ui.button.checked: pass", "x = text or 'none'"])
def test_what_is_no_object_passes(good):
    assert problems(good) == []


def test_the_stand_in_leaves_an_empty_layout_out_as_the_application_does(app):
    import qt
    import slicer.util

    outer, inner = qt.QWidget(), qt.QVBoxLayout()
    outer.setLayout(inner)
    inner.name = "rows"
    assert inner is not None
    assert not inner
    assert not hasattr(slicer.util.childWidgetVariables(outer), "rows")
    button = qt.QPushButton()
    button.name = "button"
    inner.addWidget(button)
    assert slicer.util.childWidgetVariables(outer).button is button
    assert inner
    assert not qt.QPixmap()  # null
    assert button
