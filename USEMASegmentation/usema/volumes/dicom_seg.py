"""Labels of a DICOM series as a DICOM Segmentation (PS3.3 A.51), for archives and viewers; highdicom makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import OutputError
from .dicom_headers import pydicom_silent
from .dicom_results import (
    CHARACTERS,
    MANUFACTURER,
    codes_of,
    made_by,
    refuse_other_values,
    short_text,
    source_headers,
)
from .dicom_stack import Stack
from .segments import ModelLabel
from .writing import DICOM_SUFFIX, complete_file

_SERIES_NUMBER = 300  # as dcmqi has it: behind the series of a scanner
_MOST_TEXT = 10240  # characters of a long text


def write_dicom_segmentation(
    path: str | Path,
    labels: np.ndarray,
    stack: Stack,
    model_labels: Sequence[ModelLabel],
    provenance: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write labels as one binary DICOM Segmentation with a segment per label, an empty one where nothing was found.

    Segments carry the label's name, codes and colour (CIELab), and which model made them; each frame refers to the
    slice that it was made of. On a grid that is not the slices' own (a tilted gantry, interpolated slices) frames have
    their own positions, and refer to slices only if each lies in the plane of one.

    Args:
        path: .dcm.
        labels: integers (z, y, x) on ``stack.geometry``; the values of ``model_labels``, 0 elsewhere.
        stack: the slices that the volume was read from.
        model_labels: the segments, in order; they get the numbers 1, 2, ...
        provenance: how the labels were made, text by name.

    Raises:
        InputError: the slices cannot be read any more, or lack what a segmentation must refer to.
        OutputError: as :func:`usema.volumes.writing.check_writable`, or writing failed.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from highdicom.uid import UID

    numbers = _numbered(labels, stack, model_labels)
    headers = list(source_headers(stack).values())
    for header in headers:
        if not header.get("SliceThickness") and "NumberOfFrames" not in header:
            header.SliceThickness = round(stack.geometry.spacing[2], 6)  # what a source may lack, and a result may not
    sources, pixels = _aligned(numbers, stack, headers)
    try:
        with pydicom_silent():
            dataset = Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type=SegmentationTypeValues.BINARY,
                segment_descriptions=_descriptions(model_labels, provenance),
                series_instance_uid=UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name="usema",
                software_versions=__version__,
                device_serial_number=short_text(provenance.get("weightsSha256", "")[:16] or "0"),
                content_label="SEGMENTATION",
                content_description=made_by(provenance),
                series_description=made_by(provenance),
                specific_character_set=CHARACTERS,
                omit_empty_frames=bool(numbers.any()),
            )
            _refer_to_own_frames(dataset, stack)
            with complete_file(path, (DICOM_SUFFIX,), overwrite) as temporary:
                dataset.save_as(temporary)
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} cannot be written as a DICOM segmentation of this series: {error}",
            "Write .seg.nrrd or .nii.gz instead.",
        ) from error


def _numbered(labels: np.ndarray, stack: Stack, model_labels: Sequence[ModelLabel]) -> np.ndarray:
    """The numbers of segments in place of the values of labels."""
    if labels.shape != stack.geometry.shape:
        raise ValueError(f"an array of shape {labels.shape} is not on a grid of shape {stack.geometry.shape}")
    highest = max(int(labels.max()), *(label.value for label in model_labels), 0)
    counts = np.bincount(labels.ravel(), minlength=highest + 1)
    refuse_other_values(np.flatnonzero(counts).tolist(), model_labels)
    number_of = np.zeros(highest + 1, np.uint8 if len(model_labels) < 256 else np.uint16)
    for number, label in enumerate(model_labels, 1):
        number_of[label.value] = number
    return number_of[labels]


def _aligned(numbers: np.ndarray, stack: Stack, headers: list):
    """The source images, and the voxels in their order; on a grid of their own where they are not the slices'."""
    from highdicom import Volume

    if stack.as_acquired and len(headers) == len(stack.slices):
        return headers, numbers
    if stack.as_acquired and len(headers) == 1 and headers[0].NumberOfFrames == len(stack.slices):
        return headers, numbers[np.argsort([one.frame for one in stack.slices])]
    geometry = stack.geometry
    affine = np.eye(4)
    affine[:3, :3] = (geometry.axes * geometry.spacing)[:, ::-1]
    affine[:3, 3] = geometry.origin
    reference = headers[0].FrameOfReferenceUID
    volume = Volume(numbers, affine, coordinate_system="PATIENT", frame_of_reference_uid=reference)
    return headers if "NumberOfFrames" not in headers[0] else headers[:1], volume


def _refer_to_own_frames(dataset, stack: Stack) -> None:
    """highdicom refers to all frames of one place; in a file of several phases, others were not segmented."""
    own = {one.frame + 1 for one in stack.slices}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            images = derivation.SourceImageSequence
            derivation.SourceImageSequence = [one for one in images if one.get("ReferencedFrameNumber") in {None, *own}]


def _descriptions(model_labels: Sequence[ModelLabel], provenance: Mapping[str, str]) -> list:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(
        name=short_text(provenance.get("model", "") or MANUFACTURER),
        family=codes.cid7162.ArtificialIntelligence,
        version=short_text(provenance.get("modelVersion", "") or __version__),
        source=MANUFACTURER,
    )
    told = "; ".join(f"{key}: {value}" for key, value in provenance.items())
    algorithm[0].AlgorithmParameters = told.replace("\\", "/")[:_MOST_TEXT]
    made = []
    for number, label in enumerate(model_labels, 1):
        coded = codes_of(label)
        made.append(
            SegmentDescription(
                segment_number=number,
                segment_label=short_text(label.name),
                segmented_property_category=coded["category"][0],
                segmented_property_type=coded["type"][0],
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                anatomic_regions=coded["region"] or None,
                display_color=CIELabColor.from_rgb(*label.color),
            )
        )
    return made
