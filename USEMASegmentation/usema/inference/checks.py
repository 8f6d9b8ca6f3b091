"""Where an input is far from what a model was trained on. Without torch: the panel warns before the engine runs."""

from __future__ import annotations

from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry


def input_warnings(metadata: ModelMetadata, geometry: Geometry, intensities: tuple[float, float]) -> list[str]:
    """What the user should know of a volume's spacing and intensity; the result may be poor.

    Args:
        geometry: of the volume, in any orientation.
        intensities: its least and greatest value.
    """
    warnings = []
    low, high = metadata.expected_spacing_mm["min"], metadata.expected_spacing_mm["max"]
    if metadata.orientation is not None:
        geometry = geometry.moved(geometry.moves_to(metadata.orientation))
    for axis, spacing, least, most in zip("xyz", geometry.spacing, low, high, strict=True):
        # A factor of two is what resampling and augmentation bridge without harm.
        if not least / 2 <= spacing <= most * 2:
            warnings.append(
                f"The spacing along {axis} is {spacing:.3g} mm; the model was trained on {least:g} to {most:g} mm."
            )
    if metadata.expected_intensity_range is not None:
        least, most = metadata.expected_intensity_range
        lowest, highest = intensities
        if highest < least or lowest > most or highest - lowest < 0.05 * (most - least):
            warnings.append(
                f"The intensities run from {lowest:g} to {highest:g}; the model knows {least:g} to {most:g}."
            )
    return warnings
