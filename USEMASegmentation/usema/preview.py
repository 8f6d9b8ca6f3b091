"""A picture by which a person judges a segmentation: three orthogonal slices with coloured contours."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np

from .errors import MissingDependencyError, OutputError
from .predictor import Segmentation
from .volume import Volume, reorient

# Radiological convention on LPS axes (z, y, x): the patient's right on the left of the picture, anterior up in axial
# and left in sagittal slices. Each view: title, axis that is cut, whether the picture is turned over, edge letters.
_VIEWS = (
    ("Axial", 0, False, ("R", "L", "A", "P")),
    ("Coronal", 1, True, ("R", "L", "S", "I")),
    ("Sagittal", 2, True, ("A", "P", "S", "I")),
)


def write_preview(path: str | Path, volume: Volume, segmentation: Segmentation, overwrite: bool = False) -> None:
    """Draw the slices through the middle of what was found, with contours, legend and millilitres.

    Args:
        path: .png.
        volume: the volume that was segmented.
        segmentation: what was found in it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file exists and ``overwrite`` is False, is not a .png, or cannot be written.
    """
    path = Path(path)
    check_preview(path, overwrite)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = reorient(volume, "LPS")
    labels = reorient(Volume(segmentation.labels, segmentation.geometry), "LPS").array
    spacing = image.geometry.spacing_zyx
    centre = _centre(labels)
    low, high = np.percentile(image.array, (0.5, 99.5))

    extents = [size * step for size, step in zip(labels.shape, spacing, strict=True)]
    shapes = [[extents[axis] for axis in range(3) if axis != cut] for _, cut, _, _ in _VIEWS]
    height = max(rows for rows, _ in shapes)
    figure = Figure(figsize=(3.6 * sum(columns for _, columns in shapes) / height + 0.6, 4.6), facecolor="black")
    grid = figure.subplots(1, 3, width_ratios=[columns for _, columns in shapes])
    for axes, (title, cut, flip, letters) in zip(grid, _VIEWS, strict=True):
        rows, columns = (axis for axis in range(3) if axis != cut)
        plane = np.take(image.array, centre[cut], axis=cut)
        origin = "lower" if flip else "upper"
        aspect = spacing[rows] / spacing[columns]
        shades = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6)}
        axes.imshow(plane, origin=origin, aspect=aspect, interpolation="bilinear", **shades)
        for label in segmentation.model_labels:
            mask = np.take(labels, centre[cut], axis=cut) == label.value
            if mask.any():
                # A border of zeros closes contours that reach the edge of the picture.
                grid_y, grid_x = (np.arange(-1, size + 1) for size in mask.shape)
                color = np.array(label.color) / 255
                axes.contour(grid_x, grid_y, np.pad(mask, 1), levels=[0.5], colors=[color], linewidths=1.6)
        axes.set_title(f"{title} {centre[cut] + 1}/{labels.shape[cut]}", color="white", fontsize=10)
        axes.set_axis_off()
        places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
        for letter, (x, y) in zip(letters, places, strict=True):
            alignment = {"ha": "left" if x < 0.1 else "right" if x > 0.9 else "center"}
            alignment["va"] = "bottom" if y < 0.1 else "top" if y > 0.9 else "center"
            axes.text(x, y, letter, transform=axes.transAxes, color="yellow", fontsize=10, **alignment)
    _legend(figure, segmentation, float(np.prod(spacing)) / 1000)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.91, bottom=0.12, wspace=0.04)
    FigureCanvasAgg(figure)
    temporary = path.with_name(f".usema-{uuid.uuid4().hex}.png")
    try:
        figure.savefig(temporary, dpi=160, format="png", facecolor="black")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_preview(path: Path, overwrite: bool) -> None:
    """Refuse before a long run what would fail after it. Raises as :func:`write_preview`."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        hint = "Install it with: pip install 'usema[preview]'"
        raise MissingDependencyError("Previews need matplotlib, which is not installed.", hint) from None
    if path.suffix.lower() != ".png":
        raise OutputError(f"A preview is a .png file, not '{path.name}'.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist.", "Create it first.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", "Give the name of a .png file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.", "Choose another name, or --overwrite.")


def _centre(labels: np.ndarray) -> tuple[int, ...]:
    """The voxel where the three planes cross: for each axis, the slice that shows most; the middle if all is empty."""
    found = labels > 0
    if not found.any():
        return tuple(size // 2 for size in labels.shape)
    areas = (found.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
    return tuple(int(area.argmax()) for area in areas)


def _legend(figure, segmentation: Segmentation, millilitres_per_voxel: float) -> None:
    from matplotlib.patches import Patch

    counts = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.model_labels) + 1)
    handles = [
        Patch(
            color=np.array(label.color) / 255,
            label=f"{label.name}  {counts[label.value] * millilitres_per_voxel:.2f} ml",
        )
        for label in segmentation.model_labels
        if counts[label.value] or len(segmentation.model_labels) <= 8
    ]
    columns = min(4, len(handles)) or 1
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, labelcolor="white", fontsize=10)
