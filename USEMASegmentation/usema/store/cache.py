"""Where downloaded models lie: a folder of the user's, outside the extension's. Standard library only at file scope.

    <folder>/<name>/<version>/model.json, weights.safetensors    one installed bundle
    <folder>/.parts/                                             downloads under way, and what was moved aside
    <folder>/.sources/                                           files of other publishers that several models need
    <folder>/.indexes/                                           the last good copy of each index
    <folder>/.installed/<name>/<version>                         SHA-256 of model.json as it was installed, and whence

Only whole, verified bundles are moved to ``<name>/<version>``, so an older version stays usable until then.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingDependencyError, NoPlaceError, OutputError, UsemaError
from ..files import replace_file, user_place
from ..models.bundle import METADATA_FILE, Bundle, read_bundle
from . import versions

ENVIRONMENT_VARIABLE = "USEMA_MODELS"
FILE = "file"  # the source of what a user imported
UNREADABLE = (
    OSError,
    MissingDependencyError,
)  # what needs no cache must run where it may not be looked at, or is nowhere


@dataclass(frozen=True)
class Installed:
    """A model in the cache.

    Attributes:
        name: of the model.
        version: of the model.
        path: the bundle's folder.
        size: bytes on disk.
        bundle: its metadata; None if they cannot be read.
        problem: why not; else empty.
    """

    name: str
    version: str
    path: Path
    size: int
    bundle: Bundle | None
    problem: str = ""


def folder() -> Path:
    """The cache: the folder that the environment variable ``USEMA_MODELS`` names, else one beside other programs' data.

    Raises:
        MissingDependencyError: platformdirs, which knows where that is, is not installed.
        NoPlaceError: this user has no home.
    """
    return user_place(ENVIRONMENT_VARIABLE, "data", "Models", title="Downloaded models", what="folder")


def place(name: str, version: str) -> Path:
    """Where a version of a model is installed, or would be."""
    return folder() / name / version


def installed_at(path: Path) -> tuple[str, str] | None:
    """(name, version) of the model whose folder in the cache that is; None: it lies elsewhere."""
    try:
        parts = path.resolve().relative_to(folder().resolve()).parts
    except (ValueError, *UNREADABLE):
        return None
    return (parts[0], parts[1]) if len(parts) == 2 else None


def parts() -> Path:
    """Where downloads under way lie; on the same disk as the models, so that moving is at once."""
    return folder() / ".parts"


def sources() -> Path:
    """Where the files of other publishers lie that models are made from."""
    return folder() / ".sources"


def installed_versions(name: str) -> list[str]:
    """The versions of a model that are installed, newest first. Reads no bundle: the panel asks after every click."""
    if name.startswith(".") or Path(name).name != name:  # a path, not a name
        return []
    try:
        found = [path.parent.name for path in (folder() / name).glob(f"*/{METADATA_FILE}")]
    except UNREADABLE:
        return []
    return sorted(found, key=versions.key, reverse=True)


def installed() -> list[Installed]:
    """All that is installed, by name, newest version first. Nothing, where there is no cache, or none to be read."""
    try:
        names = sorted({path.parents[1].name for path in folder().glob(f"*/*/{METADATA_FILE}")})
    except UNREADABLE:
        return []
    return [_look_at(place(name, version)) for name in names for version in installed_versions(name)]


def problem() -> str:
    """Why what is installed cannot be looked at; empty, if it can."""
    try:
        next(os.scandir(folder()), None)
    except FileNotFoundError:
        pass
    except NoPlaceError as error:
        return str(error)
    except MissingDependencyError:
        pass  # nothing can have been installed yet
    except OSError as error:
        return f"The folder of downloaded models, {folder()}, cannot be read: {error.strerror or error}."
    return ""


def note(bundle: Bundle, source: str) -> None:
    """Keeps of a model that was just installed the hash of ``model.json``, so that a change is noticed, and its source.

    Args:
        bundle: as it was installed.
        source: what its publisher or index is called; FILE: a file or folder of the user's.

    Where it cannot be kept, what was noted of an earlier one is gone all the same: it would be wrong now.
    """
    metadata = bundle.metadata
    place = _note(metadata.name, metadata.version)
    with suppress(OSError):
        place.unlink(missing_ok=True)
        replace_file(place, f"{bundle.metadata_sha256}  {METADATA_FILE}\n{' '.join(source.split())}\n".encode())


def noted(name: str, version: str) -> tuple[str, str]:
    """(hash, source) that ``note`` kept; each empty, where it was not: the source was not kept in earlier days."""
    try:
        lines = _note(name, version).read_text(encoding="utf-8").splitlines()
    except (ValueError, *UNREADABLE):
        return "", ""
    sha256, source = [*lines, "", ""][:2]
    return sha256.partition(" ")[0], source


def _note(name: str, version: str) -> Path:
    return folder() / ".installed" / name / version


def remove(model: Installed) -> None:
    """Deletes an installed model. It is moved aside first, so it is there whole or not at all.

    Raises:
        OutputError: it is in use or may not be deleted.
    """
    aside = parts() / f"removed-{uuid.uuid4().hex}"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        model.path.rename(aside)
        shutil.rmtree(aside)
        _note(model.name, model.version).unlink(missing_ok=True)
        if not any(model.path.parent.iterdir()):
            model.path.parent.rmdir()
    except OSError as error:
        raise OutputError(
            f"{model.path} cannot be deleted: {error.strerror or error}.", "Close what uses the model, then try again."
        ) from error


def left_parts() -> list[tuple[Path, int]]:
    """What interrupted downloads left, to be resumed or deleted: (path, bytes)."""
    try:
        return [(path, size_of(path)) for path in sorted(parts().glob("*")) if path.suffix != ".lock"]
    except UNREADABLE:
        return []


def remove_parts(paths: Iterable[Path]) -> None:
    """Deletes what interrupted downloads left.

    Raises:
        OutputError: something is in use or may not be deleted, or a download goes on at this moment.
    """
    for lock in parts().glob("*.lock"):
        if _is_held(lock):
            raise OutputError(f"{lock.stem} is being installed at this moment.", "Try again when that is done.")
    for path in paths:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be deleted: {error.strerror or error}.") from error


def _is_held(lock: Path) -> bool:
    """Whether another process installs what the lock is for."""
    try:
        import filelock
    except ImportError:  # nothing is installed without it
        return False
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):  # may not be opened, or knows no locks
        return False


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; 0 if there is nothing, or nothing to be read."""
    try:
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError:
        return 0


def _look_at(path: Path) -> Installed:
    name, version, size = path.parent.name, path.name, size_of(path)
    try:
        bundle = read_bundle(path)
    except UsemaError as error:
        return Installed(name, version, path, size, None, str(error))
    return Installed(name, version, path, size, bundle)
