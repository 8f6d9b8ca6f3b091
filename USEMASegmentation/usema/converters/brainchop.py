"""brainchop's MeshNets for whole heads, made into bundles: the publisher's files as they are, named by their hash.

    meshnet/subcortical/model.pth       safetensors in spite of its ending, or a checkpoint of PyTorch's
    meshnet/model20chan3cls/model.bin   TensorFlow.js: float32 numbers one after another

What the files do not say (dilations, activation, labels, colours) stands in ``brainchop_models.json``, whose source it
names; a file that it does not list is not taken for a MeshNet.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.bundle_writing import write_bundle
from ..models.checkpoint import open_checkpoint
from ..models.inert_pickle import tensors
from .source import Source

if TYPE_CHECKING:
    import numpy as np

    from . import Options, Work

FORMAT = "brainchop"
_ENDINGS = (".pth", ".bin", ".safetensors")
_LARGEST = 8 * 2**20  # bytes; the publisher's largest has 0.8 MB
_AFTER_MASK = ("brain-aparc",)  # models that label the scalp where the brain is not cut out first
_MASK = "brain-mask"
_GET_AGAIN = "Download it again from its publisher, github.com/neuroneural/brainchop-models."
_CITATION = (
    "Masoud, Hu, Plis 2023, Brainchop: in-browser MRI volumetric segmentation and rendering, JOSS 8(83):5098; Fedorov "
    "et al. 2017, End-to-end learning of brain tissue segmentation from imperfect labeling, arXiv 1612.00940."
)


@dataclass(frozen=True)
class Known:
    """A file whose hash is known; see ``usema.converters.Model``.

    Attributes:
        place: in the source.
        sha256: of the file.
    """

    key: str
    short: str
    summary: str
    place: str
    sha256: str


def models(source: Source) -> list[Known]:
    """The publisher's files in a source, whatever they are called."""
    table, found = _table()["models"], {}
    for place, size in source.files.items():
        if place.endswith(_ENDINGS) and size <= _LARGEST and "__MACOSX" not in place:
            sha256 = source.sha256(place)
            if sha256 in table:
                says = table[sha256]
                found.setdefault(sha256, Known(place, says["name"], says["title"], place, sha256))
    return list(found.values())


def convert(source: Source, chosen: Sequence[Known], folder: Path, options: Options, work: Work) -> Bundle:
    """See ``usema.converters.Converter``. A model that needs the brain cut out first takes the mask beside it along."""
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(one.short for one in chosen)} have no labels in common to average.")
    (model,) = chosen
    says = _table()["models"][model.sha256]
    work.on_to(f"Reading {model.place}")
    parts = {"": (says, _weights(source, model))}
    mask = next((one for one in models(source) if one.short == _MASK), None) if model.short in _AFTER_MASK else None
    if mask is not None:
        parts = {
            "mask": (_table()["models"][mask.sha256], _weights(source, mask)),
            "regions": parts[""],
        }
    elif model.short in _AFTER_MASK:
        work.report(
            f"{says['title']} is imported without the brain mask that should run before it: scalp may be labelled. Put "
            "the file of mindgrab beside it and import both from one folder, with this model chosen."
        )
    used = [model, *([mask] if mask else [])]
    document = _document(source, says, used, options) | _networks(parts)
    weights = {
        f"{name}.only.{tensor}" if name else tensor: value
        for name, (_, tensors_) in parts.items()
        for tensor, value in tensors_.items()
    }
    return write_bundle(folder, document, _as_torch(weights), half=False)


def _networks(parts: dict[str, tuple[dict[str, Any], dict]]) -> dict[str, Any]:
    """What model.json says of the network, or of the mask and the network after it."""

    def network(says: dict[str, Any], **more: bool) -> dict[str, Any]:
        return {
            "architecture": {"name": "MeshNet", "config": says["architecture"]},
            "preprocessing": {"kind": "conform", "largest_component": True, **more},
            "inference": {"mirror_axes": []},
        }

    if len(parts) == 1:
        return network(parts[""][0])
    return {
        "parts": [
            {"name": "mask", "folds": ["only"], **network(parts["mask"][0])},
            {
                "name": "regions",
                "folds": ["only"],
                "previous": "mask",
                **network(parts["regions"][0], mask_by_previous=True),
            },
        ]
    }


def _document(source: Source, says: dict[str, Any], used: Sequence[Known], options: Options) -> dict[str, Any]:
    publisher = _table()["source"]
    folder = f"https://raw.githubusercontent.com/{publisher['repository']}/{publisher['commit']}/{publisher['folder']}"
    return {
        "name": options.name or says["name"],
        "title": says["title"],
        "version": "1.0.0",
        "description": f"{says['description']} A MeshNet of brainchop's, run by USEMA on the conformed grid.",
        "intended_use": "Research only. Not a medical device.",
        "limits": says["limits"],
        "modality": "MR",
        "anatomy": "Whole head",
        "channels": [{"name": says["channel"]}],
        "expected_spacing_mm": {"min": [0.5] * 3, "max": [1.5] * 3},
        "expected_intensity_range": None,
        "orientation": None,  # any: the recipe brings it onto a grid of its own
        "labels": says["labels"],
        "training": {
            "dataset": "Not stated by whoever trained it.",
            "cases": None,
            "framework": "brainchop",
            "iterations": None,
            "seed": None,
            "date": None,
        },
        "metrics": {},
        "licence": {
            "name": "MIT",
            "url": "https://github.com/neuroneural/brainchop/blob/master/LICENSE",
            "commercial_use": True,
            "attribution": "Copyright (c) 2021 neuroneural/brainchop",
            "open": "yes",
            "stated_at": publisher["licence"],
        },
        "citation": _CITATION,
        "source": {
            "format": FORMAT,
            "publisher": publisher["repository"],
            "url": f"{folder}/{says['folder']}",
            "file": ", ".join(one.place for one in used),
            "sha256": used[0].sha256,
            "converter": f"USEMA {__version__}",
        },
    }


def _weights(source: Source, model: Known) -> dict[str, np.ndarray]:
    """The tensors in the order of the chain, under the names that our network has for them."""
    config = _table()["models"][model.sha256]["architecture"]
    hidden, bias = len(config["dilations"]), config.get("bias", True)
    names = []
    for layer in range(hidden):
        names += [f"convolutions.{layer}.weight", *([f"convolutions.{layer}.bias"] if bias else [])]
    names += ["head.weight", "head.bias"]
    with source.open(model.place) as stream:
        data = stream.read(_LARGEST + 1)
    if data[:2] == b"PK":
        arrays = _from_checkpoint(data, source.shown(model.place))
    elif model.place.endswith(".bin"):
        arrays = _from_tfjs(data, config, bias)
    else:
        arrays = _from_safetensors(data, source.shown(model.place))
    if len(arrays) != len(names):
        raise BundleError(
            f"{source.shown(model.place)} holds {len(arrays)} tensors where {len(names)} are expected.", _GET_AGAIN
        )
    return dict(zip(names, arrays, strict=True))


def _from_checkpoint(data: bytes, shown: str) -> list[np.ndarray]:
    with open_checkpoint(io.BytesIO(data), shown) as checkpoint:
        records = tensors(checkpoint.content, shown)
        return [checkpoint.array(records[name]) for name in _in_order(records)]


def _from_safetensors(data: bytes, shown: str) -> list[np.ndarray]:
    import safetensors.numpy
    from safetensors import SafetensorError

    try:
        arrays = safetensors.numpy.load(data)
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{shown} cannot be read: {error}.", _GET_AGAIN) from error
    return [arrays[name] for name in _in_order(arrays)]


def _from_tfjs(data: bytes, config: dict[str, Any], bias: bool) -> list[np.ndarray]:
    """A kernel lies there as (kx, ky, kz, in, out) and becomes (out, in, kx, ky, kz)."""
    import numpy as np

    numbers = np.frombuffer(data, "<f4")
    shapes: list[tuple[int, ...]] = []
    before = config["in_channels"]
    for _ in config["dilations"]:
        shapes += [(3, 3, 3, before, config["channels"]), *([(config["channels"],)] if bias else [])]
        before = config["channels"]
    shapes += [(1, 1, 1, before, config["num_classes"]), (config["num_classes"],)]
    arrays, first = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        array = numbers[first : first + size].reshape(shape)
        arrays.append(array if array.ndim == 1 else np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2)))
        first += size
    return arrays


def _in_order(names) -> list[str]:
    """By the number of the layer, weight before bias: "model.10.weight" comes after "model.2.bias"."""

    def key(name: str):
        numbers = [int(word) for word in name.split(".") if word.isdigit()]
        return numbers[0], name.endswith("bias")

    return sorted(names, key=key)


def _as_torch(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in arrays.items()}


@cache
def architecture_of(sha256: str) -> dict[str, Any]:
    """The configuration of the MeshNet whose file has that hash."""
    return _table()["models"][sha256]["architecture"]


def labels_of(name: str) -> list[dict[str, Any]] | None:
    """The labels, as in ``model.json``, of the MeshNet that is called so."""
    return next((says["labels"] for says in _table()["models"].values() if says["name"] == name), None)


@cache
def _table() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("brainchop_models.json").read_text(encoding="utf-8"))
