"""Whether nnU-Net can learn from what the files of a data set hold.

SimpleITK, by which nnU-Net reads volumes, takes voxels that are missing for zeros. What nnU-Net does find, a label or a
channel that does not fit dataset.json, it tells in a traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volumes.file_grid import COPY_AGAIN
from ..volumes.integrity import check_file
from ..volumes.paths import volume_suffix
from .raw_dataset import read_json, visible_files


def check_files(dataset: Path) -> None:
    """Refuse a data set with a file that is not whole, a label that dataset.json lacks, or a channel without a file.

    Args:
        dataset: the raw folder; its names are in order (``raw_dataset.cases_of``).

    Raises:
        InputError: names the first such file, and what is wrong with it.
    """
    path = dataset / "dataset.json"
    description = read_json(path)
    if "dataset" in description:  # which names files wherever they lie
        return
    ending, channels = str(description["file_ending"]), len(description["channel_names"])
    images: dict[str, list[Path]] = {}
    for image in visible_files(dataset / "imagesTr", ending):
        images.setdefault(image.name.removesuffix(ending)[:-5], []).append(image)
    for case, files in images.items():
        _check_channels(files, [f"{case}_{number:04}{ending}" for number in range(channels)], path)
    reader = None
    for case, files in images.items():
        for image in files:
            if volume_suffix(image):
                check_file(image)
        reader = reader or _reader(description, files[0])
        if not volume_suffix(files[0]) or len(files) < channels:
            found = len(_read(reader.read_images, files, files[0]))
            if found != channels:
                raise InputError(
                    f"{files[0]} holds {found} channel(s), and {path} names {channels}.",
                    f"Add {case}_{len(files):04}{ending}, or correct channel_names."
                    if found < channels
                    else "Correct channel_names, or save the image without what is not named.",
                )
        _check_labels(dataset / "labelsTr" / f"{case}{ending}", reader, description["labels"], path)


def _check_channels(files: list[Path], wanted: list[str], path: Path) -> None:
    """Names of files alone: a single one may hold all channels."""
    names = [file.name for file in files]
    missing = [name for name in wanted if name not in names]
    if missing and names != wanted[:1]:
        raise InputError(
            f"{files[0].parent} has no {missing[0]}, and {path} names {len(wanted)} channel(s).",
            "Add the file, or correct channel_names.",
        )
    if len(names) > len(wanted):
        surplus = next(name for name in names if name not in wanted)
        raise InputError(
            f"{files[0].parent} has {surplus}, and {path} names {len(wanted)} channel(s).",
            "Add the channel to channel_names, or remove the file.",
        )


def _check_labels(file: Path, reader: Any, labels: dict[str, Any], path: Path) -> None:
    if volume_suffix(file):
        check_file(file)
    known = sorted({item for value in labels.values() for item in (value if isinstance(value, list) else [value])})
    array = _read(reader.read_seg, str(file), file)
    wrong = np.unique(array[~np.isin(array, known)])
    if len(wrong):
        more = f" and {len(wrong) - 1} other values" if len(wrong) > 1 else ""
        raise InputError(
            f"{file} has the value {wrong[0]:g}{more}, and {path} names the labels {', '.join(map(str, known))}.",
            "Correct the label map, or name all of its values in dataset.json.",
        )


def _reader(description: dict[str, Any], example: Path) -> Any:
    """That which nnU-Net will choose."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    try:
        with redirect_stderr(StringIO()):  # of each reader that does not fit, it prints a traceback
            return determine_reader_writer_from_dataset_json(description, str(example), verbose=False)()
    except RuntimeError:
        raise InputError(f"{example} cannot be read by nnU-Net: no reader takes it.", COPY_AGAIN) from None


def _read(read: Callable[[Any], tuple[np.ndarray, dict]], asked: Any, path: Path) -> np.ndarray:
    try:
        return read(asked)[0]
    except Exception as error:  # of whatever library reads this format
        raise InputError(f"{path} cannot be read by nnU-Net: {error}.", COPY_AGAIN) from error
