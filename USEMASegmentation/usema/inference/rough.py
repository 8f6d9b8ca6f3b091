"""Rough results that show other models where to look, kept with their volume: several tasks begin with the same one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from ..models.metadata import ModelMetadata
from ..volumes.volume import Volume

_MOST = 4  # a label map takes one byte a voxel


class RoughResults:
    """Label maps of the last few volumes; whoever segments several times shares one."""

    def __init__(self):
        self._kept: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def get(
        self,
        model: ModelMetadata,
        device: str,
        volumes: Sequence[Volume],
        compute: Callable[[], np.ndarray],
        of: str = "",
    ) -> np.ndarray:
        """The labels of a model, or of its network ``of``, in volumes: those from before, else what ``compute`` gives.

        Not to be changed.
        """
        key = (model.name, model.version, model.weights["sha256"], of, device, *map(_digest, volumes))
        if key not in self._kept:
            self._kept[key] = compute()
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _digest(volume: Volume) -> str:
    """Of voxels and place: a volume may be changed where it lies, and another may have its name."""
    digest = hashlib.sha256(repr((volume.geometry.to_dict(), volume.array.dtype.str)).encode())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane))
    return digest.hexdigest()
