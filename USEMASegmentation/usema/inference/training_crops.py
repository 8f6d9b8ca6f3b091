"""What a network is to learn of a corrected result: the volume itself, or the crop around each of its regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.metadata import ModelMetadata
from ..volumes.volume import Volume, reorient
from .checks import shows_more_than_a_crop
from .region import crop_around, cut

Example = tuple[list[Volume], np.ndarray]  # the channels, and labels (z, y, x) with the network's own values


def own_labels(metadata: ModelMetadata) -> dict[int, str]:
    """Value -> name of the labels that the model's network itself makes, numbered from 1."""
    regions = set(metadata.region_values)
    return {label.value: label.name for label in metadata.labels if label.value not in regions}


def examples(metadata: ModelMetadata, volumes: Sequence[Volume], labels: np.ndarray) -> list[Example]:
    """The cases that a corrected result is, for a training of the model's network.

    Of a volume that shows more than a crop, for a model that finds its regions first, each region with labels is one
    case: a crop as that network will see it, with the labels that it makes itself. All lie along the axes that the
    model was trained in, because nnU-Net takes volumes as they are stored.

    Args:
        labels: (z, y, x), values of ``metadata.labels``, on the grid of the first volume.
    """
    if metadata.orientation is not None:
        drawn = reorient(Volume(labels, volumes[0].geometry), metadata.orientation)
        volumes, labels = [reorient(volume, metadata.orientation) for volume in volumes], drawn.array
    geometry = volumes[0].geometry
    if metadata.find_regions is None or not shows_more_than_a_crop(metadata, geometry):
        return [(list(volumes), labels)]
    own, found = list(own_labels(metadata)), []
    for region in metadata.find_regions["regions"]:
        voxels = np.argwhere(np.isin(labels, region["labels"]))
        if len(voxels):
            box = crop_around(voxels, metadata, geometry)
            learned = np.zeros(len(metadata.labels) + 1, labels.dtype)
            learned[region["labels"]] = own
            found.append(([cut(volume, box) for volume in volumes], learned[labels[box]]))
    return found
