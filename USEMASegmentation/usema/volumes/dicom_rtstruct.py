"""Labels of a DICOM series as an RT Structure Set (PS3.3 A.19), for planning systems: closed contours in each slice.

The object is written with pydicom: highdicom has none, and rt-utils, the library for it, has had no release since 2022
and needs OpenCV. contourpy traces the contours, half way between voxels in and out, so that who fills them gets the
very voxels again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from .. import __version__
from .dicom_headers import pydicom_silent
from .dicom_results import (
    MANUFACTURER,
    codes_of,
    made_by,
    patient_and_study,
    refuse_other_values,
    short_text,
    source_headers,
)
from .dicom_stack import Stack
from .masks import label_boxes
from .segments import ModelLabel
from .writing import RTSTRUCT_SUFFIX, complete_file

_SERIES_NUMBER = 301  # behind the segmentation


def write_rtstruct(
    path: str | Path,
    labels: np.ndarray,
    stack: Stack,
    model_labels: Sequence[ModelLabel],
    provenance: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write labels as an RT Structure Set with a region of interest per label, one without contours if it is empty.

    A hole is joined to what surrounds it by a channel without width, as the standard has it (PS3.3 C.8.8.6.3).

    Args:
        path: .rtstruct.dcm.
        labels, stack, model_labels, provenance: as :func:`usema.volumes.dicom_seg.write_dicom_segmentation` has them.

    Raises:
        InputError: the slices cannot be read any more, or lack what a structure set must refer to.
        OutputError: as :func:`usema.volumes.writing.check_writable`, or writing failed.
    """
    if labels.shape != stack.geometry.shape:
        raise ValueError(f"an array of shape {labels.shape} is not on a grid of shape {stack.geometry.shape}")
    boxes = label_boxes(labels)
    refuse_other_values(list(boxes), model_labels)
    headers = source_headers(stack)
    with pydicom_silent():
        dataset = _structure_set(labels, boxes, stack, headers, model_labels, provenance)
    with complete_file(path, (RTSTRUCT_SUFFIX,), overwrite) as temporary, pydicom_silent():
        dataset.save_as(temporary, enforce_file_format=True)


def _structure_set(labels, boxes, stack: Stack, headers, model_labels, provenance) -> Dataset:
    first = next(iter(headers.values()))
    now = datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset = patient_and_study(first)
    dataset.file_meta = FileMetaDataset()
    # Explicit lengths would end at 65534 bytes, which the points of a large contour exceed.
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = (
        "RTSTRUCT",
        generate_uid(prefix=None),
        _SERIES_NUMBER,
    )
    dataset.SeriesDescription, dataset.OperatorsName, dataset.InstanceNumber = made_by(provenance), "", 1
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = MANUFACTURER, "usema", __version__
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = first.FrameOfReferenceUID, ""
    dataset.StructureSetLabel, dataset.StructureSetName = MANUFACTURER, made_by(provenance)
    dataset.StructureSetDate, dataset.StructureSetTime, dataset.ApprovalStatus = date, time, "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_references(stack, headers)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, label in enumerate(model_labels, 1):
        dataset.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID,
                ROIName=short_text(label.name),
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=made_by(provenance),
            )
        )
        roi = _item(ROIDisplayColor=list(label.color), ReferencedROINumber=number)
        if label.value in boxes:
            roi.ContourSequence = list(_contours(labels, label.value, boxes[label.value], stack, headers))
        dataset.ROIContourSequence.append(roi)
        observation = _item(ObservationNumber=number, ReferencedROINumber=number)
        observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
        observation.RTROIIdentificationCodeSequence = codes_of(label)["type"]
        dataset.RTROIObservationsSequence.append(observation)
    return dataset


def _references(stack: Stack, headers: Mapping[Path, Dataset]) -> Dataset:
    first = next(iter(headers.values()))
    images = [_image(header) for header in headers.values()]
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # a study as such; retired, and still asked for
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(labels, value: int, box, stack: Stack, headers: Mapping[Path, Dataset]) -> Iterator[Dataset]:
    affine = stack.geometry.affine
    rows, columns = box[1], box[2]
    for z in range(box[0].start, box[0].stop):
        shown = stack.slice_in(z)
        for polygon in _polygons(labels[z, rows, columns] == value):
            indices = np.column_stack([np.add(polygon, (columns.start, rows.start)), np.full(len(polygon), float(z))])
            points = indices @ affine[:3, :3].T + affine[:3, 3]
            contour = _item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{number:.4f}" for number in points.ravel()],
            )
            if shown is not None:
                header = headers[shown.file]
                contour.ContourImageSequence = [_image(header, shown.frame + 1 if "NumberOfFrames" in header else None)]
            yield contour


def _polygons(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Closed outlines of a mask (y, x), each (n, 2) in pixels x, y from the mask's first; holes are part of them."""
    from contourpy import FillType, contour_generator

    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float64)
    shape = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    for points, offsets in zip(*shape.filled(0.5, 2.0), strict=True):
        outline, *holes = (points[start : stop - 1] - 1 for start, stop in pairwise(offsets))
        for hole in holes:
            outline = _joined(outline, hole)
        yield outline


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The outline, to the hole, around it and back: whatever the way crosses, it has no area."""
    apart = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    at, first = np.unravel_index(apart.argmin(), apart.shape)
    around = np.roll(hole, -first, axis=0)
    return np.concatenate([outline[: at + 1], around, around[:1], outline[at:]])


def _image(header: Dataset, frame: int | None = None) -> Dataset:
    image = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if frame is not None:
        image.ReferencedFrameNumber = frame
    return image


def _item(**fields: object) -> Dataset:
    item = Dataset()
    for keyword, value in fields.items():
        setattr(item, keyword, value)
    return item
