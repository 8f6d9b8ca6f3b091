"""Files as they come: what is no regular file is refused, and ITK gets every other under a name that it can open."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError

# Endings of files that are read as volumes, longer ones first; each in any case.
VOLUME_SUFFIXES = (".nii.gz", ".hdr.gz", ".img.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")
SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
_HEADERS = (".nhdr", ".mhd")  # which name the files of their voxels
# Endings of files that are read as two-dimensional images alone.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_path(path: Path) -> None:
    """Refuse what is neither a regular file nor a folder: reading a pipe or a device might never end.

    Raises:
        InputError: there is nothing, it may not be looked at, or it is of such a kind.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        broken = " It is a link to a file that is not there." if path.is_symlink() else ""
        raise InputError(f"{path} does not exist.{broken}", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind:
        raise InputError(f"{path} is {kind}, not a file.", "Give a file: save the volume first.")


def volume_suffix(path: Path) -> str:
    """The ending, in lower case, by which a file counts as a volume; empty if it has none."""
    return next((suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), "")


def picture_suffix(path: Path) -> str:
    """The ending, in lower case, by which a file counts as a two-dimensional image; empty if it has none."""
    return next((suffix for suffix in PICTURE_SUFFIXES if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """A file's name without the ending by which it counts as a volume or an image."""
    return path.name[: len(path.name) - len(volume_suffix(path) or picture_suffix(path))] or path.name


@contextmanager
def readable_by_itk(path: Path) -> Iterator[str]:
    """A name in UTF-8 under which ITK can open ``path``: its own, or a link that lasts as long as the block.

    What lies beside a header is there under its own name, for the voxels may be in it.
    """
    if _is_utf8(str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="usema-") as folder:
        link = Path(folder) / f"volume{volume_suffix(path) or path.suffix.lower()}"
        link_to(path, link)
        if link.suffix in _HEADERS:
            for beside in path.parent.iterdir():
                if beside.is_file() and not (Path(folder) / beside.name).exists():
                    link_to(beside, Path(folder) / beside.name)
        yield str(link)


@contextmanager
def writable_by_itk(path: Path) -> Iterator[str]:
    """A name under which ITK can make ``path``, whatever its folder is called: its own, or one within a link to the
    folder that lasts as long as the block.
    """
    if _is_utf8(str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="usema-") as folder:
        link = Path(folder) / "folder"
        link.symlink_to(path.parent.resolve(), target_is_directory=True)
        yield str(link / path.name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def link_to(path: Path, link: Path) -> None:
    """A file under another name; a copy where there can be no link."""
    for way in (os.symlink, os.link):  # Windows lets only some users make the first kind
        with suppress(OSError, NotImplementedError):
            way(path.resolve(), link)
            return
    shutil.copyfile(path, link)
