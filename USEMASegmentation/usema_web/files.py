"""Files from the browser into the scene, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import slicer
import slicer.util
from trame.app.file_upload import ClientFile
from trame_slicer.core import SlicerApp
from usema.errors import InputError
from usema.volumes.paths import picture_suffix
from usema.volumes.picture_files import load_picture

from .scene import SEGMENTATIONS, VOLUMES, nodes_of

ENDING = ".seg.nrrd"
_LONGEST_NAME = 200  # bytes
_ENDINGS = re.compile(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|dcm)$", re.IGNORECASE)


def receive(files: Sequence[dict], folder: Path) -> list[Path]:
    """Write what the browser sent into a folder. Of several files of one name, as DICOM series have, each is kept."""
    written = []
    for sent in files:
        file = ClientFile(sent)
        path = folder / _name_for_disk(str(file.name))
        if path.exists():
            path = Path(mkdtemp(dir=folder)) / path.name
        content = file.content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        written.append(path)
    return written


def _name_for_disk(name: str) -> str:
    """A name that leads nowhere and that any disk takes; its end, which tells the kind of file, stays."""
    last = re.sub(r"[\0-\x1f\ud800-\udfff]", "_", re.split(r"[/\\]", name)[-1])
    last = last.encode()[-_LONGEST_NAME:].decode(errors="ignore")
    return f"_{last}" if last in ("", ".", "..") else last


def open_files(app: SlicerApp, paths: Sequence[Path]) -> tuple[list, list]:
    """Add volumes, segmentations or a saved scene to the scene; what is there stays.

    Args:
        paths: files, or folders, of which every file is taken.

    Returns:
        (volume nodes, segmentation nodes) that were added.

    Raises:
        InputError: none of them can be read; names the first.
    """
    every = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [path for path in every if path.is_file()]
    if not files:
        raise InputError(f"There is no file in {', '.join(map(str, paths)) or 'what was sent'}.")
    before = {kind: nodes_of(kind) for kind in (VOLUMES, SEGMENTATIONS)}
    others = []
    for path in files:
        if path.name.endswith(ENDING):
            _read_segmentation(path)
        elif path.suffix == ".mrb":
            app.io_manager.load_scene(path)
        elif picture_suffix(path):
            _read_picture(path)
        else:
            others.append(str(path))
    if others:
        for node in app.io_manager.load_volumes(others):
            node.SetName(_ENDINGS.sub("", node.GetName()))
    new = [[node for node in nodes_of(kind) if node not in there] for kind, there in before.items()]
    if not any(new):
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise InputError(
            f"{files[0].name}{more} could not be read as a volume, image or segmentation.",
            "Open NIfTI, NRRD, MetaImage, a folder of DICOM images, PNG, JPEG, TIFF, .seg.nrrd or .mrb.",
        )
    return new[0], new[1]


def as_seg_nrrd(segmentation) -> bytes:
    """A segmentation as 3D Slicer saves it: names, colours and codes of the segments with their voxels.

    Raises:
        InputError: it cannot be written.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"segmentation{ENDING}"
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(path))
        if not storage.WriteData(segmentation) or not path.is_file():
            raise InputError(f"{segmentation.GetName()} could not be written.", "Is there any segment in it?")
        return path.read_bytes()


def _read_picture(path: Path) -> None:
    """A PNG, JPEG, TIFF or BMP as 3D Slicer has one: rows run to the feet, and pixels of 1."""
    picture = load_picture(path)
    if len(picture.array) > 1:
        raise InputError(f"{path.name} has {len(picture.array)} pages.", "Save the one that you want as an image.")
    node = slicer.mrmlScene.AddNewNodeByClass(VOLUMES[picture.in_colour], path.stem)
    node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    slicer.util.updateVolumeFromArray(node, picture.array)
    node.CreateDefaultDisplayNodes()


def _read_segmentation(path: Path) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", path.name.removesuffix(ENDING))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if storage.ReadData(node):
        node.CreateDefaultDisplayNodes()
    else:
        slicer.mrmlScene.RemoveNode(node)
