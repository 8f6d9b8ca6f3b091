"""From the arguments of `usema segment` to cases: what is read, and what is written for it."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, OutputError
from ..volumes.label_pictures import LABEL_PICTURE_SUFFIXES, OBJECT_SUFFIXES, PNG_SUFFIX
from ..volumes.paths import PICTURE_SUFFIXES, picture_suffix, stem_of, volume_suffix
from ..volumes.writing import DICOM_SUFFIX, IMAGE_SUFFIXES, RESULT_SUFFIXES, SEGMENTATION_SUFFIX
from .finding import Found, find, real

# Formats of two files are written as their one-file sister.
_WRITTEN = {
    ".nhdr": ".nrrd",
    ".mhd": ".mha",
    ".hdr": ".nii",
    ".img": ".nii",
    ".hdr.gz": ".nii.gz",
    ".img.gz": ".nii.gz",
    **dict.fromkeys(PICTURE_SUFFIXES, PNG_SUFFIX),
    ".tif": ".tif",
    ".tiff": ".tiff",
}
_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's number of a channel, at the end of a stem


@dataclass(frozen=True)
class Case:
    """One volume (or one volume per channel) and its outputs; None: not asked for.

    Attributes:
        name: what messages call it: its path from the folder that the user gave.
        overwrite: whether outputs that exist are replaced.
        frame: which one of a file or series of several volumes, from 0, and of how many; None: it is one volume.
        objects, table: of two-dimensional images, the numbers of objects, and what each measures.
    """

    name: str
    inputs: tuple[Path, ...]
    output: Path
    probabilities: Path | None
    preview: Path | None
    overwrite: bool = False
    statistics: Path | None = None
    frame: tuple[int, int] | None = None
    objects: Path | None = None
    table: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All that is written."""
        places = (self.output, self.probabilities, self.preview, self.statistics, self.objects, self.table)
        return tuple(path for path in places if path is not None)


@dataclass(frozen=True)
class Target:
    """Where one kind of result goes, as the user typed it: a file, or a folder that is made if need be.

    A name with one of the ``suffixes`` means a file, a slash at its end or a folder of that name a folder.

    Raises:
        OutputError: it looks like a file of a kind that is not written.
    """

    text: str
    suffixes: tuple[str, ...]

    def __post_init__(self):
        if self.is_folder or self.is_file:
            return
        ending = self.path.suffix
        if re.fullmatch(r"\.[A-Za-z]{1,5}", ending) or any(mimetypes.guess_type(self.path.name)):
            slash = f"or {os.path.join(self.text, '')} for a folder of that name."
            if self.suffixes == (".png",):
                raise OutputError(f"A preview is a .png file, not '{self.path.name}'.", f"Give such a name, {slash}")
            raise OutputError(
                f"'{self.path.name}' has none of the suffixes that can be written: {', '.join(self.suffixes)}.",
                f"Name such a file, {slash}",
            )

    @property
    def path(self) -> Path:
        return Path(self.text)

    @property
    def is_folder(self) -> bool:
        separators = tuple(filter(None, (os.sep, os.altsep)))
        return self.text.endswith(separators) or self.path.name in ("", "..") or self.path.is_dir()

    @property
    def is_file(self) -> bool:
        name = self.path.name.lower()
        if name.endswith(SEGMENTATION_SUFFIX):  # which is no .nrrd
            return not self.is_folder and SEGMENTATION_SUFFIX in self.suffixes
        return not self.is_folder and name.endswith(self.suffixes)

    def place(self, name: Path) -> Path:
        """Of the result of this name, one of several or the only one."""
        return self.path if self.is_file else self.path / name


def targets(
    output: str,
    probabilities: str | None,
    preview: str | None,
    objects: str | None = None,
    table: str | None = None,
    images: bool = False,
) -> tuple[Target | None, ...]:
    """What the options mean; ``images``: of a model for images. Raises OutputError as :class:`Target` does."""

    def target(text: str | None, *suffixes: str) -> Target | None:
        return None if text is None else Target(text, suffixes)

    return (
        Target(output, result_suffixes(images)),
        target(probabilities, *IMAGE_SUFFIXES),
        target(preview, ".png"),
        target(objects, *OBJECT_SUFFIXES),
        target(table, ".csv"),
    )


def result_suffixes(images: bool) -> tuple[str, ...]:
    """What results of volumes, or of images, can be written as; results of DICOM belong to a series."""
    if not images:
        return RESULT_SUFFIXES
    return (*(one for one in RESULT_SUFFIXES if not one.endswith(DICOM_SUFFIX)), *LABEL_PICTURE_SUFFIXES)


def plan_cases(
    inputs: Sequence[Path],
    channels: Sequence[Path],
    places: Sequence[Target | None],
    expected: int = 1,
    overwrite: bool = False,
    suffix: str | None = None,
    images: bool = False,
    earlier: Sequence[Path] = (),
) -> tuple[list[Case], list[str]]:
    """One case per volume that lies in the inputs, or per group of channels in nnU-Net's naming.

    Results in a folder carry their input's path from the folder that was given, or, where two would be one, from the
    folder that holds all inputs.

    Args:
        inputs: files, and folders to be walked through.
        channels: the further channels of a single volume.
        places: of results, probabilities and previews, as :func:`targets` returns them.
        expected: how many channels the model takes.
        overwrite: replace results that exist.
        suffix: of results in a folder; None: the input's.
        images: two-dimensional images are wanted, not volumes.
        earlier: results of earlier runs, which are no inputs where they lie in a folder of them.

    Returns:
        the cases, and sentences about what was left out.

    Raises:
        InputError: an input does not exist, all are results, or channels were given for several volumes.
        OutputError: several results would go into one file. Whether two have one name, or one replaces an input, is
            for :func:`refuse_clashes`: frames have names of their own.
    """
    found, left_out = [], []
    for path in inputs:
        more, words = find(path, [*earlier, *(place.path for place in places if place is not None)], images)
        found += more
        left_out += words
    found, left_out = _each_once(found), list(dict.fromkeys(left_out))
    if not found:
        raise InputError(f"There is nothing to segment: {' '.join(left_out[:3])}", "Name a file to segment it anyway.")
    if channels and len(found) != 1:
        raise InputError(f"--channel adds to one input, but there are {len(found)}.", "Segment them one by one.")
    grouped = _by_channel(found) if expected > 1 and not channels else [(one, (one.path, *channels)) for one in found]
    for place in places:
        if place is not None and place.is_file and len(grouped) != 1:
            raise OutputError(f"'{place.path}' is one file, but there are {len(grouped)} inputs.", "Name a folder.")
    names = [one.relative for one, _ in grouped]
    if len({_result_name(name, suffix) for name in names}) < len(names):
        names = _from_common_folder([one for one, _ in grouped])
    shown = names
    if images:
        names = _names_of_pictures(names, suffix)
    output, probabilities, preview, objects, table = (*places, None, None)[:5]
    cases = [
        Case(
            str(said),
            paths,
            output.place(_result_name(name, suffix)),
            probabilities and probabilities.place(_volume_name(name)),
            preview and preview.place(name.with_name(f"{stem_of(name)}.png")),
            overwrite,
            objects=objects and objects.place(_result_name(name, suffix if suffix in OBJECT_SUFFIXES else None)),
            table=table and table.place(name.with_name(f"{stem_of(name)}.csv")),
        )
        for name, said, (_, paths) in zip(names, shown, grouped, strict=True)
    ]
    return cases, left_out


def _each_once(found: Sequence[Found]) -> list[Found]:
    """Without what an input before gave: a file and its folder. Links to one volume are several, with their names."""
    places: dict[tuple[str, Path], Found] = {}
    for one in found:
        places.setdefault((os.path.abspath(one.path), real(one.path)), one)
    return list(places.values())


def _by_channel(found: Sequence[Found]) -> list[tuple[Found, tuple[Path, ...]]]:
    """CASE_0000, CASE_0001, ... of one folder are the channels of CASE; others are cases by themselves."""
    groups: dict[Path, list[Found]] = {}
    for one in found:
        groups.setdefault(one.path.with_name(_CHANNEL.sub("", stem_of(one.path))), []).append(one)
    cases = []
    for group in groups.values():
        numbers = [match and int(match[1]) for match in (_CHANNEL.search(stem_of(one.path)) for one in group)]
        if None in numbers or sorted(numbers) != list(range(len(group))):
            cases += [(one, (one.path,)) for one in group]
            continue
        first, *others = (one for _, one in sorted(zip(numbers, group, strict=True), key=lambda pair: pair[0]))
        name = _CHANNEL.sub("", stem_of(first.relative)) + _suffix(first.relative)
        cases.append((replace(first, relative=first.relative.with_name(name)), (first.path, *(o.path for o in others))))
    return cases


def _from_common_folder(found: Sequence[Found]) -> list[Path]:
    """The inputs' paths from the folder that holds them all; as they were if there is none (other drives)."""
    full = [real(one.path).with_name(one.relative.name) for one in found]
    try:
        common = os.path.commonpath([path.parent for path in full])
    except ValueError:
        return [one.relative for one in found]
    return [path.relative_to(common) for path in full]


def refuse_replacing(output: Path, inputs: Set[Path]) -> None:
    """Raises OutputError where a file that is to be written, also with --overwrite, is one of those that are read.

    Args:
        inputs: as ``finding.real`` gives them.
    """
    if real(output) in inputs:
        raise OutputError(f"The result {output} would replace its input.", "Choose another name or folder.")


def refuse_clashes(cases: Sequence[Case]) -> None:
    """No result may replace an input of any case, or another result."""
    inputs = {real(path) for case in cases for path in case.inputs}
    seen: dict[Path, Path] = {}
    for case in cases:
        for path in case.outputs:
            refuse_replacing(path, inputs)
            place = real(path)
            if place in seen:
                raise OutputError(
                    f"Two results would be written to {path}, of {seen[place]} and {case.inputs[0]}.",
                    "Choose different names or folders.",
                )
            seen[place] = case.inputs[0]


def _suffix(path: Path) -> str:
    return volume_suffix(path) or picture_suffix(path)


def _names_of_pictures(names: Sequence[Path], suffix: str | None) -> list[Path]:
    """Without the ending of DICOM; with it as a word where two would become one result: cell.png and cell.dcm."""
    parts = []
    for name in names:
        ending = _suffix(name) or ".dcm" * (name.suffix.lower() == ".dcm")
        parts.append((name, name.name[: len(name.name) - len(ending)], ending, _suffix(name)))
    plain = [name.with_name(stem + written) for name, stem, _, written in parts]
    if len({_result_name(name, suffix) for name in plain}) == len(plain):
        return plain
    return [name.with_name(f"{stem}_{ending.strip('.')}{written}") for name, stem, ending, written in parts]


def _volume_name(path: Path) -> Path:
    """Of a result that only formats of volumes can hold."""
    return _result_name(path, ".nii.gz" if picture_suffix(path) else None)


def _result_name(path: Path, suffix: str | None = None) -> Path:
    own = _suffix(path)
    return path.with_name(stem_of(path) + (suffix or _WRITTEN.get(own, own) or ".nii.gz"))
