"""Puts one mistake at a time into a copy of the repository and tells whether the tests see it.

    python Testing/mutants.py [--only NAME ...] [--unchecked] [--list] [--seconds 300]

``mutants.toml`` has the mistakes. One that lives means that a test is missing: write it, do not take the mistake off
the list. The tests run without a mistake first: where one fails then, it would prove nothing. The copy is a temporary
folder; this repository stays as it is. Exit code 1 if one lived or could not be tried.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10: pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
DIED, LIVED, BROKEN = "died", "LIVED", "NOT TRIED"


@dataclass(frozen=True)
class Mutant:
    """A mistake: ``old``, which stands once in ``file``, becomes ``new``. One of ``tests`` must fail.

    Attributes:
        breaks: what would happen to a user.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]
    breaks: str


def mutants() -> list[Mutant]:
    text = ROOT.joinpath("Testing", "mutants.toml").read_text(encoding="utf-8")
    return [Mutant(**one) for one in tomllib.loads(text)["mutant"]]


def copy_to(folder: Path) -> Path:
    """A copy of what git knows, as it lies here, beside the same data; its folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    copy = folder / "repository"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (folder / "shared").symlink_to(ROOT.parent / "shared")
    return copy


def passes(copy: Path, tests: list[str], seconds: float, *more: str) -> bool | None:
    """Whether the tests pass in the copy; None: they could not be run. What takes too long has been seen as well.

    Prints what failed, so that one can see whether it failed for the reason.

    Args:
        more: options of pytest.
    """
    environment = {**os.environ, "PYTHONPATH": str(copy / "USEMASegmentation"), "PYTHONDONTWRITEBYTECODE": "1"}
    # xdist's processes cost more than they save here.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *more, *tests]
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return False
    if run.returncode > 1:
        print(run.stdout[-2000:], run.stderr[-2000:], file=sys.stderr)
    print("".join(f"    {line}\n" for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), end="")
    return {0: True, 1: False}.get(run.returncode)


def outcome(copy: Path, mutant: Mutant, seconds: float) -> str:
    file = copy / mutant.file
    before = file.read_text(encoding="utf-8")
    if before.count(mutant.old) != 1:
        return BROKEN
    file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return {True: LIVED, False: DIED, None: BROKEN}[passes(copy, mutant.tests, seconds, "-x")]
    finally:
        file.write_text(before, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--list", action="store_true", help="names and what they break")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a mistake first")
    parser.add_argument("--seconds", type=float, default=300, help="the longest that the tests of one may take")
    options = parser.parse_args()
    known = mutants()
    unknown = set(options.only or ()) - {one.name for one in known}
    if unknown:
        parser.error(f"there is no mutant {sorted(unknown)[0]!r}; --list shows all")
    chosen = [one for one in known if not options.only or one.name in options.only]
    if options.list:
        print("\n".join(f"{one.name}: {one.breaks}" for one in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="usema-mutants-") as folder:
        copy, found = copy_to(Path(folder)), []
        tests = list(dict.fromkeys(test for one in chosen for test in one.tests))
        if not options.unchecked and not passes(copy, tests, 10 * options.seconds):
            print("The tests do not pass as they are.")
            return 1
        for number, one in enumerate(chosen, 1):
            started = time.monotonic()
            found.append(outcome(copy, one, options.seconds))
            took = f"{time.monotonic() - started:.0f} s"
            print(f"{number:2} of {len(chosen)}  {found[-1]:9}  {one.name} ({took})", flush=True)
    print(f"{found.count(DIED)} died, {found.count(LIVED)} lived, {found.count(BROKEN)} could not be tried")
    return 0 if found.count(DIED) == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
