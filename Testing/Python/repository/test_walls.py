"""The walls of the house, held by the syntax tree: who may import whom, and what nobody may call."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest

ENGINE = "USEMASegmentation/usema/"
PANEL = "USEMASegmentation/USEMASegmentationLib/"
ENTRY = "USEMASegmentation/USEMASegmentation.py"
Sources = dict[str, str]  # path from the repository's root -> source text


# Reading a source


@dataclass(frozen=True)
class Import:
    module: str  # absolute and dotted; "from a import b" counts as a and as a.b
    file_scope: bool
    line: int


def module_name(path: str) -> str:
    """USEMASegmentation/usema/sema/__init__.py -> usema.sema"""
    return path.removeprefix("USEMASegmentation/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache  # the rules look at each file again and again
def imports(path: str, source: str) -> tuple[Import, ...]:
    """Every import of a file, in whatever form, save those for type checkers only."""
    package = module_name(path).split(".")
    if not path.endswith("/__init__.py"):
        package = package[:-1]

    def visit(node: ast.AST, file_scope: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, file_scope, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(module, file_scope, node.lineno)
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", file_scope, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield Import(str(argument.value), file_scope, node.lineno)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, file_scope and not inside)

    return tuple(visit(ast.parse(source), True))


def calls(path: str, source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the name of the function spelt out: after ``import numpy as np``, np.load is numpy.load."""
    tree = ast.parse(source)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            yield ".".join([names.get(first, first), *rest]), node


# Rules: each takes all sources and says where they break it


def under(*starts: str) -> Callable[[str], bool]:
    return lambda path: path.startswith(starts)


def never_imports(where: Callable[[str], bool], *modules: str, file_scope_only: bool = False):
    def rule(sources: Sources) -> Iterator[str]:
        for path, source in sources.items():
            for found in imports(path, source) if where(path) else ():
                forbidden = any(f"{found.module}.".startswith(f"{module}.") for module in modules)
                if forbidden and (found.file_scope or not file_scope_only):
                    yield f"{path}:{found.line} imports {found.module}"

    return rule


def reached(heads: Iterable[str], sources: Sources) -> Iterator[tuple[str, Import]]:
    """What is imported when these modules of usema are: by them and by all of usema that they import at file scope."""
    modules = {module_name(path): path for path in sources if path.startswith(ENGINE)}
    waiting, seen = list(heads), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        for found in imports(modules[name], sources[modules[name]]):
            if found.file_scope:
                waiting += [found.module, found.module.rpartition(".")[0]]  # a package is imported before its modules
                yield modules[name], found


STANDARD_LIBRARY_ONLY = (
    "errors",
    "files",
    "resources",
    "bundle",
    "models.metadata",
    "models.bundle",
    "models.bundle_writing",
    "volumes.segments",
    "inference.memory",
    "serving.client",
    "store",
)
WITHOUT_TORCH = ("volumes.volume", "volumes.writing", "quality.evaluation")

# room -> the rooms below it, which it may know. What lies in no room (errors, files, ...) may be known by all.
# bundle.py is no room but the door that published scripts use, and __main__.py that of `python -m usema`.
BELOW = {
    "__main__.py": {"cli"},
    "bundle.py": {"models"},
    "sema": set(),
    "scan": set(),
    "networks": {"sema", "scan"},
    "volumes": set(),
    "models": set(),
    "measure": set(),
    "converters": {"inference", "networks", "models"},
    "store": {"models", "converters"},
    "inference": {"networks", "sema", "scan", "models", "volumes", "measure"},
    "quality": {"inference", "models", "volumes"},
    "adaptation": {"inference", "networks", "models", "volumes"},
    "serving": {"adaptation", "inference", "store", "converters", "models", "volumes", "sema"},
    "training": {"networks", "sema", "scan", "inference", "models", "volumes", "quality", "measure"},
    "cli": {
        "training",
        "quality",
        "adaptation",
        "serving",
        "store",
        "converters",
        "inference",
        "measure",
        "models",
        "volumes",
        "networks",
        "sema",
    },
}


def standard_library_only(sources: Sources) -> Iterator[str]:
    heads = ["usema", *(f"usema.{name}" for name in STANDARD_LIBRARY_ONLY)]
    heads += [module_name(path) for path in sources if path.startswith(ENGINE + "store/")]
    for path, found in reached(heads, sources):
        if found.module.split(".")[0] not in {"usema", *sys.stdlib_module_names}:
            yield f"{path}:{found.line} imports {found.module} at file scope"


def arrows_go_down(sources: Sources) -> Iterator[str]:
    """A room knows itself and the rooms below it, also inside functions."""
    for path, source in sources.items():
        room = path.removeprefix(ENGINE).partition("/")[0] if path.startswith(ENGINE) else ""
        for found in imports(path, source) if room else ():
            package, _, rest = found.module.partition(".")
            other = rest.partition(".")[0]
            if package == "usema" and other in BELOW and other != room and other not in BELOW.get(room, ()):
                yield f"{path}:{found.line} imports {found.module}"


def loads_torch_late(sources: Sources) -> Iterator[str]:
    for path, found in reached([f"usema.{name}" for name in WITHOUT_TORCH], sources):
        if found.module.split(".")[0] in {"torch", "monai", "nnunetv2"}:
            yield f"{path}:{found.line} imports {found.module} at file scope"


def panel_runs_without_torch(sources: Sources) -> Iterator[str]:
    """Neither by itself nor through the engine."""
    for path, source in sources.items():
        for first in imports(path, source) if path.startswith((PANEL, ENTRY)) else ():
            chain = [(path, first), *reached([first.module], sources)]
            for place, found in chain:
                if found.module.split(".")[0] == "torch":
                    yield f"{path}:{first.line} imports {first.module}; {place}:{found.line} imports {found.module}"


PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
UNPICKLING = {"torch.load", "torch.serialization.load", "pandas.read_pickle"}


def never_unpickles(sources: Sources) -> Iterator[str]:
    yield from never_imports(under(ENGINE), *PICKLES)(sources)
    for path, source in sources.items():
        for name, call in calls(path, source) if path.startswith(ENGINE) else ():
            allowed = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
            if name in UNPICKLING or any(ast.unparse(value) != "False" for value in allowed):
                yield f"{path}:{call.lineno} calls {ast.unparse(call)}"


def short_files(sources: Sources) -> Iterator[str]:
    for path, source in sources.items():
        lines = len(source.splitlines())
        if lines > 400:
            yield f"{path} has {lines} lines"


LOW = under(ENGINE + "networks/", ENGINE + "sema/", ENGINE + "scan/")
TRAINERS = under(ENGINE + "training/", ENGINE + "cli/")

RULES = {
    "the engine never sees the application": never_imports(under(ENGINE), "slicer", "qt", "ctk", "vtk", "vtkmodules"),
    "the panel never imports torch": panel_runs_without_torch,
    "only the panel's own room knows Qt": never_imports(
        lambda path: path.startswith("USEMASegmentation/") and not path.startswith(PANEL + "Panel/"),
        "qt", "ctk", "PythonQt",
    ),
    "a room knows only the rooms below it": arrows_go_down,
    "the browser's flow knows no server": never_imports(
        under("USEMASegmentation/usema_web/flow.py"), "trame", "trame_slicer", "trame_server", "aiohttp"
    ),
    "only the server knows trame": never_imports(
        lambda path: path.startswith("USEMASegmentation/") and not path.startswith("USEMASegmentation/usema_web/"),
        "trame", "trame_slicer", "trame_server", "usema_web",
    ),
    "networks never know volumes": never_imports(
        LOW, "SimpleITK", *(f"usema.{room}" for room in BELOW if room not in ("networks", "sema", "scan"))
    ),
    "attention never knows networks": never_imports(under(ENGINE + "sema/"), "usema.networks"),
    "the scan never knows networks": never_imports(under(ENGINE + "scan/"), "usema.networks"),
    "training is used by the command line alone": never_imports(
        lambda path: path.startswith("USEMASegmentation/") and not TRAINERS(path), "usema.training"
    ),
    "the command line loads training when asked": never_imports(
        under(ENGINE + "cli/"), "usema.training", file_scope_only=True
    ),
    "what opens the panel needs the standard library alone": standard_library_only,
    "torch is loaded when it is needed": loads_torch_late,
    "nothing is unpickled": never_unpickles,
    "no file is longer than 400 lines": short_files,
}  # fmt: skip

BREACHES = [
    (
        "the engine never sees the application",
        {"usema/a.py": "def f():\n    from vtkmodules.util import numpy_support"},
    ),
    ("the engine never sees the application", {"usema/a.py": "import importlib\nimportlib.import_module('slicer')"}),
    ("the panel never imports torch", {"USEMASegmentationLib/Logic.py": "def f():\n    import torch.nn as nn"}),
    ("the panel never imports torch", {"USEMASegmentation.py": "import usema.a", "usema/a.py": "import torch"}),
    ("only the panel's own room knows Qt", {"USEMASegmentationLib/Logic.py": "import qt"}),
    ("only the panel's own room knows Qt", {"USEMASegmentationLib/Scene/a.py": "def f():\n    import ctk"}),
    ("the browser's flow knows no server", {"usema_web/flow.py": "from trame.app import TrameApp"}),
    ("only the server knows trame", {"usema/cli/web.py": "from usema_web.application import Application"}),
    ("a room knows only the rooms below it", {"usema/store/a.py": "from ..inference.predictor import Predictor"}),
    ("a room knows only the rooms below it", {"usema/errors.py": "def f():\n    from .models import bundle"}),
    ("a room knows only the rooms below it", {"usema/bundle.py": "from .store import library"}),
    ("networks never know volumes", {"usema/networks/a.py": "from ..volumes.volume import Volume"}),
    ("networks never know volumes", {"usema/sema/__init__.py": "from .. import inference"}),
    ("networks never know volumes", {"usema/sema/aot/a.py": "import SimpleITK as sitk"}),
    ("networks never know volumes", {"usema/scan/a.py": "from usema.inference.predictor import Predictor"}),
    ("attention never knows networks", {"usema/sema/a.py": "from usema import networks"}),
    ("the scan never knows networks", {"usema/scan/a.py": "from ..networks.blocks import DepthwiseConv"}),
    (
        "training is used by the command line alone",
        {"usema/inference/predictor.py": "def f():\n    import usema.training"},
    ),
    ("the command line loads training when asked", {"usema/cli/export.py": "from ..training import export"}),
    ("what opens the panel needs the standard library alone", {"usema/models/bundle.py": "import torch"}),
    ("what opens the panel needs the standard library alone", {"usema/store/a.py": "from requests import get"}),
    (
        "what opens the panel needs the standard library alone",
        {"usema/serving/client.py": "try:\n    import numpy\nexcept E: 0"},
    ),
    (
        "what opens the panel needs the standard library alone",
        {"usema/errors.py": "from . import helper", "usema/helper.py": "import scipy.ndimage"},
    ),
    (
        "torch is loaded when it is needed",
        {"usema/volumes/volume.py": "from . import grid", "usema/volumes/grid.py": "import torch"},
    ),
    ("nothing is unpickled", {"usema/a.py": "import torch as t\nt.load('x')"}),
    ("nothing is unpickled", {"usema/a.py": "from torch import load\nload('x')"}),
    ("nothing is unpickled", {"usema/a.py": "import numpy as np\nnp.load('x', allow_pickle=flag)"}),
    ("nothing is unpickled", {"usema/a.py": "def f():\n    import pickle"}),
    ("no file is longer than 400 lines", {"usema/a.py": "\n" * 401}),
]

KEPT = {
    "usema/models/bundle.py": "import typing\nif typing.TYPE_CHECKING:\n    import torch\ndef f():\n    import torch",
    "usema/bundle.py": "from .models.bundle import read_bundle",
    "usema/cli/export.py": "def f():\n    from ..training import export",
    "usema/networks/a.py": "import torch\nfrom ..errors import BundleError\nfrom ..sema import sema_attention",
    "usema/a.py": "import safetensors.torch as s, numpy\ns.load(b'')\nnumpy.load('x', allow_pickle=False)",
    "USEMASegmentationLib/Panel/Widget.py": "import qt, ctk, slicer, usema.models.bundle",
    "usema_web/application.py": "from trame.app import TrameApp",
    "USEMASegmentationLib/Tests.py": "import pickle, slicer\n" + "\n" * 399,
}


def in_the_repository(sources: Sources) -> Sources:
    return {f"USEMASegmentation/{path}": source for path, source in sources.items()}


@pytest.fixture(scope="module")
def sources(root) -> Sources:
    """Every Python file of the repository."""
    paths = [path.relative_to(root) for path in root.rglob("*.py")]
    paths = [path for path in paths if not any(re.match(r"\.|build$|dist$|venv$", part) for part in path.parts)]
    return {path.as_posix(): (root / path).read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_the_wall(rule, sources):
    assert ENGINE + "models/bundle.py" in sources
    assert list(RULES[rule](sources)) == []


@pytest.mark.parametrize(("rule", "breach"), BREACHES)
def test_a_breach_is_seen(rule, breach):
    assert list(RULES[rule](in_the_repository(breach))), "the rule let it pass"


def test_every_wall_has_a_breach_to_be_tested_with():
    assert {rule for rule, _ in BREACHES} == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_allowed_passes(rule):
    assert list(RULES[rule](in_the_repository(KEPT))) == []


def test_what_opens_the_panel_is_imported_where_nothing_is_installed(root):
    present = [f"usema.{name}" for name in STANDARD_LIBRARY_ONLY]
    program = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1])\n"
        "assert not any(importlib.util.find_spec(name) for name in ('torch', 'numpy', 'SimpleITK'))\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
    )
    # -S: without site-packages; -E: without PYTHONPATH
    command = [sys.executable, "-S", "-E", "-c", program, root / "USEMASegmentation", *present]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
