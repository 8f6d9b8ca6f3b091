"""Lets nnU-Net's own command line find USEMA's trainers: `nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerUSEMA`.

nnU-Net v2 looks for trainer classes among the files of its own package (its variable nnUNet_extTrainer exists only in
recent releases). So one file is put there that imports ours; it holds no code. Run `python -m usema.training.plugin`.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, MissingDependencyError, OutputError

LINK = """# Put here by USEMA (python -m usema.training.plugin).
from usema.training.averaged import *  # noqa: F403
from usema.training.further_2d import *  # noqa: F403
from usema.training.neighbours import *  # noqa: F403
from usema.training.robust import *  # noqa: F403
from usema.training.robust_2d import *  # noqa: F403
from usema.training.trainers import *  # noqa: F403
"""


def link_trainers(name: str = "nnUNetTrainerUSEMA", text: str = LINK) -> Path:
    """Make trainers known to the installed nnU-Net: USEMA's, if nothing else is said. Safe to repeat.

    Args:
        name: of the file, without its ending.
        text: of the file, which imports them.

    Returns:
        the file that does it.

    Raises:
        MissingDependencyError: nnU-Net is not installed.
        OutputError: nnU-Net's folder is not writable.
    """
    spec = find_spec("nnunetv2")
    if spec is None:
        raise MissingDependencyError("nnU-Net is not installed.", "Install it with: pip install 'usema[train]'")
    link = Path(spec.origin).parent / "training" / "nnUNetTrainer" / "variants" / f"{name}.py"
    if not link.is_file() or link.read_text(encoding="utf-8") != text:
        try:
            link.write_text(text, encoding="utf-8")
        except OSError as error:
            hint = "Use a virtual environment of your own."
            raise OutputError(f"nnU-Net's folder cannot be written: {link} ({error.strerror}).", hint) from None
    return link


def check_trainer(name: str) -> None:
    """Refuse a trainer that the installed nnU-Net does not know, with USEMA's linked, before it plans for minutes.

    Raises:
        InputError: names USEMA's.
    """
    theirs = Path(find_spec("nnunetv2").origin).parent / "training" / "nnUNetTrainer"
    ours = _classes(Path(__file__).parent)
    if name not in ours | _classes(theirs) and not _found_by_nnunet(name, theirs):
        known = ", ".join(sorted(one for one in ours if one.startswith("nnUNetTrainer")))
        raise InputError(f"There is no trainer '{name}'.", f"Those of USEMA are {known}.")


def _found_by_nnunet(name: str, folder: Path) -> bool:
    """Whether nnU-Net's own search finds it, which imports what lies there: a file may take trainers from elsewhere."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    return recursive_find_python_class(str(folder), name, "nnunetv2.training.nnUNetTrainer") is not None


def _classes(folder: Path) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"^class (\w+)\(", text, re.MULTILINE)}


if __name__ == "__main__":
    print(f"nnU-Net finds USEMA's trainers through {link_trainers()}")
