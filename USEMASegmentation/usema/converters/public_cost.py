"""The main memory that a public model certainly takes on a processor, before its file is here and after.

Before: of brainchop's networks everything is known. Of TotalSegmentator's the voxels and the classes, not the tile: the
usual one of nnU-Net and its usual width are assumed. Of Auto3DSeg's the volumes alone: what their networks look at
stands in their files. ``Testing/Benchmarks/memory_before_click.py`` compares it with what runs take. Standard library
only at file scope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..models.metadata import ModelMetadata
from ..models.parts import Part, head_bytes
from . import auto3dseg, brainchop, totalsegmentator
from .public import PublicModel, public_models

PROCESS = 500_000_000  # Python with torch and its libraries, before there is a volume
_TILE = 128  # voxels along an axis
_FEATURES = 32  # channels at full resolution
_LEAST_SHARE = 0.1
# A CT of a trunk and an MR of a head, where no volume is chosen yet: (z, y, x) voxels and mm.
USUAL_CT = (300, 512, 512), (1.5, 0.8, 0.8)
USUAL_HEAD = (192, 256, 256), (1.0, 1.0, 1.0)


def share(model: PublicModel, shape: Sequence[int] | None, spacing_zyx: Sequence[float] | None) -> float:
    """Of the time for a usual volume that one of (z, y, x) voxels and mm takes; 1 where its size does not matter.

    Voxels of a given length are looked at, so the room counts; a tile is the least.
    """
    if model.recipe["format"] != totalsegmentator.RECIPE or shape is None or spacing_zyx is None:
        return 1.0
    room, usual = ([n * mm for n, mm in zip(*volume, strict=True)] for volume in ((shape, spacing_zyx), USUAL_CT))
    return max(_LEAST_SHARE, math.prod(room) / math.prod(usual))


def least_bytes(
    model: PublicModel,
    shape: Sequence[int] | None = None,
    spacing_zyx: Sequence[float] | None = None,
    metadata: ModelMetadata | None = None,
) -> int:
    """Bytes of the whole process at the least.

    Args:
        model: of the shelf.
        shape, spacing_zyx: of the volume, in voxels and mm; None: of a usual one.
        metadata: of the model, where it is here: then nothing is assumed.
    """
    if shape is None or spacing_zyx is None:
        shape, spacing_zyx = USUAL_HEAD if (model.modality, model.region) == ("MR", "head") else USUAL_CT
    if metadata is not None:
        from ..inference.checks import needed_bytes  # takes NumPy

        parts = metadata.networks  # one after the other
        tile = max(map(_tile_bytes, parts))
        return PROCESS + metadata.weights["bytes"] // len(parts) + tile + needed_bytes(metadata, shape, spacing_zyx)
    if model.recipe["format"] == brainchop.FORMAT:
        configs = [brainchop.architecture_of(file.sha256) for file in model.files]
        return PROCESS + int(max(map(head_bytes, configs)))
    size = max(file.size or 0 for file in model.files)
    if model.recipe["format"] == auto3dseg.RECIPE:
        return PROCESS + (4 * len(model.channels) + 2) * math.prod(shape) + size
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
    # Planners make tiles no larger than usual volumes.
    sides = [min(_TILE, n * step / own) for n, step, own in zip(*USUAL_CT, reversed(mm or USUAL_CT[1]), strict=True)]
    tile = _network_bytes(classes, _FEATURES, math.prod(sides))
    return PROCESS + int(6 * voxels + 8 * resampled + open_logits) + tile + size


def _tile_bytes(part: Part) -> int:
    """Of the network for one tile; 0 where it is not run in tiles, or is none that this knows."""
    sides = part.preprocessing.get("patch_size") or part.preprocessing.get("roi_size") or [0]
    config = part.architecture["config"]
    features = config.get("features") or [config.get("filters", 0)]
    return _network_bytes(part.outputs, features[0], math.prod(sides))


def _network_bytes(outputs: int, features: int, voxels: float) -> int:
    """What a U-Net certainly holds at full resolution: a layer's input and its output, or its logits."""
    return int(4 * voxels * (features + max(features, outputs)))
