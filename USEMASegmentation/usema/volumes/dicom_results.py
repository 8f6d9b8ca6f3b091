"""What DICOM results of a series have in common: the headers that they take over, who made them, codes of labels.

Libraries of the extra ``dicom`` are imported where they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import InputError, MissingDependencyError, OutputError
from .dicom_headers import pydicom_silent
from .dicom_stack import Stack
from .segments import ModelLabel

MANUFACTURER = "USEMA"
CHARACTERS = "ISO_IR 192"  # UTF-8: names of labels are in any language, whatever the source can write
_LIBRARIES = {"highdicom": "highdicom", "contourpy": "contourpy"}
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
# Of patient and study; they may be empty, but must be there (type 2).
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_PATIENT_AND_STUDY = ("StudyInstanceUID", "StudyDescription", *_MAY_BE_EMPTY)
_TISSUE = {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"}  # of a label without codes, as 3D Slicer has it


def check_dicom_result(path: Path, stack: Stack | None, source: Path) -> None:
    """Refuse, before a run, a DICOM result that could not be written after it.

    Args:
        path: of the result.
        stack: the slices of the volume; None: it did not come from DICOM.
        source: where the volume was read, for messages.

    Raises:
        InputError: the volume does not come from DICOM, or its headers lack what a result must refer to.
        MissingDependencyError: the extra is not installed.
        OutputError: the result would replace a slice of the series.
    """
    if stack is None:
        raise InputError(
            f"{path.name} is DICOM, and {source} is not: a DICOM result refers to the series it was made of.",
            "Give the folder of a DICOM series, or write .seg.nrrd or .nii.gz.",
        )
    for module, package in _LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f"DICOM results need the package {package}, which is not installed.",
                "Install the extra: pip install 'usema[dicom]'; or write .seg.nrrd or .nii.gz.",
            ) from error
    if path.resolve() in {one.file.resolve() for one in stack.slices}:
        raise OutputError(f"The result {path} would replace its input.", "Choose another name or folder.")
    source_headers(stack)


def source_headers(stack: Stack) -> dict[Path, Dataset]:
    """The header of each file of a stack, in the order of the slices; what may be empty is there.

    Raises:
        InputError: a file cannot be read any more, or lacks what identifies it.
    """
    headers: dict[Path, Dataset] = {}
    for path in dict.fromkeys(one.file for one in stack.slices):
        try:
            with pydicom_silent():
                header = dcmread(path, stop_before_pixels=True, force=True)
                header.decode()
        except Exception as error:  # pydicom raises whatever broken bytes lead to
            raise InputError(f"{path} can no longer be read: {error}.", "Copy the series again.") from error
        missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
        if missing:
            raise InputError(
                f"{path} has no {' and no '.join(missing)}, which a DICOM result must refer to.",
                "Give the series as the scanner or the archive has it, or write .seg.nrrd or .nii.gz.",
            )
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
        headers[path] = header
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if len({header[keyword].value for header in headers.values()}) > 1:
            raise InputError(
                f"The slices of {path.parent} do not share one {keyword}, which a DICOM result needs.",
                "Give a series of one study and one frame of reference, or write .seg.nrrd or .nii.gz.",
            )
    return headers


def patient_and_study(header: Dataset) -> Dataset:
    """A new dataset of the same patient and study."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = CHARACTERS
    for keyword in _PATIENT_AND_STUDY:
        if keyword in header:
            dataset.add(copy(header[keyword]))
    return dataset


def short_text(text: object, length: int = 64) -> str:
    """In one line, without the sign that separates values, as long as DICOM's long string may be."""
    return " ".join(str(text).replace("\\", "/").split())[:length]


def made_by(provenance: Mapping[str, str]) -> str:
    """Model and version in a few words."""
    return short_text(f"{MANUFACTURER}: {provenance.get('model', '')} {provenance.get('modelVersion', '')}")


def codes_of(label: ModelLabel) -> dict[str, list]:
    """The codes of a label as highdicom has them: "category", "type" and "region", lists of one or none.

    Modifiers are part of what they modify.
    """
    terminology = label.terminology or {}
    made = {
        "category": [_coded(terminology.get("category") or _TISSUE)],
        "type": [_coded(terminology.get("type") or _TISSUE)],
        "region": [_coded(terminology["region"])] if terminology.get("region") else [],
    }
    if terminology.get("type_modifier"):
        made["type"][0].SegmentedPropertyTypeModifierCodeSequence = [_coded(terminology["type_modifier"])]
    if made["region"] and terminology.get("region_modifier"):
        made["region"][0].AnatomicRegionModifierSequence = [_coded(terminology["region_modifier"])]
    return made


def refuse_other_values(values: Sequence[int], model_labels: Sequence[ModelLabel]) -> None:
    """Raises ValueError where a voxel has a value that no label has."""
    unknown = sorted(set(values) - {0, *(label.value for label in model_labels)})
    if unknown:
        raise ValueError(f"the labels have the values {unknown}, which the model does not know")


def _coded(code: Mapping[str, str]) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code["value"], short_text(code["scheme"], 16), short_text(code["meaning"]))
