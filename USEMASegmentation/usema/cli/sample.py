"""The sample volume that comes with USEMA: `usema segment --sample`, the first thing that a new user tries."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import click

from ..errors import InputError
from ..resources import sample_volume
from .cases import Case

_SAME_SECONDS = 60  # between the end of segmenting and the end of writing; whoever edits takes longer


def sample_arguments(output: str | None, preview: str | None) -> tuple[tuple[Path, ...], str, str | None, bool]:
    """Input, output, preview, and whether they may be replaced.

    Without --output, the command may be given again and again: it replaces what it wrote itself, and takes the next
    free folder where somebody has worked on that.
    """
    if output is not None:
        return (sample_volume(),), output, preview, False
    number, folder = 1, Path("usema-sample")
    while (folder / "segmentation.seg.nrrd").exists() and not _is_own_work(folder / "segmentation.seg.nrrd"):
        number += 1
        folder = Path(f"usema-sample-{number}")
    replace = preview is None  # a picture elsewhere is the user's
    return (sample_volume(),), str(folder / "segmentation.seg.nrrd"), preview or str(folder / "preview.png"), replace


def _is_own_work(path: Path) -> bool:
    """Whether a segmentation is as USEMA wrote it: the file is no younger than the time that its segments tell."""
    with path.open("rb") as file:
        told = re.search(rb"USEMA\.time:([-+:.\dT]+)", file.read(1 << 16))
    try:
        return (
            told is not None and abs(path.stat().st_mtime - datetime.fromisoformat(told[1].decode()).timestamp()) < 60
        )
    except ValueError:
        return False


def compare_with_reference(case: Case) -> None:
    """The sample comes with labels drawn by hand: say how close the result is."""
    import numpy as np

    from ..volumes.volume import load_volume

    reference = case.inputs[0].parent / "reference" / case.inputs[0].name
    if not reference.is_file():
        raise InputError(f"The sample's reference labels are missing: {reference}.", "Install USEMA again.")
    expected, found = load_volume(reference).array, load_volume(case.output).array
    for value in np.unique(expected[expected > 0]):
        overlap = ((expected == value) & (found == value)).sum()
        dice = 2 * overlap / ((expected == value).sum() + (found == value).sum())
        click.echo(f"Dice with the reference, label {value}: {dice:.3f}")
