"""Which volumes lie in a folder and below it: files of volumes, and folders of DICOM images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..volumes.writing import SEGMENTATION_SUFFIX

READ_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_LOOKED_AT = 20  # files of a folder that are opened before it is taken for one without DICOM images
# DICOM objects that are no images to segment (PS3.6 A): structure sets and plans, structured reports, presentation
# states, encapsulated documents, directories, raw data, registrations, segmentations.
_NO_IMAGE = re.compile(
    rb"1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\.(481\.[34589]|88\.[\d.]+|11\.[\d.]+|104\.\d+|66(\.\d+)?))[\0 ]?$"
)


@dataclass(frozen=True)
class Found:
    """A volume to segment.

    Attributes:
        path: its file, or its folder of DICOM images.
        relative: the same, from the folder that the user gave; what its results are called after.
        problem: why it cannot be segmented; None if nothing is known to be wrong.
    """

    path: Path
    relative: Path
    problem: InputError | None = None


def find_volumes(root: Path, without: Sequence[Path] = ()) -> tuple[list[Found], list[str]]:
    """The volumes in a folder and all below it, by path; the folder itself where nothing is found, or a file itself.

    Hidden files and folders are passed over, and so are, with a word: segmentations, the labels of a data set, and
    derivatives.

    Args:
        root: what the user gave.
        without: files and folders that are not looked at: where the results go.

    Returns:
        the volumes, and sentences about what was left out.

    Raises:
        InputError: there is no such file or folder.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist.", "Check the path.")
    own_name = Path(root.name or root.resolve().name)
    if not root.is_dir():
        return [Found(root, own_name)], []
    found, left_out = [], []
    skipped = {path.resolve() for path in without if path.resolve() != root.resolve()}
    for folder, files in _walk(root, skipped, left_out):
        relative = folder.relative_to(root)
        volumes = [file for file in files if suffix_of(file) and file.resolve() not in skipped]
        segmentations = [file for file in volumes if file.name.lower().endswith(SEGMENTATION_SUFFIX)]
        left_out += [f"{file} is a segmentation, not an image: left out." for file in segmentations]
        volumes = [file for file in volumes if file not in segmentations]
        image = _dicom_image(file for file in files if not suffix_of(file))
        if image is None:
            found += [Found(file, relative / file.name) for file in volumes]
        else:
            place = relative if relative.name else own_name
            found.append(Found(folder, place, _mixed(folder, image, volumes) if volumes else None))
    return found or [Found(root, own_name)], left_out


def suffix_of(path: Path) -> str:
    """The ending of a file that volumes are read from, in lower case; empty for others."""
    return next((suffix for suffix in READ_SUFFIXES if path.name.lower().endswith(suffix)), "")


def _walk(root: Path, skipped: set[Path], left_out: list[str]) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder with its files, by name. Links are followed, but no folder is entered twice."""
    seen = set()
    for name, folders, files in os.walk(root, followlinks=True):
        folder = Path(name)
        if (place := folder.resolve()) in seen or place in skipped:
            folders.clear()
            continue
        seen.add(place)
        others = [one for one in folders if _is_no_image_folder(folder, one)]
        left_out += [f"{folder / one} holds labels or derivatives, not images: left out." for one in sorted(others)]
        folders[:] = sorted(one for one in folders if one[0] != "." and one not in others)
        yield folder, [folder / file for file in sorted(files) if file[0] != "."]


def _is_no_image_folder(parent: Path, name: str) -> bool:
    """The labels of nnU-Net's layout, and what BIDS keeps of other programs' results."""
    if name in ("labelsTr", "labelsTs"):
        return (parent / name.replace("labels", "images")).is_dir()
    return name == "derivatives" and (parent / "dataset_description.json").is_file()


def _dicom_image(files: Iterator[Path]) -> Path | None:
    """The first that is a DICOM image."""
    for file, _ in zip(files, range(_LOOKED_AT), strict=False):
        try:
            with file.open("rb") as stream:
                head = stream.read(1024)
        except OSError:  # whoever reads the folder will say it
            continue
        if head[128:132] == b"DICM" and not _NO_IMAGE.search(_object_class(head)):
            return file
        if head[128:132] != b"DICM" and file.suffix.lower() in (".dcm", ".ima"):
            return file
    return None


def _object_class(head: bytes) -> bytes:
    """What kind of object a DICOM file says it is (0002,0002); the file meta group is always explicit little endian."""
    at = head.find(b"\x02\x00\x02\x00UI")
    return head[at + 8 : at + 8 + int.from_bytes(head[at + 6 : at + 8], "little")] if at >= 0 else b""


def _mixed(folder: Path, image: Path, volumes: Sequence[Path]) -> InputError:
    names = ", ".join(file.name for file in volumes[:3]) + (" and others" if len(volumes) > 3 else "")
    return InputError(
        f"The folder {folder} holds DICOM images ({image.name}) and {names}.",
        f"Say which you mean: {image} for the series that it belongs to, or {volumes[0]}.",
    )
