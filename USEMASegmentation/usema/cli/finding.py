"""Which volumes the user means by a file or a folder, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..volumes.tree import find_pictures, find_volumes


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

    The labels of a data set and other programs' derivatives are no images: they are left out, with a word.

    Args:
        root: what the user gave.
        without: files and folders that are not looked at: where the results go.
        images: two-dimensional images are wanted, not volumes.

    Returns:
        the volumes, and sentences about what was left out.

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
    no_images = {folder for path in volumes if (folder := _folder_of_no_images(path, root))}
    words = [f"{path} is left out: {reason}." for path, reason in found.left_out]
    words += [f"{folder} is left out: it holds labels or derivatives, not images." for folder in sorted(no_images)]
    kept = [path for path in volumes if no_images.isdisjoint(path.parents)]
    named = [Found(path, own_name if path == root else path.relative_to(root)) for path in kept]
    return named or [Found(root, own_name)], words


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
