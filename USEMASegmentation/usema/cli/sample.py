"""The sample volume that comes with USEMA: `usema segment --sample`, the first thing that a new user tries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from ..errors import InputError
from ..files import replace_file, sha256_of
from ..resources import sample_volume
from .cases import Case

_RESULT, _PICTURE = "segmentation.seg.nrrd", "preview.png"
_NOTED = ".written.json"  # beside them: name -> SHA-256, as they were written


def sample_arguments(output: str | None, preview: str | None) -> tuple[tuple[Path, ...], str, str | None, bool]:
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
    replace = preview is None  # a picture elsewhere is the user's
    return (sample_volume(),), str(folder / _RESULT), preview or str(folder / _PICTURE), replace


def _is_own_work(folder: Path) -> bool:
    """Whether result and picture in a folder, as far as there are any, are as USEMA wrote them."""
    try:
        noted = json.loads((folder / _NOTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = {}
    there = [path for path in (folder / _RESULT, folder / _PICTURE) if path.exists()]
    return isinstance(noted, dict) and all(path.is_file() and noted.get(path.name) == _hash(path) for path in there)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of(file)


def compare_with_reference(case: Case) -> None:
    """Notes what was written into a folder of the sample's own. And the sample comes with labels drawn by hand, of the
    default model's structures: say how close those are that were asked for.
    """
    import numpy as np

    from ..volumes.volume import load_volume

    asked = click.get_current_context().params
    if asked["output"] is None:
        _note(case)
    comparable = _comparable(asked["model"], asked["only"])
    if not comparable:
        return
    reference = case.inputs[0].parent / "reference" / case.inputs[0].name
    if not reference.is_file():
        raise InputError(f"The sample's reference labels are missing: {reference}.", "Install USEMA again.")
    expected, found = load_volume(reference).array, load_volume(case.output).array
    for value in sorted(comparable & {*np.unique(expected).tolist()}):
        overlap = ((expected == value) & (found == value)).sum()
        dice = 2 * overlap / ((expected == value).sum() + (found == value).sum())
        click.echo(f"Dice with the reference, label {value}: {dice:.3f}")


def _note(case: Case) -> None:
    written = [path for path in (case.output, case.preview) if path is not None and path.is_file()]
    noted = {path.name: _hash(path) for path in written if path.parent == case.output.parent}
    with suppress(OSError):  # then the next result goes beside it
        replace_file(case.output.with_name(_NOTED), json.dumps(noted, indent=2).encode())


def _comparable(model: str | None, only: Sequence[str]) -> set[int]:
    """The labels that a result may have: none if it is of another model than the default one, which means others."""
    from ..models.bundle import read_bundle
    from ..models.label_names import chosen
    from ..store.library import find_model
    from .segment import DEFAULT_MODEL

    metadata = read_bundle(find_model(model or DEFAULT_MODEL)).metadata
    if metadata.name != DEFAULT_MODEL:
        return set()
    labels = chosen(only, metadata.result_labels) if only else metadata.result_labels
    return {label.value for label in labels}
