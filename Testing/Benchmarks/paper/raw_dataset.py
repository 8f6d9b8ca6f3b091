"""From a download to a data set in nnU-Net's raw layout, and what the conversions share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from usema.errors import InputError, MissingDependencyError, OutputError

from .recipe import Recipe


def prepare(recipe: Recipe, download: Path, output: Path) -> Path:
    """Convert a download. The data set's folder gets its name when it is complete.

    Args:
        download: the folder in which the downloaded archives were unpacked.
        output: folder for raw data sets; made if need be.

    Returns:
        the data set's folder, `output`/DatasetNNN_Name.

    Raises:
        InputError: the folder does not look like that download; the message names what is missing.
        OutputError: the data set exists already.
        MissingDependencyError: scikit-image is needed and is not installed.
    """
    if not download.is_dir():
        raise InputError(f"{download} is not a folder.", f"Download {recipe.title} from {recipe.pages[0]}")
    dataset = output / recipe.dataset
    if dataset.exists():
        raise OutputError(f"{dataset} exists already.", "Choose another --output, or remove it.")
    partial = output / f".{recipe.dataset}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        recipe.convert(download, partial)
        _describe(recipe, partial)
        partial.rename(dataset)
    except InputError as error:
        expected = error.hint or f"Expected: {recipe.layout} Download it from {recipe.pages[0]}"
        raise InputError(error.message, expected) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return dataset


def count_cases(dataset: Path, part: str = "Tr") -> int:
    """Cases with labels in a part of a raw data set, "Tr" or "Ts"."""
    return len(list((dataset / f"labels{part}").glob("*")))


def find_folder(download: Path, candidates: Iterable[str], parts: tuple[str, ...]) -> Path | None:
    """The first of the candidates, relative to the download, that has all the parts as folders."""
    folders = (download / candidate for candidate in candidates)
    return next((folder for folder in folders if all((folder / part).is_dir() for part in parts)), None)


def require_folder(download: Path, title: str, candidates: tuple[str, ...], parts: tuple[str, ...]) -> Path:
    """Like find_folder.

    Raises:
        InputError: there is none.
    """
    folder = find_folder(download, candidates, parts)
    if folder is None:
        places = " or ".join("the folder itself" if place == "." else place for place in candidates)
        raise InputError(
            f"{download} does not look like the download of {title}: no folder with {' and '.join(parts)} ({places})."
        )
    return folder


def refuse_missing(needed: Iterable[Path], what: str) -> None:
    """Refuse a download that lacks files.

    Raises:
        InputError: some are missing; the first three are named.
    """
    missing = [path for path in needed if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{len(missing)} {what} missing: {', '.join(map(str, missing[:3]))}{more}.")


def copy(source: Path, target: Path) -> None:
    """Copy a file; the folder is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_picture(target: Path, array) -> None:
    """Write an array (y, x) or (y, x, channel) of type uint8 as PNG; the folder is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pictures().imsave(target, array, check_contrast=False)


def pictures() -> ModuleType:
    """scikit-image's reader and writer of PNG, TIFF, BMP and JPEG; nnU-Net brings it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from skimage import io
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading pictures needs the package {error.name}.", "Install nnU-Net with it: pip install 'usema[train]'"
        ) from error
    return io


def _describe(recipe: Recipe, folder: Path) -> None:
    description = {
        "channel_names": {str(index): name for index, name in enumerate(recipe.channels)},
        "labels": {name: value for value, name in enumerate(recipe.labels)},
        "numTraining": count_cases(folder),
        "file_ending": recipe.file_ending,
        "name": recipe.dataset,
        "description": recipe.title,
        "reference": recipe.pages[0],
        "licence": recipe.licence,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
