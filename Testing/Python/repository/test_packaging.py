"""What a wheel carries is what the repository holds."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter

import pytest
import usema

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")


@pytest.fixture
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def carried_files(root) -> list[str]:
    """Every file of the engine, the browser's front end, and the logic that it shares with the panel, as usema/..."""
    module = root / "USEMASegmentation"
    folders = [module / name for name in ("usema", "usema_web", "USEMASegmentationLib")]
    files = [path.relative_to(module) for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path.as_posix() for path in files if path.suffix != ".pyc" and "__pycache__" not in path.parts]


def test_every_package_is_listed_and_no_other(project, carried_files):
    folders = {file.rpartition("/")[0].replace("/", ".") for file in carried_files if file.endswith(".py")}
    assert set(project["tool"]["setuptools"]["packages"]) == folders | {"usema_resources"}
    for folder in folders:
        assert folder.replace(".", "/") + "/__init__.py" in carried_files


def test_every_other_file_of_the_engine_travels_with_its_package(project, carried_files):
    patterns = project["tool"]["setuptools"]["package-data"]
    packages = sorted(project["tool"]["setuptools"]["packages"], key=len, reverse=True)
    data = [file for file in carried_files if not file.endswith(".py")]
    assert "usema/models/bundle.schema.json" in data
    for file in data:
        package = next(name for name in packages if file.startswith(name.replace(".", "/") + "/"))
        inside = file.removeprefix(package.replace(".", "/") + "/")
        assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns.get(package, [])), file


def test_every_listed_folder_is_where_the_list_says(project, root):
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        assert (root / folder).is_dir(), package


def test_the_version_stands_in_one_place(project):
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "usema.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", usema.__version__)


def test_the_command_leads_to_the_command_line(project):
    assert project["project"]["scripts"] == {"usema": "usema.cli:main"}


def test_no_two_files_of_tests_have_one_name(root):
    """pytest imports them by it, and would leave out the second."""
    names = Counter(path.name for path in (root / "Testing/Python").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
