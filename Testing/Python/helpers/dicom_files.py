"""Small DICOM files made of real voxels: single slices, and one file with all frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid


def uid(*words: object) -> str:
    return generate_uid(prefix="1.2.826.0.1.3680043.10.543.", entropy_srcs=[str(word) for word in words])


def image(kind: str, name: object, pixels: np.ndarray, **fields: object) -> Dataset:
    """One DICOM object with ``pixels`` (y, x) or (frames, y, x), unsigned 16 bits."""
    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = uid("image", name)
    dataset.file_meta, dataset.SOPClassUID, dataset.SOPInstanceUID = meta, kind, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Test^Volume", "T1", "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
    dataset.SeriesDescription = "series"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape[-2:], 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def write_slice(path: Path, pixels: np.ndarray, position, **fields: object) -> Dataset:
    """One slice of an axial series with pixels of 1 mm."""
    place = {
        "ImagePositionPatient": [f"{value:.6f}"[:16] for value in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    dataset = image(CTImageStorage, path.name, pixels, **(place | fields))
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_series(folder: Path, voxels: np.ndarray, step=(0.0, 0.0, 2.0), name="IM{:04d}.dcm", **fields) -> list[Path]:
    """A series of slices ``step`` millimetres apart from (5, 6, 7) on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(z) for z in range(len(voxels))]
    for z, path in enumerate(paths):
        write_slice(path, voxels[z], np.array([5.0, 6.0, 7.0]) + z * np.array(step), **fields)
    return paths


def item(**fields: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def write_frames(path: Path, voxels: np.ndarray, heights, slopes=None, **fields: object) -> Dataset:
    """An enhanced multi-frame object: frame i lies at ``heights[i]`` and has ``slopes[i]``."""
    frames = []
    for i, height in enumerate(heights):
        frame = item(PlanePositionSequence=[item(ImagePositionPatient=[5, 6, height])])
        if slopes is not None:
            scale = item(RescaleSlope=slopes[i], RescaleIntercept=0, RescaleType="US")
            frame.PixelValueTransformationSequence = [scale]
        frames.append(frame)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=2)],
    )
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    fields = {"NumberOfFrames": len(heights), "Modality": "MR"} | groups | fields
    dataset = image(EnhancedMRImageStorage, path.name, voxels, **fields)
    dataset.save_as(path, enforce_file_format=True)
    return dataset
