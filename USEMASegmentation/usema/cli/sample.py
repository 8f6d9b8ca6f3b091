"""The sample volume that comes with USEMA: `usema segment --sample`, the first thing that a new user tries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from ..errors import InputError
from ..files import refuse_existing, replace_file, sha256_of_file
from ..models.label_names import chosen
from ..models.metadata import ModelMetadata
from ..resources import sample_volume
from .cases import Case

_RESULT, _PICTURE = "segmentation.seg.nrrd", "preview.png"
_DRAWN_FOR = "hippocampus-mr"  # the sample's labels; another model's mean something else
_NOTED = ".written.json"  # beside them: name -> SHA-256, as they were written


def sample_arguments(
    output: str | None, preview: str | None, overwrite: bool
) -> tuple[tuple[Path, ...], str, str | None, bool]:
    """Input, output, preview, and whether they may be replaced.

    Without --output, the command may be given again and again: it replaces what it wrote itself, and takes the next
    free folder where somebody has worked on that.
    """
    if output is not None:
        return (sample_volume(),), output, preview, False
    number, folder = 1, Path("usema-sample")
    while not _is_own_work(folder):
        number += 1
        folder = Path(f"usema-sample-{number}")
    replace = preview is None or not Path(preview).is_dir()
    if preview is not None and replace:
        refuse_existing(Path(preview), overwrite)  # a picture elsewhere is the user's
    return (sample_volume(),), str(folder / _RESULT), preview or str(folder / _PICTURE), replace


def _is_own_work(folder: Path) -> bool:
    """Whether result and picture in a folder, as far as there are any, are as USEMA wrote them."""
    try:
        noted = json.loads((folder / _NOTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = {}
    there = [path for path in (folder / _RESULT, folder / _PICTURE) if path.exists()]
    if not isinstance(noted, dict) or not all(map(Path.is_file, there)):
        return False
    return all(noted.get(path.name) == sha256_of_file(path) for path in there)


def note_written(case: Case) -> None:
    """Remembers what was written into a folder of the sample's own: what is as it was then, nobody has worked on."""
    written = [path for path in (case.output, case.preview) if path is not None and path.is_file()]
    noted = {path.name: sha256_of_file(path) for path in written if path.parent == case.output.parent}
    with suppress(OSError):  # then the next result goes beside it
        replace_file(case.output.with_name(_NOTED), json.dumps(noted, indent=2).encode())


def compare_with_reference(case: Case, metadata: ModelMetadata, only: Sequence[str]) -> None:
    """Says how close the result is to the labels that were drawn by hand, which are those of one model.

    Args:
        metadata: of the model that made it.
        only: the labels that were asked for, as the user wrote them; empty: all.
    """
    import numpy as np

    from ..volumes.volume import load_volume

    if metadata.name != _DRAWN_FOR:
        return
    reference = case.inputs[0].parent / "reference" / case.inputs[0].name
    if not reference.is_file():
        raise InputError(f"The sample's reference labels are missing: {reference}.", "Install USEMA again.")
    expected, found = load_volume(reference).array, load_volume(case.output).array
    asked = {label.value for label in chosen(only, metadata.result_labels) or metadata.result_labels}
    for value in sorted(asked & {*np.unique(expected).tolist()}):
        overlap = ((expected == value) & (found == value)).sum()
        dice = 2 * overlap / ((expected == value).sum() + (found == value).sum())
        click.echo(f"Dice with the reference, label {value}: {dice:.3f}")
