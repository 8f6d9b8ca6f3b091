"""The bundle of one or several nnU-Net configurations: what model.json says of them, and where that is known from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from ..models.parts import IMAGE
from .labels import described
from .source import Source

if TYPE_CHECKING:
    from . import Options, Work
    from .nnunet import Network, Trained

_UNKNOWN = "Not stated by whoever trained it."
_SIDES = (
    "The model does not say how its training images lay. Volumes are taken as they are stored, as nnU-Net takes them: "
    "where yours are stored otherwise than its training images, left and right may be mistaken. If you know how they "
    "lay, import it with that orientation (command line: --orientation RAS)."
)
_MODALITIES = {"CT": ("ct", "cbct"), "PT": ("pet", "pt", "suv"), "US": ("us", "ultrasound")}
_MR = re.compile(r"(t1|t2|pd|flair|mr|adc|dwi|bold|swi)")


def write(
    source: Source, chosen: Sequence[Trained], networks: Sequence[Network], folder: Path, options: Options, work: Work
) -> Bundle:
    """Writes the bundle.

    Args:
        source: the file or folder that was named.
        chosen: what the user asked for; several are averaged.
        networks: these and the earlier stages of cascades, in the order in which they run.
        folder: of the bundle.
        options: of the import.
        work: told what the user should know.
    """
    results = [network for network in networks if network.trained in chosen]
    main = results[0]
    for other in results[1:]:
        for what in ("label_names", "region_order", "channels"):
            if getattr(other.described, what) != getattr(main.described, what):
                raise InputError(
                    f"{main.trained.key} and {other.trained.key} have different {what.replace('_', ' ')}: they cannot "
                    "be averaged.",
                    "Choose configurations of one dataset.",
                )
    dataset = re.sub(r"^Dataset\d+_", "", main.described.dataset)
    configurations = [network.training.configuration for network in results]
    document = {
        "name": options.name or _slug(f"{dataset}-{'-'.join(configurations)}"),
        "title": f"{dataset} (nnU-Net {' + '.join(configurations)})",
        "version": "1.0.0",
        "description": f"Trained with nnU-Net on {main.described.dataset}; imported from {source.path.resolve().name}.",
        "intended_use": "Research only. Not a medical device.",
        "limits": _UNKNOWN,
        "modality": _modality(main),
        "anatomy": dataset,
        "channels": [{"name": name} for name in main.described.channels],
        "expected_spacing_mm": _spacing(source, main),
        "expected_intensity_range": None,
        **_of_images(main),
        "orientation": None if _sees_images(main) else _orientation(main, options, work),
        "labels": described(main.described.label_names),
        **_parts(networks, results),
        "training": {
            "dataset": main.described.dataset,
            "cases": cases_of(main),
            "framework": f"nnU-Net 2, {main.training.trainer}",
            "iterations": None,
            "seed": None,
            "date": None,
            "epochs": main.training.epochs,
            "configuration": " + ".join(configurations),
            "folds": [fold for fold in main.weights if fold],
            "checkpoint": main.kind,
        },
        "metrics": {},
        "licence": _licence(main),
        "citation": str((main.training.dataset or {}).get("reference") or _UNKNOWN),
        "source": {
            "format": "nnU-Net v2",
            "file": source.path.resolve().name,
            "sha256": source.whole_sha256([place for network in networks for place in network.places]),
            "converter": f"USEMA {__version__}",
        },
    }
    steps = _postprocessing(source, results, options, work)
    if steps:
        document["postprocess"] = steps
    return write_bundle(folder, document, weights_of(networks, document), half=False)


def _parts(networks: Sequence[Network], results: Sequence[Network]) -> dict[str, Any]:
    """One network stands at the top of model.json; several folds, stages or configurations are parts."""
    if len(networks) == 1 and len(networks[0].weights) == 1:
        return described_network(networks[0])
    parts = []
    for network in networks:
        part = {"name": _part_name(network, networks), "folds": [fold_name(fold) for fold in network.weights]}
        part |= described_network(network)
        if network.described.previous:
            part["previous"] = parts[-1]["name"]
        parts.append(part)
    return {"parts": parts, **({"combine": "probabilities"} if len(results) > 1 else {})}


def described_network(network: Network) -> dict[str, Any]:
    inference: dict[str, Any] = {"mirror_axes": network.training.mirror_axes}
    if network.described.region_order:
        inference |= {"activation": "sigmoid", "region_order": list(network.described.region_order)}
    return {
        "architecture": network.described.architecture,
        "preprocessing": network.described.preprocessing,
        "inference": inference,
    }


def _part_name(network: Network, networks: Sequence[Network]) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", network.training.configuration)[:48]
    same = [other for other in networks if other.training.configuration == network.training.configuration]
    return name if len(same) == 1 else f"{name}-{same.index(network) + 1}"


def fold_name(fold: str) -> str:
    return fold or "only"


def weights_of(networks: Sequence[Network], document: dict[str, Any]) -> dict[str, Any]:
    import torch

    tensors = {}
    for index, network in enumerate(networks):
        for fold, arrays in network.weights.items():
            prefix = f"{document['parts'][index]['name']}.{fold_name(fold)}." if "parts" in document else ""
            tensors |= {prefix + name: torch.from_numpy(array) for name, array in arrays.items()}
    return tensors


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def _modality(network: Network) -> str:
    """DICOM's, by the names of the channels; OT where they do not tell."""
    if "CTNormalization" in network.described.preprocessing["normalization"]:
        return "CT"
    first = network.described.channels[0].lower()
    for modality, names in _MODALITIES.items():
        if first in names:
            return modality
    return "MR" if _MR.match(first) else "OT"


def _sees_images(network: Network) -> bool:
    return network.described.preprocessing.get("kind") == IMAGE


def _of_images(network: Network) -> dict[str, str]:
    """What only a model for two-dimensional images says."""
    from ..inference.image_plans import colours_of

    return colours_of(network.described.channels) if _sees_images(network) else {}


def _orientation(network: Network, options: Options, work: Work) -> str | None:
    if options.orientation:
        return options.orientation.upper()
    if network.described.reorients:
        work.report("Volumes are turned to RAS, as the reader did that the model was trained with.")
        return "RAS"
    if "totalseg" in network.described.dataset.lower():
        work.report("Volumes are turned to RAS, as TotalSegmentator turns them before nnU-Net sees them.")
        return "RAS"
    work.report(_SIDES)
    return None


def _spacing(source: Source, network: Network) -> dict[str, list[float]]:
    """The range in the training images, if the fingerprint is there; else any."""
    place = network.trained.file("dataset_fingerprint.json")
    if network.places[0] != place and source.has(place) and len(source.files) > 1:
        fingerprint = source.json(place)
        spacings = fingerprint.get("spacings") if isinstance(fingerprint, dict) else None
        if isinstance(spacings, list) and spacings and all(_is_spacing(spacing) for spacing in spacings):
            axes = list(zip(*(spacing[::-1] for spacing in spacings), strict=True))
            return {"min": [min(axis) for axis in axes], "max": [max(axis) for axis in axes]}
    return {"min": [0.05] * 3, "max": [20.0] * 3}


def _is_spacing(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(mm, (int, float)) and mm > 0 for mm in value)


def cases_of(network: Network) -> int | None:
    cases = (network.training.dataset or {}).get("numTraining")
    return cases if isinstance(cases, int) and cases > 0 else None


def _licence(network: Network) -> dict[str, Any]:
    """As dataset.json has it, which is the data's; nobody's word for the weights."""
    dataset = network.training.dataset or {}
    stated = dataset.get("licence") or dataset.get("license")
    return {
        "name": f"{stated} (of the training data)" if stated else "Not stated",
        "url": "https://github.com/MIC-DKFZ/nnUNet",
        "commercial_use": False,
        "attribution": str(dataset.get("reference") or network.described.dataset),
        "open": "not stated",
    }


def _postprocessing(source: Source, results: Sequence[Network], options: Options, work: Work) -> list[dict[str, Any]]:
    """What nnU-Net's cross-validation found to help: the largest component of labels or regions. Only the JSON is read:
    the .pkl beside it is a pickle."""
    if not options.postprocessing or len(results) != 1:
        return []
    trained = results[0].trained
    files = [
        place
        for place in source.files
        if PurePosixPath(place).name == "postprocessing.json"
        and str(PurePosixPath(place).parent.parent).removeprefix(".") == trained.folder
    ]
    if not files:
        return []
    place = max(files, key=lambda one: (len(PurePosixPath(one).parent.name.split("_")), one))
    found = source.json(place)
    try:
        calls = list(zip(found["postprocessing_fns"], found["postprocessing_kwargs"], strict=True))
        steps = [_step(name, dict(arguments)) for name, arguments in calls]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{source.shown(place)} cannot be used: {error}.", "Import the model without it: --no-postprocessing."
        ) from error
    if steps:
        work.report(
            f"After segmentation only the largest component stays of: {_said(steps, results[0])}, as "
            f"{source.shown(place)} has it (without: --no-postprocessing)."
        )
    return steps


def _step(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name != "remove_all_but_largest_component_from_segmentation" or arguments.pop("background_label", 0) != 0:
        raise ValueError(f"{name} is no step that USEMA knows")
    labels = arguments.pop("labels_or_regions")
    if arguments:
        raise ValueError(f"{', '.join(arguments)} is nothing that USEMA knows of {name}")
    return {"step": "keep_largest", "labels": sorted(set(_flat(labels)))}


def _flat(labels: Any) -> list[int]:
    return [value for item in labels for value in _flat(item)] if isinstance(labels, list) else [int(labels)]


def _said(steps: Sequence[dict[str, Any]], network: Network) -> str:
    names = network.described.label_names
    return "; ".join(", ".join(names[value - 1] for value in step["labels"] if value <= len(names)) for step in steps)
