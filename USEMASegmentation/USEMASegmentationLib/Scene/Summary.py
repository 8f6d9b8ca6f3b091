"""What is said of a result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from usema.measure.values import UNKNOWN_PIXEL_SIZE, Measurement
from usema.volumes.segments import millilitres

from ..Parameters import Parameters
from .Images import pixelOf
from .ResultWriter import Result
from .VolumeBridge import Box

_MOST_NAMES = 6


@dataclass(frozen=True)
class Summary:
    """Attributes:
    message: in a sentence or two.
    hint: what to do about it.
    amounts: what was found, by the name of the label.
    unit: of the amounts: "ml", or of an image "mm2" or "pixels".
    """

    message: str
    hint: str = ""
    amounts: dict[str, float] = field(default_factory=dict)
    unit: str = "ml"

    @property
    def millilitres(self) -> dict[str, float]:
        """The volumes; nothing of an image."""
        return self.amounts if self.unit == "ml" else {}


def summary(result: Result, parameters: Parameters, seconds: float) -> Summary:
    """What was found, and how much of it."""
    labels, names, volume = result.metadata.labels, parameters.labels, parameters.inputVolume
    chosen = [label for label in labels if not names or label.name in names]
    found, unit = {label.name: int(result.counts[label.value]) for label in chosen}, "ml"
    if result.metadata.takes_images:
        pixel, unit = _pixel(result, volume)
        found = {name: count * pixel for name, count in found.items()}
    else:
        found = {name: millilitres(count, volume.GetSpacing()) for name, count in found.items()}
    missing = [name for name, amount in found.items() if not amount]
    where = "" if parameters.roi is None else " in the region of interest"  # outside of it, there may be more
    if len(missing) == len(chosen):
        if where:
            return Summary(
                f"Nothing was found{where}.", "See the warnings, and whether it lies where it should.", found, unit
            )
        hint = "See the warnings, and whether this is the right model for the volume."
        return Summary("Nothing was found: the segments are empty.", hint, found, unit)
    told = _listed([f"{name} {_amountText(amount, unit)}" for name, amount in found.items() if amount])
    if measured := result.provenance.get("measurements"):  # of an image
        told += f"; {measured}"
    seen = result.provenance.get("fieldOfView", "")  # of a model that takes a whole volume or a crop
    message = f"Done in {max(1, round(seconds))} s{where}{f' ({seen})' if seen else ''}: {told}."
    if asymmetry := result.provenance.get("asymmetry"):
        message += f" Both sides of the {asymmetry}."
    if missing:
        message += f" Nothing was found of: {_listed(missing)}."
    return Summary(message, "", found, unit)


def _pixel(result: Result, volume) -> tuple[float, str]:
    """The area of a pixel and its unit: square millimetres where the engine was told how large a pixel is."""
    known = result.provenance.get("pixelSize", UNKNOWN_PIXEL_SIZE) != UNKNOWN_PIXEL_SIZE
    return (math.prod(pixelOf(volume)), "mm2") if known else (1, "pixels")


def _amountText(amount: float, unit: str) -> str:
    return volumeText(amount) if unit == "ml" else Measurement("", amount, unit).amount


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
