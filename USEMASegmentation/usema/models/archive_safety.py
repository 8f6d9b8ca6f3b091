"""What a zip must not hold before anything in it is believed. Standard library only."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from ..errors import BundleError

_GET_AGAIN = "Download or copy the model again."
_UNSAFE = "Do not use it, and tell whoever gave it to you."
MAX_MEMBERS = 1000  # a bundle has about ten
# Weights become smaller by a tenth. What unpacks to a thousand times its size fills the disk, or the memory.
_BOMB_BYTES, _BOMB_RATIO = 256 * 2**20, 100


def what_it_is(start: bytes) -> str:
    """What a file that should be a zip is instead, by its first bytes; empty where they do not tell."""
    if not start:
        return "an empty file"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a web page, perhaps the sign-in page of a network"
    return "a zip without its end" if start.startswith(b"PK") else ""


def why_unreadable(file: Path, error: Exception) -> str:
    """Why a file cannot be read as a zip, in words where its first bytes tell."""
    try:
        with file.open("rb") as stream:
            found = what_it_is(stream.read(512))
    except OSError:
        found = ""
    return f"it is {found}" if found and isinstance(error, zipfile.BadZipFile) else str(error)


def check_zip_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuses what no bundle's zip has: ways out of its folder, links, and what takes memory without a limit.

    What is only read in place is checked as well: other programs will extract the same file.

    Args:
        path: the zip, for the message.
        member: any of its members.

    Raises:
        BundleError: says what is wrong.
    """
    name = member.filename
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name:
        raise BundleError(f"{path} holds {name!r}, which leads out of its folder.", _UNSAFE)
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0: made on a system that does not say
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "no plain file"
        raise BundleError(f"{path} holds {name!r}, which is {what}.", _UNSAFE)
    if member.file_size > _BOMB_BYTES and member.file_size > _BOMB_RATIO * member.compress_size:
        raise BundleError(
            f"{path} holds {name!r}, which grows from {member.compress_size} to {member.file_size} bytes.", _UNSAFE
        )
    # bzip2 and lzma in Python's zipfile decompress without a limit.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path} holds {name!r} in a compression that is not used for models.", _GET_AGAIN)


def members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All members of a zip, each checked.

    Raises:
        BundleError: there are too many, two of one name, or one is not safe.
    """
    found = archive.infolist()
    if len(found) > MAX_MEMBERS:
        raise BundleError(f"{path} holds {len(found)} files, more than {MAX_MEMBERS}.", _UNSAFE)
    names = set()
    for member in found:
        check_zip_member(path, member)
        if member.filename in names:
            raise BundleError(f"{path} holds {member.filename!r} twice.", _UNSAFE)
        names.add(member.filename)
    return found


def only_member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one file of that name, at the top of a zip or in one folder, after every member was checked.

    Args:
        path: the zip, for the message.
        archive: the same, open.
        name: of the file.

    Raises:
        BundleError: there is none or more than one, or a member is not safe.
    """
    places = [(entry, PurePosixPath(entry.filename)) for entry in members(path, archive)]
    entries = [entry for entry, place in places if place.name == name and len(place.parts) <= 2]
    if len(entries) != 1:
        raise BundleError(f"{path} holds {len(entries)} files {name}, and should hold one.", _GET_AGAIN)
    return entries[0]
