"""A file opened by ITK: whatever its name, without ITK's own lines, and with its failures told as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError
from .integrity import METAIMAGE, NIFTI, NRRD
from .itk_messages import itk_reason, itk_warnings_logged
from .nrrd import NrrdHeader
from .paths import readable_by_itk

# Which of ITK's readers a format has: by itself ITK goes by the ending of the name.
IMAGE_IO = {NIFTI: "NiftiImageIO", NRRD: "NrrdImageIO", METAIMAGE: "MetaImageIO"}
_DAMAGED = "It is incomplete, damaged, or not what its name says: copy or export it again."


@contextmanager
def itk_reader(
    path: Path, image_io: str = "", failure: str = "read", hint: str = _DAMAGED
) -> Iterator[sitk.ImageFileReader]:
    """A reader of this file, to be used within the block.

    Args:
        image_io: which of ITK's readers; none: ITK chooses.
        failure: what could not be done with the file, where ITK raises within the block.
        hint: what to do then.

    Raises:
        InputError: ITK could not do what the block asked for.
    """
    reader = sitk.ImageFileReader()
    if image_io:
        reader.SetImageIO(image_io)
    nrrd = image_io == IMAGE_IO[NRRD]
    with (
        NrrdHeader(path).readable_by_itk() if nrrd else nullcontext(path) as file,
        readable_by_itk(file) as name,
        itk_warnings_logged(path),
    ):
        reader.SetFileName(name)
        try:
            yield reader
        except RuntimeError as error:
            raise InputError(f"{path} cannot be {failure}: {itk_reason(error)}.", hint) from error
