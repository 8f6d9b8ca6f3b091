"""How a result was made, as text for files and scenes: what the model and the options tell of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from .. import __version__
from ..models.metadata import ModelMetadata
from .loading import LoadedPart


def provenance(
    metadata: ModelMetadata, parts: Sequence[LoadedPart], overlap: float | str | None, mirror: bool
) -> dict[str, str]:
    """Text by name.

    Args:
        parts: those that ran.
        overlap, mirror: as the user wants them, see ``Predictor.segment``.
    """

    def each(values: Sequence[str]) -> str:
        """One value where all parts have the same."""
        return "; ".join(dict.fromkeys(values))

    described = {
        "model": metadata.name,
        "modelVersion": metadata.version,
        "architecture": each([part.part.architecture["name"] for part in parts]),
        "weightsSha256": metadata.weights["sha256"],
        "usemaVersion": __version__,
        "overlap": each([f"{part.overlap(overlap):g}" for part in parts]),
        "temperature": each([",".join(f"{one:g}" for one in part.outputs.temperatures) for part in parts]),
        "mirrorAxes": each([",".join(map(str, part.mirror_axes(mirror))) for part in parts]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if metadata.parts:
        described["parts"] = "; ".join(f"{part.name} ({', '.join(part.part.folds)})" for part in parts)
    if metadata.source:
        described |= {"sourceFormat": metadata.source["format"], "sourceSha256": metadata.source["sha256"]}
    return described


def shares(spent: Mapping[str, float], seconds: float) -> str:
    """What a run's time was spent on, most first, in percent that add up; whatever is not named is the rest."""
    named = {**spent, "rest": max(0.0, seconds - sum(spent.values()))}
    whole = max(sum(named.values()), 1e-9)
    percents = {name: round(100 * one / whole) for name, one in named.items()}
    percents["rest"] = max(0, 100 - sum(share for name, share in percents.items() if name != "rest"))
    told = sorted(percents.items(), key=lambda item: (item[0] == "rest", -item[1]))
    return f"{', '.join(f'{name} {share} %' for name, share in told)} = {seconds:.1f} s"
