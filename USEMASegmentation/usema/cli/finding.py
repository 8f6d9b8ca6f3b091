"""Which volumes the user means by a file or a folder, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..volumes.tree import find_pictures, find_volumes
from .first_look import is_first_look
from .statuses import results_in


@dataclass(frozen=True)
class Found:
    """A volume to segment.

    Attributes:
        path: its file, or its folder of DICOM images.
        relative: the same, from the folder that the user gave; what its results are called after.
    """

    path: Path
    relative: Path


def real(path: Path) -> Path:
    """Where a path leads; of links in a circle as far as they go, where ``resolve`` raises."""
    return Path(os.path.realpath(path))


def find(root: Path, without: Sequence[Path] = (), images: bool = False) -> tuple[list[Found], list[str]]:
    """A file itself, or the volumes in a folder and below it; the folder itself where nothing is found.

    The labels of a data set, other programs' derivatives and results of earlier runs are no images: they are left out,
    with a word.

    Args:
        root: what the user gave.
        without: files and folders that are not looked at: where the results go.
        images: two-dimensional images are wanted, not volumes.

    Returns:
        the volumes, none where all are results, and sentences about what was left out.

    Raises:
        InputError: there is no such file or folder, or a folder cannot be read.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist.", "Check the path.")
    own_name = Path(root.name or real(root).name)
    if not root.is_dir():
        return [Found(root, own_name)], []
    skipped = {real(path) for path in without} - {real(root)}
    found = (find_pictures if images else find_volumes)(root, skipped)
    volumes = [path for path in found.volumes if real(path) not in skipped]
    results, words = _results_of_runs(root, [*volumes, *(path for path, _ in found.left_out)])
    looks = [path for path in volumes if is_first_look(path)]
    words += [f"{path} is left out: a first look that a stopped run left." for path in looks]
    results.update(looks)
    only_results = bool(volumes) and results.issuperset(volumes)
    volumes = [path for path in volumes if path not in results]
    no_images = {folder for path in volumes if (folder := _folder_of_no_images(path, root))}
    words += [f"{path} is left out: {reason}." for path, reason in found.left_out if path not in results]
    words += [f"{folder} is left out: it holds labels or derivatives, not images." for folder in sorted(no_images)]
    kept = [path for path in volumes if no_images.isdisjoint(path.parents)]
    named = [Found(path, own_name if path == root else path.relative_to(root)) for path in kept]
    return named or ([] if only_results else [Found(root, own_name)]), words


def _results_of_runs(root: Path, paths: Sequence[Path]) -> tuple[set[Path], list[str]]:
    """Those of the paths that a run's statuses, in a folder on the way from ``root`` to one, tell of; a word a run."""
    depth = len(root.parts)
    folders = {folder for path in paths for folder in path.parents[: len(path.parts) - depth]}
    places = [(path, real(path)) for path in paths]
    results, words = set(), []
    for folder in sorted(folders):
        told = set(map(real, results_in(folder)))
        its = {path for path, place in places if place in told} - results if told else set()
        if its:
            words.append(f"Results of an earlier run into {folder} are left out ({len(its)}).")
            results |= its
    return results, words


def _folder_of_no_images(path: Path, root: Path) -> Path | None:
    """The labels of nnU-Net's layout, or what BIDS keeps of other programs, if the path lies in such a folder."""
    for folder in path.parents:
        if folder == root:
            return None
        labels = folder.name in ("labelsTr", "labelsTs")
        if labels and folder.with_name(folder.name.replace("labels", "images")).is_dir():
            return folder
        if folder.name == "derivatives" and (folder.parent / "dataset_description.json").is_file():
            return folder
    return None
