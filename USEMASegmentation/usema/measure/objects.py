"""Objects of one kind: split from each other, numbered, counted, and listed in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy

from .values import Measurement, Scale

COMPONENTS, WATERSHED = "components", "watershed"
_NEIGHBOURS = np.ones((3, 3))
_COLUMNS = ("frame", "object", "pixels", "x", "y", "left", "top", "width", "height", "diameter", "at_border")
_NECK = 1.0  # pixels: two round objects that touch are cut where their neck is narrower than they are by twice this


def split_objects(inside: np.ndarray, boundary: np.ndarray | None, method: str, minimum_pixels: int = 0) -> np.ndarray:
    """Number the objects of one frame.

    Args:
        inside: (y, x) mask of the label.
        boundary: (y, x) mask of rims that belong to the objects, or None.
        method: COMPONENTS or WATERSHED; the latter also cuts where what is inside is narrower than the parts beside.
        minimum_pixels: smaller objects go.

    Returns:
        (y, x) uint16, or uint32 for more than 65535: the number of the object of each pixel, from 1 on without gaps, in
        the order of their first pixels; 0 elsewhere.
    """
    objects = _cut(inside, method)
    if boundary is not None:
        objects = _grown_to_rims(objects, inside | boundary)
    return _numbered(objects, minimum_pixels)


def followed(objects: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The objects of a frame whose mask was corrected by hand.

    Args:
        objects: (y, x) as they were numbered before.
        mask: (y, x) bool, where objects are now.

    Returns:
        (y, x) as ``split_objects``: what was cut through is several objects, what was added beside an object belongs
        to it, and what was added elsewhere is a new one.
    """
    cores = np.where(mask, objects, 0).astype(np.int32)
    before, now = np.bincount(objects.ravel()), np.bincount(cores.ravel(), minlength=int(objects.max(initial=0)) + 1)
    boxes, highest = scipy.ndimage.find_objects(cores), len(before) - 1
    for number in np.flatnonzero((now[1:] > 0) & (now[1:] < before[1:])) + 1:
        box = boxes[number - 1]
        parts, count = scipy.ndimage.label(cores[box] == number, _NEIGHBOURS)
        cores[box][parts > 1] = highest + parts[parts > 1]
        highest += count
    return _numbered(_grown_to_rims(cores, mask), 0)


def rims(objects: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """Inside and rim of numbered objects, from which ``split_objects`` tells them apart again.

    Args:
        objects: (y, x) numbers from 1 on; 0 elsewhere.
        seen: (y, x) what the picture shows; None is all. Where it ends, no object does.

    Returns:
        (y, x) uint8: 1 inside each object, 2 along its edge, a pixel wide in objects of fewer than 150 pixels, two in
        others; two objects that touch have both edges between them. One that is edge throughout is 1.
    """
    sizes = np.bincount(objects.ravel())
    around = np.pad(objects, 2, mode="edge")
    shown = np.pad(np.ones(objects.shape, bool) if seen is None else seen, 2, mode="edge")
    height, width = objects.shape
    near, next_but_one = np.zeros(objects.shape, bool), np.zeros(objects.shape, bool)
    for y in range(-2, 3):
        for x in range(-2, 3):
            if 0 < y * y + x * x <= 4:
                window = (slice(2 + y, 2 + y + height), slice(2 + x, 2 + x + width))
                other = (around[window] != objects) & shown[window]
                next_but_one |= other
                if abs(y) + abs(x) == 1:
                    near |= other
    edge = np.where(sizes[objects] < 150, near, next_but_one) & (objects > 0)
    cores = np.bincount(objects[~edge], minlength=len(sizes))
    edge &= cores[objects] > 0
    return np.where(edge, 2, objects > 0).astype(np.uint8)


def object_sizes(objects: np.ndarray, scale: Scale) -> list[Measurement]:
    """How many objects a frame (y, x) has, and how their areas are spread."""
    sizes = np.bincount(objects.ravel())[1:]
    found = [Measurement("Objects", int((sizes > 0).sum()))]
    if not sizes.any():
        return found
    areas = sizes[sizes > 0] * scale.x * scale.y
    found.append(Measurement("Mean area", float(areas.mean()), scale.area))
    for name, share in (("5th percentile of area", 5), ("Median area", 50), ("95th percentile of area", 95)):
        found.append(Measurement(name, float(np.percentile(areas, share)), scale.area))
    found.append(Measurement("Share of the image", 100 * float(sizes.sum()) / objects.size, "%"))
    return found


def object_columns(scale: Scale) -> list[str]:
    """The columns of ``object_rows``."""
    return [*_COLUMNS, *(["area / mm2", "diameter / mm"] if scale.known else [])]


def object_rows(objects: np.ndarray, scale: Scale) -> Iterator[Mapping[str, Any]]:
    """A table's rows, one an object.

    Args:
        objects: (n, y, x) numbers, each frame from 1 on.

    Yields:
        column -> value. Places are in pixels from the first one's centre, 0, 0; a diameter is that of a disc of the
        same area; millimetres are there only where the size of a pixel is known.
    """
    height, width = objects.shape[1:]
    for frame, plane in enumerate(objects, 1):
        sizes, boxes = np.bincount(plane.ravel()), scipy.ndimage.find_objects(plane)
        for number, box in enumerate(boxes, 1):
            if box is None:
                continue
            own = plane[box] == number
            y, x = (float(centre) for centre in scipy.ndimage.center_of_mass(own))
            rows, columns = box
            row = {
                "frame": frame,
                "object": number,
                "pixels": int(sizes[number]),
                "x": round(x + columns.start, 2),
                "y": round(y + rows.start, 2),
                "left": columns.start,
                "top": rows.start,
                "width": columns.stop - columns.start,
                "height": rows.stop - rows.start,
                "diameter": round(2 * float(np.sqrt(sizes[number] / np.pi)), 2),
                "at_border": int(min(columns.start, rows.start) == 0 or columns.stop == width or rows.stop == height),
            }
            if scale.known:
                area = float(sizes[number]) * scale.x * scale.y
                row |= {"area / mm2": round(area, 6), "diameter / mm": round(2 * float(np.sqrt(area / np.pi)), 5)}
            yield row


def _cut(inside: np.ndarray, method: str) -> np.ndarray:
    """Connected areas, by WATERSHED cut at necks between round parts; no number is in two areas."""
    if method != WATERSHED or not inside.any():
        return scipy.ndimage.label(inside, _NEIGHBOURS)[0]
    import SimpleITK as sitk  # not above: most models split nothing into objects

    # What is outside is a wall higher than a neck: a thin piece would join an object beyond it.
    heights = np.where(inside, -scipy.ndimage.distance_transform_edt(inside), _NECK).astype(np.float32)
    basins = sitk.MorphologicalWatershed(
        sitk.GetImageFromArray(heights), level=_NECK, markWatershedLine=False, fullyConnected=True
    )
    return np.where(inside, sitk.GetArrayFromImage(basins), 0).astype(np.int32)


def _grown_to_rims(cores: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Each core with the rim around it; a rim without a core is an object of its own."""
    count = int(cores.max(initial=0))
    areas, _ = scipy.ndimage.label(whole, _NEIGHBOURS)
    alone = whole & ~np.isin(areas, np.unique(areas[cores > 0]))
    cores[alone] = count + scipy.ndimage.label(alone, _NEIGHBOURS)[0][alone]
    if not cores.any():
        return cores
    distance = scipy.ndimage.distance_transform_edt(cores == 0).astype(np.float32)
    distance[~whole] = distance.max() + 1  # what is between objects is flooded last
    import SimpleITK as sitk

    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(distance),
        sitk.GetImageFromArray(cores.astype(np.uint32)),
        markWatershedLine=False,
        fullyConnected=True,
    )
    return np.where(whole, sitk.GetArrayFromImage(flooded), 0)


def _numbered(objects: np.ndarray, minimum_pixels: int) -> np.ndarray:
    values, first, counts = np.unique(objects, return_index=True, return_counts=True)
    kept = (values != 0) & (counts >= minimum_pixels)
    numbers = np.zeros(int(values[-1]) + 1, np.uint32)
    numbers[values[kept][np.argsort(first[kept])]] = np.arange(1, int(kept.sum()) + 1)
    return numbers[objects].astype(np.uint16 if kept.sum() <= 65535 else np.uint32)
