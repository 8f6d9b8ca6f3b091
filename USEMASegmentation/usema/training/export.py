"""From the results of a training to a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, InputError
from ..inference.nnunet_labels import labels_of
from ..inference.plan import Plan, configuration_of
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from ..volumes.volume import read_volume

# Distinct colours, and the code for any tissue, for labels that the card does not describe.
_COLORS = ((216, 101, 79), (128, 174, 128), (241, 214, 145), (111, 184, 210), (177, 122, 101), (183, 156, 220))
_ANY = {
    "category": {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"},
    "type": {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"},
}

_CHECKPOINTS = {"final": "final", "best": "best on patches of the validation cases", "latest": "latest"}


def export_bundle(
    results: Path,
    folder: Path,
    *,
    card: Path | None = None,
    dataset: Path | None = None,
    fold: str = "0",
    checkpoint: str = "final",
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle from an nnU-Net results folder that a USEMA trainer made.

    Args:
        results: the folder that holds plans.json, dataset.json and fold_N.
        folder: the bundle's.
        card: JSON with what a person has to say (title, intended use, limits, labels with codes, licence, ...); its
            keys are those of model.json and override all others.
        dataset: the dataset's raw folder; its images tell orientation and range of spacings.
        checkpoint: "final", "best" or "latest". nnU-Net validates the final one: no other gets its figures.

    Raises:
        InputError: a file of the results is missing.
        BundleError: the plan, the labels or the card cannot be used.
        OutputError: the folder exists, or cannot be written.
    """
    import safetensors

    plans, description = _json(results / "plans.json"), _json(results / "dataset.json")
    weights = results / f"fold_{fold}" / f"checkpoint_{checkpoint}.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights} is missing.", "Train with nnUNetTrainerUSEMA or one of its variants.")
    with safetensors.safe_open(weights, framework="pt") as file:
        metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary

    configuration = metadata["training"]["configuration"]
    previous = configuration_of(plans, configuration).get("previous_stage")
    if previous:
        raise BundleError(
            f"'{configuration}' is the second stage of a cascade, after '{previous}'.",
            "Export a configuration that works alone, such as 3d_fullres.",
        )
    document = _described(description)
    regions = document.pop("inference")
    document |= metadata
    document["inference"] = {**regions, **document["inference"]}
    document["preprocessing"] = Plan.from_nnunet(plans, configuration).to_dict()
    document["training"]["checkpoint"] = _CHECKPOINTS[checkpoint]
    summary = results / f"fold_{fold}" / "validation" / "summary.json"
    document["metrics"] = _validation(summary, description["labels"]) if checkpoint == "final" else {}
    if dataset is not None:
        document |= _seen(dataset)
    if plans.get("image_reader_writer") == "NibabelIOWithReorient":
        document["orientation"] = "RAS"  # that reader turns every image before training sees it
    if card is not None:
        document |= _json(card)
    return write_bundle(folder, document, state, overwrite=overwrite)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", "Check the path.") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None


def _described(dataset: dict[str, Any]) -> dict[str, Any]:
    """Defaults from nnU-Net's dataset.json."""
    try:
        names, regions = labels_of(dataset, "dataset.json")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"dataset.json cannot be used: its labels are {dataset.get('labels')!r}.") from error
    name = dataset.get("name", "model")
    unknown = "Not described."
    return {
        "name": "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-"),
        "title": name,
        "version": "0.1.0",
        "description": dataset.get("description", unknown),
        "intended_use": "Research only. Not a medical device.",
        "limits": unknown,
        "modality": "OT",
        "anatomy": unknown,
        "channels": [{"name": channel} for channel in dataset["channel_names"].values()],
        "expected_spacing_mm": {"min": [0.1] * 3, "max": [10.0] * 3},
        "expected_intensity_range": None,
        "orientation": None,
        "labels": [
            {"value": value, "name": label, "color": list(_COLORS[(value - 1) % len(_COLORS)]), "terminology": _ANY}
            for value, label in enumerate(names, 1)
        ],
        "inference": {"activation": "sigmoid", "region_order": list(regions)} if regions else {},
        "licence": {
            "name": dataset.get("licence", unknown),
            "url": "https://example.org",
            "commercial_use": False,
            "attribution": dataset.get("reference", unknown),
        },
        "citation": dataset.get("reference", unknown),
    }


def _validation(summary: Path, labels: dict[str, Any]) -> dict[str, Any]:
    """What nnU-Net measured on the cases that training left out; nothing if it did not get that far."""
    if not summary.is_file():
        return {}
    measured = _json(summary)
    # A region's key is its values in brackets. Background and what was ignored are not measured.
    keys = {name: str(tuple(value) if isinstance(value, list) else value) for name, value in labels.items()}
    mean = measured["mean"]
    dice = {name: round(mean[key]["Dice"], 4) for name, key in keys.items() if key in mean}
    return {
        "validation": {
            "cases": len(measured["metric_per_case"]),
            "mean_dice": round(sum(dice.values()) / len(dice), 4),
            "dice": dice,
        }
    }


def _seen(dataset: Path) -> dict[str, Any]:
    """Orientation, spacings and lengths of the training images; the orientation only if all agree."""
    images = sorted((dataset / "imagesTr").glob("*"))
    if not images:
        raise InputError(f"{dataset / 'imagesTr'} is empty.", "Name the raw folder of the training's dataset.")
    geometries = [read_volume(path).geometry for path in images]
    orientations = {geometry.orientation for geometry in geometries}
    spacings = [geometry.spacing for geometry in geometries]
    extents = [[n * mm for n, mm in zip(one.size, one.spacing, strict=True)] for one in geometries]
    seen = {"orientation": None, "expected_spacing_mm": _range(spacings)}
    if len(orientations) == 1:  # else there is no length along x that all have
        seen |= {"orientation": orientations.pop(), "expected_extent_mm": _range(extents)}
    return seen


def _range(values: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """The least and the greatest along x, y and z."""
    axes = list(zip(*values, strict=True))
    return {"min": [min(axis) for axis in axes], "max": [max(axis) for axis in axes]}
