"""Results on disk: a label map, a 3D Slicer segmentation, or class probabilities.

A file appears under its name only when it is complete: it is written beside it under a temporary name and renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, OutputError
from ..files import refuse_existing, remove_abandoned, temporary_beside, through_links, whole_file
from .geometry import Geometry
from .integrity import check_file
from .itk_messages import itk_reason
from .masks import label_boxes, label_mask, mask_to_text
from .paths import writable_by_itk
from .segments import PREFIX, WRITTEN_KEY, ModelLabel, segment_look
from .volume import Volume

SEGMENTATION_SUFFIX = ".seg.nrrd"
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
RTSTRUCT_SUFFIX, DICOM_SUFFIX = ".rtstruct.dcm", ".dcm"
# What a segmentation can be written as, in this order: .seg.nrrd must not be taken for .nrrd.
RESULT_SUFFIXES = (SEGMENTATION_SUFFIX, *IMAGE_SUFFIXES, RTSTRUCT_SUFFIX, DICOM_SUFFIX)


def check_writable(path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = RESULT_SUFFIXES) -> None:
    """Refuse an output path before a long run rather than after it.

    Args:
        suffixes: those that are supported.

    Raises:
        OutputError: the suffix is not supported, the folder is missing or not writable, or the file exists and
            ``overwrite`` is False.
    """
    path = Path(path)
    _suffix(path, suffixes)
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist.", "Create it first.")
    folder = through_links(path).parent
    remove_abandoned(folder)
    probe = temporary_beside(path, ".tmp")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"Nothing can be written to {folder}: {error.strerror}.") from error


def write_label_map(
    path: str | Path, labels: np.ndarray, geometry: Geometry, overwrite: bool = False, note: str = ""
) -> None:
    """Write labels as one image of integers.

    Args:
        path: .nii.gz, .nii, .nrrd or .mha.
        labels: integers (z, y, x) from 0 to 65535; written as uint8 where they fit, else as uint16.
        geometry: the grid of ``labels``. NIfTI rounds it to float32.
        note: for :func:`note_in`, up to 79 characters; of NIfTI alone.

    Raises:
        OutputError: as :func:`check_writable`, or writing failed.
    """
    image = Volume(_compact(labels, geometry), geometry).to_image()
    if note:
        image.SetMetaData("ITK_FileNotes", note)
    with complete_file(path, IMAGE_SUFFIXES, overwrite) as temporary:
        _write(image, temporary, path)


def note_in(path: str | Path) -> str:
    """What :func:`write_label_map` noted in a NIfTI file (its field ``descrip``); empty where that cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        return reader.GetMetaData("ITK_FileNotes") if reader.HasMetaDataKey("ITK_FileNotes") else ""
    except RuntimeError:
        return ""


def write_label_frames(
    path: str | Path, frames: Sequence[np.ndarray], geometry: Geometry, step: float = 1.0, overwrite: bool = False
) -> None:
    """Write the label maps of several points in time as one image of four dimensions.

    Args:
        path: .nii.gz, .nii, .nrrd or .mha.
        frames: integers (z, y, x), one after the other.
        geometry: the grid of each.
        step: from one frame to the next.

    Raises:
        OutputError: as :func:`check_writable`, or writing failed.
    """
    image = sitk.GetImageFromArray(_compact(np.stack(frames), geometry), isVector=False)
    image.SetSpacing((*geometry.spacing, step))
    image.SetOrigin((*geometry.origin, 0.0))
    direction = np.eye(4)
    direction[:3, :3] = geometry.axes
    image.SetDirection(direction.ravel().tolist())
    with complete_file(path, IMAGE_SUFFIXES, overwrite) as temporary:
        _write(image, temporary, path)


def write_segmentation(
    path: str | Path,
    labels: np.ndarray,
    geometry: Geometry,
    model_labels: Sequence[ModelLabel],
    provenance: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write labels as a segmentation that 3D Slicer opens with names, colours and codes.

    Every label of the model becomes a segment, an empty one where nothing was found, so that a reader sees what was
    looked for. The format is NRRD with the key-value pairs of Slicer's vtkMRMLSegmentationStorageNode.

    Args:
        path: .seg.nrrd.
        labels: integers (z, y, x); the values of ``model_labels``, 0 elsewhere.
        geometry: the grid of ``labels``.
        model_labels: the segments, in order.
        provenance: kept with each segment as tags "USEMA.<key>": segment tags survive editing and saving in Slicer. So
            does what the model wrote, from which the panel tells what the user has changed since.

    Raises:
        OutputError: as :func:`check_writable`, or writing failed.
    """
    labels = _compact(labels, geometry)
    image = Volume(labels, geometry).to_image()
    boxes = label_boxes(labels)
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        # Without it Slicer crops the grid to the segments as soon as it saves them again.
        "Segmentation_ConversionParameters": f"Reference image geometry|{_slicer_geometry(geometry)}|&",
    }
    for index, label in enumerate(model_labels):
        look = segment_look(label, provenance)
        written = mask_to_text(label_mask(labels, label.value, boxes), index_to_ras(geometry))
        tags = {**look.tags, PREFIX + WRITTEN_KEY: written}
        segment = {
            "ID": look.id,
            "Name": look.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel:.6f}" for channel in look.color),
            "ColorAutoGenerated": "0",
            "LabelValue": str(label.value),
            "Layer": "0",
            "Extent": _extent(geometry),
            "Tags": "".join(f"{key}:{value}|" for key, value in tags.items()),
        }
        fields |= {f"Segment{index}_{key}": value for key, value in segment.items()}
    for key, value in fields.items():
        image.SetMetaData(key, value)
    with complete_file(path, (SEGMENTATION_SUFFIX,), overwrite) as temporary:
        _write(image, temporary, path)


def write_probabilities(
    path: str | Path, probabilities: np.ndarray, geometry: Geometry, overwrite: bool = False
) -> None:
    """Write the probability of every class as one image with a component per class.

    Values are float32 between 0 and 1 (these formats have no half precision), component k is class k and component 0
    the background. 3D Slicer and ITK read them as a vector volume; in NIfTI the fifth dimension holds the classes.

    Args:
        path: .nii.gz, .nii, .nrrd or .mha.
        probabilities: floating point (K, z, y, x).
        geometry: the grid of the last three axes.

    Raises:
        OutputError: as :func:`check_writable`, or writing failed.
    """
    _check_shape(probabilities.shape[1:], geometry)
    components = np.empty((*geometry.shape, len(probabilities)), np.float32)
    for k, one in enumerate(probabilities):  # class by class, so that no second copy of this size is made
        components[..., k] = one
    image = Volume(components, geometry).to_image()
    del components
    with complete_file(path, IMAGE_SUFFIXES, overwrite) as temporary:
        _write(image, temporary, path)


@contextmanager
def complete_file(path: str | Path, suffixes: tuple[str, ...], overwrite: bool) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it when the block ends well, remove it when it does not."""
    path = Path(path)
    suffix = _suffix(path, suffixes)
    check_writable(path, overwrite, suffixes)
    try:
        with whole_file(path, temporary_beside(path, suffix)) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # a full network disk or a quota may show only now
            refuse_existing(path, overwrite)  # it may have appeared meanwhile
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def _write(image: sitk.Image, temporary: Path, path: str | Path) -> None:
    try:
        with writable_by_itk(temporary) as name:
            sitk.WriteImage(image, name, useCompression=True)
        check_file(temporary)
    except (RuntimeError, InputError) as error:
        # For NIfTI and small NRRD files, ITK reports success on a full disk; only check_file notices.
        detail = itk_reason(error) if isinstance(error, RuntimeError) else "the file came out incomplete"
        free = shutil.disk_usage(temporary.parent).free
        raise OutputError(
            f"{path} cannot be written: {detail.replace(temporary.name, Path(path).name)}.",
            f"Its disk has {free / 1e6:.0f} MB free. If that is enough, look for a quota or a size limit.",
        ) from error


def result_suffix(path: Path) -> str | None:
    """Which of RESULT_SUFFIXES a name has; None: none."""
    return next((one for one in RESULT_SUFFIXES if path.name.lower().endswith(one)), None)


def result_stem(path: Path) -> str:
    """A name without that ending, or else without any."""
    return path.name[: len(path.name) - len(result_suffix(path) or path.suffix)] or path.name


def _suffix(path: Path, supported: tuple[str, ...]) -> str:
    suffix = next((one for one in (*RESULT_SUFFIXES, *supported) if path.name.lower().endswith(one)), None)
    if suffix not in supported:
        raise OutputError(f'"{path.name}" cannot be written in that format.', f"Use {', '.join(supported)}.")
    return suffix


def _check_shape(shape: tuple[int, ...], geometry: Geometry) -> None:
    if shape != geometry.shape:
        raise ValueError(f"an array of shape {shape} is not on a grid of shape {geometry.shape}")


def _compact(labels: np.ndarray, geometry: Geometry) -> np.ndarray:
    _check_shape(labels.shape[-3:], geometry)
    low, high = int(labels.min()), int(labels.max())
    if labels.dtype.kind not in "biu" or low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"labels are integers from 0 to 65535, not {labels.dtype} from {low} to {high}")
    return labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16, copy=False)


def _extent(geometry: Geometry) -> str:
    x, y, z = geometry.size
    return f"0 {x - 1} 0 {y - 1} 0 {z - 1}"


def _slicer_geometry(geometry: Geometry) -> str:
    """Index-to-RAS matrix and extent, as Slicer's vtkSegmentationConverter serialises a grid."""
    values = [*map(float, index_to_ras(geometry).flat), *_extent(geometry).split()]
    return "".join(f"{value};" for value in values)


def index_to_ras(geometry: Geometry) -> np.ndarray:
    """(4, 4) from voxel index (i, j, k) to RAS millimetres."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine  # LPS to RAS
