"""What speaks against the volumes that were chosen: labels for an image, one twice, a channel that covers little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .label_map import label_values
from .volume import Volume

LEAST_COVERED = 0.25  # of the first channel's voxels, by each further one
_WORTH_A_WORD = 0.99  # a rim that lies outside is no news


def doubts(volumes: Sequence[Volume], names: Sequence[str]) -> list[str]:
    """Look at the channels of one case, in the order of the model.

    Args:
        names: of the channels.

    Returns:
        sentences for the user, in the order of the volumes.

    Raises:
        InputError: a channel covers less than LEAST_COVERED of the first.
    """
    found = []
    for index, (name, volume) in enumerate(zip(names, volumes, strict=True)):
        title = "The volume" if len(volumes) == 1 else f"The {name} volume"
        values = label_values(volume.array)
        if values is not None:
            found.append(f"{title} looks like a label map, not an image: it has {values} values in flat areas.")
        twin = next((other for other in range(index) if _same(volumes[other], volume)), None)
        if twin is not None:
            found.append(f"{title} is the same as the {names[twin]} volume: the model expects different ones.")
        share = volumes[0].geometry.share_inside(volume.geometry)
        if share < _WORTH_A_WORD:
            covers = f"{title} covers {_percent(share)} of the {names[0]} volume"
            if share < LEAST_COVERED:
                raise InputError(
                    f"{covers}; at least {LEAST_COVERED:.0%} are needed.",
                    "Give volumes of the same region, or register them to each other first.",
                )
            found.append(f"{covers}; outside it was filled with its least value, and the result there is unsure.")
    return found


def _same(one: Volume, other: Volume) -> bool:
    return one.geometry.same_grid(other.geometry) and np.array_equal(one.array, other.array)


def _percent(share: float) -> str:
    if share == 0:
        return "none"
    return f"{share:.0%}" if share >= 0.01 else f"{max(share, 0.0001):.1%}"
