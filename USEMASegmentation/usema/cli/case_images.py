"""What is different where `usema segment` segments two-dimensional images: reading, numbers, and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputError
from ..files import refuse_existing, replace_file
from ..tables import as_csv
from .cases import Case, result_suffixes

if TYPE_CHECKING:
    from ..inference.predictor import Segmentation
    from ..measure import Scale
    from ..models.metadata import Label
    from ..volumes.pictures import Picture


def read_images(case: Case, pixel_size: float | None) -> list[Picture]:
    """The images of a case, where all that is asked for can be written.

    Raises:
        InputError: one cannot be read.
        OutputError: there is something of the name, or the format cannot hold what there is.
    """
    from ..volumes.label_pictures import OBJECT_SUFFIXES, refuse_frames
    from ..volumes.picture_files import read_picture
    from ..volumes.writing import check_writable

    check_writable(case.output, case.overwrite, result_suffixes(images=True))
    if case.probabilities:
        check_writable(case.probabilities, case.overwrite)
    for path, suffixes in ((case.preview, (".png",)), (case.objects, OBJECT_SUFFIXES), (case.table, (".csv",))):
        if path:
            check_writable(path, case.overwrite, suffixes)
    pictures = [read_picture(path, pixel_size) for path in case.inputs]
    for path in filter(None, (case.output, case.objects)):
        refuse_frames(path, pictures[0].geometry.size[2])
    return pictures


def columns(result: Segmentation) -> dict[str, float]:
    """Numbers of a result for a table of cases, by the titles of their columns; of several frames, their mean."""
    scale, frames = result.image.scale, len(result.labels)
    found = {}
    for label in result.model_labels:
        found[f"{label.name} / {scale.area}"] = _area(result.labels, label, scale) / frames
    values: dict[str, list[float]] = {}
    for one in (one for frame in result.image.measurements for one in frame):
        values.setdefault(one.column, []).append(one.value)
    found |= {name: float(np.mean(each)) for name, each in values.items()}
    return {name if frames == 1 else f"{name}, mean of frames": round(value, 4) for name, value in found.items()}


def _area(labels: np.ndarray, label: Label, scale: Scale) -> float:
    return np.count_nonzero(labels == label.value) * scale.x * scale.y


def told(result: Segmentation) -> str:
    """What was found, in a line; areas of several frames are their mean."""
    from ..measure import Measurement
    from ..measure import told as measurements_told

    scale, parts, frames = result.image.scale, [], len(result.labels)
    for label in result.model_labels:
        area = Measurement(label.name, _area(result.labels, label, scale) / frames, scale.area)
        parts.append(f"{area} ({np.count_nonzero(result.labels == label.value) / result.labels.size:.1%})")
    measured = measurements_told(result.image.measurements)
    if frames > 1:
        parts.append(f"the mean of {frames} frames")
    return ", ".join(parts) + (f"; {measured}" if measured else "")


def write_labels(path: Path, result: Segmentation, overwrite: bool) -> bool:
    """Whether the name is that of a picture, as which the labels were then written."""
    from ..volumes.label_pictures import LABEL_PICTURE_SUFFIXES, write_label_picture

    if not path.name.lower().endswith(LABEL_PICTURE_SUFFIXES):
        return False
    write_label_picture(path, result.labels, result.model_labels, result.provenance, overwrite)
    return True


def image_writers(
    case: Case, picture: Picture, result: Segmentation, stored: Segmentation
) -> Iterator[tuple[Path, Callable]]:
    """Each file beside the labels, with what writes it; ``stored`` is the result on the grid of the file."""
    from ..volumes.label_pictures import LABEL_PICTURE_SUFFIXES, write_objects, write_overlay

    if case.preview:
        drawn = (result.labels, result.model_labels)
        yield case.preview, lambda: write_overlay(case.preview, picture, *drawn, case.overwrite)
    if case.objects:
        shown = result if case.objects.suffix.lower() in LABEL_PICTURE_SUFFIXES else stored
        yield case.objects, lambda: write_objects(case.objects, _objects(shown), shown.geometry, case.overwrite)
    if case.table:
        yield case.table, lambda: _write_table(case.table, result, case.overwrite)


def _objects(result: Segmentation) -> np.ndarray:
    if result.image.objects is None:
        raise OutputError(
            "The model does not split what it finds into objects, or not what --only asks for.",
            "Leave out --objects.",
        )
    return result.image.objects


def _write_table(path: Path, result: Segmentation, overwrite: bool) -> None:
    """A row an object; of a model without objects, a row a frame with areas and what was measured."""
    from ..measure.objects import object_columns, object_rows

    scale = result.image.scale
    if result.image.objects is not None:
        header = object_columns(scale)
        rows = [[row[name] for name in header] for row in object_rows(result.image.objects, scale)]
    else:
        names = list(dict.fromkeys(one.column for frame in result.image.measurements for one in frame))
        header, rows = ["frame", *(f"{label.name} / {scale.area}" for label in result.model_labels), *names], []
        for number, (plane, frame) in enumerate(zip(result.labels, result.image.measurements, strict=True), 1):
            values = {one.column: round(one.value, 4) for one in frame}
            areas = [round(_area(plane, label, scale), 4) for label in result.model_labels]
            rows.append([number, *areas, *(values.get(name) for name in names)])
    refuse_existing(path, overwrite)
    try:
        replace_file(path, as_csv(header, rows).encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error
