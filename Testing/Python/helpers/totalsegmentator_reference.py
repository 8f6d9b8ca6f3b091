"""What TotalSegmentator does around nnU-Net, written once more from its description: nibabel, SciPy, nnU-Net itself."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunet_models import added_up_in_float32
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy import ndimage
from totalsegmentator_models import public


def segmented(file: Path, weights: Path, name: str, only: tuple[str, ...] = (), finder: str = "") -> np.ndarray:
    """The labels (z, y, x) of the model totalsegmentator-``name``.

    Args:
        file: NIfTI.
        weights: the folder with the folders of the datasets.
        only: names of labels as the publisher writes them; then only the parts that have one run, ...
        finder: ... in the box in which this model finds them.
    """
    model, image = public(name), nibabel.load(file)
    recipe = model.recipe
    crop = recipe.get("crop_first") or (only and {"model": finder, "labels": only, "margin_mm": 20}) or None
    data, box = image.get_fdata(), (slice(None),) * 3
    if crop:
        other = crop["model"].removeprefix("totalsegmentator-")
        values = [public(other).raw_labels.index(label) + 1 for label in crop["labels"]]
        mask = np.isin(segmented(file, weights, other).transpose(2, 1, 0), values)
        box = _box(mask, crop["margin_mm"], image.header.get_zooms())
    affine = image.affine.copy()
    affine[:3, 3] = (affine @ [*(side.start or 0 for side in box), 1])[:3]
    piece = nibabel.Nifti1Image(data[box], affine)
    canonical = nibabel.as_closest_canonical(piece)
    array, spacing = canonical.get_fdata(), np.array(canonical.header.get_zooms(), float)
    if recipe["resample_mm"]:
        size = np.round(np.array(array.shape) * spacing / recipe["resample_mm"]).astype(int)
        array = ndimage.zoom(array, size / array.shape, order=1, mode="nearest").astype(np.int32)
        spacing = np.array(recipe["resample_mm"])
    labels = np.zeros(array.shape, np.uint8)
    wanted = {model.raw_labels.index(label) + 1 for label in only} or set(range(1, 256))
    for dataset in recipe["datasets"]:
        table = np.array([0, *dataset.get("labels", range(1, len(model.labels) + 1))], np.uint8)
        if wanted & set(table.tolist()) and "role" not in dataset:
            found = table[_nnunet(weights, dataset, recipe, array, spacing)]
            labels[found > 0] = found[found > 0]
    if "body" in recipe.get("postprocess", ()):
        labels = _body(labels, np.prod(spacing))
    back = np.array(canonical.shape) / array.shape
    labels = ndimage.zoom(labels, back, order=0, mode="nearest")
    turned = nibabel.Nifti1Image(labels, canonical.affine).as_reoriented(
        ornt_transform(axcodes2ornt("RAS"), io_orientation(piece.affine))
    )
    whole = np.zeros(image.shape, np.uint8)
    whole[box] = np.asarray(turned.dataobj)
    if only:
        whole[~np.isin(whole, list(wanted))] = 0
    return whole.transpose(2, 1, 0)


def _box(mask: np.ndarray, margin: float, zooms) -> tuple[slice, ...]:
    assert mask.any()
    places = np.argwhere(mask)
    wide = (margin / np.array(zooms)).astype(int)
    first, last = places.min(0) - wide, places.max(0) + 1 + wide
    return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(first, last, mask.shape, strict=True))


def _nnunet(weights: Path, dataset: dict, recipe: dict, array: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    predictor = nnUNetPredictor(
        tile_step_size=1 - recipe["overlap"], device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False
    )
    folds = None if recipe["folds"] == "all" else tuple(map(int, recipe["folds"]))
    predictor.initialize_from_trained_model_folder(str(weights / dataset["folder"] / dataset["training"]), folds)
    channels = array.transpose(2, 1, 0)[None].astype(np.float32)
    with added_up_in_float32():
        found = predictor.predict_single_npy_array(channels, {"spacing": spacing[::-1].tolist()}, None, None, False)
    return found.transpose(2, 1, 0)


def _body(labels: np.ndarray, voxel_mm3: float) -> np.ndarray:
    trunk, _ = ndimage.label(labels == 1)
    sizes = np.bincount(trunk.ravel())[1:]
    result = np.where(trunk == sizes.argmax() + 1, 1, 0) if len(sizes) else np.zeros_like(labels)
    limbs, _ = ndimage.label(labels == 2)
    large = np.bincount(limbs.ravel()) * voxel_mm3 > 50_000
    large[0] = False
    return np.where(large[limbs], 2, result).astype(np.uint8)
