"""Makes ``slicer_api_used.json``: of what a running 3D Slicer offers, the part that this project uses.

    python Testing/Host/make_slicer_api_used.py slicer-api.json

``slicer-api.json`` was written inside the application: each qt, ctk and qMRML class with its properties, signals and
slots, and the signatures of ``slicer.util``. Run this again when the panel uses a class or function for the first
time; a name that Slicer lacks is refused here, and by Testing/Python/panel/test_ui_lint.py.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HOST = Path(__file__).parent
MODULE = HOST.parents[1] / "USEMASegmentation"
FORMS = sorted((MODULE / "Resources/UI").glob("*.ui"))
SOURCES = [MODULE / "USEMASegmentation.py", *sorted((MODULE / "USEMASegmentationLib").rglob("*.py"))]
# What the stand-in and the base classes of a module make, beside what the panel itself names.
ALWAYS = ["QWidget", "qMRMLWidget", "QVBoxLayout"]
LISTS = ("slicer.util", "slicer.app", "slicer.packaging")


def namesUsed(sources=SOURCES) -> set[str]:
    """Every ``qt.X``, ``ctk.X``, ``slicer.X`` and ``slicer.x.X`` in the sources."""
    names = set()
    for node in [node for path in sources for node in ast.walk(ast.parse(path.read_text("utf-8")))]:
        if isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{one.name}" for one in node.names}
    return {name for name in names if re.fullmatch(r"(qt|ctk|slicer)(\.\w+){1,2}", name)}


def classesUsed() -> set[str]:
    elements = [element for form in FORMS for element in ElementTree.parse(form).iter()]
    inForm = {element.get("class") for element in elements if element.tag in ("widget", "layout")}
    inCode = {match[1] for name in namesUsed() if (match := re.match(r"(?:qt|ctk|slicer)\.((?:Q|q|ctk)\w+)", name))}
    return inForm | inCode | {*ALWAYS}


def described(entry: dict) -> dict:
    """Properties, functions and signals of a class; its enumerators, which begin with a capital, are left out."""
    slots = [signature.split("(")[0] for signature in entry.get("slots", []) + entry.get("signals", [])]
    members = {*entry.get("properties", {}), *slots, *entry.get("other_members", []), *entry.get("members", [])}
    return {
        "signals": entry.get("signals", []),
        "properties": sorted(entry.get("properties", {})),
        "members": sorted(name for name in members if re.match(r"[a-z]", name)),
    }


def main(path: str) -> None:
    api = json.loads(Path(path).read_text("utf-8"))
    known = {**api["qt"], **api["ctk"], **api["slicer"]}
    used = {"about": api["_about"], "classes": {n: described(known[n]) for n in sorted(classesUsed()) if n in known}}
    for group in LISTS:
        names = sorted(name.removeprefix(f"{group}.") for name in namesUsed() if name.startswith(f"{group}."))
        used[group] = {name: api[group][name] if isinstance(api[group], dict) else "" for name in names}
    text = json.dumps(used, indent=1)
    # one line a list, so that a difference can be read
    text = re.sub(r"\[[^\]]*\]", lambda found: " ".join(found[0].split()), text)
    (HOST / "slicer_api_used.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
