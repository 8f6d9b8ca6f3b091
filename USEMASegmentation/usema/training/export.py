"""From the results of a training to a bundle."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BundleError, InputError
from ..inference.image_plans import colours_of, image_preprocessing, saw_images
from ..inference.plan import Plan, configuration_of
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from ..models.parts import SIGMOID
from ..models.region_rules import FINDER_PREFIX
from ..volumes.image_files import read_grid
from .raw_dataset import Labels, labels_of, read_json, visible_files

# Distinct colours, and the code for any tissue, for labels that the card does not describe.
_COLORS = ((216, 101, 79), (128, 174, 128), (241, 214, 145), (111, 184, 210), (177, 122, 101), (183, 156, 220))
_ANY = {
    "category": {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"},
    "type": {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"},
}


_LONGEST_TITLE = 200  # letters, as model.json may have them
# Latin letters that are none of another letter and a mark.
_WITHOUT_MARK = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})

# What of a bundle another training makes anew.
_MADE_BY_TRAINING = ("schema_version", "weights", "architecture", "preprocessing", "inference", "training", "metrics")

_CHECKPOINTS = {"final": "final", "best": "best on patches of the validation cases", "latest": "latest"}


def export_bundle(
    results: Path,
    folder: Path,
    *,
    card: Path | None = None,
    dataset: Path | None = None,
    fold: str = "0",
    checkpoint: str = "final",
    like: Bundle | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Write a bundle from an nnU-Net results folder that a USEMA trainer made.

    Args:
        results: the folder that holds plans.json, dataset.json and fold_N.
        folder: the bundle's.
        card: JSON with what a person has to say (title, intended use, limits, labels with codes, licence, ...); its
            keys are those of model.json and override all others; keys of its preprocessing (fit, for images) join the
            plan's.
        dataset: the dataset's raw folder; its images tell orientation and range of spacings.
        checkpoint: "final", "best" or "latest". nnU-Net validates the final one: no other gets its figures.
        like: the bundle that the training began with: what it says of itself is said again, with the next version and
            the marking "tuned", and what finds its regions in whole volumes stays.
        report: called with sentences on what the bundle does not say, for want of a card or a dataset.

    Raises:
        InputError: a file of the results or the card is missing, or does not say what it should.
        BundleError: the plan, or what the card says, cannot be used.
        OutputError: the folder exists, or cannot be written.
    """
    _check_results(results, fold, checkpoint)
    plans, description = read_json(results / "plans.json"), read_json(results / "dataset.json")
    metadata, state = _trained(results / f"fold_{fold}" / f"checkpoint_{checkpoint}.safetensors")
    labels = labels_of(description, results / "dataset.json")

    document = _described(description, labels, metadata["training"])
    document |= metadata
    configuration = metadata["training"].get("configuration", "")
    document["preprocessing"] = Plan.from_nnunet(plans, configuration).to_dict()
    if previous := configuration_of(plans, configuration).get("previous_stage"):
        raise BundleError(
            f"'{configuration}' is the second stage of a cascade, after '{previous}'.",
            "Export a configuration that works alone, such as 3d_fullres.",
        )
    document["training"]["checkpoint"] = _CHECKPOINTS[checkpoint]
    if labels.ignored is not None:
        document["training"]["ignored_label"] = labels.ignored
    if labels.region_order:
        document["inference"] |= {"activation": SIGMOID, "region_order": list(labels.region_order)}
    summary = results / f"fold_{fold}" / "validation" / "summary.json"
    document["metrics"] = _validation(summary, labels) if checkpoint == "final" else {}
    if dataset is not None and not saw_images(plans):
        document |= _seen(dataset, str(description.get("file_ending", "")))
    if plans.get("image_reader_writer") == "NibabelIOWithReorient":
        document["orientation"] = "RAS"  # that reader turns every image before training sees it
    if saw_images(plans):
        document |= {"orientation": None, "preprocessing": image_preprocessing(plans, document["preprocessing"])}
        document |= colours_of([channel["name"] for channel in document["channels"]])
    if like is not None:
        document |= _said_by(like, labels, metadata["training"].get("started_from"))
        state |= {name: value for name, value in like.load_weights().items() if name.startswith(FINDER_PREFIX)}
    if card is None and like is None:
        report(
            "Without --card, the model does not say for which modality and anatomy it is, its limits, and where its "
            "licence stands: Resources/Cards of USEMA shows what a card holds."
        )
    if card is not None:
        said = read_json(card)
        fit = {"preprocessing": {**document["preprocessing"], **said.get("preprocessing", {})}}
        document |= {**said, **fit}
    if dataset is None and document["orientation"] is None and not saw_images(plans):
        report(
            "Without --dataset, the model does not say along which axes its training images were stored, nor their "
            "spacing: volumes that are stored otherwise will be segmented wrongly."
        )
    return write_bundle(folder, document, state, overwrite=overwrite)


def _check_results(results: Path, fold: str, checkpoint: str) -> None:
    """Raises InputError where a results folder, or what is to be exported of it, is not there; names what is."""
    if not (results / "plans.json").is_file():
        below = [path.parent for levels in ("*", "*/*", "*/*/*") for path in results.glob(f"{levels}/plans.json")]
        found = [str(path) for path in (results.parent, *sorted(below)) if (path / "plans.json").is_file()]
        raise InputError(
            f"{results / 'plans.json'} is missing.",
            f"Give the folder that the training named at its end{': ' + ' or '.join(found) if found else ''}.",
        )
    folds = sorted(path.name.removeprefix("fold_") for path in results.glob("fold_*") if path.is_dir())
    if folds and fold not in folds:
        raise InputError(f"{results} has no fold {fold}.", f"Name one that is there: --fold {' or '.join(folds)}.")
    weights = results / f"fold_{fold}" / f"checkpoint_{checkpoint}.safetensors"
    others = [name for name in _CHECKPOINTS if weights.with_name(f"checkpoint_{name}.safetensors").is_file()]
    if not weights.is_file() and others:
        raise InputError(
            f"{weights} is missing: the training did not come so far.",
            f"Run it again to resume, or export what there is: --checkpoint {' or '.join(others)}.",
        )


def _said_by(bundle: Bundle, labels: Labels, started_from: str | None) -> dict[str, Any]:
    """What a bundle says of itself that stays true of one that was trained further.

    Args:
        started_from: name and version of the model that the training says it began with; None: with none.

    Raises:
        InputError: the training began with another one, or its labels are not those that were trained.
    """
    metadata = bundle.metadata
    if started_from is not None and started_from != f"{metadata.name} {metadata.version}":
        raise InputError(
            f"The training began with {started_from}, not with {metadata.name} {metadata.version}.",
            "Name that model with --like, or export without it.",
        )
    own = [label.name for label in metadata.labels if label.value not in metadata.region_values]
    if own != list(labels.names):
        raise InputError(
            f"{bundle.path} has the labels {', '.join(own)}, and those trained are {', '.join(labels.names)}.",
            "Export without --like, or train on the model's own labels.",
        )
    said = {key: value for key, value in metadata.to_dict().items() if key not in _MADE_BY_TRAINING}
    major, minor, patch = metadata.version.partition("-")[0].split(".")
    return {**said, "version": f"{major}.{minor}.{int(patch) + 1}-tuned", "title": f"{metadata.title}, tuned"}


def model_name(title: str) -> str:
    """A valid name of a model: small Latin letters without marks, digits, single hyphens; "model" if none are left."""
    plain = unicodedata.normalize("NFKD", title.casefold().translate(_WITHOUT_MARK)).casefold()
    return re.sub("[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode("ascii"))[:64].strip("-") or "model"


def _trained(weights: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a trainer says of its network, and the network's weights."""
    import safetensors

    hint = "Train with nnUNetTrainerUSEMA or one of its variants."
    if not weights.is_file():
        raise InputError(f"{weights} is missing.", hint)
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{weights} cannot be read: {error}.", "Copy it again, or train again.") from error
    for name in ("architecture", "inference", "training"):
        if not isinstance(metadata.get(name), dict):
            raise InputError(f"{weights} does not say of which {name} it is: no USEMA trainer wrote it.", hint)
    return metadata, state


def _described(dataset: dict[str, Any], labels: Labels, training: dict[str, Any]) -> dict[str, Any]:
    """Defaults from nnU-Net's dataset.json."""
    channels = dataset.get("channel_names", dataset.get("modality"))  # its name in nnU-Net 1, which 2 still reads
    if not isinstance(channels, dict) or not channels:
        raise InputError(f"The dataset.json of the results names no channels: {channels!r}.", "Correct channel_names.")
    folder = str(training.get("dataset", ""))  # for a name that has no Latin letters
    title, unknown = str(dataset.get("name") or folder or "Model"), "Not described."
    name = model_name(title)
    return {
        "name": name if name != "model" else model_name(folder),
        "title": title[:_LONGEST_TITLE],
        "version": "0.1.0",
        "description": str(dataset.get("description") or unknown),
        "intended_use": "Research only. Not a medical device.",
        "limits": unknown,
        "modality": "OT",
        "anatomy": unknown,
        "channels": [{"name": str(channel) or f"channel {index}"} for index, channel in enumerate(channels.values())],
        "expected_spacing_mm": {"min": [0.1] * 3, "max": [10.0] * 3},
        "expected_intensity_range": None,
        "orientation": None,
        "labels": [
            {"value": value, "name": label, "color": list(_COLORS[(value - 1) % len(_COLORS)]), "terminology": _ANY}
            for value, label in enumerate(labels.names, 1)
        ],
        "licence": {
            "name": str(dataset.get("licence") or "unknown"),
            "url": "",
            "commercial_use": False,
            "open": "not stated",
            "attribution": str(dataset.get("reference") or unknown),
        },
        "citation": str(dataset.get("reference") or unknown),
    }


def _validation(summary: Path, labels: Labels) -> dict[str, Any]:
    """What nnU-Net measured on the cases that training left out; nothing if it did not get that far.

    Of regions it is the Dice of the whole region, which may hold others.
    """
    if not summary.is_file():
        return {}
    measured = read_json(summary)
    try:
        means = {
            name: float(measured["mean"][labels.keys[value]]["Dice"]) for value, name in enumerate(labels.names, 1)
        }
        cases = len(measured["metric_per_case"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{summary} is not what nnU-Net writes with these labels: {error!r}.",
            "Let nnU-Net validate again, or move the file away to export the model without its figures.",
        ) from error
    dice = {name: round(mean, 4) for name, mean in means.items() if math.isfinite(mean)}  # NaN: no case has it
    mean_dice = round(sum(dice.values()) / len(dice), 4) if dice else None
    return {"validation": {"cases": cases, "mean_dice": mean_dice, "dice": dice}}


def _seen(dataset: Path, ending: str) -> dict[str, Any]:
    """Orientation, spacings and lengths of the training images; the orientation only if all agree."""
    folder = dataset / "imagesTr"
    images = visible_files(folder, ending) if folder.is_dir() else []
    if not images:
        raise InputError(
            f"{folder} holds no images that end in {ending}.", "Name the raw folder of the training's dataset."
        )
    geometries = [read_grid(path) for path in images]
    orientations = {geometry.orientation for geometry in geometries}
    seen: dict[str, Any] = {"orientation": orientations.pop() if len(orientations) == 1 else None}
    lengths = [[n * mm for n, mm in zip(each.size, each.spacing, strict=True)] for each in geometries]
    ranges = {"expected_spacing_mm": [each.spacing for each in geometries]}
    if seen["orientation"] is not None:  # else the axes of one image are not those of another
        ranges["expected_extent_mm"] = lengths
    for key, values in ranges.items():
        axes = list(zip(*values, strict=True))
        seen[key] = {"min": [min(axis) for axis in axes], "max": [max(axis) for axis in axes]}
    return seen
