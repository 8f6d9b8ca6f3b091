"""What speaks against a segmentation before it is started. Without torch: the panel asks after every click.

What cannot be computed is refused. What can, but is far from what a model was trained on, is a finding; its kind tells
whoever starts the run whether to go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..models.metadata import Label, ModelMetadata
from ..models.parts import NNUNET, Part, head_bytes
from ..volumes.geometry import Geometry
from ..volumes.told import NOTHING, Told
from ..volumes.volume import Volume, check_volume
from .image_checks import check_images, refuse_images
from .memory import GIB, free_memory, way_to_more
from .plan import Plan
from .shown import modality_doubt, region_doubt, scale_doubt

SPACING, EXTENT, INTENSITY, MODALITY, REGION = "spacing", "extent", "intensity", "modality", "region"
KINDS = (SPACING, EXTENT, INTENSITY, MODALITY, REGION)

# What resampling and augmentation bridge without harm, and the margin that somebody leaves around a structure.
_SPACING_FACTOR = 2
_EXTENT_FACTOR = 2
HEADS = "conform"  # the kind of preprocessing that is for whole heads
_HEAD_MM = (80, 330)  # the least and the most that an image of a whole head has along any axis
_FEWEST_SLICES = 8  # fewer are a localizer, or a cut-out: a network in 3D recognises little in it


@dataclass(frozen=True)
class Finding:
    """Something that the user should know before the run: one fact, one sentence.

    Attributes:
        kind: one of KINDS. After EXTENT the result is hardly ever of use: the volume shows far more than the model is
            for, takes accordingly long, and what looks like the structure elsewhere is segmented too; or it shows far
            less.
        message: for the user.
    """

    kind: str
    message: str


def findings(
    metadata: ModelMetadata, geometry: Geometry, intensities: tuple[float, float], told: Told = NOTHING
) -> list[Finding]:
    """Where a volume is far from what the model was trained on; the result may be poor.

    Args:
        geometry: of the volume, in any orientation.
        intensities: its least and greatest value.
        told: what is said of it.
    """
    if metadata.orientation is not None:
        geometry = geometry.moved(geometry.moves_to(metadata.orientation))
    modality = modality_doubt(metadata, told)
    # Another modality explains it, and a picture of a CT has the greys of a window.
    scale = "" if modality or metadata.takes_images else scale_doubt(metadata, intensities[0])
    found = [
        (MODALITY, modality),
        (REGION, region_doubt(metadata, told)),
        (SPACING, _spacing(metadata, geometry)),
        (EXTENT, _extent(metadata, geometry)),
        (INTENSITY, _intensity(metadata, intensities) or scale),
    ]
    if metadata.takes_images:  # the size of their pixels does not matter
        found = [(kind, message) for kind, message in found if kind not in (SPACING, EXTENT)]
    return [Finding(kind, message) for kind, message in found if message]


def input_warnings(
    metadata: ModelMetadata, geometry: Geometry, intensities: tuple[float, float], told: Told = NOTHING
) -> list[str]:
    """The sentences of ``findings``."""
    return [finding.message for finding in findings(metadata, geometry, intensities, told)]


def check_case(metadata: ModelMetadata, volumes: Sequence[Volume], probabilities: bool = False) -> list[Finding]:
    """What speaks against segmenting these volumes with this model, before any work is done.

    Args:
        probabilities: whether they are to be kept.

    Returns:
        the findings on the first volume.

    Raises:
        InputError: it cannot be computed: the number of volumes is not the model's, one of them cannot be segmented, it
            is too thin, or memory does not suffice.
    """
    if metadata.takes_images:
        intensities = check_images(metadata, volumes, probabilities)
        return findings(metadata, volumes[0].geometry, intensities, volumes[0].told)
    refuse_images(volumes, metadata)
    expected = [channel["name"] for channel in metadata.channels]
    if len(volumes) != len(expected):
        raise InputError(
            f"The model '{metadata.name}' takes {len(expected)} volume(s) ({', '.join(expected)}), not {len(volumes)}.",
            "Give one volume per channel, in this order.",
        )
    for name, volume in zip(expected, volumes, strict=True):
        check_volume(volume, "The volume" if len(expected) == 1 else f"The {name} volume")
    first = volumes[0]
    _refuse_thin(metadata, first.geometry)
    check_memory(metadata, first.geometry.shape, first.geometry.spacing_zyx, probabilities=probabilities)
    return findings(metadata, first.geometry, (float(first.array.min()), float(first.array.max())), first.told)


def shows_more_than_a_crop(metadata: ModelMetadata, geometry: Geometry) -> bool:
    """Whether a volume is far longer, along any axis, than the crops that the model was trained on."""
    if metadata.expected_extent_mm is None:
        return False
    if metadata.orientation is not None:
        geometry = geometry.moved(geometry.moves_to(metadata.orientation))
    lengths = [size * spacing for size, spacing in zip(geometry.size, geometry.spacing, strict=True)]
    return any(
        length > _EXTENT_FACTOR * most for length, most in zip(lengths, metadata.expected_extent_mm["max"], strict=True)
    )


def meant(metadata: ModelMetadata, wanted: Sequence[Label], geometry: Geometry) -> tuple[Label, ...]:
    """The labels that a result on this volume has where these are wanted: a crop has no sides, a whole volume has.

    "Anterior" of a whole volume is the left and the right one; "left anterior" of a crop is the one that it shows.
    """
    how = metadata.find_regions
    if how is None:
        return tuple(wanted)
    own = metadata.networks[0].values[1:]
    same = {value: {value} for value in own}  # the network's label -> it and what it becomes
    for region in how["regions"]:
        for value, becomes in zip(own, region["labels"], strict=True):
            same[value].add(becomes)
    named = {label.value for label in wanted}
    made = set(metadata.region_values) if shows_more_than_a_crop(metadata, geometry) else set(own)
    values = set()
    for group in same.values():
        if named & group:
            values |= (named & group & made) or (group & made)
    return tuple(label for label in metadata.labels if label.value in values)


def needed_bytes(
    metadata: ModelMetadata, shape: Sequence[int], spacing_zyx: Sequence[float], probabilities: bool = False
) -> int:
    """Main memory that a segmentation takes beside the volumes themselves, at the least.

    A lower bound, so that nothing is refused that would run. For v voxels to segment, w at the model's spacing, C
    channels and K outputs of the network: 4 C (v + w) for the volumes in single precision before and after resampling,
    2 labels (one or two bytes each) a voxel, and 4 K times the voxels of one row of tiles for the logits that are open
    at a time. Probabilities are kept in half precision and written in single: 6 bytes for each label and background.

    Args:
        shape: (z, y, x) of the volume or of the part that is segmented.
        spacing_zyx: mm.
    """
    voxels, channels, labels = math.prod(shape), len(metadata.channels), len(metadata.labels)
    crop = metadata.crop_first
    # How much of the volume the others get is not known before the region is found.
    whole = [part for part in metadata.networks if crop is None or part.name == crop.get("part")]
    largest = max((_part_bytes(part, channels, shape, spacing_zyx) for part in whole), default=0)
    kept = 6 * (labels + 1) * voxels if probabilities else 0
    return int(4 * channels * voxels + 2 * (1 if labels <= 255 else 2) * voxels + largest + kept)


def check_memory(
    metadata: ModelMetadata,
    shape: Sequence[int],
    spacing_zyx: Sequence[float],
    *,
    probabilities: bool = False,
    further_bytes: int = 0,
    free: int | None = None,
) -> None:
    """Refuse what does not fit into main memory.

    Args:
        shape, spacing_zyx, probabilities: as of ``needed_bytes``.
        further_bytes: what the caller needs beside it.
        free: bytes that are free; None: asked for here.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    needed = needed_bytes(metadata, shape, spacing_zyx, probabilities) + further_bytes
    free = free_memory() if free is None else free
    if free is None or needed <= free:
        return
    voxels, spacing = (" x ".join(f"{value:g}" for value in reversed(triple)) for triple in (shape, spacing_zyx))
    text = (
        f"Main memory is too small: at least {needed / GIB:.1f} GiB are needed, {free / GIB:.1f} GiB are free. "
        f"The volume has {voxels} voxels of {spacing} mm."
    )
    hint = f"{way_to_more()}, or segment only a region of interest. Is the spacing right?"
    if probabilities:
        without = needed_bytes(metadata, shape, spacing_zyx) + further_bytes
        hint = f"Without keeping the probabilities {without / GIB:.1f} GiB suffice. {hint}"
    raise InputError(text, hint)


def _part_bytes(part: Part, channels: int, shape: Sequence[int], spacing: Sequence[float]) -> float:
    if part.kind == HEADS:
        return head_bytes(part.architecture["config"])
    plan = _plan(part)
    if plan is None or plan.dimensions == 2:
        return 0  # a 2D network holds the logits of one slice, and which axes it resamples depends on the volume
    resampled = math.prod(shape) * math.prod(spacing) / math.prod(plan.spacing)
    longest = max(n * mm for n, mm in zip(shape, spacing, strict=True)) / min(plan.spacing)
    return 4 * channels * resampled + 4 * part.outputs * resampled * min(1, plan.patch_size[0] / longest)


def _plan(part: Part) -> Plan | None:
    """The plan of a part that is prepared as nnU-Net does."""
    if part.kind != NNUNET:
        return None
    return Plan.from_dict({key: value for key, value in part.preprocessing.items() if key != "kind"})


def _refuse_thin(metadata: ModelMetadata, geometry: Geometry) -> None:
    """Less than one attention window of a 3D model is not enough to recognise anything by."""
    if metadata.orientation is not None:
        geometry = geometry.moved(geometry.moves_to(metadata.orientation))
    for part in metadata.networks:
        plan, window = _plan(part), part.architecture["config"].get("window", 0)
        if plan is None or plan.dimensions == 2 or not isinstance(window, int):
            continue
        spacing = [plan.spacing[plan.transpose_forward.index(axis)] for axis in range(3)]
        for axis, voxels, distance, wanted in zip("zyx", geometry.shape, geometry.spacing_zyx, spacing, strict=True):
            if voxels * distance / wanted < window:
                raise InputError(
                    f"The volume is too thin along {axis}: {voxels} voxels of {distance:g} mm are "
                    f"{voxels * distance:g} mm, and the model '{metadata.name}' needs {window * wanted:g} mm.",
                    "Give a volume that shows more, not a cut-out or a localizer.",
                )


def _spacing(metadata: ModelMetadata, geometry: Geometry) -> str:
    low, high = metadata.expected_spacing_mm["min"], metadata.expected_spacing_mm["max"]
    axes = [
        (axis, f"{spacing:.3g}", f"{least:g} to {most:g}" if least < most else f"{least:g}")
        for axis, spacing, least, most in zip("xyz", geometry.spacing, low, high, strict=True)
        if not least / _SPACING_FACTOR <= spacing <= most * _SPACING_FACTOR
    ]
    if not axes:
        return ""
    names, found, known = (list(column) for column in zip(*axes, strict=True))
    return f"The spacing along {_listed(names)} is {_listed(found)} mm; the model was trained on {_listed(known)} mm."


def _extent(metadata: ModelMetadata, geometry: Geometry) -> str:
    lengths = [size * spacing for size, spacing in zip(geometry.size, geometry.spacing, strict=True)]
    shows = f"The volume shows {' x '.join(f'{length:.0f}' for length in lengths)} mm"
    model = f"the model is for: {metadata.anatomy}"
    if metadata.expected_extent_mm is None:
        kinds = {part.kind for part in metadata.networks}
        if kinds == {HEADS} and min(lengths) < _HEAD_MM[0]:
            return f"{shows}, far less than {model}. Is it the right one, and is its spacing right?"
        if kinds == {HEADS} and max(lengths) > _HEAD_MM[1]:
            return f"{shows}, far more than {model}. Is its spacing right? Else cut it to the head first."
        fewest = min(geometry.size)
        if fewest < _FEWEST_SLICES and all(
            _plan(part) is None or _plan(part).dimensions == 3 for part in metadata.networks
        ):
            return f"The volume has {fewest} slices along one axis, too few to recognise much by in three dimensions."
        return ""
    how = metadata.find_regions
    if how is not None and shows_more_than_a_crop(metadata, geometry):
        if max(lengths) <= how["most_mm"]:
            return ""
        return (
            f"{shows}, far more than {model}. A {how['shows']} has up to {how['most_mm']:g} mm: is the spacing right? "
            "Else cut it to that first."
        )
    low, high = metadata.expected_extent_mm["min"], metadata.expected_extent_mm["max"]
    known = " x ".join(f"{least:.0f} to {most:.0f}" for least, most in zip(low, high, strict=True))
    if metadata.crop_first is None and any(
        length > _EXTENT_FACTOR * most for length, most in zip(lengths, high, strict=True)
    ):
        return f"{shows}, far more than {model} ({known} mm). Cut it to about that size around the structure first."
    if any(length < least / _EXTENT_FACTOR for length, least in zip(lengths, low, strict=True)):
        return f"{shows}, far less than {model} ({known} mm)."
    return ""


def _intensity(metadata: ModelMetadata, intensities: tuple[float, float]) -> str:
    if metadata.expected_intensity_range is None:
        return ""
    least, most = metadata.expected_intensity_range
    lowest, highest = intensities
    if highest < least or lowest > most or highest - lowest < 0.05 * (most - least):
        return f"The intensities run from {lowest:g} to {highest:g}; the model knows {least:g} to {most:g}."
    return ""


def _listed(words: Sequence[str]) -> str:
    """ "4", "4 and 5", "1, 2 and 3"; one word where all are the same."""
    if len(set(words)) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"


def refuse_separate_probabilities(metadata: ModelMetadata, parts: Sequence[str]) -> None:
    """Raises InputError where several networks, named by these parts, find different labels."""
    results = [name for name in parts if name not in metadata.steps_on_the_way]
    if len(results) > 1 and metadata.combine == "labels":
        raise InputError(
            f"The model '{metadata.name}' has {len(results)} networks for different labels, which have no "
            "probabilities in common.",
            "Segment without probabilities.",
        )


def why_empty(metadata: ModelMetadata, probability: float, warnings: Sequence[str]) -> str:
    """A sentence on a result in which no label was found; ``probability`` is the highest of any."""
    reason = "nothing looked like it" if probability < 0.1 else "it was never the likeliest class"
    hint = " See the other warnings." if warnings else " Is this the right model for the volume?"
    return (
        f"Nothing was found: the highest probability of any label was {probability:.2f} ({reason}). The model "
        f"expects {metadata.modality} of: {metadata.anatomy}.{hint}"
    )
