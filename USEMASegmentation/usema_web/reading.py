"""Volumes from files as the command reads them: what is damaged is refused, and what is doubtful is told.

The readers of 3D Slicer fill what a cut-off file lacks with zeros, close the gap of a broken slice, take copies of
slices for further ones and of several frames the first, all without a word. A mask of that would be wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import slicer
import slicer.util
from usema.cli.streams import said_by_the_engine
from usema.errors import InputError
from usema.volumes.dicom import is_small, told_of_series
from usema.volumes.dicom_headers import DicomFile, Slice
from usema.volumes.dicom_phases import phases_of
from usema.volumes.dicom_stack import checked_stack
from usema.volumes.dicom_straight import straight_voxels
from usema.volumes.frames import find_frames, read_frame
from usema.volumes.paths import stem_of
from usema.volumes.picture_files import load_picture
from usema.volumes.volume import Volume, load_volume
from usema.volumes.writing import index_to_ras

from .scene import VOLUMES

MOST_FRAMES = 20  # that are opened of one file or series: each is a volume of its own

log = logging.getLogger(f"usema.{__name__}")  # beside the engine's own words


def is_flat(path: Path) -> bool:
    """Whether a file of a kind for volumes holds a whole two-dimensional image."""
    try:
        load_picture(path)
    except InputError:
        return False
    return True


def are_pictures(images: Sequence[DicomFile]) -> bool:
    """Whether the images of a series are no volume: radiographs, localizers, loops, each of which is one by itself."""
    loops = any(one.frames > 1 and not one.placed for one in images)
    return is_small(images) or loops or not any(one.orientation or one.frames > 1 for one in images)


def title_of(image: DicomFile) -> str:
    """What a series is called, as 3D Slicer does."""
    return ": ".join(filter(None, (image.number, image.description or "Unnamed Series")))


def add_file(path: Path) -> None:
    """The volume in a file into the scene, or each of its frames. Raises InputError as ``load_volume``."""
    name, frames = stem_of(path), find_frames(path)
    if frames is None:
        _add(name, load_volume(path))
        return
    _tell_of_frames(name, len(frames))
    for number, frame in enumerate(frames.names[:MOST_FRAMES]):
        _add(f"{name}, frame {frame}", read_frame(path, number, len(frames)))


def add_series(images: Sequence[DicomFile]) -> None:
    """The volume that a DICOM series is into the scene, or each of its phases. Raises InputError: they are no stack."""
    name = title_of(images[0])
    phases = _stacks(name, images)
    _tell_of_frames(name, len(phases))
    for phase, stack in list(phases.items())[:MOST_FRAMES]:
        volume = Volume(straight_voxels(stack), stack.geometry, told=told_of_series(stack))
        _add(f"{name}, {phase}" if phase else name, volume)


def unique(name: str) -> str:
    """A name that nothing in the scene has."""
    return slicer.mrmlScene.GenerateUniqueName(name)


@contextmanager
def said_to_the_page() -> Iterator[list[str]]:
    """What the engine says of how it reads, as long as the block lasts; the terminal is not told it too."""
    said: list[str] = []
    logger = logging.getLogger("usema")
    before, logger.propagate = logger.propagate, False
    try:
        with said_by_the_engine(said):
            yield said
    finally:
        logger.propagate = before


def _stacks(name: str, images: Sequence[DicomFile]) -> dict:
    """The stacks of slices in a series; where all are none, those of each kind of image (as water and fat)."""
    try:
        return _phases(name, [one for image in images for one in image.slices()])
    except InputError:
        kinds: dict[str, list[Slice]] = {}
        for image in images:
            kind = image.header.get("ImageType") or ""
            kinds.setdefault(kind if isinstance(kind, str) else "/".join(kind), []).extend(image.slices())
        if len(kinds) < 2 or len({len(slices) for slices in kinds.values()}) > 1:  # else a slice would be lost
            raise
        return {
            ", ".join(filter(None, (kind, phase))): stack
            for kind, slices in kinds.items()
            for phase, stack in _phases(name, slices).items()
        }


def _phases(name: str, slices: Sequence[Slice]) -> dict:
    return {phase: checked_stack(Path(name), own, False) for phase, own in phases_of(slices).items()}


def _tell_of_frames(name: str, count: int) -> None:
    if count > MOST_FRAMES:
        log.warning("%s holds %d volumes (frames): the first %d were opened.", name, count, MOST_FRAMES)
    elif count > 1:
        log.warning("%s holds %d volumes (frames): each was opened as a volume of its own.", name, count)


def _add(name: str, volume: Volume) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass(VOLUMES[0], unique(name))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(index_to_ras(volume.geometry)))
    slicer.util.updateVolumeFromArray(node, volume.array)
    node.CreateDefaultDisplayNodes()
    if volume.told.modality:
        _tell_modality(node, volume.told.modality)


def _tell_modality(node, modality: str) -> None:
    """Let the panel's logic know, which warns where a model is for another one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    hierarchy.SetItemAttribute(item, attribute, modality)
