"""A first look at the labels, in a file beside where the result will be, until that is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError

if TYPE_CHECKING:
    import numpy as np

    from ..volumes.volume import Volume
    from .cases import Case
    from .progress import RunProgress

_SUFFIX = ".preview.nii.gz"
NOTE = "A first look by USEMA, until the result is there."  # in the file: it is no result, and nobody else's


@contextmanager
def first_look(case: Case, volume: Volume, progress: RunProgress) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives what writes it. It goes in the end, also one that a killed run left."""
    from ..volumes.writing import result_stem, write_label_map

    path = case.output.with_name(result_stem(case.output) + _SUFFIX)

    def write(labels: np.ndarray) -> None:
        try:
            write_label_map(path, labels, volume.geometry, is_first_look(path), NOTE)
        except OutputError as error:  # the result may still be written
            progress.say(f"{case.name}: no preview. {error}", "yellow")
        else:
            progress.say(f"{case.name}: preview, until the result is there -> {path}")

    try:
        yield write
    finally:
        if is_first_look(path):
            path.unlink(missing_ok=True)


def is_first_look(path: Path) -> bool:
    """Whether it is one that a run has written, by its name and by the note in it."""
    from ..volumes.writing import note_in

    if not path.name.endswith(_SUFFIX):
        return False
    return os.path.isfile(path) and note_in(path) == NOTE  # also where the name is longer than the disk takes
