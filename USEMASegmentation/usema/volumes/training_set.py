"""A training set of one's own, in nnU-Net's raw layout, to which cases are added one by one on this computer.

    Dataset500_Mine/dataset.json, imagesTr/case_001_0000.nii.gz, labelsTr/case_001.nii.gz

Nothing that is there is ever written over. Cases are numbered: a name could tell who the patient is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import strict_json
from ..errors import InputError, OutputError
from ..files import replace_file
from .geometry import Geometry
from .paths import writable_by_itk
from .volume import Volume

DESCRIPTION = "dataset.json"
_ENDING = ".nii.gz"
_NAME = re.compile(r"Dataset[0-9]{3}_[A-Za-z0-9_-]+")


def check_training_set(folder: Path, channels: Sequence[str], labels: Mapping[int, str]) -> None:
    """Refuse a folder that a case cannot be added to.

    Args:
        folder: of the training set; it need not be there.
        channels: what the volumes of a case are called, in order.
        labels: value -> name; 1, 2, 3, ...

    Raises:
        InputError: its name is none of nnU-Net's, or what is there is another training set.
    """
    if not _NAME.fullmatch(folder.name):
        raise InputError(
            f"'{folder.name}' is not the name of a training set.", "Call the folder like Dataset500_Hippocampus."
        )
    path = folder / DESCRIPTION
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is no training set, and it is not empty.", "Choose another folder.")
        return
    there, wanted = _read(path), _described(channels, labels, 0)
    for key in ("channel_names", "labels", "file_ending"):
        if there.get(key) != wanted[key]:
            raise InputError(
                f"The training set {folder} has {key} {there.get(key)!r}; those of this case are {wanted[key]!r}.",
                "Choose another folder for it.",
            )


def add_case(
    folder: Path, volumes: Sequence[Volume], drawn: np.ndarray, channels: Sequence[str], labels: Mapping[int, str]
) -> str:
    """Adds a case under the next free number; returns its name. The training set is made with its first case.

    Args:
        volumes: the channels.
        drawn: (z, y, x) on the grid of the first volume; values of ``labels``, and 0.

    Raises:
        InputError: as ``check_training_set``, or a value is none of the labels, or none is there, or the volume is in
            the training set already: a case that is learned and held back at once would tell nothing.
        MissingDependencyError: nibabel, with which the training set is read again, is not installed.
        OutputError: it cannot be written. Whatever is raised, the training set is as before.
    """
    from . import nifti  # noqa: F401 - its nibabel is missing before anything is written, or not at all
    from .writing import IMAGE_SUFFIXES, complete_file, write_label_map

    check_training_set(folder, channels, labels)
    values = set(np.unique(drawn).tolist()) - {0}
    if not values or not values <= set(labels):
        raise InputError(
            f"The labels of the case have the values {sorted(values)}, and the training set knows {sorted(labels)}.",
            "Draw at least one of its segments.",
        )
    images, masks = folder / "imagesTr", folder / "labelsTr"
    _refuse_known(images, volumes[0])
    written: list[Path] = []
    made = [place for place in (masks, images, folder) if not place.exists()]
    try:
        for place in (images, masks):
            place.mkdir(parents=True, exist_ok=True)
        name = _next_name(images, masks)
        for number, volume in enumerate(volumes):
            path = images / f"{name}_{number:04d}{_ENDING}"
            with complete_file(path, IMAGE_SUFFIXES, overwrite=False) as temporary:
                _write_image(volume, temporary)
            written.append(path)
        write_label_map(masks / f"{name}{_ENDING}", drawn, volumes[0].geometry)
        written.append(masks / f"{name}{_ENDING}")
        document = _described(channels, labels, len(list(masks.glob(f"[!.]*{_ENDING}"))))
        if (folder / DESCRIPTION).exists():
            document = {**_read(folder / DESCRIPTION), "numTraining": document["numTraining"]}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        replace_file(folder / DESCRIPTION, text.encode("utf-8"))
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        for place in made:
            with suppress(OSError):  # never made, or another program has put something into it
                place.rmdir()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}.", "Choose another folder."
        ) from error
    return name


def _refuse_known(images: Path, volume: Volume) -> None:
    """Also a crop of the same image that was cut a little differently, because another correction was around it."""
    for path in sorted(images.glob(f"[!.]*_0000{_ENDING}")):
        if _same_image(path, volume):
            case = path.name.removesuffix(f"_0000{_ENDING}")
            raise InputError(
                f"The volume is in the training set {images.parent.name} already, as {case}.",
                f"Delete imagesTr/{case}_* and labelsTr/{case}.* in it first, if this correction is to replace that.",
            )


def _same_image(path: Path, volume: Volume) -> bool:
    """Whether a file and a volume have the same voxels in what both show, and that is half of the smaller one at least.

    Most files are told by their headers alone, and the others by their first slices.
    """
    from .image_files import read_grid, read_slices  # not above: the panel offers this before anything is read

    shared = _shared(read_grid(path), volume.geometry)
    return shared is not None and _same_voxels(read_slices(path), shared[0], volume.array[shared[1]])


def _shared(one: Geometry, other: Geometry) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """The box that two grids share, as slices z, y, x of each; None: less than half of the smaller one, or no voxels
    in common."""
    axes, others = one.affine[:3, :3], other.affine[:3, :3]
    apart = np.linalg.solve(axes, np.subtract(other.origin, one.origin))[::-1]  # voxels z, y, x
    steps = np.round(apart).astype(int)
    if not np.allclose(axes, others, atol=1e-3) or np.abs(apart - steps).max() > 0.05:
        return None
    low, high = np.maximum(0, steps), np.minimum(one.shape, steps + other.shape)
    if (high <= low).any() or 2 * np.prod(high - low) < min(np.prod(shape) for shape in (one.shape, other.shape)):
        return None
    first, second = (
        tuple(slice(int(a), int(b)) for a, b in zip(low - at, high - at, strict=True)) for at in (0 * steps, steps)
    )
    return first, second


def _same_voxels(slices: Iterable[np.ndarray], box: tuple[slice, ...], array: np.ndarray) -> bool:
    """Whether a box of slices (y, x) along z holds the voxels of an array (z, y, x), and they are not all alike."""
    for one, other in zip(islice(slices, box[0].start, box[0].stop), array, strict=True):
        part = one[box[1:]]
        if not ((part == other) | (part != part)).all():  # NaN in a file stands for the background
            return False
    return bool(array.min() < array.max())


def _next_name(images: Path, masks: Path) -> str:
    """After the highest number that is there."""
    names = [path.name for place in (images, masks) for path in place.iterdir()]
    taken = [int(found[1]) for name in names if (found := re.match(r"case_([0-9]+)[_.]", name))]
    return f"case_{max(taken, default=0) + 1:03d}"


def _write_image(volume: Volume, path: Path) -> None:
    import SimpleITK as sitk

    array = volume.array
    if array.dtype.kind == "b" or array.dtype == np.float16:
        array = array.astype(np.float32)
    try:
        with writable_by_itk(path) as name:
            sitk.WriteImage(Volume(array, volume.geometry).to_image(), name, useCompression=True)
    except RuntimeError as error:
        raise OutputError(f"{path.parent} cannot be written.", "Is the disk full?") from error


def _described(channels: Sequence[str], labels: Mapping[int, str], cases: int) -> dict[str, Any]:
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **{name: value for value, name in sorted(labels.items())}},
        "numTraining": cases,
        "file_ending": _ENDING,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        document = strict_json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Correct it, or choose another folder.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} describes no training set.", "Choose another folder.")
    return document
