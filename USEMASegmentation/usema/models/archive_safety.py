"""What a zip must not hold before anything in it is believed. Standard library only."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from ..errors import BundleError

_GET_AGAIN = "Download or copy the model again."


def check_zip_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuses what no bundle's zip has: ways out of its folder, links, and what takes memory without a limit.

    What is only read in place is checked as well: other programs will extract the same file.

    Args:
        path: the zip, for the message.
        member: any of its members.

    Raises:
        BundleError: says what is wrong.
    """
    name, unsafe = member.filename, "Do not use it, and tell whoever gave it to you."
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name:
        raise BundleError(f"{path} holds {name!r}, which leads out of its folder.", unsafe)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise BundleError(f"{path} holds {name!r}, which is a link.", unsafe)
    # bzip2 and lzma in Python's zipfile decompress without a limit.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path} holds {name!r} in a compression that is not used for models.", _GET_AGAIN)


def only_member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one file of that name, at the top of a zip or in one folder, after every member was checked.

    Args:
        path: the zip, for the message.
        archive: the same, open.
        name: of the file.

    Raises:
        BundleError: there is none or more than one, or a member is not safe.
    """
    entries = []
    for entry in archive.infolist():
        check_zip_member(path, entry)
        place = PurePosixPath(entry.filename)
        if place.name == name and len(place.parts) <= 2:
            entries.append(entry)
    if len(entries) != 1:
        raise BundleError(f"{path} holds {len(entries)} files {name}, and should hold one.", _GET_AGAIN)
    return entries[0]
