"""Writes the lists of files that the extension and the wheel carry: python Testing/list_module_files.py

CMake and setuptools install what is listed and nothing else; tests compare both lists with the tree. The wheel carries
all; the extension leaves out what the Python of 3D Slicer cannot run: it has neither click and rich nor nnU-Net.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "USEMASegmentation"
NO_RESOURCES = (".py", ".txt")
WHEEL_ONLY = ("usema/cli/", "usema/quality/card/", "usema/training/", "usema_web/")
WHEEL = ("usema/", "usema_web/", "USEMASegmentationLib/")  # packages of the wheel


def module_files() -> list[str]:
    """Every file of the module that git knows or would take, from its own folder."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    listed = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted({name for name in listed if name and (MODULE / name).is_file()})


def rewrite(path: Path, pattern: str, lines: list[str]) -> None:
    """Replace what the pattern's second group holds by these lines."""
    text = path.read_text("utf-8")
    changed, count = re.subn(pattern, lambda found: found[1] + "".join(lines) + found[3], text, flags=re.DOTALL)
    assert count == 1, f"{path}: {pattern}"
    path.write_text(changed, "utf-8")


def main() -> None:
    files = module_files()
    scripts = [name for name in files if name.endswith(".py") and "/" in name]
    resources = [name for name in files if not name.endswith(NO_RESOURCES)]
    in_slicer = [name for name in scripts if not name.startswith(WHEEL_ONLY)]
    resources = [name for name in resources if not name.startswith(WHEEL_ONLY)]
    cmake = MODULE / "CMakeLists.txt"
    own = r"(set\(MODULE_PYTHON_SCRIPTS\n  \$\{MODULE_NAME\}\.py\n)(.*?)(  \))"
    rewrite(cmake, own, [f"  {name}\n" for name in in_slicer])
    rewrite(cmake, r"(set\(MODULE_PYTHON_RESOURCES\n)(.*?)(  \))", [f"  {name}\n" for name in resources])
    packages = sorted({name.rpartition("/")[0].replace("/", ".") for name in scripts if name.startswith(WHEEL)})
    lines = [f'    "{name}",\n' for name in [*packages, "usema_resources"]]
    rewrite(ROOT / "pyproject.toml", r"(\npackages = \[\n)(.*?)(\]\n)", lines)


if __name__ == "__main__":
    main()
