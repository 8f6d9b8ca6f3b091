"""Results of images as pictures: labels with their colours, numbers of objects, and the image with contours on it."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy  # its parts when they are first needed: a command without them starts 0.3 s earlier
import SimpleITK as sitk

from ..errors import OutputError
from .geometry import Geometry
from .paths import writable_by_itk
from .pictures import Picture
from .png import png_bytes
from .segments import PREFIX, ModelLabel
from .writing import IMAGE_SUFFIXES, complete_file, write_label_map

PNG_SUFFIX = ".png"
PAGED_SUFFIXES = (".tif", ".tiff")
LABEL_PICTURE_SUFFIXES = (PNG_SUFFIX, *PAGED_SUFFIXES)
OBJECT_SUFFIXES = (*LABEL_PICTURE_SUFFIXES, *IMAGE_SUFFIXES)

_FILL = 0.3  # of a label's colour, in what it covers
_DARKEST, _BRIGHTEST = 0.5, 99.5  # percentiles of an image of more than 8 bits that are drawn as black and white
_GOLDEN = 0.618034  # turns of hue from one object to the next: neighbours differ


def write_label_picture(
    path: Path, labels: np.ndarray, model_labels: Sequence[ModelLabel], provenance: Mapping[str, str], overwrite: bool
) -> None:
    """Write labels (n, y, x) as .png, indexed with the labels' colours, or as .tif, grey, a page for each frame.

    A PNG of more than 255 labels is grey, of 16 bits. It keeps ``provenance`` as text.

    Raises:
        OutputError: it cannot be written, or is a .png of several frames.
    """
    if path.suffix.lower() in PAGED_SUFFIXES:
        _write_pages(path, labels.astype(np.uint8 if labels.max() <= 255 else np.uint16, copy=False), overwrite)
        return
    palette = [(0, 0, 0)] * (max(label.value for label in model_labels) + 1)
    for label in model_labels:
        palette[label.value] = tuple(label.color)
    _write_png(path, labels, palette, {f"{PREFIX}{key}": value for key, value in provenance.items()}, overwrite)


def write_objects(path: Path, objects: np.ndarray, geometry: Geometry, overwrite: bool) -> None:
    """Write the numbers of objects (n, y, x) as .png, .tif or a label map.

    A PNG of up to 255 objects is indexed with colours of theirs; one of more is grey, of 16 bits.

    Raises:
        OutputError: it cannot be written, is a .png of several frames, or has more objects than its format has numbers.
    """
    highest = int(objects.max())
    if highest > np.iinfo(np.uint16).max:
        raise OutputError(f"{path} cannot hold the numbers of {highest} objects.", "Cut the image into pieces first.")
    if path.suffix.lower() in PAGED_SUFFIXES:
        _write_pages(path, objects, overwrite)
    elif path.suffix.lower() == PNG_SUFFIX:
        hues = [(0, 0, 0), *(object_colour(number) for number in range(1, highest + 1))] if highest <= 255 else []
        _write_png(path, objects, hues, {}, overwrite)
    else:
        write_label_map(path, objects, geometry, overwrite)


def write_overlay(
    path: Path, picture: Picture, labels: np.ndarray, model_labels: Sequence[ModelLabel], overwrite: bool
) -> list[str]:
    """Draw an image at its own size with the labels' contours, lightly filled, as .png.

    Args:
        labels: (n, y, x) on the picture's grid. Of several frames, the one with most labelled pixels is drawn.

    Returns:
        what the picture does not show, in sentences.

    Raises:
        OutputError: it cannot be written.
    """
    counts = (labels != 0).sum(axis=(1, 2))
    frame = int(counts.argmax())
    shown = _shown(picture.array[frame])
    width = max(1, round(min(shown.shape[:2]) / 500))
    for label in model_labels:
        mask = labels[frame] == label.value
        colour = np.array(label.color, np.float32)
        inner = scipy.ndimage.binary_erosion(mask, iterations=width, border_value=1)
        shown[inner] = (1 - _FILL) * shown[inner] + _FILL * colour
        shown[mask & ~inner] = colour
    with complete_file(path, (PNG_SUFFIX,), overwrite) as temporary:
        temporary.write_bytes(png_bytes(shown.round().astype(np.uint8)))
    return [f"{path.name} shows frame {frame + 1} of {len(labels)}."] if len(labels) > 1 else []


def refuse_frames(path: Path, frames: int) -> None:
    """Raises OutputError where a file of one picture was named for several frames."""
    if frames > 1 and path.suffix.lower() == PNG_SUFFIX:
        raise OutputError(f"{path} holds one picture, and there are {frames} frames.", "Name a .tif or .nrrd file.")


def _write_png(path: Path, values: np.ndarray, palette: list, words: Mapping[str, str], overwrite: bool) -> None:
    refuse_frames(path, len(values))
    small = len(palette) in range(1, 257)
    plane = values[0].astype(np.uint8 if small else np.uint16, copy=False)
    with complete_file(path, (PNG_SUFFIX,), overwrite) as temporary:
        temporary.write_bytes(png_bytes(plane, palette if small else (), words))


def _write_pages(path: Path, values: np.ndarray, overwrite: bool) -> None:
    image = sitk.GetImageFromArray(values if len(values) > 1 else values[0])
    with complete_file(path, PAGED_SUFFIXES, overwrite) as temporary:
        try:
            with writable_by_itk(temporary) as name:
                sitk.WriteImage(image, name, useCompression=True)
        except RuntimeError as error:
            raise OutputError(f"{path} cannot be written.", "Is the disk full?") from error


def _shown(plane: np.ndarray) -> np.ndarray:
    """A frame as float32 red, green and blue (y, x, 3) from 0 to 255."""
    if plane.dtype != np.uint8:
        low, high = np.percentile(plane, (_DARKEST, _BRIGHTEST))
        low, high = (low, high) if high > low else (float(plane.min()), float(plane.max()) + 1)
        plane = ((plane.astype(np.float32) - low) * (255 / (high - low))).clip(0, 255)
    shown = np.empty((*plane.shape[:2], 3), np.float32)
    shown[...] = plane if plane.ndim == 3 else plane[..., None]
    return shown


def object_colour(number: int) -> tuple[int, int, int]:
    """Red, green, blue from 0 to 255 for the object of this number, unlike those of the numbers around."""
    colour = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.65 + 0.3 * (number % 2), 1 - 0.2 * (number % 3 == 0))
    return tuple(round(255 * channel) for channel in colour)
