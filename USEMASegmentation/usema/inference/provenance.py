"""How a result was made, as text by name: it goes into files and scenes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from .. import __version__
from ..models.metadata import Label, ModelMetadata
from .loading import LoadedPart


def provenance(
    metadata: ModelMetadata,
    parts: Sequence[LoadedPart],
    wanted: Sequence[Label],
    *,
    overlap: float | None,
    mirror: bool,
    **run: str,
) -> dict[str, str]:
    """What is told of a run.

    Args:
        parts: those that ran.
        wanted: the labels of the result.
        overlap, mirror: as they were asked for.
        run: what only the run knows; what is empty is left out.
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
        **{name: text for name, text in run.items() if text},
    }
    if metadata.parts:
        described["parts"] = "; ".join(f"{part.name} ({', '.join(part.part.folds)})" for part in parts)
    if metadata.source:
        described |= {"sourceFormat": metadata.source["format"], "sourceSha256": metadata.source["sha256"]}
    if len(wanted) < len(metadata.result_labels):
        described["labels"] = ", ".join(label.name for label in wanted)
    return described
