"""What one DICOM file says of itself: whether it is an image, whole, and where its frames lie. Reads no voxels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import UID

from ..errors import InputError
from .dicom_padding import padding_of
from .file_grid import COPY_AGAIN
from .told import TEXTS

ORIGINAL_SLICES = "Give the original slices, not screenshots or secondary captures."

# Numbers that tell apart images of one place: which phase, echo or weighting it is.
_PHASES = (
    "TemporalPositionIdentifier",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ImageType",
)
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [
    pydicom.tag.Tag(keyword)
    for keyword in (
        *(
            "SpecificCharacterSet",
            "ImageType",
            "SOPClassUID",
            "SOPInstanceUID",
            "SeriesInstanceUID",
            "SeriesNumber",
            *TEXTS,
        ),
        *("Modality", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
        *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", *_PHASES, *_GROUPS),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    )
]
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # Float, Double Float, and Pixel Data
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Slice:
    """One frame of one file, and where it lies."""

    file: Path
    frame: int
    position: np.ndarray  # (3,) LPS mm, centre of the first pixel
    orientation: np.ndarray  # (6,) direction of the rows, direction of the columns
    spacing: tuple[float, float]  # mm between rows, between columns
    decimals: int  # that the spacing was written with
    size: tuple[int, int]  # columns, rows
    rescale: tuple[float, float] | None = None  # slope and intercept of this frame, where frames have their own
    first_rescale: tuple[float, float] | None = None  # those of the first frame of its file
    white_first: bool = False  # its least value is to be shown white (MONOCHROME1)
    padding: tuple[float, float] | None = None  # values, rescaled, that stand for what was not measured
    phase: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DicomFile:
    """``fault`` says what is broken, ``other`` what it is if no image; both are empty for an image.

    ``number`` is that of the series; ``placed`` says that each frame of several says where it lies.
    """

    path: Path
    fault: str = ""
    other: str = ""
    series: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    syntax: str = ""
    localizer: bool = False
    colour: bool = False
    frames: int = 1
    placed: bool = False
    instance: str = ""
    orientation: tuple[float, ...] = ()  # of a file of one slice, to one digit
    header: Dataset | None = None

    @property
    def is_image(self) -> bool:
        return not (self.fault or self.other)

    def slices(self) -> list[Slice]:
        """Where its frames lie. Raises InputError where it does not say so, is damaged, or is a colour image."""
        try:
            with pydicom_silent():
                return self._slices()
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
            raise InputError(f"{self.path} is damaged: its header cannot be read.", COPY_AGAIN) from error

    def _slices(self) -> list[Slice]:
        if self.colour:
            raise InputError(f"{self.path} is a colour image.", "Give a series with one intensity per voxel.")
        shared, frames = (self.header.get(name) or [] for name in _GROUPS)
        if self.frames > 1 and len(frames) < self.frames:
            raise InputError(
                f"{self.path} is a multi-frame DICOM file that does not say where its {self.frames} frames lie.",
                "Give a CT, MR or PET volume; screenshots, ultrasound loops and angiographies are none.",
            )
        refuse_shifted_bits(self.path, self.header)
        shared = shared[0] if shared else Dataset()
        made = [self._slice(i, shared, frames[i] if i < len(frames) else Dataset()) for i in range(self.frames)]
        return [replace(one, first_rescale=made[0].rescale) for one in made]

    def _slice(self, index: int, shared: Dataset, own: Dataset) -> Slice:
        def group(sequence: str) -> Dataset:
            """The functional group of this frame, of all frames, or (in a file of one frame) the file itself."""
            for place in (own, shared):
                if place.get(sequence):
                    return place[sequence][0]
            return self.header

        spacing_of = group("PixelMeasuresSequence")
        spacing = self._numbers(spacing_of, "PixelSpacing", 2)
        if min(spacing) <= 0:
            raise InputError(
                f"{self.path} gives a pixel spacing of {spacing[0]:g}, {spacing[1]:g} mm.", ORIGINAL_SLICES
            )
        texts = [str(value).strip().lower().partition("e")[0] for value in spacing_of.PixelSpacing]
        values = group("PixelValueTransformationSequence")
        own_scale = values is not self.header
        return Slice(
            file=self.path,
            frame=index,
            position=self._numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
            orientation=self._numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            spacing=tuple(spacing.tolist()),
            decimals=min(len(text.partition(".")[2].rstrip("0")) for text in texts),
            size=(int(self.header.Columns), int(self.header.Rows)),
            rescale=(float(values.RescaleSlope), float(values.RescaleIntercept)) if own_scale else None,
            white_first=self.header.get("PhotometricInterpretation") == "MONOCHROME1",
            padding=padding_of(self.header, values),
            phase=_phase(self.header) | _frame_phase(own),
        )

    def _numbers(self, place: Dataset, keyword: str, count: int) -> np.ndarray:
        """The numbers that place a frame in the patient; ITK would fill in defaults where they are missing."""
        try:
            text = place.get(keyword)
            values = np.array([float(value) for value in text or ()])
        except (ValueError, TypeError):
            text, values = place.get_item(keyword).value, np.empty(0)
        if len(values) != count or not np.isfinite(values).all():
            tag = pydicom.datadict.tag_for_keyword(keyword)
            text = text.decode("latin-1") if isinstance(text, bytes) else "" if text is None else str(text)
            raise InputError(
                f"{self.path} has {text!r} in DICOM tag ({tag >> 16:04x},{tag & 0xFFFF:04x}).", ORIGINAL_SLICES
            )
        return values


def looks_like_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does, with or without its preamble. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return _starts_as_dicom(file.read(132))


def read_header(path: Path) -> DicomFile | None:
    """What a file says of itself; None if it is no DICOM file. Whatever is wrong with it is in ``fault``."""
    try:
        with path.open("rb") as file, pydicom_silent():
            head = file.read(132)
            if not head:
                return DicomFile(path, fault="it is empty")
            if not _starts_as_dicom(head):
                return None
            file.seek(0)
            return _read(path, file)
    except OSError as error:
        return DicomFile(path, fault=error.strerror or str(error))
    except Exception:  # pydicom raises whatever broken bytes lead to
        return DicomFile(path, fault="it is damaged or incomplete: its header cannot be read")


@contextmanager
def pydicom_silent() -> Iterator[None]:
    """Without pydicom's remarks on unusual values, which it both warns of and logs."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _starts_as_dicom(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    # Without a preamble: group 0008 or 0002, a small element, and a length or a value representation.
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    return len(head) > 8 and group in (2, 8) and element < 0x100 and (head[4:6].isalpha() or head[6:8] == b"\0\0")


def _read(path: Path, file) -> DicomFile:
    pixels: list[tuple[int, int]] = []  # the length of the element of voxels, and where its value starts

    def at_pixels(tag, vr, length) -> bool:
        if tag in _PIXELS:
            pixels.append((length, file.tell()))
        return tag in _PIXELS

    dataset = read_partial(file, at_pixels, force=True, specific_tags=_TAGS)
    meta = dataset.file_meta
    syntax = UID(meta.get("TransferSyntaxUID", "") or "")
    kind = UID(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    told = {
        "path": path,
        "series": str(dataset.get("SeriesInstanceUID") or ""),
        "number": str(dataset.get("SeriesNumber") or ""),
        "placed": bool(dataset.get(_GROUPS[1])),
        "description": str(dataset.get("SeriesDescription") or ""),
        "modality": str(dataset.get("Modality") or ""),
        "syntax": syntax.name,
        "instance": str(dataset.get("SOPInstanceUID") or ""),
        "orientation": tuple(round(float(value), 1) for value in dataset.get("ImageOrientationPatient") or ()),
        "header": dataset,
    }
    if other := _no_image(kind):
        return DicomFile(**told, other=other)
    if not pixels:
        if kind.startswith("1.2.840.10008.") or "Rows" in dataset or not kind:
            return DicomFile(**told, fault="it ends before its voxels")
        return DicomFile(**told, other="object of a manufacturer's own kind, without voxels")
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.get("SamplesPerPixel") or 1)
        needed = dataset.Rows * dataset.Columns * samples * frames * dataset.BitsAllocated // 8
        if str(dataset.get("PhotometricInterpretation") or "").endswith("_422"):
            needed = needed * 2 // 3  # two pixels share their colour
    except (AttributeError, TypeError, ValueError):
        return DicomFile(**told, fault="it does not say how many voxels it has")
    length, start = pixels[0]
    items = 0 if _is_film(syntax) else frames
    if syntax and not syntax.is_transfer_syntax:
        fault = f"its transfer syntax is {syntax}, which is not known here"
    else:
        fault = "" if syntax and syntax.is_deflated else _missing_pixels(file, start, length, needed, items)
    colour = samples > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    told |= {"colour": colour, "frames": frames, "fault": fault}
    return DicomFile(**told, localizer="LOCALIZER" in [str(word).upper() for word in dataset.get("ImageType") or ()])


def refuse_shifted_bits(path: Path, header: Dataset) -> None:
    """Raises InputError where the bits of a pixel do not begin at the lowest one: GDCM takes others."""
    bits, highest = header.get("BitsStored"), header.get("HighBit")
    if bits is not None and highest is not None and highest != bits - 1:
        raise InputError(
            f"{path} stores its {bits} bits up to bit {highest}, which is not read here.", "Export it anew."
        )


def _no_image(kind: UID) -> str:
    """What a file of this kind is, if it holds no image that can be segmented."""
    if not kind.startswith("1.2.840.10008."):
        return ""
    name = kind.name.removesuffix(" Storage")
    images = "Image" in name or "Volume" in name
    return "" if images and not name.startswith(("RT ", "Media")) else name


def _is_film(syntax: UID) -> bool:
    """Whether frames are compressed together."""
    return any(word in syntax.name for word in ("MPEG", "HEVC"))


def _missing_pixels(file, start: int, length: int, needed: int, frames: int) -> str:
    """What lacks of the voxels, whose value of ``length`` bytes starts at ``start``; empty if they are whole."""
    end = file.seek(0, 2)
    if length != _UNDEFINED:
        if end < start + length:
            return f"it ends after {end} of at least {start + length} bytes"
        if length >= 2 * needed > 0:  # more than padding: read as it says, it would be another image
            return f"it holds {length} bytes of voxels, but its header describes {needed}"
        return f"it holds {length} of {needed} bytes of voxels" if length < needed else ""
    # Compressed voxels are items with a length each, up to an item that ends them: where frames begin, then one or more
    # of each frame.
    items = -1
    while start + 8 <= end:
        file.seek(start)
        item = file.read(8)
        if item[:4] == b"\xfe\xff\xdd\xe0":
            return f"it holds {items} of {frames} compressed frames" if items < frames else ""
        if item[:4] != b"\xfe\xff\x00\xe0":
            return "its compressed voxels are damaged"
        items += 1
        start += 8 + int.from_bytes(item[4:], "little")
    return f"it ends after {end} of at least {start + 8} bytes"


def _phase(header: Dataset) -> dict[str, str]:
    told = {}
    for name in _PHASES:
        with suppress(ValueError, NotImplementedError):  # what is badly written tells nothing
            if name in header:
                told[name] = str(header[name].value)
    return told


def _frame_phase(own: Dataset) -> dict[str, str]:
    """What tells a frame of a multi-frame file from others of its place: where it stands in each dimension."""
    content = own.get("FrameContentSequence")
    position = content[0].get("TemporalPositionIndex") if content else None
    echo = own.get("MREchoSequence")
    told = {"TemporalPositionIndex": position, "EffectiveEchoTime": echo[0].get("EffectiveEchoTime") if echo else None}
    return {name: str(value) for name, value in told.items() if value is not None}
