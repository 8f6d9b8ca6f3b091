"""What speaks against segmenting images before it is started. Without torch: the panel asks after every click."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..models.image_rules import RGB
from ..models.metadata import ModelMetadata
from ..volumes.colours import as_grey, as_rgb
from ..volumes.pictures import Picture, check_picture, check_shape
from ..volumes.volume import Volume
from .memory import GIB, free_memory, way_to_more


def channels_of(volumes: Sequence[Volume], metadata: ModelMetadata) -> tuple[list[Picture], list[str]]:
    """The channels that a model for images sees, and sentences about conversions.

    Args:
        volumes: pictures, or volumes of one slice.

    Raises:
        InputError: one is a volume, or they are not as many as the model takes.
    """
    pictures = [_picture(volume, metadata) for volume in volumes]
    for picture in pictures:
        check_shape(picture)
    if metadata.input_colours == RGB:
        return as_rgb(pictures)
    return as_grey(pictures)


def refuse_images(volumes: Sequence[Volume], metadata: ModelMetadata) -> None:
    """Raises InputError where an image was given to a model for volumes."""
    for volume in volumes:
        size = volume.geometry.size
        if isinstance(volume, Picture) or 1 in size:
            raise InputError(
                f"This is a two-dimensional image of {size[0]} x {size[1]} pixels, and the model "
                f"'{metadata.name}' is for volumes.",
                "Give all slices, or choose a model for images (`usema models list`).",
            )


def check_images(
    metadata: ModelMetadata, volumes: Sequence[Volume], probabilities: bool = False
) -> tuple[float, float]:
    """What ``checks.check_case`` is for volumes.

    Args:
        volumes: pictures, or volumes of one slice; or the channels that ``channels_of`` made of them.

    Returns:
        the least and the greatest value that the model's first channel will see.

    Raises:
        InputError: the channels are not the model's or differ in size, one cannot be segmented, or memory is short.
    """
    pictures, _ = channels_of(volumes, metadata)
    expected = [channel["name"] for channel in metadata.channels]
    if len(pictures) != len(expected):
        raise InputError(
            f"The model '{metadata.name}' takes {len(expected)} image(s) ({', '.join(expected)}), not {len(pictures)}.",
            "Give one image per channel, in this order.",
        )
    for name, picture in zip(expected, pictures, strict=True):
        check_picture(picture, "The image" if len(set(map(id, pictures))) == 1 else f"The {name} image")
        if picture.geometry.size != pictures[0].geometry.size:
            raise InputError(
                f"The images have different sizes: {pictures[0].geometry.size} and {picture.geometry.size}.",
                "Give images of the same field.",
            )
    check_image_memory(metadata, pictures[0].array.shape, probabilities)
    return float(pictures[0].array.min()), float(pictures[0].array.max())


def check_image_memory(metadata: ModelMetadata, shape: Sequence[int], probabilities: bool = False) -> None:
    """Raises InputError where images (frames, y, x) do not fit into main memory."""
    pixels, channels, classes = shape[1] * shape[2], len(metadata.channels), len(metadata.labels) + 1
    # Of the frame that is computed: single precision before and after, logits, labels. Of all: labels, probabilities.
    frame = pixels * (8 * channels + 4 * classes)
    needed = frame + pixels * shape[0] * (2 + 6 * classes * probabilities)
    free = free_memory()
    if free is not None and needed > free:
        raise InputError(
            f"Main memory is too small: at least {needed / GIB:.1f} GiB are needed, {free / GIB:.1f} GiB are free. The "
            f"image has {shape[2]} x {shape[1]} pixels and {shape[0]} frames.",
            f"{way_to_more()}, or cut or shrink the image.",
        )


def _picture(volume: Volume, metadata: ModelMetadata) -> Picture:
    size = volume.geometry.size
    if isinstance(volume, Picture):
        return volume
    if size[2] != 1:
        raise InputError(
            f"This is a volume of {size[0]} x {size[1]} x {size[2]} voxels, and the model '{metadata.name}' is for "
            "two-dimensional images.",
            "Choose a model for volumes, or give one image (`usema models list`).",
        )
    return Picture(volume.array, volume.geometry, told=volume.told)
