"""Stand-ins for the public downloads: their folders and file formats, a few tiny files, made-up content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from skimage import io

FRAME = (24, 40)  # height, width


def make_downloads(folder: Path) -> dict[str, Path]:
    """Recipe -> folder in which its archives were unpacked."""
    makers = {
        "abdomen-ct": _flare22,
        "abdomen-mr": _amos22,
        "endoscopy": _endovis17,
        "microscopy": _neurips_cells,
    }
    for name, make in makers.items():
        make(folder / name, np.random.default_rng(1))
    return {name: folder / name for name in makers}


def write_volume(path: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 2.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, array, check_contrast=False)


def write_cells(path: Path, cells: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, cells.astype(np.uint16), compression="zlib")


def some_cells() -> np.ndarray:
    """Two cells that touch, and one apart, (40, 48)."""
    cells = np.zeros((40, 48), int)
    cells[5:20, 5:15] = 1
    cells[5:20, 15:25] = 2
    cells[25:35, 30:40] = 300
    return cells


def _flare22(folder: Path, random: np.random.Generator) -> None:
    for part, case in (
        ("FLARE22Train", "FLARE22_Tr_0001"),
        ("FLARE22Train", "FLARE22_Tr_0002"),
        ("Tuning", "FLARETs_0001"),
    ):
        write_volume(folder / part / "images" / f"{case}_0000.nii.gz", random.integers(-1000, 400, (4, 8, 8), np.int16))
        write_volume(folder / part / "labels" / f"{case}.nii.gz", random.integers(0, 14, (4, 8, 8), np.uint8))


def _amos22(folder: Path, random: np.random.Generator) -> None:
    for part, number in (("Tr", 1), ("Tr", 507), ("Va", 8), ("Va", 541)):
        labels = np.arange(16, dtype=np.uint8).repeat(16).reshape(4, 8, 8)
        write_volume(
            folder / f"amos22/images{part}/amos_{number:04}.nii.gz", random.integers(0, 999, (4, 8, 8), np.int16)
        )
        write_volume(folder / f"amos22/labels{part}/amos_{number:04}.nii.gz", labels)


def _endovis17(folder: Path, random: np.random.Generator) -> None:
    """Rows 0-7 of a frame show the first instrument, rows 6-15 the second: they overlap in rows 6 and 7."""
    videos = {
        "instrument_1_4_training/instrument_dataset_1": (
            "Left_Prograsp_Forceps_labels",
            "Maryland_Bipolar_Forceps_labels",
        ),
        "instrument_5_8_training/instrument_dataset_7": ("Left_Bipolar_Forceps", "Right_Vessel_Sealer"),
    }
    for video, (first, second) in videos.items():
        for number in (0, 1):
            name = f"frame{number:03}.png"
            write_picture(folder / video / "left_frames" / name, random.integers(0, 256, (*FRAME, 3), np.uint8))
            masks = np.zeros((2, *FRAME), np.uint8)
            masks[0, 0:8], masks[1, 6:16] = 10, 30  # a shaft, a clasper
            write_picture(folder / video / "ground_truth" / first / name, masks[0])
            # Some masks of the challenge have three channels.
            write_picture(folder / video / "ground_truth" / second / name, np.stack([masks[1]] * 3, axis=-1))
    types = np.zeros(FRAME, np.uint8)
    types[4:9] = 6
    frame = random.integers(0, 256, (*FRAME, 3), np.uint8)
    write_picture(folder / "instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png", frame)
    truth = folder / "instrument_2017_test/instrument_2017_test/instrument_dataset_1/gt"
    write_picture(truth / "TypeSegmentation/frame225.png", types)
    write_picture(truth / "BinarySegmentation/frame225.png", types // 6 * 255)


def _neurips_cells(folder: Path, random: np.random.Generator) -> None:
    cells = some_cells()
    images = {
        "Training-labeled/images/cell_00001.bmp": random.integers(0, 256, (*cells.shape, 3), np.uint8),
        "Training-labeled/images/cell_00002.png": random.integers(0, 256, (*cells.shape, 4), np.uint8),
        "Training-labeled/images/cell_00003.tif": random.integers(0, 60000, cells.shape, np.uint16),
        "Tuning/images/cell_00001.tiff": random.integers(0, 60000, cells.shape, np.uint16),
    }
    for name, image in images.items():
        path = folder / name
        write_picture(path, image)
        write_cells(path.parents[1] / "labels" / f"{path.stem}_label.tiff", cells)
