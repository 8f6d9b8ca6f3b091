"""What a result of an image has beside its labels: objects and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..measure import Measurement, Scale, measure, told
from ..measure.objects import split_objects
from ..measure.values import MEASURED_KEY, SPLIT_KEY, UNKNOWN_PIXEL_SIZE
from ..models.metadata import Label, ModelMetadata
from ..volumes.pictures import Picture
from .running import Wishes


@dataclass(frozen=True, eq=False)
class ImageResult:
    """Objects and measurements.

    Attributes:
        scale: of a pixel.
        objects: (n, y, x), the number of the object of each pixel, in each frame from 1 on; None: the model splits
            nothing, or not what was asked for.
        measurements: for each frame.
        names: what was measured, see ``measure.KNOWN``.
        split: the name of the label that was split into objects; empty: none.
    """

    scale: Scale
    objects: np.ndarray | None = None
    measurements: list[list[Measurement]] = field(default_factory=list)
    names: tuple[str, ...] = ()
    split: str = ""

    @property
    def provenance(self) -> dict[str, str]:
        """What goes with the result, text by name."""
        size = f"{self.scale.x:g} x {self.scale.y:g} mm" if self.scale.known else UNKNOWN_PIXEL_SIZE
        told_of = {
            "measurements": told(self.measurements),
            MEASURED_KEY: " ".join(self.names),
            SPLIT_KEY: self.split,
        }
        return {"pixelSize": size} | {key: text for key, text in told_of.items() if text}


def with_rims(wanted: Sequence[Label], metadata: ModelMetadata) -> list[Label]:
    """The labels to look for so that the wanted ones can be told: with the rims of objects."""
    how = metadata.instances
    if how is None or how["label"] not in [label.name for label in wanted]:
        return list(wanted)
    return [*wanted, *(label for label in metadata.labels if label.name == how.get("boundary"))]


def image_result(
    labels: np.ndarray, picture: Picture, metadata: ModelMetadata, wanted: Sequence[Label], wishes: Wishes
) -> tuple[np.ndarray, ImageResult]:
    """Split and measure what was found in an image.

    Args:
        labels: (n, y, x) on the picture's grid, with rims of objects still labels of their own; changed.
        wanted: the labels that the result is to have.
    """
    x, y, _ = picture.geometry.spacing
    scale = Scale(x, y, True) if picture.pixel_size_known else Scale()
    objects = None
    if metadata.instances is not None:
        labels, objects = _split(labels, metadata, wanted)
    measurements, doubts = measure(metadata.measurements or (), labels, objects, scale)
    for doubt in doubts:
        wishes.warn(doubt)
    split = metadata.instances["label"] if objects is not None else ""
    return labels, ImageResult(scale, objects, measurements, tuple(metadata.measurements or ()), split)


def _split(
    labels: np.ndarray, metadata: ModelMetadata, wanted: Sequence[Label]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels in which rims belong to their objects and what was too small is background; and the objects."""
    how, values = metadata.instances, {label.name: label.value for label in metadata.labels}
    own, rim = values[how["label"]], values.get(how.get("boundary"))
    if own not in [label.value for label in wanted]:
        return labels, None
    frames = []
    for plane in labels:
        inside, boundary = plane == own, None if rim is None else plane == rim
        frames.append(split_objects(inside, boundary, how["method"], how.get("minimum_pixels", 0)))
        plane[inside if boundary is None else inside | boundary] = 0
        plane[frames[-1] != 0] = own
    return labels, np.stack([frame.astype(max(one.dtype for one in frames)) for frame in frames])
