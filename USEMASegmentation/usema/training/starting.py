"""A training that goes on from a bundle: whether the data set is one for its network, and planned as that was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import replace_file
from ..inference.plan import Plan
from ..inference.training_crops import own_labels
from ..models.bundle import Bundle
from ..models.parts import NNUNET
from ..volumes.image_files import read_grid
from .raw_dataset import labels_of, read_json, visible_files


def plan_of(start: Bundle) -> Plan | None:
    """How the network of a bundle was trained; None for images, which are prepared by rules of their own.

    Raises:
        InputError: nnU-Net's training cannot go on from it.
    """
    parts = start.metadata.networks
    if start.metadata.takes_images:
        return None
    if len(parts) != 1 or parts[0].kind != NNUNET:
        raise InputError(
            f"The model '{start.metadata.name}' cannot be trained further: it is not one network of nnU-Net's kind.",
            "Start from another model, or without one.",
        )
    return Plan.from_dict({key: value for key, value in parts[0].preprocessing.items() if key != "kind"})


def check_start(start: Bundle, dataset: Path, configuration: str, report: Callable[[str], None]) -> None:
    """Refuse what the network of a bundle cannot learn, before anything is planned.

    Args:
        dataset: the raw folder; its cases are whole.
        report: called with a sentence if the labels have other names than the model's.

    Raises:
        InputError: says what does not fit: dimensions, number of channels or labels, or the axes of an image.
    """
    plan, metadata, path = plan_of(start), start.metadata, dataset / "dataset.json"
    name, document = f"the model '{metadata.name}'", read_json(path)
    axes = 2 if plan is None else plan.dimensions
    if axes != (2 if configuration == "2d" else 3):
        raise InputError(
            f"{configuration} trains another network than that of {name}, which is {axes}D.",
            "Choose the configuration 2d for a 2D network, and 3d_fullres for a 3D one.",
        )
    channels, wanted = len(document["channel_names"]), [one["name"] for one in metadata.channels]
    if channels != len(wanted):
        raise InputError(
            f"{path} has {channels} channel(s), and {name} takes {len(wanted)}: {', '.join(wanted)}.",
            "Give the cases the model's channels, or start without it.",
        )
    own, labels = list(own_labels(metadata).values()), labels_of(document, path)
    if len(labels.names) != len(own):
        raise InputError(
            f"{path} has {len(labels.names)} label(s), {', '.join(labels.names)}, and {name} has {len(own)}: "
            f"{', '.join(own)}.",
            "Give the cases the model's labels, or start without it.",
        )
    if not same_labels(start, dataset):
        report(
            f"The labels are {', '.join(labels.names)}, those of {name} {', '.join(own)}, in this order: what comes "
            "out is another model, and is exported without --like."
        )
    if metadata.orientation is not None:
        _check_axes(dataset, str(document["file_ending"]), metadata.orientation, name)


def same_labels(start: Bundle, dataset: Path) -> bool:
    """Whether the labels of a data set have the names that a bundle's network gives its own."""
    path = dataset / "dataset.json"
    return list(labels_of(read_json(path), path).names) == list(own_labels(start.metadata).values())


def _check_axes(dataset: Path, ending: str, axes: str, name: str) -> None:
    """nnU-Net takes images as they are stored."""
    for path in visible_files(dataset / "imagesTr", ending):
        found = read_grid(path).orientation
        if found != axes:
            raise InputError(
                f"{path} is stored along the axes {found}, and {name} was trained along {axes}.",
                f"Store all images and labels of the data set along {axes}.",
            )


def spacing_of(start: Bundle) -> list[float]:
    """Of the voxels that its 3D network sees, z y x, in mm."""
    plan = plan_of(start)
    return [plan.spacing[plan.transpose_forward.index(axis)] for axis in range(3)]


def plan_like(start: Bundle, plans: Path, configuration: str) -> None:
    """Gives nnU-Net's plans the patch and the stages of a bundle's network, which other images would not lead to."""
    plan = plan_of(start)
    if plan is None:
        return
    document = json.loads(plans.read_text(encoding="utf-8"))
    planned, config = document["configurations"][configuration], start.metadata.networks[0].architecture["config"]
    planned["patch_size"] = list(plan.patch_size)
    if {"kernels", "strides"} <= config.keys():
        stages, arguments = len(config["strides"]), planned["architecture"]["arch_kwargs"]
        most = 512 if configuration == "2d" else 320  # as nnU-Net plans them
        arguments |= {
            "n_stages": stages,
            "features_per_stage": [min(32 * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": config["kernels"],
            "strides": config["strides"],
            "n_conv_per_stage": _as_long(arguments["n_conv_per_stage"], stages),
            "n_conv_per_stage_decoder": _as_long(arguments["n_conv_per_stage_decoder"], stages - 1),
        }
    replace_file(plans, json.dumps(document, indent=4).encode("utf-8"))


def _as_long(values: Sequence[int], length: int) -> list[int]:
    return [*values, *values[-1:] * length][:length]
