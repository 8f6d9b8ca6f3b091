"""One image in all the formats that images come in."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    UltrasoundImageStorage,
    generate_uid,
)


def dicom_image(pixels: np.ndarray, photometric: str = "MONOCHROME2", frames: int = 0, **fields: object) -> Dataset:
    """A radiograph, or of colours or frames an ultrasound image: (y, x), (y, x, 3), (n, y, x) or (n, y, x, 3)."""
    colour = pixels.shape[-1] == 3
    kind = UltrasoundImageStorage if colour or frames else ComputedRadiographyImageStorage
    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta, dataset.SOPClassUID, dataset.SOPInstanceUID = meta, kind, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = "T1", "US" if colour or frames else "CR"
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3 if colour else 1, photometric
    if colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.tobytes()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def save_dicom(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def item(**fields: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def write_tiff(path: Path, pixels: np.ndarray, order: str = "<", photometric: int = 1) -> Path:
    """A TIFF without compression, (y, x) or (y, x, values), of the kinds that no program here writes."""
    height, width, values = (*pixels.shape, 1)[:3]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = [8 * pixels.dtype.itemsize] * values
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, bits), (259, 3, [1]), (262, 3, [photometric])]
    tags += [(273, 4, [8]), (277, 3, [values]), (278, 3, [height]), (279, 4, [len(data)])]
    tags += [(338, 3, [2])] if values in (2, 4) else []
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, numbers in tags:
        assert len(numbers) * {3: 2, 4: 4}[kind] <= 4, "it must fit into the directory"
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers).ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(start + data + directory + bytes(4))
    return path


def write_grey_alpha_png(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of (y, x, 2) uint16, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def write_all_formats(folder: Path, image: np.ndarray) -> dict[str, Path]:
    """An 8-bit grey image (y, x), without loss, as name -> file."""
    colour = np.stack([image] * 3, axis=-1)
    made: dict[str, Path] = {}

    def path(name: str) -> Path:
        made[name] = folder / name
        return made[name]

    Image.fromarray(image).save(path("grey.png"), dpi=(72, 72))
    Image.fromarray(image.astype(np.uint16) * 257).save(path("grey16.png"))
    Image.fromarray(colour).save(path("rgb.png"))
    Image.fromarray(np.dstack([colour, np.full_like(image, 255)])).save(path("rgba.png"))
    Image.fromarray(np.dstack([image, np.full_like(image, 255)]), "LA").save(path("alpha.png"))
    palette = Image.fromarray(image)
    palette.putpalette([value for value in range(256) for _ in range(3)])
    palette.save(path("palette.png"))
    palette.save(path("palette.tif"))
    Image.fromarray(image).save(path("grey.tif"), dpi=(300, 300))
    Image.fromarray(image).save(path("lzw.tiff"), compression="tiff_lzw")
    Image.fromarray(image.astype(np.uint16)).save(path("grey16.tif"))
    Image.fromarray(image.astype(np.float32)).save(path("float.tif"))
    Image.fromarray(colour).save(path("rgb.tif"))
    Image.fromarray(image).save(path("grey.bmp"))
    deep = sitk.GetImageFromArray(colour.astype(np.uint16), isVector=True)
    sitk.WriteImage(deep, str(path("rgb16.png")))
    sitk.WriteImage(deep, str(path("rgb16.tif")))
    wide = image.astype(np.uint16) * 257
    grey_alpha = np.dstack([wide, np.full_like(wide, 65535)])
    write_grey_alpha_png(path("alpha16.png"), grey_alpha)
    for order, name in (("<", "little"), (">", "big")):
        write_tiff(path(f"{name}_16.tif"), wide, order)
        write_tiff(path(f"{name}_white_16.tif"), 65535 - wide, order, photometric=0)
        write_tiff(path(f"{name}_alpha_16.tif"), grey_alpha, order)
    flat = sitk.GetImageFromArray(image)
    for name in ("flat.mha", "flat.nrrd", "flat.nii.gz"):
        sitk.WriteImage(flat, str(path(name)))
    slices = sitk.GetImageFromArray(image[None])
    for name in ("slice.mha", "slice.nrrd", "slice.nii"):
        sitk.WriteImage(slices, str(path(name)))
    for name, pixels in (("flat_colour", colour), ("flat_alpha", np.dstack([colour, np.full_like(image, 255)]))):
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path(f"{name}.nrrd")))
    sitk.WriteImage(sitk.GetImageFromArray(colour[None], isVector=True), str(path("vector.nrrd")))
    sitk.WriteImage(sitk.GetImageFromArray(colour[None], isVector=True), str(path("vector.nii.gz")))
    save_dicom(path("monochrome2.dcm"), dicom_image(image))
    save_dicom(path("monochrome1.dcm"), dicom_image(255 - image, "MONOCHROME1"))
    deep_grey = 4095 - image.astype(np.uint16) * 16
    save_dicom(path("monochrome1_12.dcm"), dicom_image(deep_grey, "MONOCHROME1", BitsStored=12, HighBit=11))
    save_dicom(path("rgb.dcm"), dicom_image(colour, "RGB"))
    planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0)).tobytes()
    save_dicom(path("rgb_planes.dcm"), dicom_image(colour, "RGB", PlanarConfiguration=1, PixelData=planes))
    ybr = np.stack([image, np.full_like(image, 128), np.full_like(image, 128)], axis=-1)
    save_dicom(path("ybr.dcm"), dicom_image(ybr, "YBR_FULL"))
    halved = np.stack([image[:, ::2], image[:, 1::2], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    save_dicom(path("ybr422.dcm"), dicom_image(ybr, "YBR_FULL_422", PixelData=halved.tobytes()))
    ramp = (np.arange(256, dtype=np.uint16) * 257).tobytes()
    lookup = {f"{name}PaletteColorLookupTableData": ramp for name in ("Red", "Green", "Blue")}
    lookup |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    save_dicom(path("palette.dcm"), dicom_image(image, "PALETTE COLOR", **lookup))
    save_dicom(path("palette_16.dcm"), dicom_image(image.astype(np.uint16), "PALETTE COLOR", **lookup))
    signed = -1 - image.astype(np.int16)
    save_dicom(
        path("monochrome1_signed.dcm"),
        dicom_image(signed, "MONOCHROME1", PixelRepresentation=1, BitsStored=12, HighBit=11),
    )
    return made


def write_jpeg_dicom(path: Path, image: np.ndarray) -> Path:
    """A colour image compressed as ultrasound scanners do it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=98, subsampling=0)
    dataset = dicom_image(image, "YBR_FULL_422", PixelData=encapsulate([stream.getvalue()]))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset["PixelData"].is_undefined_length = True
    return save_dicom(path, dataset)
