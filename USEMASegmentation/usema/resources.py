"""Where the project's Resources folder lies: bundled models and a sample volume. Standard library only.

``Resources/Models/<name>/`` holds one bundle each, ``Resources/Samples/`` the sample volume with its licence.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

ENVIRONMENT_VARIABLE = "USEMA_RESOURCES"
_VOLUME_ENDINGS = (".nii.gz", ".nrrd", ".mha")


def resources_folder() -> Path:
    """The folder that holds ``Models`` and ``Samples``.

    Looked for, in this order: the folder named by the environment variable ``USEMA_RESOURCES``; ``Resources`` at the
    top of a checkout; ``Resources`` beside the module in an installed extension; the package ``usema_resources`` that
    a wheel carries.

    Raises:
        InputError: it is in none of these places.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise InputError(
                f"{ENVIRONMENT_VARIABLE} names {named}, which is not a folder.", "Correct it, or unset it."
            )
        return Path(named)

    places = []
    for place in _places():
        # The module has a Resources folder of its own, with icons and forms, so the name alone does not tell.
        if (place / "Models").is_dir() or (place / "Samples").is_dir():
            return place
        places.append(place)
    raise InputError(
        f"No folder with Models or Samples among {', '.join(map(str, places))}.",
        f"Install USEMA again, or name the folder in {ENVIRONMENT_VARIABLE}.",
    )


def _places() -> Iterator[Path]:
    module_folder = Path(__file__).resolve().parents[1]
    yield module_folder.parent / "Resources"
    yield module_folder / "Resources"
    package = importlib.util.find_spec("usema_resources")  # last: it looks through all that is installed
    yield from map(Path, (package and package.submodule_search_locations) or ())


def bundled_models() -> dict[str, Path]:
    """The models that come with USEMA: name of the model's folder -> the folder, sorted by name."""
    try:
        folder = resources_folder() / "Models"
    except InputError:
        return {}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/model.json"))}


def sample_volume() -> Path:
    """The sample volume that comes with USEMA.

    Raises:
        InputError: there is none.
    """
    folder = resources_folder() / "Samples"
    for path in sorted(folder.glob("*")):
        if path.name.endswith(_VOLUME_ENDINGS):
            return path
    raise InputError(f"There is no sample volume in {folder}.", "Install USEMA again, or use a volume of your own.")
