"""MONAI Auto3DSeg's models, as SlicerMONAIAuto3DSeg publishes them, made into bundles.

    abdominal-organs-3mm-v2.0.0.zip: .../model.pt      a checkpoint with its network's and its training's configuration
                                     .../labels.csv    names and codes

Who made it, under which licence, and what its program does beyond the configuration stands in ``public_models.json``,
for the files that this knows by their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from ..models.checkpoint import open_checkpoint
from ..models.inert_pickle import plain, tensors
from . import public
from .auto3dseg_config import NETWORK, Described, describe
from .auto3dseg_labels import labels_of
from .fit import and_more, misfits
from .source import Source

if TYPE_CHECKING:
    import numpy as np

    from ..models.checkpoint import Checkpoint
    from . import Options, Work

FORMAT = "MONAI Auto3DSeg"
RECIPE = "auto3dseg"  # what public_models.json calls it
_CHECKPOINT, _LABELS = "model.pt", "labels.csv"
_PUBLISHER = "https://github.com/lassoan/SlicerMONAIAuto3DSeg"
_UNKNOWN = "Not stated by whoever trained it."
_GET_AGAIN = "Download the zip again from its publisher, and import it as it is."
_STORED = (
    "The model takes volumes as they are stored: where yours are stored otherwise than its training images, left and "
    "right may be mistaken. If you know how they lay, import it with that orientation (command line: --orientation "
    "RAS)."
)


@dataclass(frozen=True)
class Trained:
    """A checkpoint with its labels; see ``usema.converters.Model``.

    Attributes:
        place: of the checkpoint.
        identity: what its publisher calls it, as far as names of files and folders tell.
        model: what is known of it; None: nothing.
    """

    key: str
    short: str
    summary: str
    place: str
    identity: str
    model: public.PublicModel | None


def models(source: Source) -> list[Trained]:
    """Each ``model.pt`` with its labels beside it, or the one file that was named.

    Raises:
        BundleError: there are checkpoints, and none has labels.
    """
    lone = source.path.suffix.lower() == ".pt" and source.path.is_file()
    names = {source.path.name} if lone else {_CHECKPOINT}
    places = [place for place in source.files if PurePosixPath(place).name in names and "__MACOSX" not in place]
    found = [place for place in places if source.has(_labels_place(place))]
    if places and not found:
        raise BundleError(
            f"{source.shown(places[0])} has no {_LABELS} beside it, which says what its labels are.", _GET_AGAIN
        )
    return [_trained(source, place, lone) for place in found]


def _trained(source: Source, place: str, lone: bool) -> Trained:
    folders = [source.path.resolve().parent.name] if lone else [source.name]
    folders += PurePosixPath(place).parts[:-1]
    identities = [re.sub(r" ?\(\d+\)$", "", name) for name in reversed(folders)]  # a browser's second copy
    known = {PurePosixPath(model.files[0].url).stem: model for model in _published()}
    identity = next((name for name in identities if name in known), identities[0] or source.name)
    model = known.get(identity)
    name, title = (model.name, model.title) if model else (_slug(identity), identity)
    return Trained(place, name, title, place, identity, model)


def _published() -> list[public.PublicModel]:
    return [model for model in public.public_models() if model.recipe["format"] == RECIPE]


def convert(source: Source, chosen: Sequence[Trained], folder, options: Options, work: Work) -> Bundle:
    """See ``usema.converters.Converter``."""
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(one.short for one in chosen)} are different models, and are not averaged.")
    (trained,) = chosen
    where = source.shown(trained.place)
    work.on_to(f"Reading {PurePosixPath(trained.place).name}")
    recipe = trained.model.recipe if trained.model else _recipe_by_name(trained.identity)
    with source.on_disk(trained.place, folder.parent) as file, open_checkpoint(file, where) as checkpoint:
        config = _config(checkpoint)
        described = describe(config, where, recipe.get("order") == "brats", work.report)
        _check_preprocessing(described, where)
        promised = trained.model.labels if trained.model else ()
        labels = labels_of(source, _labels_place(trained.place), described.labels, promised)
        if promised and len(labels) != len(promised):
            work.report(
                f"{where} makes {len(labels)} segments, and {trained.model.title} has {len(promised)}, as its "
                "publisher states: it may be another model. Check what it segments."
            )
        weights = _weights(checkpoint, described)
    work.on_to("Writing the model")
    document = _document(source, trained, described, labels, options, work)
    steps = [
        {"step": "keep_largest", "labels": [label["value"]], "count": recipe["largest_components"]}
        for label in labels
        if "largest_components" in recipe
    ]
    if steps and options.postprocessing:
        document["postprocess"] = steps
    return write_bundle(folder, document, _as_torch(weights), half=False)


def _labels_place(place: str) -> str:
    return str(PurePosixPath(place).with_name(_LABELS))


def _recipe_by_name(identity: str) -> dict[str, Any]:
    """What the publisher's program does by words in a model's name."""
    recipe: dict[str, Any] = {"order": "brats"} if "brats" in identity else {}
    return recipe | ({"largest_components": 2} if "whole-head" in identity else {})


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    content = checkpoint.content
    missing = [key for key in ("state_dict", "config") if not isinstance(content, dict) or key not in content]
    if missing:
        raise BundleError(
            f"{checkpoint.path} is no checkpoint of Auto3DSeg's: it has no {missing[0]}.",
            "Name a model.pt that Auto3DSeg's SegResNet wrote, or the zip that it came in.",
        )
    config = plain(content["config"], f"{checkpoint.path}: config")
    if not isinstance(config, dict):
        raise BundleError(f"{checkpoint.path}: its config is no table of settings.", _GET_AGAIN)
    return config


def _check_preprocessing(described: Described, where: str) -> None:
    from ..inference.preprocessing import recipe_of

    try:
        recipe_of(described.preprocessing)
    except BundleError as error:
        raise BundleError(f"{where}: {error.message}", _GET_AGAIN) from error


def _weights(checkpoint: Checkpoint, described: Described) -> dict[str, np.ndarray]:
    """The network's tensors; of the heads that only training uses none."""
    where = checkpoint.path
    records = tensors(checkpoint.content["state_dict"], f"{where}: state_dict")
    last = len(described.architecture["config"]["blocks_up"]) - 1
    other_head = re.compile(rf"up_layers\.(?!{last}\.)\d+\.head\.(weight|bias)")
    kept = {name: record for name, record in records.items() if not other_head.fullmatch(name)}
    problems = misfits({name: record.shape for name, record in kept.items()}, described.architecture, "config")
    if problems:
        raise BundleError(f"{where} does not fit its own config: {and_more(problems)}.", _GET_AGAIN)
    return {name: checkpoint.array(record) for name, record in kept.items()}


def _document(
    source: Source,
    trained: Trained,
    described: Described,
    labels: list[dict[str, Any]],
    options: Options,
    work: Work,
) -> dict[str, Any]:
    orientation = options.orientation.upper() or described.orientation
    if orientation is None:
        work.report(_STORED)
    document = {
        "name": options.name or trained.short,
        "version": "1.0.0",
        "intended_use": "Research only. Not a medical device.",
        "limits": "Converted on this computer from its publisher's file; the publisher's page says how good it is.",
        "channels": [{"name": name} for name in _channels(source, trained, described)],
        "expected_spacing_mm": {"min": [0.2] * 3, "max": [6.0] * 3},
        "orientation": orientation,
        "labels": labels,
        "architecture": described.architecture,
        "preprocessing": described.preprocessing,
        "inference": described.inference,
        "training": {
            "dataset": _UNKNOWN,
            "cases": None,
            "framework": f"MONAI Auto3DSeg, {NETWORK}",
            "iterations": None,
            "seed": None,
            "date": None,
        },
        "metrics": {},
        "source": {
            "format": FORMAT,
            "file": source.path.resolve().name,
            "sha256": source.whole_sha256([trained.place, _labels_place(trained.place)]),
            "converter": f"USEMA {__version__}",
        },
        **_told_by(trained, described),
    }
    document["expected_intensity_range"] = [-1024, 3000] if document["modality"] == "CT" else None
    if trained.model:
        document["source"] |= {"publisher": trained.model.publisher, "url": trained.model.files[0].url}
    return document


def _told_by(trained: Trained, described: Described) -> dict[str, Any]:
    """What the publisher states of the model; or that nobody does."""
    model = trained.model
    if model is None:
        return {
            "title": trained.summary,
            "description": "Trained with MONAI's Auto3DSeg; run by USEMA as SlicerMONAIAuto3DSeg runs such models.",
            "modality": described.modality,
            "anatomy": trained.identity,
            "licence": {
                "name": "Not stated",
                "url": _PUBLISHER,
                "commercial_use": False,
                "attribution": _UNKNOWN,
                "open": "not stated",
            },
            "citation": _UNKNOWN,
        }
    return {
        "title": model.title,
        "description": f"By {model.publisher}; run by USEMA as its own program runs it. {model.note}".strip(),
        "modality": model.modality,
        "anatomy": model.region.capitalize(),
        "licence": model.licence,
        "citation": model.citation,
    }


def _channels(source: Source, trained: Trained, described: Described) -> list[str]:
    count = len(described.preprocessing["normalization"])
    names = list(trained.model.channels) if trained.model else [described.modality, *described.inputs]
    if trained.model is None and len(names) != count:
        return [f"{described.modality} {number}" for number in range(1, count + 1)]
    if len(names) != count:
        raise BundleError(
            f"{source.shown(trained.place)} takes {count} volumes, and {trained.model.title} {len(names)} "
            f"({', '.join(names)}): it is another model.",
            _GET_AGAIN,
        )
    return names


def _as_torch(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in weights.items()}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "auto3dseg"
