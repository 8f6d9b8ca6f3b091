"""What a model has learned from one case: new values for a few of its weights, in a file that lies with the case.

The file is safetensors; its header says which weights it belongs to, by their SHA-256, and what it was learned from. It
changes nothing of the model: who wants the adapted model names both. Standard library only at file scope.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import strict_json
from ..errors import BundleError, MissingDependencyError
from . import weights_header
from .metadata import ModelMetadata

if TYPE_CHECKING:
    import torch

FORMAT = "usema-delta"
VERSION = "1"
MOST_BYTES = 256 * 2**20  # far more than any: a file of another kind must not fill the memory
_LEARN_AGAIN = "Learn from the corrections again, with this model."


@dataclass(frozen=True, eq=False)
class Delta:
    """New values of some weights.

    Attributes:
        tensors: float32, by their names in the model's file of weights.
        said: text by name: "weights_sha256" and "model" it belongs to, and what else is worth knowing of it.
    """

    tensors: Mapping[str, torch.Tensor]
    said: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file's content; the same for the same values.

        Raises:
            MissingDependencyError: safetensors is not installed.
        """
        import safetensors.torch

        said = {**self.said, "format": FORMAT, "version": VERSION}
        tensors = {name: self.tensors[name].detach().cpu().float().contiguous() for name in sorted(self.tensors)}
        return safetensors.torch.save(tensors, said)

    @property
    def sha256(self) -> str:
        """Of the values and their names, in lower-case hex."""
        import numpy as np

        found = hashlib.sha256()
        for name in sorted(self.tensors):
            values = np.ascontiguousarray(self.tensors[name].detach().cpu().numpy(), np.float32)
            found.update(f"{name}{values.shape}".encode() + values.tobytes())
        return found.hexdigest()

    @classmethod
    def of_bytes(cls, data: bytes, source: str) -> Delta:
        """The inverse of :meth:`to_bytes`.

        Args:
            source: what messages call it.

        Raises:
            BundleError: it is no such file, damaged, or of a newer version.
            MissingDependencyError: safetensors is not installed.
        """
        said = _said(data, source)
        try:
            import safetensors.torch
        except ImportError as error:
            raise MissingDependencyError(f"Loading a model needs {error.name}.", "Install it first.") from error
        try:
            tensors = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, LookupError) as error:
            raise BundleError(f"{source} cannot be read: {error}.", _LEARN_AGAIN) from error
        for name, tensor in tensors.items():
            if str(tensor.dtype) != "torch.float32" or not bool(tensor.isfinite().all()):
                raise BundleError(f"{source}: the values of {name} are no finite numbers.", _LEARN_AGAIN)
        return cls(tensors, said)

    @classmethod
    def read(cls, path: Path) -> Delta:
        """Of a file.

        Raises:
            BundleError, MissingDependencyError: as :meth:`of_bytes`; or it cannot be read.
        """
        try:
            if path.exists() and not path.is_file():  # to read from a pipe or a device could wait, or go on, for ever
                raise BundleError(f"{path} is no file.", "Name the file of a delta.")
            if path.stat().st_size > MOST_BYTES:
                raise BundleError(f"{path} has {path.stat().st_size} bytes: it is no delta of a model.", _LEARN_AGAIN)
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}.", "Name the file of a delta.") from error
        return cls.of_bytes(data, str(path))

    def check_model(self, metadata: ModelMetadata) -> None:
        """Refuses another model's.

        Raises:
            BundleError: it belongs to other weights.
        """
        own, its = metadata.weights["sha256"], self.said.get("weights_sha256", "")
        if own != its:
            raise BundleError(
                f"What was learned belongs to other weights (SHA-256 {its[:12] or 'not stated'}...) than those of "
                f"'{metadata.name}' {metadata.version} ({own[:12]}...).",
                f"It was learned with '{self.said.get('model', 'another model')}'. {_LEARN_AGAIN}",
            )

    def check(self, metadata: ModelMetadata, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """As :meth:`check_model`, and that every value has its place.

        Args:
            shapes: of the model's weights, by name.

        Raises:
            BundleError: it belongs to other weights.
        """
        self.check_model(metadata)
        for name, tensor in self.tensors.items():
            if shapes.get(name) != tuple(tensor.shape):
                raise BundleError(
                    f"What was learned does not fit: the model has no {name} of this shape.", _LEARN_AGAIN
                )


def _said(data: bytes, source: str) -> dict[str, str]:
    """What the header tells, having checked it."""
    start = weights_header.LENGTH_BYTES
    length = int.from_bytes(data[:start], "little")
    try:
        if len(data) < start or length > min(weights_header.MAX_BYTES, len(data) - start):
            raise ValueError("it is no safetensors file")
        header = data[start : start + length]
        weights_header.check(header, len(data) - start - length)
        said = strict_json.loads(header).get("__metadata__", {})
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise ValueError("its header tells nothing of it")
        if said.get("format") != FORMAT:
            raise ValueError("it is no delta of a model")
        if said.get("version") != VERSION:
            raise ValueError(f"it is of version {said.get('version')!r}, and {VERSION!r} is known here")
    except ValueError as error:
        raise BundleError(f"{source} cannot be read: {error}.", _LEARN_AGAIN) from error
    return said
