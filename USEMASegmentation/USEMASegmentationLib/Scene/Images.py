"""Two-dimensional images in the scene: volumes of one slice, grey or, as 3D Slicer's loader of pictures makes them,
vector volumes of red, green, blue and perhaps transparency."""

from __future__ import annotations

import numpy as np
from usema.errors import InputError
from usema.volumes.file_grid import refuse_single_slice

_COLOURS = (1, 3, 4)  # values in each pixel: grey; red, green, blue; and how far it is not transparent


def isFlat(volumeNode) -> bool:
    """Whether a volume has one slice: there are no surfaces and no millilitres of it."""
    image = volumeNode.GetImageData() if volumeNode is not None else None
    return image is not None and 1 in image.GetDimensions()


def pixelOf(volumeNode) -> tuple[float, float]:
    """The spacing along both axes of a slice, in the order of its voxel axes, whichever axis it lies across."""
    dimensions = volumeNode.GetImageData().GetDimensions()
    across = len(dimensions) - 1 - dimensions[::-1].index(1)
    return tuple(length for axis, length in enumerate(volumeNode.GetSpacing()) if axis != across)


def isPixelSizeKnown(volumeNode) -> bool:
    """Whether the spacing says how large a pixel is: of a picture, 3D Slicer's loader says 1."""
    return pixelOf(volumeNode) != (1.0, 1.0)


def checkImage(volumeNode) -> None:
    """Refuse what a model for images cannot segment. Raises InputError."""
    image, name = volumeNode.GetImageData(), volumeNode.GetName()
    if 1 not in (size := image.GetDimensions()):
        raise InputError(
            f"The volume '{name}' has {size[0]} x {size[1]} x {size[2]} voxels, and the model is for two-dimensional "
            "images.",
            "Choose a model for volumes, or a single image.",
        )
    components = image.GetNumberOfScalarComponents()
    if components not in _COLOURS:
        raise InputError(f"The image '{name}' has {components} values in each pixel, which are no colours.")


def checkVolume(volumeNode) -> None:
    """Refuse what a model for volumes cannot segment. Raises InputError."""
    image, name = volumeNode.GetImageData(), volumeNode.GetName()
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise InputError(
            f"The volume '{name}' has {components} values in each voxel, such as colours or frames.",
            "Choose a volume with one value in each voxel, or for a picture a model for images.",
        )
    refuse_single_slice(image.GetDimensions(), f"The volume '{name}'")


def withoutTransparency(array: np.ndarray) -> np.ndarray:
    """(z, y, x), or (z, y, x, 3) of (z, y, x, 4)."""
    return array[..., :3] if array.ndim == 4 else array


def described(volumeNode) -> dict:
    """What the engine is told of an image beside its array and geometry."""
    return {"picture": {"pixel_size_known": isPixelSizeKnown(volumeNode)}}
