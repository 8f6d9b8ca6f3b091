"""Writes a bundle, and changes what one says of itself; whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, OutputError
from ..files import move_into_place, refuse_existing, remove_abandoned, replace_file, temporary_beside
from .bundle import METADATA_FILE, WEIGHTS_FILE, Bundle, read_bundle
from .metadata import ModelMetadata, least_schema_version

if TYPE_CHECKING:
    import torch


def write_bundle(
    folder: str | os.PathLike,
    metadata: Mapping[str, Any],
    state_dict: Mapping[str, torch.Tensor],
    *,
    half: bool = True,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle; the folder appears whole or not at all.

    Args:
        folder: where to; its parent must exist.
        metadata: the keys of ``model.json`` but ``schema_version`` and ``weights``, which are filled in.
        state_dict: the network's parameters and buffers.
        half: store floating-point tensors as float16, half the size of float32.
        overwrite: replace a bundle that is there already.

    Raises:
        BundleError: the metadata are not valid, or a weight is not finite (in float16, the limit is 65504).
        OutputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite and (folder / METADATA_FILE).is_file(), "folder")

    dtype = "float16" if half else "float32"
    data = _to_safetensors(state_dict, dtype)
    document = {
        **metadata,
        "schema_version": least_schema_version(metadata),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "dtype": dtype,
        },
    }
    text = _checked_text(document)
    remove_abandoned(folder.parent)
    temporary = temporary_beside(folder)
    try:
        temporary.mkdir(parents=True)
        (temporary / METADATA_FILE).write_text(text, encoding="utf-8")
        (temporary / WEIGHTS_FILE).write_bytes(data)
        move_into_place(temporary, folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}.", "Make room on its disk, or take another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(folder)


def change_metadata(bundle: Bundle, **changes: Any) -> Bundle:
    """Replaces keys of a bundle's ``model.json``, whole or not at all; the weights and all other keys stay.

    Args:
        bundle: in a folder, not in a zip.
        changes: new values of keys of ``model.json``.

    Returns:
        the bundle as it is now; its ``schema_version`` is the least that knows its keys.

    Raises:
        BundleError: the bundle is a zip, or the changed metadata are not valid.
        OutputError: ``model.json`` cannot be written.
    """
    if not bundle.path.is_dir():
        raise BundleError(f"{bundle.path} is no folder, and only a bundle in a folder can be changed.", "Unpack it.")
    path = bundle.path / METADATA_FILE
    # The file's own text, not bundle.metadata: keys keep their order, and who compares sees only the changes.
    document = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    text = _checked_text({**document, "schema_version": least_schema_version(document)})
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:  # which names the temporary file
        raise OutputError(
            f"{path} cannot be written: {error.strerror}.", "Copy the model to a folder of your own."
        ) from error
    return read_bundle(bundle.path)


def _checked_text(document: Mapping[str, Any]) -> str:
    """A ``model.json`` with this document. Raises BundleError where no reader would accept it."""
    try:
        # Through JSON and back, so that what is checked is what a reader will see.
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"The metadata do not fit into JSON: {error}.") from error
    ModelMetadata.from_dict(json.loads(text), "The metadata")
    return text + "\n"


def _to_safetensors(state_dict: Mapping[str, torch.Tensor], dtype: str) -> bytes:
    import safetensors.torch
    import torch

    tensors = {}
    for name, tensor in state_dict.items():
        stored = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
        # copy: safetensors refuses tensors that share memory, as a network's tied layers do
        tensors[name] = tensor.detach().to("cpu", stored, copy=True).contiguous()
        if not tensors[name].isfinite().all():
            before = bool(tensor.isfinite().all())
            hint = "Use half=False." if before else "The training went wrong before this was saved: take another one."
            raise BundleError(f"The weight {name!r} has values that are not finite in {dtype}.", hint)
    return safetensors.torch.save(tensors)
