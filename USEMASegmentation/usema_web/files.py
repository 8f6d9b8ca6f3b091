"""Files from the browser into the scene, and back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from zipfile import BadZipFile

import slicer
import slicer.util
from trame.app.file_upload import ClientFile
from trame_slicer.core import SlicerApp
from usema.errors import InputError, UsemaError
from usema.volumes.dicom import scan_files, whole_series
from usema.volumes.dicom_headers import DicomFile
from usema.volumes.file_grid import COPY_AGAIN
from usema.volumes.paths import picture_suffix, stem_of, volume_suffix
from usema.volumes.picture_files import load_picture
from usema.volumes.tree import is_second_of_pair

from .reading import add_file, add_series, are_pictures, is_flat, said_to_the_page, title_of, unique
from .scene import SEGMENTATIONS, VOLUMES, nodes_of

ENDING = ".seg.nrrd"
_LONGEST_NAME = 200  # bytes


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


@dataclass(frozen=True)
class Opened:
    """What came into the scene.

    Attributes:
        volumes: nodes.
        segmentations: nodes.
        faults: why files did not.
        notes: what to know of those that did.
    """

    volumes: list
    segmentations: list
    faults: list[UsemaError]
    notes: list[str]


def open_files(app: SlicerApp, paths: Sequence[Path]) -> Opened:
    """Add volumes, segmentations or a saved scene to the scene; what is there stays.

    Args:
        paths: files, or folders, of which every file is taken.

    Raises:
        InputError: none of them can be read; names the first.
    """
    every = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [path for path in every if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"There is no file in {', '.join(map(str, paths)) or 'what was sent'}.")
    before = {kind: nodes_of(kind) for kind in (VOLUMES, SEGMENTATIONS)}
    faults = []
    with said_to_the_page() as notes:
        for read in _readings(app, files):
            try:
                read()
            except UsemaError as error:
                faults.append(InputError(*(_without_folders(text, files) for text in (error.message, error.hint))))
    new = [[node for node in nodes_of(kind) if node not in there] for kind, there in before.items()]
    if not any(new):
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise next(
            iter(faults),
            InputError(
                f"{files[0].name}{more} could not be read as a volume, image or segmentation.",
                "Open NIfTI, NRRD, MetaImage, a folder of DICOM images, PNG, JPEG, TIFF, .seg.nrrd or .mrb.",
            ),
        )
    return Opened(*new, faults, [_without_folders(note, files) for note in notes])


def _readings(app: SlicerApp, files: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """What reads the files: each volume, series, picture, segmentation or scene by itself."""
    dicom = scan_files(files)
    series = dict.fromkeys(one.series for one in dicom if one.is_image)
    for own in series:
        yield partial(_read_series, app, dicom, own)
    if not series:
        yield from (partial(_refuse, one) for one in dicom)
    others = set(files) - {one.path for one in dicom}
    for path in (one for one in files if one in others):
        if path.name.endswith(ENDING):
            yield partial(_read_segmentation, path)
        elif path.suffix == ".mrb":
            yield partial(_read_scene, app, path)
        elif picture_suffix(path):
            yield partial(_read_picture, path)
        elif not volume_suffix(path):
            yield partial(_read_as_slicer, app, path)
        elif not is_second_of_pair(path, files):
            yield partial(_read_volume, app, path)


def _without_folders(text: str, files: Sequence[Path]) -> str:
    """What is said of files, without the folders that they were put into here."""
    for folder in sorted({str(path.parent) for path in files}, key=len, reverse=True):
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, "its folder")
    return text


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


def _read_series(app: SlicerApp, dicom: Sequence[DicomFile], series: str) -> None:
    title = title_of(next(one for one in dicom if one.is_image and one.series == series))
    images = whole_series(title, dicom, series)
    if not are_pictures(images):
        add_series(images)
        return
    for image in images:
        _read_as_slicer(app, image.path)


def _refuse(file: DicomFile) -> None:
    raise InputError(
        f"{file.path.name} is no DICOM image but: {file.other}." if file.other else f"{file.path.name}: {file.fault}.",
        "Open the folder that holds the images of a series.",
    )


def _read_volume(app: SlicerApp, path: Path) -> None:
    try:
        add_file(path)
    except InputError:
        if not is_flat(path):
            raise
        _read_as_slicer(app, path)


def _read_as_slicer(app: SlicerApp, path: Path) -> None:
    """What 3D Slicer's readers make of a file; nothing where they cannot read it, and some raise whatever they like."""
    with suppress(Exception):
        for node in app.io_manager.load_volumes([str(path)]):
            if node.GetName().startswith(path.name):  # else it is that of a series
                node.SetName(unique(stem_of(path)))


def _read_scene(app: SlicerApp, path: Path) -> None:
    try:
        app.io_manager.load_scene(path)
    except (BadZipFile, OSError) as error:
        raise InputError(f"{path.name} is no whole scene: {error}.", COPY_AGAIN) from error


def _read_picture(path: Path) -> None:
    """A PNG, JPEG, TIFF or BMP as 3D Slicer has one: rows run to the feet, and pixels of 1."""
    picture = load_picture(path)
    if len(picture.array) > 1:
        raise InputError(f"{path.name} has {len(picture.array)} pages.", "Save the one that you want as an image.")
    node = slicer.mrmlScene.AddNewNodeByClass(VOLUMES[picture.in_colour], unique(path.stem))
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
