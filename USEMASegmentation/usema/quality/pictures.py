"""Pictures by which a person judges a segmentation: three orthogonal slices with coloured contours."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import imports
from ..errors import MissingDependencyError, OutputError
from ..files import refuse_existing, replace_file
from ..volumes.bounding_box import bounding_box
from ..volumes.segments import millilitres
from ..volumes.volume import Volume, reorient
from .picture_fonts import fonts_for, without

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..inference.result import Segmentation

# Radiological convention on LPS axes (z, y, x): the patient's right on the left of the picture, anterior up in axial
# and left in sagittal slices. Each view: title, axis that is cut, whether the picture is turned over, edge letters.
_VIEWS = (
    ("Axial", 0, False, ("R", "L", "A", "P")),
    ("Coronal", 1, True, ("R", "L", "S", "I")),
    ("Sagittal", 2, True, ("A", "P", "S", "I")),
)
_IMAGE = (("", 0, False, ()),)  # as it is stored
_REFERENCE = (1.0, 0.25, 1.0)  # magenta: seen on black and on white, and hardly any label's colour
_LEGEND_ROW, _LEGEND_ROWS = 0.21, 2  # inches of one, and how many fit below the slices
_MARGIN_MM = 15  # of image that a comparison shows around what is compared


@dataclass(frozen=True, eq=False)
class _Outline:
    """What is drawn around: where ``labels`` (z, y, x, on LPS axes) have ``value``; the rest goes to matplotlib."""

    labels: np.ndarray
    value: int
    color: tuple[float, ...]
    width: float = 1.6
    style: str = "solid"


def write_preview(path: str | Path, volume: Volume, segmentation: Segmentation, overwrite: bool = False) -> list[str]:
    """Draw the slices through the middle of what was found, with contours, legend and millilitres.

    Args:
        path: .png.
        volume: the volume that was segmented.
        segmentation: what was found in it.

    Returns:
        what the picture does not show as it should, in sentences.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file exists and ``overwrite`` is False, is not a .png, or cannot be written.
    """
    path = Path(path)
    check_preview(path, overwrite)
    labels = reorient(Volume(segmentation.labels, segmentation.geometry), "LPS").array
    spacing = segmentation.geometry.spacing
    counts = np.bincount(labels.ravel(), minlength=len(segmentation.model_labels) + 1)
    legend = [
        (_rgb(label.color), "solid", f"{label.name}  {millilitres(counts[label.value], spacing):.2f} ml")
        for label in segmentation.model_labels
        if counts[label.value] or len(segmentation.model_labels) <= 8
    ]
    outlines = [_Outline(labels, label.value, _rgb(label.color)) for label in segmentation.model_labels]
    return _draw(path, reorient(volume, "LPS"), _centre(labels > 0), outlines, legend)


def write_comparison(path: str | Path, volume: Volume, segmentation: Segmentation, reference: np.ndarray) -> None:
    """Draw the slices where a result and its reference differ most, with the contours of both.

    The result has its labels' colours, the reference is dashed. Large volumes are cropped to what is compared. An
    existing file is replaced.

    Args:
        path: .png.
        volume: the volume that was segmented.
        segmentation: what was found in it.
        reference: (z, y, x) labels drawn by a person, on the same grid.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file is not a .png, or cannot be written.
    """
    path = Path(path)
    check_preview(path, overwrite=True)
    turned = [volume, *(Volume(labels, segmentation.geometry) for labels in (segmentation.labels, reference))]
    if segmentation.image is None:
        turned = [reorient(each, "LPS") for each in turned]
    image, found, drawn = turned[0], turned[1].array, turned[2].array
    differing = found != drawn
    outlines, legend = [], []
    for label in segmentation.model_labels:
        outlines.append(_Outline(found, label.value, _rgb(label.color), 1.8))
        outlines.append(_Outline(drawn, label.value, _REFERENCE, 1.2, "dashed"))
        if len(segmentation.model_labels) <= 8:
            legend.append((_rgb(label.color), "solid", f"Result: {label.name}"))
    legend.append((_REFERENCE, "dashed", "Reference, drawn by a person"))
    centre = _centre(differing if differing.any() else drawn > 0)
    shown = (found > 0) | (drawn > 0)
    margin = [round(_MARGIN_MM / step) for step in image.geometry.spacing_zyx]
    if segmentation.image is not None:
        margin = [max(shown.shape)] * 3  # an image is shown whole
    box = bounding_box(shown, margin) if shown.any() else None
    _draw(path, image, centre, outlines, legend, box, dpi=90, grays=48)


def check_preview(path: Path, overwrite: bool) -> None:
    """Refuse before a long run what would fail after it. Raises as :func:`write_preview`."""
    try:
        load_matplotlib()
    except ImportError:
        hint = "Install it with: pip install 'usema[preview]'"
        raise MissingDependencyError("Pictures need matplotlib, which is not installed.", hint) from None
    if path.suffix.lower() != ".png":
        raise OutputError(f"A preview is a .png file, not '{path.name}'.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist.", "Create it first.")
    refuse_existing(path, overwrite)


def load_matplotlib() -> None:
    """Imports it whatever MPLBACKEND names, which need not be installed here: a notebook hands its own to what it runs.

    Pictures go into files only. Whoever shows some later in this process still gets the backend that he named.

    Raises:
        ImportError: it is not installed.
    """
    if "matplotlib" in sys.modules:
        return
    _let_matplotlib_do_without_a_home()
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        with suppress(ValueError):  # it cannot show anything anyway
            matplotlib.rcParams["backend"] = named


def _let_matplotlib_do_without_a_home() -> None:
    """Before 3.11, which Python 3.10 does not have, its import fails for a user without a home folder."""
    try:
        Path.home()
    except RuntimeError:
        if "MPLCONFIGDIR" not in os.environ:
            os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="usema-")
            atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)


def _draw(
    path: Path,
    image: Volume,
    centre: tuple[int, ...],
    outlines: Sequence[_Outline],
    legend: Sequence[tuple],
    box: tuple[slice, ...] | None = None,
    dpi: int = 160,
    grays: int = 256,
) -> list[str]:
    """Write the picture: planes of ``image`` (LPS) through ``centre``, only what lies in ``box``.

    Args:
        legend: (color, line style, text) of each entry.
        grays: levels of the image; with few, the file is small.

    Returns:
        what it does not show as it should, in sentences.
    """
    with imports.at_once():
        from matplotlib import colormaps
        from matplotlib.figure import Figure

    spacing = image.geometry.spacing_zyx
    box = box or tuple(slice(0, size) for size in image.array.shape)
    low, high = np.percentile(image.array[box], (0.5, 99.5))
    extents = [(part.stop - part.start) * step for part, step in zip(box, spacing, strict=True)]
    views = _IMAGE if image.array.shape[0] == 1 else _VIEWS
    shapes = [[extents[axis] for axis in range(3) if axis != cut] for _, cut, _, _ in views]
    height = max(rows for rows, _ in shapes)
    width = 3.6 * sum(columns for _, columns in shapes) / height + 0.6
    legend_columns = _legend_columns(legend, width)
    # A long legend takes nothing from the slices.
    more = _LEGEND_ROW * max(0, -(-len(legend) // legend_columns) - _LEGEND_ROWS)
    figure = Figure(figsize=(width, 4.6 + more), facecolor="black")
    grid = figure.subplots(1, len(views), width_ratios=[columns for _, columns in shapes], squeeze=False)[0]
    for axes, (title, cut, flip, letters) in zip(grid, views, strict=True):
        rows, columns = (axis for axis in range(3) if axis != cut)
        plane = tuple(centre[cut] if axis == cut else box[axis] for axis in range(3))
        origin = "lower" if flip else "upper"
        aspect = spacing[rows] / spacing[columns]
        shades = {
            "cmap": colormaps["gray"].resampled(grays),
            "interpolation_stage": "data",
            "vmin": low,
            "vmax": max(high, low + 1e-6),
        }
        axes.imshow(image.array[plane], origin=origin, aspect=aspect, interpolation="bilinear", **shades)
        for outline in outlines:
            mask = outline.labels[plane] == outline.value
            if mask.any():
                # A border of zeros closes contours that reach the edge of the picture.
                grid_y, grid_x = (np.arange(-1, size + 1) for size in mask.shape)
                look = {"colors": [outline.color], "linewidths": outline.width, "linestyles": outline.style}
                axes.contour(grid_x, grid_y, np.pad(mask, 1), levels=[0.5], **look)
        if title:
            axes.set_title(f"{title} {centre[cut] + 1}/{image.array.shape[cut]}", color="white", fontsize=10)
        axes.set_axis_off()
        places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
        for letter, (x, y) in zip(letters, places[: len(letters)], strict=True):
            alignment = {"ha": "left" if x < 0.1 else "right" if x > 0.9 else "center"}
            alignment["va"] = "bottom" if y < 0.1 else "top" if y > 0.9 else "center"
            axes.text(x, y, letter, transform=axes.transAxes, color="yellow", fontsize=10, **alignment)
    missing = _write_legend(figure, legend, legend_columns)
    top, bottom = 1 - 0.414 / (4.6 + more), (0.552 + more) / (4.6 + more)
    figure.subplots_adjust(left=0.02, right=0.98, top=top, bottom=bottom, wspace=0.04)
    # Not with "optimize", which takes six times as long as all the rest, for a file of the same size within 5 %.
    write_png(path, figure, dpi=dpi, facecolor="black")
    letters = "".join(sorted(missing))
    return [f'The picture has "?" for letters that no font of this computer has: {letters}'] if missing else []


def _legend_columns(legend: Sequence[tuple], width: float) -> int:
    """How many columns of the legend's names fit into so many inches."""
    longest = max((len(text) for _, _, text in legend), default=0)
    return max(1, min(4, len(legend), int(width / (0.7 + 0.075 * longest))))


def _write_legend(figure: Figure, legend: Sequence[tuple], columns: int) -> set[str]:
    """Names stand in it as they are ("$" begins no formula). Returns the letters that no font has."""
    from matplotlib.lines import Line2D

    families, missing = fonts_for(text for _, _, text in legend)
    handles = [Line2D([], [], color=color, linestyle=style, linewidth=3) for color, style, _ in legend]
    style = {"loc": "lower center", "frameon": False, "labelcolor": "white", "prop": {"family": families, "size": 10}}
    names = [without(text, missing) for _, _, text in legend]
    drawn = figure.legend(handles, [" "] * len(names), ncols=columns, **style)
    for place, name in zip(drawn.get_texts(), names, strict=True):
        place.set_parse_math(False)
        place.set_text(name)
    return missing


def write_png(path: Path, figure: Figure, **options: Any) -> None:
    """Writes a figure of matplotlib whole or not at all, whatever stood there; ``options`` are those of savefig.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    picture = BytesIO()
    figure.savefig(picture, format="png", **options)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def _rgb(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _centre(mask: np.ndarray) -> tuple[int, ...]:
    """The voxel where the three planes cross: for each axis, the slice that shows most; the middle if all is empty."""
    if not mask.any():
        return tuple(size // 2 for size in mask.shape)
    areas = (mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
    return tuple(int(area.argmax()) for area in areas)
