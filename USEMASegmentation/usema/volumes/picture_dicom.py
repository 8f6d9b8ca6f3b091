"""One DICOM image: radiographs, ultrasound, photographs; several frames are a cine, whose frames are independent.

ITK's GDCM decodes it: MONOCHROME1 is inverted, palettes and YBR become red, green and blue, and the modality's rescale
is applied. Windows are left to viewers, and burnt-in text stays.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from ..errors import InputError
from .dicom_headers import read_header, refuse_shifted_bits
from .dicom_pixels import decoded
from .file_grid import COPY_AGAIN
from .geometry import Geometry
from .pictures import Picture
from .told import told_by

log = logging.getLogger(__name__)

_CENTIMETRES, _TISSUE = 3, 1  # of ultrasound regions: PhysicalUnits, and the format of a two-dimensional image
_EQUAL = 1e-3  # of each other: spacings that say the same


def read_dicom_picture(path: Path, sized: bool = False) -> Picture:
    """Read one DICOM image.

    Args:
        sized: the size of a pixel is known from elsewhere, and no word is lost on it.

    Raises:
        InputError: it is damaged, no image, or a volume.
    """
    own = read_header(path)
    if own is None:
        raise InputError(f"{path} is no DICOM file.", COPY_AGAIN)
    if own.other:
        raise InputError(f"{path} is not a DICOM image but: {own.other}.", "Give the image itself.")
    if own.fault:
        raise InputError(f"{path} is broken: {own.fault}.", COPY_AGAIN)
    header = _header(path)
    refuse_shifted_bits(path, header)
    if own.frames > 1 and _has_places(header):
        raise InputError(
            f"{path} is a volume of {own.frames} slices, and the model is for two-dimensional images.",
            "Choose a model for volumes, or give one slice.",
        )
    array = _by_pydicom(path) if _gdcm_mistakes(header) else _by_gdcm(path)
    spacing, said = pixel_size(header)
    if said and not sized:
        log.warning("%s: %s", path, said)
    frames, height, width = array.shape[:3]
    origin, direction = _place(header)
    geometry = Geometry((width, height, frames), (*(spacing or (1.0, 1.0)), 1.0), origin, direction)
    return Picture(array, geometry, told=told_by(header), pixel_size_known=spacing is not None)


def pixel_size(header: Dataset) -> tuple[tuple[float, float] | None, str]:
    """The size of a pixel along x and y in mm, from whichever tag has it, and what to know about that; None: no tag."""
    own, detector = _own_spacing(header), _pair(header, "ImagerPixelSpacing")
    at_detector = "the size of a pixel is that at the detector: in the patient, lengths are smaller than they are told."
    if own is not None:
        uncalibrated = not header.get("PixelSpacingCalibrationType")
        same = detector is not None and np.allclose(own, detector, rtol=_EQUAL)
        return own, at_detector if same and uncalibrated else ""
    if detector is not None:
        magnification = _number(header.get("EstimatedRadiographicMagnificationFactor"))
        if magnification and magnification >= 1:
            said = f"the size of a pixel was taken from the detector and the magnification {magnification:g}."
            return (detector[0] / magnification, detector[1] / magnification), said
        return detector, at_detector
    scanned = _pair(header, "NominalScannedPixelSpacing")
    if scanned is not None:
        return scanned, "the size of a pixel is that of a scanned film."
    return _ultrasound(header)


def _own_spacing(header: Dataset) -> tuple[float, float] | None:
    """``PixelSpacing``, of the image or, in enhanced objects, of all frames or the first one that has it."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in header.get(groups) or ():
            for measures in group.get("PixelMeasuresSequence") or ():
                if (found := _pair(measures, "PixelSpacing")) is not None:
                    return found
    return _pair(header, "PixelSpacing")


def _ultrasound(header: Dataset) -> tuple[tuple[float, float] | None, str]:
    regions = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        deltas = [_number(region.get(f"PhysicalDelta{axis}")) for axis in "XY"]
        if units != {_CENTIMETRES} or None in deltas or 0 in deltas:
            continue
        if region.get("RegionSpatialFormat", _TISSUE) != _TISSUE:
            continue
        corners = [_number(region.get(f"RegionLocation{name}")) or 0 for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
        regions.append((area, tuple(10 * abs(delta) for delta in deltas)))
    if not regions:
        return None, ""
    spacing = max(regions)[1]
    if all(np.allclose(other, spacing, rtol=_EQUAL) for _, other in regions):
        return spacing, ""
    return spacing, f"its {len(regions)} regions have pixels of different sizes; that of the largest region was taken."


def _by_gdcm(path: Path) -> np.ndarray:
    image = decoded(path)
    return _frames(path, sitk.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel())


def _gdcm_mistakes(header: Dataset) -> bool:
    """Palettes of numbers of 16 bits become black, and signed values whose least is white are refused."""
    kind = header.get("PhotometricInterpretation")
    return (kind == "PALETTE COLOR" and header.get("BitsAllocated") == 16) or (
        kind == "MONOCHROME1" and header.get("PixelRepresentation") == 1
    )


def _by_pydicom(path: Path) -> np.ndarray:
    try:
        from pydicom.pixels import apply_color_lut, apply_rescale
    except ImportError:  # before 3.0
        from pydicom.pixel_data_handlers.util import apply_color_lut
        from pydicom.pixel_data_handlers.util import apply_modality_lut as apply_rescale
    try:
        dataset = pydicom.dcmread(path, force=True)
        array = dataset.pixel_array
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _frames(path, apply_color_lut(array, dataset), 3)
        return _frames(path, apply_rescale(-1 - array, dataset), 1)  # from the highest value to the least
    except InputError:
        raise
    except Exception as error:  # pydicom raises what its parts raise
        raise InputError(f"{path} cannot be decoded: {error}.", "Export it uncompressed.") from error


def _frames(path: Path, array: np.ndarray, components: int) -> np.ndarray:
    if components not in (1, 3):
        raise InputError(f"{path} has {components} values in each pixel, which are no colours.", "Export it as RGB.")
    return array if array.ndim == (3 if components == 1 else 4) else array[None]


def _header(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom raises what its parts raise
        raise InputError(f"{path} is damaged: its header cannot be read.", COPY_AGAIN) from error


def _has_places(header: Dataset) -> bool:
    """Whether each frame says where in the patient it lies, and they do not all lie at one place."""
    places = set()
    for frame in header.get("PerFrameFunctionalGroupsSequence") or ():
        for position in frame.get("PlanePositionSequence") or ():
            places.add(tuple(position.get("ImagePositionPatient") or ()))
    return len(places) > 1


def _place(header: Dataset) -> tuple[tuple[float, float, float], np.ndarray]:
    """Origin and direction of a slice that has them; else those of an image that lies nowhere."""
    nowhere = (0.0, 0.0, 0.0), np.eye(3).ravel()
    try:
        origin = tuple(float(value) for value in header.ImagePositionPatient)
        rows, columns = np.array([float(value) for value in header.ImageOrientationPatient]).reshape(2, 3)
        direction = np.stack([rows, columns, np.cross(rows, columns)], axis=1)
        Geometry((1, 1, 1), (1, 1, 1), origin, direction.ravel())
    except (AttributeError, TypeError, ValueError, InputError):
        return nowhere
    return origin, direction.ravel()


def _pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Spacings along x and y; the tags name that between rows first."""
    try:
        rows, columns = (float(value) for value in header.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return (columns, rows) if 0 < rows < np.inf and 0 < columns < np.inf else None


def _number(value: object) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
