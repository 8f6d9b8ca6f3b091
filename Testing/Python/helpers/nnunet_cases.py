"""Real volumes with nnU-Net plans, for the tests that compare with nnU-Net itself.

The plans in ``data`` are what nnU-Net's own planner wrote for the two datasets (network architecture left out). A
case may change them, so that together the cases meet every rule of the preprocessing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# name: (volume, configuration, transpose_forward, changes to the configuration)
CASES = {
    "hippocampus, 2d": ("hippocampus", "2d", (0, 1, 2), {}),
    "hippocampus, 2d, other spacing": ("hippocampus", "2d", (0, 1, 2), {"spacing": [0.8, 1.3]}),
    "hippocampus, 2d, transposed": ("hippocampus", "2d", (2, 0, 1), {"spacing": [0.9, 1.2]}),
    "hippocampus, 3d": ("hippocampus", "3d_fullres", (0, 1, 2), {}),
    "hippocampus, other spacing": ("hippocampus", "3d_fullres", (0, 1, 2), {"spacing": [1.4, 0.8, 1.0]}),
    "hippocampus, coarse second axis": ("hippocampus", "3d_fullres", (0, 1, 2), {"spacing": [1.1, 3.5, 0.9]}),
    "hippocampus, two coarse axes": ("hippocampus", "3d_fullres", (0, 1, 2), {"spacing": [0.7, 2.5, 2.5]}),
    "hippocampus, one slice": ("hippocampus slice", "3d_fullres", (0, 1, 2), {"spacing": [0.6, 0.8, 0.8]}),
    "sarcoma, 2d": ("sarcoma", "2d", (0, 1, 2), {"spacing": [1.2, 1.2]}),
    "sarcoma, 3d": ("sarcoma", "3d_fullres", (0, 1, 2), {}),
    "sarcoma, coarser": ("sarcoma", "3d_fullres", (0, 1, 2), {"spacing": [4.0, 1.3, 1.2]}),
    "sarcoma, isotropic": ("sarcoma", "3d_fullres", (0, 1, 2), {"spacing": [1.5, 1.5, 1.5]}),
    "sarcoma, coarse along another axis": ("sarcoma", "3d_fullres", (0, 1, 2), {"spacing": [2.0, 1.1, 4.5]}),
    "sarcoma, half in plane": ("sarcoma half", "3d_fullres", (0, 1, 2), {"spacing": [2.5, 1.5, 1.5]}),
    "sarcoma, transposed": ("sarcoma", "3d_fullres", (2, 0, 1), {"spacing": [1.2, 2.0, 0.8]}),
    "sarcoma, reversed": ("sarcoma", "3d_fullres", (2, 1, 0), {"spacing": [1.2, 1.1, 5.0]}),
    "sarcoma, cropped": ("sarcoma in zeros", "3d_fullres", (1, 2, 0), {"spacing": [1.0, 1.1, 4.0]}),
    "sarcoma, cropped, masked": ("sarcoma in zeros", "3d_fullres", (0, 1, 2), {"use_mask_for_norm": [True]}),
    "body CT": ("body CT", "3d_fullres", (0, 1, 2), {"spacing": [3.0, 3.0, 3.0]}),
    "body CT, fine": ("body CT", "3d_fullres", (0, 1, 2), {"spacing": [2.0, 2.2, 2.2]}),
    "body CT, coarse, transposed": ("body CT", "3d_fullres", (2, 0, 1), {"spacing": [4.1, 3.6, 4.5]}),
}


@dataclass(frozen=True)
class Case:
    """A volume and the plans it is to be prepared with."""

    array: np.ndarray  # (C, z, y, x)
    spacing: tuple[float, float, float]  # z, y, x
    plans: dict
    configuration: str

    def nnunet(self) -> tuple[PlansManager, ConfigurationManager]:
        manager = PlansManager(self.plans)
        return manager, manager.get_configuration(self.configuration)

    def preprocessed_by_nnunet(self) -> tuple[np.ndarray, dict]:
        """What nnU-Net's preprocessor makes of the volume, and the properties that lead back."""
        properties = {"spacing": list(self.spacing)}
        result = DefaultPreprocessor(verbose=False).run_case_npy(self.array, None, properties, *self.nnunet(), {})
        return result[0], properties


def load(name: str, data: Path) -> Case:
    volume, configuration, transpose, changes = CASES[name]
    array, spacing = read_volume(volume, data)
    plans = planned("hippocampus" if volume.startswith("hippocampus") else "sarcoma")
    plans["configurations"][configuration].update(changes)
    plans["transpose_forward"] = list(transpose)
    plans["transpose_backward"] = np.argsort(transpose).tolist()
    if volume == "body CT":
        plans["configurations"][configuration]["normalization_schemes"] = ["CTNormalization"]
        plans["foreground_intensity_properties_per_channel"]["0"] = body_ct_intensities(data)
    return Case(array, spacing, plans, configuration)


def planned(dataset: str) -> dict:
    """The plans that nnU-Net's planner wrote for the hippocampus or the sarcoma dataset."""
    return json.loads((Path(__file__).parent / "data" / f"nnunet_plans_{dataset}.json").read_text())


def read_volume(name: str, data: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume (1, z, y, x) and its spacing (z, y, x) in mm."""
    hippocampus = data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz"
    sarcoma = data / "nnUNet_raw/Dataset051_SarcomaMR/imagesTr"
    if name == "hippocampus":
        return _read(hippocampus)
    if name == "hippocampus slice":
        array, spacing = _read(hippocampus)
        return array[:, 17:18], spacing
    if name == "sarcoma":
        return _read(sarcoma / "STS_002_0000.nii.gz")
    if name == "sarcoma half":
        # Every second voxel in plane: the slices are then less than three times as far apart, and a spline serves.
        array, (z, y, x) = _read(sarcoma / "STS_002_0000.nii.gz")
        return array[..., ::2, ::2], (z, 2 * y, 2 * x)
    if name == "sarcoma in zeros":
        # In a field of zeros, as skull stripping leaves a volume, at unequal distances from the borders; with holes.
        array, spacing = _read(sarcoma / "STS_008_0000.nii.gz")
        body = np.where(array > 150, array, 0)
        return np.pad(body, ((0, 0), (1, 3), (9, 0), (0, 14))), spacing
    assert name == "body CT"
    return _read(data / "volumes/body_ct/example_ct_sm.nii.gz")


def body_ct_intensities(data: Path) -> dict:
    """What nnU-Net's fingerprint would hold for the body CT: the intensities inside its labelled organs."""
    array, _ = read_volume("body CT", data)
    labels, _ = _read(data / "volumes/body_ct/example_seg_fast.nii.gz")
    inside = array[labels > 0].astype(float)
    return {
        "mean": float(inside.mean()),
        "std": float(inside.std()),
        "percentile_00_5": float(np.percentile(inside, 0.5)),
        "percentile_99_5": float(np.percentile(inside, 99.5)),
    }


def _read(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image)[None], image.GetSpacing()[::-1]
