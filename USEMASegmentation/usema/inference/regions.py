"""A model of crops on a volume that shows far more: its regions are found roughly, and each is segmented alone.

What ``find_regions`` of ``model.json`` says is done here: a rough network's labels -> the components that may be a
region, sides told by the patient's axes -> a box of a crop's size around each -> the network there -> the component
with the most probability near what was found -> its labels, as those of the region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy

from ..errors import InputError
from ..models.metadata import Label, ModelMetadata
from ..volumes.geometry import Geometry
from ..volumes.margins import Margins
from ..volumes.segments import millilitres
from ..volumes.sides import asymmetry, asymmetry_text, pairs
from ..volumes.volume import Volume
from .checks import HEADS
from .head_doubts import LARGE, TURNED, head_doubts
from .region import Box, cut
from .region_search import BELIEVED, EVERY_NEIGHBOUR, Region, find_regions, finds_all
from .running import Found, Wishes
from .turned_heads import turned_text

Run = Callable[[Sequence[Volume], Wishes], Found]
Look = Callable[[Geometry], np.ndarray]

_NEAR_MM = 3.0  # the result is looked for this near to the rough one
_UNLIKE = 0.25  # a difference of two sides, over their mean, that is more often an error than the patient's
_ISLAND = 0.1  # of the largest component in a crop: smaller ones are none of the structure


def segment_regions(
    metadata: ModelMetadata,
    volumes: Sequence[Volume],
    wanted: Sequence[Label],
    look: Look,
    run: Run,
    wishes: Wishes,
) -> Found:
    """Labels on the grid that the volumes share.

    Args:
        wanted: of the regions' labels.
        look: gives the finder's labels (z, y, x) of the volumes' voxels, as they lie by a geometry.
        run: gives the network's own labels, and their probabilities, of volumes that are crops.

    Raises:
        InputError: nothing in the volume may be one of the regions.
        Cancelled, DeviceError: as ``look`` and ``run``.
    """
    how, geometry = metadata.find_regions, volumes[0].geometry
    values = {label.value for label in wanted}
    asked = [says for says in how["regions"] if values & set(says["labels"])]
    found = [region for region in find_regions(look(geometry), metadata, geometry) if region.says in asked]
    names = [says["name"] for says in asked]
    if not found:
        raise _nothing(metadata, volumes[0], names, "was found", wishes.warnings, _turned(metadata, geometry, look))
    labels = np.zeros(geometry.shape, np.uint8 if len(metadata.labels) <= 255 else np.uint16)
    kept = _all_background(metadata, geometry) if wishes.probabilities else None
    highest, amounts, margins = 0.0, {}, []
    for region in found:
        whole = run([cut(volume, region.box) for volume in volumes], replace(wishes, probabilities=True))
        chosen = _likeliest(whole, region, geometry)
        amount = millilitres(int(chosen.sum()), geometry.spacing)
        if not _is_believed(amount, region.says, wishes):
            continue
        amounts[region.says["name"]] = amount
        _tell_of_border(f"The {region.says['name']}", chosen, region.box, geometry, wishes)
        highest = max(highest, whole.highest)
        _paste(labels, kept, whole, chosen, region)
        if whole.margins is not None:
            margins.append(whole.margins.renamed(dict(enumerate(region.says["labels"], 1))))
            margins[-1] = margins[-1].pasted([part.start for part in region.box], geometry.shape)
    if not amounts:
        raise _nothing(metadata, volumes[0], names, "was found but not believed", wishes.warnings)
    for name in names:
        if name not in amounts:
            wishes.warn(f"The {name} was not found.")
    said = {
        "fieldOfView": how["shows"],
        "regions": ", ".join(f"{name} {amount:.2f} ml" for name, amount in amounts.items()),
    }
    if text := asymmetry_text(amounts):
        said["asymmetry"] = text
        if any(abs(asymmetry(*two) or 0) > _UNLIKE for two in pairs(amounts).values()):
            wishes.warn(f"The two sides differ by more than {_UNLIKE:.0%} of their mean. Check both.")
    return Found(labels, kept, highest, said=said, margins=Margins.joined(margins) if margins else None)


def only_one(found: Found, metadata: ModelMetadata, geometry: Geometry, wishes: Wishes) -> Found:
    """What was found in a crop, without islands; tells where it is hardly the one region that a crop shows."""
    components, count = scipy.ndimage.label(found.labels != 0, EVERY_NEIGHBOUR)
    if not count:
        return found
    amounts = np.bincount(components.ravel())[1:] * millilitres(1, geometry.spacing)
    islands = amounts < _ISLAND * amounts.max()
    if islands.any():
        found.labels[np.concatenate([[False], islands])[components]] = 0
    left = amounts[~islands]
    least, most = metadata.find_regions["regions"][0]["expected_ml"]
    if len(left) > 1 and left.sum() >= least:
        each = " and ".join(f"{amount:.2f}" for amount in sorted(left, reverse=True))
        wishes.warn(
            f"What was found is in {len(left)} pieces of {each} ml, and a crop should show one structure. Cut the "
            f"volume closer to it, or give a {metadata.find_regions['shows']}."
        )
    elif not least <= left.sum() <= most:
        wishes.warn(
            f"What was found has {left.sum():.2f} ml; usual are {least:g} to {most:g} ml. Does the volume show "
            f"{metadata.anatomy}?"
        )
    everywhere = tuple(slice(0, length) for length in geometry.shape)
    _tell_of_border("What was found", found.labels != 0, everywhere, geometry, wishes)
    return found


def _tell_of_border(what: str, mask: np.ndarray, box: Box, geometry: Geometry, wishes: Wishes) -> None:
    """Warns where a mask (z, y, x) touches a face of its box, be it the volume's face too or not."""
    faces = [
        (axis, index, end)
        for axis, (part, length) in enumerate(zip(box, geometry.shape, strict=True))
        for index, end in ((0, part.start == 0), (-1, part.stop == length))
    ]
    touched = {end for axis, index, end in faces if mask.take(index, axis).any()}
    if True in touched:
        wishes.warn(f"{what} reaches the border of what was segmented: a part of it may be cut off.")
    if False in touched:
        wishes.warn(f"{what} may go on beyond where it was looked for. Check its ends.")


def _likeliest(found: Found, region: Region, geometry: Geometry) -> np.ndarray:
    """Bool (z, y, x) in the region's box: the component with the most probability near what the finder found."""
    components, count = scipy.ndimage.label(found.labels != 0, EVERY_NEIGHBOUR)
    if not count or not region.rough.any():
        return components > 0
    near = scipy.ndimage.distance_transform_edt(~region.rough, geometry.spacing_zyx) <= _NEAR_MM
    mass = np.where(near, 1 - found.probabilities[0].astype(np.float32), 0)
    masses = scipy.ndimage.sum_labels(mass, components, np.arange(1, count + 1))
    return components == 1 + int(np.argmax(masses)) if masses.max() > 0 else np.zeros(components.shape, bool)


def _is_believed(amount: float, says: dict[str, Any], wishes: Wishes) -> bool:
    least, most = says["expected_ml"]
    if not least / BELIEVED <= amount <= most * BELIEVED:
        if amount:
            wishes.warn(
                f"What looked like the {says['name']} has {amount:.2f} ml, and usual are {least:g} to {most:g} ml: it "
                "was left out."
            )
        return False
    if not least <= amount <= most:
        wishes.warn(f"The {says['name']} has {amount:.2f} ml; usual are {least:g} to {most:g} ml. Check it.")
    return True


def _paste(labels: np.ndarray, kept: np.ndarray | None, found: Found, chosen: np.ndarray, region: Region) -> None:
    """A region's labels, and probabilities where they are kept, into the whole."""
    becomes = np.array([0, *region.says["labels"]], labels.dtype)
    part = labels[region.box]
    np.copyto(part, becomes[found.labels], where=chosen)
    if kept is not None:
        for value, name in enumerate(region.says["labels"], 1):
            kept[(name, *region.box)] = found.probabilities[value]
        inside = kept[(slice(1, None), *region.box)].sum(axis=0, dtype=np.float32)
        kept[(0, *region.box)] = np.clip(1 - inside, 0, 1)


def check_lie(metadata: ModelMetadata, volume: Volume, wishes: Wishes) -> None:
    """Refuses what its file shows too large or on its side, before anything is looked for: what is found there is not
    what it is taken for. A small one may be a part of it that somebody cut out: of it the doubt is told.

    Raises:
        InputError: what the finder is for cannot lie so.
    """
    if not _is_of_heads(metadata):
        return
    doubts = head_doubts(volume)
    if doubts.keys() & {LARGE, TURNED}:
        raise InputError(" ".join(doubts.values()), _what_to_do(metadata, volume))
    for doubt in doubts.values():
        wishes.warn(doubt)


def _is_of_heads(metadata: ModelMetadata) -> bool:
    return metadata.find_regions["finder"]["preprocessing"]["kind"] == HEADS


def _what_to_do(metadata: ModelMetadata, volume: Volume) -> str:
    spacing = " x ".join(f"{step:.3g}" for step in volume.geometry.spacing)
    return (
        f"Is it {metadata.modality} of a {metadata.find_regions['shows']}, and do spacing ({spacing} mm) and "
        f"orientation ({volume.geometry.orientation}) of the file show it in its true size and the right way up? Else "
        f"correct the file, or cut it to the structure first: {metadata.anatomy}."
    )


def _all_background(metadata: ModelMetadata, geometry: Geometry) -> np.ndarray:
    kept = np.zeros((len(metadata.labels) + 1, *geometry.shape), np.float16)
    kept[0] = 1
    return kept


def _turned(metadata: ModelMetadata, geometry: Geometry, look: Look) -> str:
    """See ``turned_text``; only of a head is known how it lies."""
    if not _is_of_heads(metadata):
        return ""
    return turned_text(geometry, lambda lying: finds_all(look(lying), metadata, lying))


def _nothing(
    metadata: ModelMetadata, volume: Volume, names: Sequence[str], found: str, warnings: Sequence[str], why: str = ""
) -> InputError:
    """None of the regions of these names is there, in a volume that is no crop.

    Args:
        found: "was found", which nothing like them was, or what else is to be said of it.
        warnings: what was said until now.
        why: a sentence.
    """
    shows, like = metadata.find_regions["shows"], " or ".join(f"the {name}" for name in names)
    sentences = [
        f"The volume shows more than one structure with its surroundings, so a {shows} is expected, and nothing like "
        f"{like} {found}."
    ]
    sentences += ["See:", *warnings] if warnings else []
    sentences += [why] if why else []
    return InputError(" ".join(sentences), _what_to_do(metadata, volume))
