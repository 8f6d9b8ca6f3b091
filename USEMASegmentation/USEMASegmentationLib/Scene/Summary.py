"""What is said of a result."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from usema.measure.values import UNKNOWN_PIXEL_SIZE, Measurement
from usema.volumes.segments import millilitres

from ..Parameters import Parameters
from .ResultWriter import Result
from .VolumeBridge import Box

_MOST_NAMES = 6


@dataclass(frozen=True)
class Summary:
    """Attributes:
    message: in a sentence or two.
    hint: what to do about it.
    millilitres: what was found, by the name of the label; nothing of an image.
    """

    message: str
    hint: str = ""
    millilitres: dict[str, float] = field(default_factory=dict)


def summary(result: Result, parameters: Parameters, seconds: float) -> Summary:
    """What was found, and how much of it."""
    labels, names, spacing = result.metadata.labels, parameters.labels, parameters.inputVolume.GetSpacing()
    highest = max((label.value for label in labels), default=0)
    # Slice by slice, because bincount makes a copy with 8 bytes a voxel.
    counts = sum(np.bincount(plane.ravel(), minlength=highest + 1) for plane in result.labels)
    chosen = [label for label in labels if not names or label.name in names]
    found = {label.name: millilitres(int(counts[label.value]), spacing) for label in chosen}
    missing = [name for name, amount in found.items() if not amount]
    where = "" if parameters.roi is None else " in the region of interest"  # outside of it, there may be more
    if len(missing) == len(chosen):
        if where:
            return Summary(
                f"Nothing was found{where}.", "See the warnings, and whether it lies where it should.", found
            )
        hint = "See the warnings, and whether this is the right model for the volume."
        return Summary("Nothing was found: the segments are empty.", hint, found)
    told = _listed([f"{name} {volumeText(amount)}" for name, amount in found.items() if amount])
    if result.metadata.takes_images:
        told, found = _ofImage(result, {label.name: int(counts[label.value]) for label in chosen}, spacing), {}
    seen = result.provenance.get("fieldOfView", "")  # of a model that takes a whole volume or a crop
    message = f"Done in {max(1, round(seconds))} s{where}{f' ({seen})' if seen else ''}: {told}."
    if asymmetry := result.provenance.get("asymmetry"):
        message += f" Both sides of the {asymmetry}."
    if missing:
        message += f" Nothing was found of: {_listed(missing)}."
    return Summary(message, "", found)


def _ofImage(result: Result, pixels: dict[str, int], spacing: tuple[float, float, float]) -> str:
    """Areas, and what else was measured; in millimetres where the engine was told how large a pixel is."""
    known = result.provenance.get("pixelSize", UNKNOWN_PIXEL_SIZE) != UNKNOWN_PIXEL_SIZE
    pixel, unit = (spacing[0] * spacing[1], "mm2") if known else (1, "pixels")
    areas = _listed([str(Measurement(name, count * pixel, unit)) for name, count in pixels.items() if count])
    measured = result.provenance.get("measurements", "")
    return f"{areas}; {measured}" if measured else areas


def volumeText(volume: float) -> str:
    """Millilitres, as precise as a reader wants them."""
    if 0 < volume < 0.005:
        return "under 0.01 ml"
    return f"{volume:.{0 if volume >= 100 else 1 if volume >= 1 else 2}f} ml"


def describeBox(box: Box | None) -> str:
    """Which voxels were segmented, for the provenance; None: all."""
    if box is None:
        return "whole volume"
    return ", ".join(f"{axis} {part.start}-{part.stop - 1}" for axis, part in zip("ijk", box[::-1], strict=True))


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more} more"
