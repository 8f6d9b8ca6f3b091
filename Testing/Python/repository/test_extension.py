"""The extension: CMake installs every file and what it installs works, descriptions agree, icons and sample data exist.

Configured and installed by the real CMake against stand-ins of 3D Slicer's macros (Testing/Host/slicer_cmake).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

pytest_plugins = ["panel_fixtures"]

# What runs only where pip installed it: 3D Slicer's Python has no click, no rich, no nnU-Net.
WHEEL_ONLY = ("usema/cli/", "usema/quality/card/", "usema/training/", "usema_web/")
NOT_IN_SLICER = ("click", "rich", "nnunetv2", "monai", "matplotlib")

STUBS = Path(__file__).resolve().parents[2] / "Host" / "slicer_cmake"


@pytest.fixture(scope="module")
def build(root, tmp_path_factory) -> Path:
    """The configured and installed extension; its own files are under ``installed``."""
    folder = tmp_path_factory.mktemp("extension build")  # a space, as users have in their paths
    configure = ["cmake", "-S", root, "-B", folder, f"-DSlicer_DIR={STUBS}", "-DBUILD_TESTING=ON"]
    for command in (
        [*configure, f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}"],
        ["cmake", "--install", folder],
    ):
        run = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def modules(build) -> Path:
    """Where the application would look for the module."""
    return build / "installed" / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def filesUnder(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.suffix != ".pyc" and path.name != ".DS_Store"}


def test_every_file_that_runs_in_slicer_is_installed_and_no_other(root, modules):
    module = {file for file in filesUnder(root / "USEMASegmentation") if not file.startswith(WHEEL_ONLY)}
    expected = module - {"CMakeLists.txt"} | {"Resources/models.json"}
    for name in ("Models", "Samples"):
        expected |= {f"Resources/{name}/{file}" for file in filesUnder(root / "Resources" / name)}
    found = filesUnder(modules)
    assert found - expected == set(), "to be taken out of USEMASegmentation/CMakeLists.txt"
    assert expected - found == set(), "to be added to USEMASegmentation/CMakeLists.txt"


def test_only_the_module_itself_lies_where_slicer_takes_each_file_for_a_module(modules):
    assert [path.name for path in modules.glob("*.py")] == ["USEMASegmentation.py"]


def test_the_installed_panel_opens_and_finds_its_model_and_sample(root, modules):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import slicer_host, pathlib\n"
        "slicer_host.MODULE = pathlib.Path(sys.argv[2])\n"
        "host = slicer_host.start()\n"
        "panel = slicer_host.load()\n"
        "import usema.resources as resources\n"
        "host.loadVolume(resources.sample_volume())\n"
        "print(resources.resources_folder(), panel.ui.modelSelector.currentData, panel.ui.segmentButton.enabled)\n"
        "panel.cleanup()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "USEMA_RESOURCES")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", program, STUBS.parent, modules / "USEMASegmentation.py"]
    run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=280)
    assert run.stdout.strip().endswith(f"{modules / 'Resources'} hippocampus-mr True"), run.stdout + run.stderr


def test_the_installed_module_segments_without_what_only_pip_installs(modules, tmp_path):
    """Panel and worker, in processes that cannot import what 3D Slicer's Python lacks, to the segments in the scene."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {NOT_IN_SLICER}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib.util, pathlib, slicer_host\n"
        # An editable installation tells where every module of the repository lies.
        "sys.meta_path[:] = [one for one in sys.meta_path if '__editable__' not in getattr(one, '__module__', '')]\n"
        "try: import click\n"
        "except ImportError: pass\n"
        "else: raise SystemExit('nothing is blocked')\n"
        "slicer_host.MODULE = pathlib.Path(sys.argv[2])\n"
        "host = slicer_host.start()\n"
        "panel = slicer_host.load()\n"
        "import usema.resources\n"
        "volume = host.loadVolume(usema.resources.sample_volume())\n"
        "segmentation = panel.logic.segment(volume, 'hippocampus-mr', device='cpu')\n"
        "print(pathlib.Path(usema.__file__).parent, segmentation.GetSegmentation().GetNumberOfSegments(),\n"
        "      *(importlib.util.find_spec(f'usema.{room}') for room in ('cli', 'quality.card', 'training')))\n"
        "panel.cleanup()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "USEMA_RESOURCES"}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", program, STUBS.parent, modules / "USEMASegmentation.py"]
    run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=280)
    assert run.stdout.strip().endswith(f"{modules / 'usema'} 2 None None None"), run.stdout + run.stderr


def test_the_self_test_is_known_to_ctest(build):
    run = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, text=True, timeout=280)
    assert "py_USEMASegmentation" in run.stdout


def test_an_unlisted_file_is_refused_by_the_macro(root, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(Test LANGUAGES NONE)\nfind_package(Slicer REQUIRED)\n"
        "include(${Slicer_USE_FILE})\nslicerMacroBuildScriptedModule(NAME Test SCRIPTS nowhere.py)\n"
    )
    command = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DSlicer_DIR={STUBS}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode != 0
    assert "nonexistent file 'nowhere.py'" in run.stderr


def test_cmake_may_be_that_of_any_supported_slicer(root):
    text = (root / "CMakeLists.txt").read_text("utf-8")
    least, most = re.search(r"VERSION (\d+\.\d+)[.\d]*?\.\.\.(\d+\.\d+)", text).groups()
    assert tuple(map(int, least.split("."))) <= (3, 20)
    assert tuple(map(int, most.split("."))) >= (3, 28)


# Descriptions


def test_the_descriptions_agree(root, build):
    cmake = dict(line.split(" ", 1) for line in (build / "extension.txt").read_text("utf-8").splitlines())
    lines = [line for line in (root / "USEMA.s4ext").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    s4ext = dict(line.split(" ", 1) for line in lines)
    catalogue = json.loads((root / "USEMA.json").read_text("utf-8"))
    for name in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert s4ext[name.lower()] == cmake[name], name
    assert catalogue["category"] == cmake["CATEGORY"]
    assert catalogue["build_dependencies"] == cmake["DEPENDS"].split()
    assert catalogue["scm_url"] == s4ext["scmurl"] == cmake["HOMEPAGE"] + ".git"
    assert catalogue["scm_revision"] == s4ext["scmrevision"]
    assert catalogue["build_subdirectory"] == s4ext["build_subdirectory"]


def test_the_catalogue_entry_has_the_keys_of_its_schema(root):
    """slicer-extension-catalog-entry-schema-v1.0.1: three keys are required, others than these refused."""
    text = (root / "USEMA.json").read_text("utf-8")
    entry = json.loads(text)
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert set(entry) <= {
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"
    }  # fmt: skip
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert "\r" not in text
    assert text.endswith("}\n")


def test_the_pictures_of_the_description_are_in_the_repository(root, build):
    for line in (build / "extension.txt").read_text("utf-8").splitlines():
        for url in re.findall(r"https://raw\.githubusercontent\.com/\S+", line):
            path = root / url.split("/main/")[1]
            assert path.read_bytes().startswith(b"\x89PNG"), path


def pngSize(path: Path) -> tuple[int, int]:
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_the_icons_have_the_sizes_that_slicer_documents(root):
    icons = root / "USEMASegmentation" / "Resources" / "Icons"
    assert pngSize(root / "Resources" / "Icons" / "USEMA.png") == (128, 128)
    assert pngSize(icons / "USEMASegmentation.png") == (128, 128)
    assert ElementTree.parse(icons / "USEMASegmentation.svg").getroot().get("viewBox") == "0 0 128 128"
    assert pngSize(icons / "USEMAHippocampusMR.png") == (260, 280)


@pytest.mark.slow(12)
def test_the_panel_can_be_photographed(root, tmp_path):
    command = [sys.executable, root / "Testing" / "Host" / "photograph_panel.py", tmp_path]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    pictures = sorted(tmp_path.glob("*.png"), key=lambda path: path.stem)
    states = ["available", "cancelled", "downloading", "empty", "models", "running"]
    states += ["shelf", "shelf-all", "shelf-chosen"]
    assert [path.stem for path in pictures] == ["panel", *(f"panel-{state}" for state in states), "question"]
    panels = pictures[:-1]
    assert all(pngSize(path)[0] == pngSize(root / "Resources/Screenshots/panel.png")[0] for path in panels)
    assert len({path.read_bytes() for path in panels}) == len(panels)


# Sample data


def test_the_sample_is_offered_from_its_file_with_the_right_hash(openPanel, monkeypatch):
    openPanel()
    entry, offered = sys.modules["USEMASegmentation"], {}
    sampleData = ModuleType("SampleData")

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**arguments):
            offered.update(arguments)

    sampleData.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", sampleData)
    entry.registerSampleData()
    with urllib.request.urlopen(offered["uris"]) as stream:  # as Sample Data downloads it
        data = stream.read()
    assert offered["checksums"] == f"SHA256:{hashlib.sha256(data).hexdigest()}"
    assert urllib.parse.urlparse(offered["uris"]).path.endswith(offered["fileNames"])
    assert Path(offered["thumbnailFileName"]).is_file()
    # what SampleData.py of Slicer 5.10 to 5.13 takes
    assert set(offered) <= {
        "category", "sampleName", "uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName",
        "loadFileTypes", "loadFiles", "loadFileProperties", "checksums", "loadFileType",
    }  # fmt: skip


def test_the_entry_stays_an_entry(root):
    assert len((root / "USEMASegmentation" / "USEMASegmentation.py").read_text("utf-8").splitlines()) < 150
