"""What those who made a volume say that it shows, as far as its file, or what lies beside it, keeps that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Names of DICOM's, which dcm2niix writes beside a NIfTI file too.
TEXTS = ("BodyPartExamined", "ProtocolName", "SeriesDescription", "StudyDescription")
_MOST = 2**20  # bytes of a file beside a volume that may hold them


@dataclass(frozen=True)
class Told:
    """Words about a volume; never proof.

    Attributes:
        modality: DICOM's, such as "MR"; empty: not known.
        texts: body part, protocol, descriptions, the name of the file; those that there are.
    """

    modality: str = ""
    texts: tuple[str, ...] = ()


NOTHING = Told()


def told_by(values: Mapping[str, Any], *names: str) -> Told:
    """What DICOM's values say.

    Args:
        values: by keyword.
        names: further texts, such as that of the file.
    """
    texts = [*(values.get(keyword) for keyword in TEXTS), *names]
    modality = values.get("Modality")
    return Told(
        str(modality) if isinstance(modality, str) else "",
        tuple(dict.fromkeys(str(text).strip() for text in texts if isinstance(text, str) and text.strip())),
    )


def told_of_file(path: Path) -> Told:
    """What an image file says by its name, and by a ``.json`` of the same name as dcm2niix writes it."""
    stem = path.name.removesuffix(".gz")
    stem = stem[: stem.rfind(".")] if "." in stem else stem
    beside = path.with_name(f"{stem}.json")
    try:
        if beside.is_file() and beside.stat().st_size <= _MOST:
            values = json.loads(beside.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                return told_by(values, stem)
    except (OSError, ValueError, RecursionError):  # it is of something else
        pass
    return told_by({}, stem)
