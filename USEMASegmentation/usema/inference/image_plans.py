"""Which of nnU-Net's trainings saw two-dimensional images, and what their bundles then say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..models.image_rules import RGB
from ..models.parts import IMAGE

PICTURES = "NaturalImage2DIO"  # nnU-Net's reader of PNG, JPEG, BMP and TIFF
_COLOURS = (("r", "g", "b"), ("red", "green", "blue"))


def saw_images(plans: Mapping[str, Any]) -> bool:
    """Whether all cases of a training had one slice: pictures, or slices in files that are made for volumes."""
    shape = plans.get("original_median_shape_after_transp")
    slices = isinstance(shape, list) and len(shape) == 3 and shape[0] == 1
    return plans.get("image_reader_writer") == PICTURES or slices


def image_preprocessing(plans: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's preprocessing as that of a model for images.

    nnU-Net gives the pixels of pictures the spacing 1; those of slices have their own, and are resampled by it.
    """
    made = {"kind": IMAGE, **preprocessing}
    if plans.get("image_reader_writer") != PICTURES and list(preprocessing["spacing"]) != [1, 1]:
        made["fit"] = {"to_spacing": True}
    return made


def colours_of(channels: Sequence[str]) -> dict[str, str]:
    """``input_colours``, where channels are red, green and blue by their names, as nnU-Net's data sets have them."""
    names = tuple(name.strip().lower() for name in channels)
    colour = names in _COLOURS or (len(names) == 3 and all(name.startswith("rgb") for name in names))
    return {"input_colours": RGB} if colour else {}
