"""The main memory that a public model certainly takes, before its file is here. No torch.

Of brainchop's networks everything is known. Of TotalSegmentator's the voxels and the classes, not the tile: the usual
one of nnU-Net is assumed. Of the others too little is known to say anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..models.parts import head_bytes
from . import brainchop
from .public import PublicModel, public_models

PROCESS = 500_000_000  # Python with torch and its libraries, before there is a volume
_TILE = 128  # voxels along an axis
# A CT of a trunk, where no volume is chosen yet: (z, y, x) voxels and mm.
USUAL_CT = (300, 512, 512), (1.5, 0.8, 0.8)


def least_bytes(
    model: PublicModel, shape: Sequence[int] | None = None, spacing_zyx: Sequence[float] | None = None
) -> int | None:
    """Bytes of the whole process at the least; None: not known.

    Args:
        model: of the shelf.
        shape, spacing_zyx: of the volume, in voxels and mm; None: USUAL_CT.
    """
    if model.recipe["format"] == brainchop.FORMAT:
        configs = [brainchop.architecture_of(file.sha256) for file in model.files]
        return PROCESS + int(max(map(head_bytes, configs)))
    if model.recipe["format"] != "totalsegmentator":
        return None
    if shape is None or spacing_zyx is None:
        shape, spacing_zyx = USUAL_CT
    crop = model.recipe.get("crop_first")
    if crop:  # how much of the volume it gets is not known, but what finds that sees all of it
        (finder,) = (other for other in public_models() if other.name == crop["model"])
        return least_bytes(finder, shape, spacing_zyx)
    voxels, mm = math.prod(shape), model.recipe["resample_mm"]
    resampled, longest = voxels, max(shape)
    if mm:
        resampled = voxels * math.prod(spacing_zyx) / math.prod(mm)
        longest = max(n * step for n, step in zip(shape, spacing_zyx, strict=True)) / min(mm)
    classes = 1 + max(len([*filter(None, part.get("labels", model.labels))]) for part in model.recipe["datasets"])
    open_logits = 4 * classes * resampled * min(1, _TILE / longest)
    return PROCESS + int(6 * voxels + 8 * resampled + open_logits) + max(file.size or 0 for file in model.files)
