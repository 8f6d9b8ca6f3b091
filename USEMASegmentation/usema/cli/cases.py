"""From the arguments of `usema segment` to cases: what is read, and what is written for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..volumes.writing import IMAGE_SUFFIXES, SEGMENTATION_SUFFIX

_READ = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
# Formats of two files are written as their one-file sister.
_WRITTEN = {".nhdr": ".nrrd", ".mhd": ".mha"}


@dataclass(frozen=True)
class Case:
    """One volume (or one volume per channel) and its outputs; None: not asked for."""

    inputs: tuple[Path, ...]
    output: Path
    probabilities: Path | None
    preview: Path | None

    @property
    def name(self) -> str:
        return self.inputs[0].name


def plan_cases(
    inputs: Sequence[Path],
    channels: Sequence[Path],
    output: Path,
    probabilities: Path | None,
    preview: Path | None,
) -> list[Case]:
    """One case per input volume. A folder of volumes counts as its volumes, a folder of DICOM images as one volume.

    ``output`` is a file if its suffix is one that results are written in; then there must be one case. Otherwise it is
    a folder, made if need be, and so are ``probabilities`` and ``preview``; each result carries its input's name.

    Raises:
        InputError: an input does not exist, or channels were given for several cases.
        OutputError: several results would have one name.
    """
    volumes = [volume for path in inputs for volume in _volumes(path)]
    if channels and len(volumes) != 1:
        raise InputError(f"--channel adds to one input, but there are {len(volumes)}.", "Segment them one by one.")
    suffixes = (SEGMENTATION_SUFFIX, *IMAGE_SUFFIXES)
    if output.name.lower().endswith(suffixes) and not output.is_dir():
        if len(volumes) != 1:
            raise OutputError(f"'{output}' is one file, but there are {len(volumes)} inputs.", "Name a folder.")
        cases = [Case((volumes[0], *channels), output, probabilities, preview)]
        _refuse_clashes(cases)
        return cases
    if output.suffix and not output.is_dir():
        raise OutputError(
            f"'{output.name}' has none of the suffixes that can be written: {', '.join(suffixes)}.",
            "Name such a file, or a folder.",
        )
    cases = [
        Case(
            (volume, *channels),
            output / _result_name(volume),
            probabilities and probabilities / _result_name(volume),
            preview and preview / f"{_stem(volume)}.png",
        )
        for volume in volumes
    ]
    _refuse_clashes(cases)
    for folder in {folder for folder in (output, probabilities, preview) if folder is not None}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    return cases


def _refuse_clashes(cases: Sequence[Case]) -> None:
    """No result may replace an input of any case, or another result."""
    inputs = {path.resolve() for case in cases for path in case.inputs}
    seen: dict[Path, Path] = {}
    for case in cases:
        for path in filter(None, (case.output, case.probabilities, case.preview)):
            if path.resolve() in inputs:
                raise OutputError(f"The result {path} would replace its input.", "Choose another name or folder.")
            if path.resolve() in seen:
                raise OutputError(
                    f"Two results would be written to {path}, of {seen[path.resolve()]} and {case.inputs[0]}.",
                    "Choose different names or folders.",
                )
            seen[path.resolve()] = case.inputs[0]


def _volumes(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Check the path.")
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.name.lower().endswith(_READ) and file.name[0] != ".")
        return inside or [path]
    return [path]


def _suffix(path: Path) -> str:
    return next((suffix for suffix in _READ if path.name.lower().endswith(suffix)), "")


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(_suffix(path))] or path.resolve().name


def _result_name(path: Path) -> str:
    suffix = _suffix(path)
    return _stem(path) + (_WRITTEN.get(suffix, suffix) or ".nii.gz")
