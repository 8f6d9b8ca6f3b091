"""Says where this repository lies, in every file that names its address: python Testing/set_repository_address.py URL

For whoever publishes it under an address of their own, such as https://github.com/OWNER/NAME. CMakeLists.txt,
USEMA.json and USEMA.s4ext tell 3D Slicer's extension index; Resources/models.json tells where the models' files are,
and models.html shows the same. The files of a release are looked for in URL/releases/download/NAME-VERSION/; a model
that has no release yet lies in Resources/Releases, and may leave it when it has.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("CMakeLists.txt", "USEMA.json", "USEMA.s4ext", "Resources/models.json", "Resources/models.html")
_ADDRESS = r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)"


def address_of(root: Path) -> str:
    """The address that the repository has now."""
    text = (root / "CMakeLists.txt").read_text("utf-8")
    return re.search(rf'EXTENSION_HOMEPAGE "({_ADDRESS})"', text)[1]


def set_address(root: Path, address: str) -> list[str]:
    """Writes a new address into the files; returns the names of those that have changed.

    Raises:
        ValueError: it is no address of a repository on GitHub, which the addresses of raw files are made for.
    """
    address = address.removesuffix("/").removesuffix(".git")
    new, old = re.fullmatch(_ADDRESS, address), re.fullmatch(_ADDRESS, address_of(root))
    if new is None:
        raise ValueError(f"{address!r} is not of the form https://github.com/OWNER/NAME.")
    here = re.compile(rf"(github\.com|raw\.githubusercontent\.com)/{re.escape(old[1])}/{re.escape(old[2])}(?![\w-])")
    changed = []
    for name in FILES:
        before = (root / name).read_bytes().decode("utf-8")
        after = here.sub(rf"\1/{new[1]}/{new[2]}", before)
        if after != before:
            (root / name).write_bytes(after.encode("utf-8"))
            changed.append(name)
    return changed


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"{__doc__}\nIt is {address_of(ROOT)} now.")
    try:
        print("\n".join(set_address(ROOT, sys.argv[1])) or "It is that already.")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
