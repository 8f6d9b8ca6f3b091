"""The grid that voxels lie on, in x, y, z order and in LPS millimetres, as SimpleITK and DICOM have it.

The centre of voxel (i, j, k) lies at ``origin + axes @ (spacing * (i, j, k))``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

# Rows of a direction matrix are the L, P and S axes; a voxel axis that decreases along one has the opposite letter.
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
# Largest entry of |D'D - 1| that is kept as it is: cosines in files often have 4 or 5 digits.
_PERPENDICULAR_TOLERANCE = 1e-3
# Axes that are off by more, but less than this, become the nearest perpendicular ones: other tools round that much.
SHEAR_TOLERANCE_DEGREES = 0.5
_SHEAR_TOLERANCE = math.sin(math.radians(SHEAR_TOLERANCE_DEGREES))
# Two grids are the same if no corner differs by more than this part of a voxel.
_SAME_GRID_TOLERANCE = 0.1
_EXPORT_AGAIN = "Correct the header, or export the volume again."


@dataclass(frozen=True)
class Geometry:
    """A grid of voxels.

    Args:
        size: voxels along x, y, z.
        spacing: millimetres along x, y, z.
        origin: centre of the first voxel, LPS, millimetres.
        direction: 9 cosines, row-major; column i is the direction of voxel axis i. May be left-handed or oblique. Axes
            that are off the perpendicular by 0.06 to 0.5 degrees are replaced by the nearest perpendicular ones.

    Raises:
        InputError: the values describe no grid: wrong count, not finite, empty, a spacing that is not positive, or
            axes that are singular or sheared.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def __post_init__(self):
        for name, kind, count in (
            ("size", int, 3),
            ("spacing", float, 3),
            ("origin", float, 3),
            ("direction", float, 9),
        ):
            values = tuple(map(kind, getattr(self, name)))
            if len(values) != count or not all(map(math.isfinite, values)):
                raise InputError(f"The {name} {values} is not {count} finite numbers.", _EXPORT_AGAIN)
            object.__setattr__(self, name, values)
        if min(self.size) < 1:
            raise InputError(f"The size is {self.size} voxels: the volume is empty.", _EXPORT_AGAIN)
        if min(self.spacing) <= 0:
            raise InputError(f"The spacing is {self.spacing} mm; it must be above zero.", _EXPORT_AGAIN)
        axes = self.axes
        if abs(np.linalg.det(axes)) < _PERPENDICULAR_TOLERANCE:
            raise InputError(f"The direction matrix {axes.tolist()} is singular.", _EXPORT_AGAIN)
        error = np.abs(axes.T @ axes - np.eye(3)).max()
        if error > _SHEAR_TOLERANCE and shear_degrees(axes) <= SHEAR_TOLERANCE_DEGREES:
            lengths = " and ".join(f"{length:.4g}" for length in np.linalg.norm(axes, axis=0))
            raise InputError(f"The direction cosines have the lengths {lengths}; they must be 1.", _EXPORT_AGAIN)
        if error > _SHEAR_TOLERANCE:
            raise InputError(
                f"The direction matrix {np.round(axes, 4).tolist()} is sheared: its axes are no perpendicular unit "
                f"vectors, by {error:.3g} ({shear_degrees(axes):.1f} degrees).",
                "Resample the volume to a grid with perpendicular axes, for example with 3D Slicer's Resample "
                "Scalar/Vector/DWI Volume.",
            )
        if error > _PERPENDICULAR_TOLERANCE:
            left, _, right = np.linalg.svd(axes)
            object.__setattr__(self, "direction", tuple((left @ right).ravel().tolist()))

    @classmethod
    def of_image(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """The grid of a three-dimensional image, or of a file whose header has been read."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_dict(cls, values: dict) -> Geometry:
        """The inverse of :meth:`to_dict`. Raises InputError where a field is missing or wrong."""
        try:
            return cls(values["size"], values["spacing"], values["origin"], values["direction"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{values!r} does not describe a geometry: {error!r}.") from error

    def to_dict(self) -> dict[str, list]:
        """JSON-ready: size, spacing, origin and direction as lists."""
        return {name: list(value) for name, value in asdict(self).items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array: (z, y, x)."""
        return self.size[::-1]

    @property
    def spacing_zyx(self) -> tuple[float, ...]:
        """Millimetres along the array's axes."""
        return self.spacing[::-1]

    @property
    def axes(self) -> np.ndarray:
        """The direction as a (3, 3) matrix; column i is voxel axis i."""
        return np.array(self.direction).reshape(3, 3)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) matrix from voxel index (i, j, k) to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * self.spacing
        matrix[:3, 3] = self.origin
        return matrix

    def __str__(self) -> str:
        """For messages, in few digits."""
        size, spacing = (" x ".join(f"{one:.4g}" for one in values) for values in (self.size, self.spacing))
        axes = ", ".join(f"({', '.join(f'{one:.3g}' for one in axis)})" for axis in self.axes.T + 0.0)
        origin = ", ".join(f"{one:.4g}" for one in self.origin)
        return f"{size} voxels of {spacing} mm from ({origin}) along {axes} in LPS"

    @property
    def corners(self) -> np.ndarray:
        """(8, 3) LPS positions of the centres of the corner voxels."""
        last = np.array(self.size) - 1
        indices = np.array([last * corner for corner in np.ndindex(2, 2, 2)])
        return indices @ self.affine[:3, :3].T + self.origin

    @property
    def orientation(self) -> str:
        """Where x, y and z increase towards, in DICOM letters, for an oblique grid the closest: "LPS", "RAS", ..."""
        # Voxel axes take a patient axis each, the closest pair first: the rule of ITK's DICOMOrientImageFilter.
        cosines = np.abs(self.axes)
        letters = [""] * 3
        while not all(letters):
            row, column = np.unravel_index(cosines.argmax(), (3, 3))
            letters[column] = _LETTERS[row][int(self.axes[row, column] < 0)]
            cosines[row, :] = cosines[:, column] = -1
        return "".join(letters)

    def same_grid(self, other: Geometry) -> bool:
        """Whether both have the same voxels in the same order, to a tenth of a voxel at every corner."""
        if self.size != other.size:
            return False
        apart = np.linalg.norm(self.corners - other.corners, axis=1).max()
        return bool(apart <= _SAME_GRID_TOLERANCE * min(self.spacing))

    def share_inside(self, other: Geometry) -> float:
        """Which part of this grid's voxels has its centre inside the voxels of ``other``, 0 to 1.

        Every voxel is asked up to 64 along an axis; of longer axes, 64 evenly spread ones.
        """
        asked = [np.unique(np.linspace(0, length - 1, min(length, 64)).round()) for length in self.size]
        indices = np.stack(np.meshgrid(*asked, indexing="ij"), axis=-1).reshape(-1, 3)
        places = indices @ self.affine[:3, :3].T + self.origin
        found = (places - other.origin) @ np.linalg.inv(other.affine[:3, :3]).T
        return float(((found > -0.5) & (found < np.array(other.size) - 0.5)).all(axis=1).mean())

    def moves_to(self, orientation: str) -> tuple[tuple[int, bool], ...]:
        """How to permute and flip the voxel axes so that they increase towards ``orientation``.

        Returns:
            for each new axis x, y, z: the old axis, and whether it is flipped.

        Raises:
            InputError: ``orientation`` is not one letter each of L/R, P/A and S/I.
        """
        pairs = [next((pair for pair in _LETTERS if letter in pair), ()) for letter in orientation]
        if sorted(pairs) != sorted(_LETTERS):
            raise InputError(f"{orientation!r} is no orientation.", "Give one letter each of L/R, P/A, S/I, as in LPS.")
        current = self.orientation
        sources = [next(i for i, letter in enumerate(current) if letter in pair) for pair in pairs]
        return tuple((i, current[i] != letter) for i, letter in zip(sources, orientation, strict=True))

    def moved(self, moves: tuple[tuple[int, bool], ...]) -> Geometry:
        """The same voxels at the same places with permuted and flipped axes; ``moves`` as :meth:`moves_to` has them."""
        axes, origin = self.axes, np.array(self.origin)
        columns = []
        for source, flipped in moves:
            if flipped:
                origin = origin + axes[:, source] * self.spacing[source] * (self.size[source] - 1)
            columns.append(-axes[:, source] if flipped else axes[:, source])
        return Geometry(
            tuple(self.size[source] for source, _ in moves),
            tuple(self.spacing[source] for source, _ in moves),
            tuple(origin),
            tuple(np.stack(columns, axis=1).flat),
        )


def shear_degrees(axes: np.ndarray) -> float:
    """By how much the columns of a (3, 3) matrix, whatever their lengths, are off the perpendicular at the most."""
    unit = axes / np.linalg.norm(axes, axis=0)
    return math.degrees(math.asin(min(1.0, float(np.abs(unit.T @ unit - np.eye(3)).max()))))
