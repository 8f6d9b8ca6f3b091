"""Label maps as people keep them: one integer a voxel, or segments with names, on their own grids.

What is the same drawing may be stored in many ways: with its axes in another order, cropped to what was drawn, segments
that overlap in layers of their own, one slice as a volume or as a picture, integers as rounded floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..volumes.geometry import Geometry
from ..volumes.integrity import check_file, file_format
from ..volumes.itk_reading import IMAGE_IO, itk_reader
from ..volumes.picture_files import load_picture, nominal_geometry
from ..volumes.volume import load_volume

_PICTURES = (".png", ".tif", ".tiff")
ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *_PICTURES)
_ROUNDING = 1e-3  # a label that went through floating-point numbers, or a scale factor in single precision
_MANY = 32  # values; above, a map of labels is told from an image by its smoothness
_SAME_PLACE = 0.1  # of a voxel: how far apart the voxels of one lattice may lie


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What was drawn in one case.

    Attributes:
        path: its file.
        layers: (layers, z, y, x) integers; segments that overlap lie in different layers.
        geometry: the grid of a layer.
        segments: name -> (layer, value), of a file that names its segments; else None, and there is one layer.
        in_pixels: the file is a picture, which does not say how large a pixel is: lengths count pixels.
    """

    path: Path
    layers: np.ndarray
    geometry: Geometry
    segments: Mapping[str, tuple[int, int]] | None = None
    in_pixels: bool = False

    def values(self) -> list[int]:
        """The labels that are there, without the background."""
        return [int(value) for value in np.unique(self.layers) if value != 0]

    def by_value(self) -> dict[int, int]:
        """Value -> the layer that it lies in.

        Raises:
            InputError: segments share a value, and only their names tell them apart.
        """
        if self.segments is None:
            return dict.fromkeys(self.values(), 0)
        found: dict[int, tuple[str, int]] = {}
        for name, (layer, value) in self.segments.items():
            if value in found:
                raise InputError(
                    f"{self.path}: the segments '{found[value][0]}' and '{name}' overlap and both have the value "
                    f"{value}: a file without names cannot say which is meant.",
                    "Compare it with a .seg.nrrd of the same names, or name the labels with --model.",
                )
            found[value] = (name, layer)
        return {value: layer for value, (_, layer) in found.items()}

    def places(self, labels: Mapping[int, str] | None = None) -> dict[int, tuple[int, int]]:
        """Value of ``labels`` (value -> name) -> layer and value here: by name if the file names any, else by value.

        Raises:
            InputError: as :meth:`by_value`.
        """
        if labels is not None and self.segments is not None and not self.segments.keys().isdisjoint(labels.values()):
            return {value: self.segments[name] for value, name in labels.items() if name in self.segments}
        return {value: (layer, value) for value, layer in self.by_value().items()}


def label_files(folder: Path) -> dict[str, Path]:
    """Case name -> label map. Raises InputError where the folder is none, or holds none, or two of a case."""
    if not folder.is_dir():
        hint = "Check the path."
        if folder.is_file():
            hint = "Give the folders that hold predictions and references: their files are paired by name."
        raise InputError(f"{folder} is not a folder.", hint)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is None or path.name.startswith("."):
            continue
        case = path.name[: -len(ending)]
        if case in files:
            raise InputError(
                f"{folder} holds two files of case {case!r}: {files[case].name} and {path.name}.", "Remove one of them."
            )
        files[case] = path
    if not files:
        raise InputError(f"{folder} holds no label maps.", f"Known endings: {', '.join(ENDINGS)}.")
    return files


def read_label_map(path: Path) -> LabelMap:
    """Reads a label map, or a segmentation with all its layers.

    Raises:
        InputError: the file cannot be read, or what it holds are no labels.
    """
    if path.name.lower().endswith(_PICTURES):
        return _of_picture(path)
    header = _header(path)
    segments = _segments(header, path) if header is not None else None
    several = header is not None and header.GetNumberOfComponents() > 1
    flat = header is not None and (header.GetDimension() == 2 or 1 in header.GetSize())
    if not flat and not (several and segments):
        volume = load_volume(path)
        return LabelMap(path, whole_labels(volume.array, path)[None], volume.geometry, segments)
    with itk_reader(path, IMAGE_IO[file_format(path)], hint="Copy or export it again.") as reader:
        check_file(path)
        image = reader.Execute()
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    array = sitk.GetArrayFromImage(image)
    if several and not segments:
        raise InputError(f"{path} has {array.shape[-1]} values in each voxel.", "Give a label map.")
    layers = np.moveaxis(array, -1, 0) if several else array[None]
    return LabelMap(path, whole_labels(layers, path), Geometry.of_image(image), segments)


def _of_picture(path: Path) -> LabelMap:
    """A label map in a picture: its grey values, or the numbers of its palette's colours, frame after frame."""
    array = load_picture(path, numbers=True).array
    if array.ndim == 4:
        raise InputError(f"{path} has three values in each pixel.", "Give a label map: one number a pixel.")
    frames, height, width = array.shape
    return LabelMap(path, whole_labels(array, path)[None], nominal_geometry(width, height, frames), in_pixels=True)


def on_one_grid(
    prediction: LabelMap, reference: LabelMap, report: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """The layers of both on one grid, without interpolation.

    That is the reference's grid. A ``.seg.nrrd`` is cropped to what was drawn, and empty around it: there, the grid
    grows as far as the prediction goes. Around any other reference nobody is known to have looked.

    Args:
        report: called with a sentence where the two do not reach equally far, though neither was cropped by 3D Slicer,
            and where a part of the prediction is not compared.

    Returns:
        the layers of prediction and reference, each (layers, z, y, x), and their grid.

    Raises:
        InputError: the voxels of the two do not lie at the same places.
    """
    grid = reference.geometry
    if reference.segments is not None and not prediction.geometry.same_grid(grid):
        grid = _grown(grid, prediction)
    found, lost = brought_onto(prediction, grid, reference.path)
    truth, _ = brought_onto(reference, grid, reference.path)
    if prediction.segments is None and reference.segments is None and not same_extent(prediction.geometry, grid):
        sizes = (" x ".join(map(str, each.geometry.size)) for each in (prediction, reference))
        report(f"{prediction.path} and {reference.path} have {' and '.join(sizes)} voxels: is it the same image?")
    if lost:
        report(f"{prediction.path}: {lost} labelled voxels lie outside {reference.path}, and are not compared.")
    return found, truth, grid


def same_extent(one: Geometry, other: Geometry) -> bool:
    """Whether two grids of one lattice hold the same voxels, in whatever order of axes."""
    ends = [(each.corners.min(axis=0), each.corners.max(axis=0)) for each in (one, other)]
    return one.same_grid(other) or np.abs(np.subtract(*ends)).max() <= _SAME_PLACE * min(one.spacing)


def brought_onto(label_map: LabelMap, grid: Geometry, owner: Path) -> tuple[np.ndarray, int]:
    """The layers (layers, z, y, x) on another grid of the same lattice, empty where the label map does not reach.

    Args:
        owner: the file that the grid is of, for the message.

    Returns:
        the layers, and how many labelled voxels lie outside the grid.

    Raises:
        InputError: the voxels of the two do not lie at the same places.
    """
    if label_map.geometry.same_grid(grid):
        return label_map.layers, 0
    layers, start = _turned(label_map, grid, owner)
    out = np.zeros((len(layers), *grid.shape), layers.dtype)
    first, last = np.maximum(start, 0), np.minimum(start + layers.shape[1:], grid.shape)
    if (first < last).all():
        target = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        source = tuple(slice(a, b) for a, b in zip(first - start, last - start, strict=True))
        out[(slice(None), *target)] = layers[(slice(None), *source)]
    return out, int(np.count_nonzero(layers)) - int(np.count_nonzero(out))


def whole_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as integers: label maps are often stored as floating-point numbers.

    Raises:
        InputError: it is an image or holds probabilities, with the number of its values.
    """
    with np.errstate(invalid="ignore"):
        labels = (np.rint(array) if array.dtype.kind == "f" else array).astype(np.int32)
        off = np.abs(labels - array) if array.dtype.kind == "f" else labels != array
    wrong = ~(off <= _ROUNDING) | (labels < 0)  # also where it is NaN
    if wrong.any():
        raise InputError(
            f"{path} holds {array[wrong][0]:g}, which is no label, among {len(np.unique(array))} different values.",
            "It looks like an image or like probabilities: give a label map.",
        )
    values = np.unique(labels)
    if len(values) > _MANY and _is_rough(labels):
        raise InputError(
            f"{path} holds {len(values)} different values, from {values[0]} to {values[-1]}, that change from voxel to "
            "voxel: it is an image.",
            "Give a label map.",
        )
    return labels


def _is_rough(labels: np.ndarray) -> bool:
    """Whether most neighbours along the last axis differ, of those that are not both background: what is drawn has
    areas of one value."""
    one, other = labels[..., 1:], labels[..., :-1]
    inside = (one != 0) | (other != 0)
    return bool(np.count_nonzero(one != other) > 0.5 * np.count_nonzero(inside))


def _header(path: Path) -> sitk.ImageFileReader | None:
    """A reader that knows the file's header; None where the file's own reader says better what is wrong with it."""
    if not path.is_file():
        return None
    try:
        with itk_reader(path, IMAGE_IO[file_format(path)]) as reader:
            reader.ReadImageInformation()
    except InputError:
        return None
    return reader if reader.GetDimension() in (2, 3) else None


def _segments(header: sitk.ImageFileReader, path: Path) -> dict[str, tuple[int, int]] | None:
    """Name -> (layer, value), as 3D Slicer writes them into a .seg.nrrd; None if the file names no segments."""
    if not path.name.lower().endswith(".seg.nrrd"):
        return None
    found: dict[str, tuple[int, int]] = {}
    for prefix in _numbered(header):
        entry = {key: header.GetMetaData(f"{prefix}_{key}") for key in _keys(header, prefix)}
        name = entry.get("Name") or entry.get("ID") or prefix
        try:
            place = int(entry.get("Layer", 0)), int(entry["LabelValue"])
        except (KeyError, ValueError):
            raise InputError(f"{path}: the segment '{name}' has no layer and value.", "Export it again.") from None
        if name in found:
            raise InputError(f"{path} has two segments '{name}'.", "Give them different names.")
        if not 0 <= place[0] < header.GetNumberOfComponents():
            raise InputError(f"{path}: the segment '{name}' lies in layer {place[0]}, which is not there.")
        found[name] = place
    return found or None


def _numbered(header: sitk.ImageFileReader) -> Iterator[str]:
    number = 0
    while header.HasMetaDataKey(f"Segment{number}_ID") or header.HasMetaDataKey(f"Segment{number}_Name"):
        yield f"Segment{number}"
        number += 1


def _keys(header: sitk.ImageFileReader, prefix: str) -> list[str]:
    return [key for key in ("ID", "Name", "Layer", "LabelValue") if header.HasMetaDataKey(f"{prefix}_{key}")]


def _grown(grid: Geometry, label_map: LabelMap) -> Geometry:
    """The grid, grown on its own lattice until it holds the label map as well."""
    layers, start = _turned(label_map, grid, label_map.path)
    low, high = np.minimum(0, start), np.maximum(grid.shape, start + layers.shape[1:])
    origin = grid.affine @ np.array([*low[::-1], 1.0])
    return Geometry(tuple((high - low)[::-1]), grid.spacing, tuple(origin[:3]), grid.direction)


def _turned(label_map: LabelMap, grid: Geometry, owner: Path) -> tuple[np.ndarray, np.ndarray]:
    """The layers with the grid's order of axes, and where their first voxel lies on it: z, y, x."""
    # From the label map's voxel indices to the grid's: each axis is one of its axes, forwards or backwards.
    index = np.linalg.inv(grid.affine) @ label_map.geometry.affine
    steps, offset = np.rint(index[:3, :3]), np.rint(index[:3, 3])
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(label_map.geometry.size) - 1)
    error = np.abs(corners @ (index[:3, :3] - steps).T + (index[:3, 3] - offset)).max()
    one_each = all((np.abs(steps).sum(axis=axis) == 1).all() for axis in (0, 1))
    if error > _SAME_PLACE or not one_each:
        raise InputError(
            f"{label_map.path} and {owner} lie on different grids: {label_map.geometry}; and {grid}.",
            "Give files whose voxels lie at the same places.",
        )
    sources = [int(np.abs(row).argmax()) for row in steps]  # of each axis of the grid, the label map's
    layers = label_map.layers.transpose(0, *(3 - source for source in reversed(sources)))
    start = np.zeros(3, int)
    for axis, source in enumerate(sources):
        backwards = steps[axis, source] < 0
        if backwards:
            layers = np.flip(layers, 3 - axis)
        start[2 - axis] = offset[axis] - (label_map.geometry.size[source] - 1 if backwards else 0)
    return layers, start
