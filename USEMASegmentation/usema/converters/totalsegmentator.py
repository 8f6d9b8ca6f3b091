"""TotalSegmentator's open tasks: its nnU-Nets, with what its program does around them, made into one bundle a task.

    Dataset297_TotalSegmentator_total_3mm_1559subj/nnUNetTrainer_...__nnUNetPlans__3d_fullres/fold_0/...

Around its networks TotalSegmentator turns volumes to RAS, resamples them, crops them by a rough model, and puts the
labels of several networks together (``nnunet.py``, ``resampling.py``, ``map_tasks_config.py`` of its commit 0e65a44).
What it does for which task stands in ``public_models.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from . import nnunet, nnunet_bundle
from .labels import described
from .public import PublicModel, public_models, shown
from .source import Source

if TYPE_CHECKING:
    from . import Options, Work
    from .nnunet import Network, Trained

FORMAT = "TotalSegmentator"
RECIPE = "totalsegmentator"  # what public_models.json calls it
_BODIES = "bodies"  # the role of a network whose labels only say where those of the others may stay; and its part
_POSTPROCESSING: dict[str, list[dict[str, Any]]] = {
    "body": [
        {"step": "keep_largest", "labels": [1], "connectivity": 6},
        {"step": "remove_small", "labels": [2], "connectivity": 6, "volume_mm3": 50_000},
    ],
    "vertebrae": [
        {"step": "number_downwards", "labels": list(range(1, 25)), "volume_mm3": 100},
        {"step": "grow", "distance_mm": 3},
    ],
    "vertebrae_refined": [
        {"step": "grow", "distance_mm": 2, "volume_grid": True},
        {"step": "keep_within", "part": _BODIES, "part_labels": [1], "volume_grid": True},
    ],
}


@dataclass(frozen=True)
class Task:
    """A task all of whose networks are in a source; see ``usema.converters.Model``."""

    key: str
    short: str
    summary: str
    model: PublicModel


def models(source: Source) -> list[Task]:
    """The tasks whose folders are all there, by the names of the folders."""
    folders = {part for place in source.files for part in PurePosixPath(place).parts[:-1]} | {source.name}
    return [
        Task(model.name, model.name, model.title, model)
        for model in public_models()
        if model.recipe["format"] == RECIPE
        and all(dataset["folder"] in folders for dataset in model.recipe["datasets"])
    ]


def convert(source: Source, chosen: Sequence[Task], folder: Path, options: Options, work: Work) -> Bundle:
    """See ``usema.converters.Converter``."""
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(task.short for task in chosen)} are different tasks, and are not averaged.")
    (task,) = chosen
    trained = nnunet.models(source)
    networks = [
        _network(source, dataset, trained, folder, options, work, task) for dataset in task.model.recipe["datasets"]
    ]
    work.on_to("Writing the model")
    document = _document(source, task.model, networks, options)
    return write_bundle(folder, document, nnunet_bundle.weights_of(networks, document), half=False)


def _network(
    source: Source,
    dataset: dict[str, Any],
    trained: Sequence[Trained],
    folder: Path,
    options: Options,
    work: Work,
    task: Task,
) -> Network:
    there = [one for one in trained if _lies_in(one, dataset["folder"], source)]
    chosen = [one for one in there if PurePosixPath(one.folder).name == dataset["training"]]
    chosen = chosen or [one for one in there if one.short == dataset["configuration"]]
    if len(chosen) != 1:
        raise BundleError(
            f"{dataset['folder']} in {source.path} has {len(chosen)} trainings {dataset['training']}.",
            f"Download it again from its publisher, {task.model.publisher_url}.",
        )
    (one,) = chosen
    folds = tuple(one.folds) if task.model.recipe["folds"] == "all" else tuple(task.model.recipe["folds"])
    if "" in one.folds:  # a fold's folder alone
        folds = ()
    network = nnunet.read(source, one, folder, replace(options, folds=folds), work)
    here, expected = len(network.described.label_names), len(dataset.get("labels", task.model.labels))
    if here != expected and "role" not in dataset:
        raise BundleError(
            f"{dataset['folder']} in {source.path} finds {here} labels, where {task.model.title} has {expected}: it "
            "holds the weights of another task.",
            f"Download it again from its publisher, {task.model.publisher_url}.",
        )
    return network


def _lies_in(trained: Trained, dataset: str, source: Source) -> bool:
    return dataset in PurePosixPath(trained.folder).parts or source.name == dataset


def _document(source: Source, model: PublicModel, networks: Sequence[Network], options: Options) -> dict[str, Any]:
    recipe = model.recipe
    document = {
        "name": options.name or model.name,
        "title": model.title,
        "version": "1.0.0",
        "description": f"By {model.publisher}; run by USEMA as its own program runs it. {model.note}".strip(),
        "intended_use": "Research only. Not a medical device.",
        "limits": "Converted on this computer from its publisher's file; the publisher's page says how good it is.",
        "modality": model.modality,
        "anatomy": model.region.capitalize(),
        "channels": [{"name": name} for name in model.channels],
        "expected_spacing_mm": {"min": [0.3] * 3, "max": [6.0] * 3},
        "expected_intensity_range": [-1024, 3000] if model.modality == "CT" else None,
        "orientation": "RAS",
        "labels": _labels(model),
        **_parts(networks, recipe),
        "training": {
            "dataset": ", ".join(dataset["folder"] for dataset in recipe["datasets"]),
            "cases": nnunet_bundle.cases_of(networks[0]),
            "framework": f"nnU-Net 2, {networks[0].training.trainer}",
            "iterations": None,
            "seed": None,
            "date": None,
        },
        "metrics": {},
        "licence": model.licence,
        "citation": model.citation,
        "source": {
            "format": FORMAT,
            "publisher": model.publisher,
            "url": model.files[0].url,
            "file": source.path.resolve().name,
            "sha256": source.whole_sha256([place for network in networks for place in network.places]),
            "converter": f"USEMA {__version__}",
        },
    }
    if recipe["resample_mm"]:
        document["pre_resample"] = {"spacing_mm": recipe["resample_mm"]}
    if "crop_first" in recipe:
        crop = recipe["crop_first"]
        document["crop_first"] = {**crop, "labels": [shown(name) for name in crop["labels"]]}
    if "find_wanted" in recipe:
        document["find_wanted"] = recipe["find_wanted"]
    steps = [step for name in recipe.get("postprocess", ()) for step in _POSTPROCESSING[name]]
    if steps:
        document["postprocess"] = steps
    return document


def _labels(model: PublicModel) -> list[dict[str, Any]]:
    """Codes are looked up by the publisher's names; people read others."""
    return [{**label, "name": shown(label["name"])} for label in described(model.raw_labels)]


def _parts(networks: Sequence[Network], recipe: dict[str, Any]) -> dict[str, Any]:
    entries = []
    for index, (network, dataset) in enumerate(zip(networks, recipe["datasets"], strict=True), 1):
        entry = nnunet_bundle.described_network(network)
        entry["inference"] |= {"overlap": recipe["overlap"]}
        bodies = dataset.get("role") == _BODIES
        if bodies:  # its labels are none of the model's: what is 1 is a body, and the rest does not matter
            entry["labels"] = [1] + [0] * (len(network.described.label_names) - 1)
        elif "labels" in dataset:
            entry["labels"] = dataset["labels"]
        entries.append(
            {
                "name": _BODIES if bodies else f"part{index}",
                "folds": [nnunet_bundle.fold_name(fold) for fold in network.weights],
                **entry,
            }
        )
    (first, *more) = entries
    if more or len(first["folds"]) > 1 or "labels" in first:
        return {"parts": entries}
    return {key: first[key] for key in ("architecture", "preprocessing", "inference")}
