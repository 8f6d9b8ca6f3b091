"""Launches the fused kernels from PTX that was compiled ahead of time: needs no Triton, no compiler, no Python headers.

Compiled by `python -m usema.sema.aot.build`; which kernels, says :mod:`.variants`; how they are launched,
:mod:`.loader`. For inference: there are no backward kernels.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..launch import MEAN_SIZES, LaunchError, Properties, window_constants
from . import variants
from .loader import LASTING, Driver, driver

FOLDER = Path(__file__).parent
_failures: dict[int, str] = {}  # device -> why its kernels are not launched any more
_said: set[tuple[int, str]] = set()  # what was logged once of failures that pass
_log = logging.getLogger(__name__)


def why_not(
    device: torch.device, dtype: torch.dtype, window: Sequence[int], head_dim: int, rope: bool, mean: bool
) -> str | None:
    """Why PTX cannot compute a layer's inference on this device; None where it may. Whether it works, a test shows."""
    if device.type != "cuda":
        return "no NVIDIA GPU"
    if reason := failure(device):
        return reason
    try:
        capability = driver().capability(_index(device))
        if capability < min(variants.ARCHITECTURES):
            return "this GPU is older than Turing"
        constants, _ = window_constants(
            "window_attention", window, head_dim, dtype, variants.properties(capability), rope, mean
        )
        _find("window_attention", variants.TYPES[dtype], constants, capability)
        if mean:
            _find("mean_over_tokens", variants.TYPES[dtype], MEAN_SIZES, capability)
    except LaunchError as error:
        return str(error)
    return None


def failure(device: torch.device) -> str | None:
    """Why launches on this device were given up, if they were."""
    return _failures.get(_index(device))


def properties(device: torch.device) -> Properties:
    """See :mod:`usema.sema.launch`."""
    return variants.properties(driver().capability(_index(device)))


def launch(kernel, grid, arguments, constants, num_warps: int, num_stages: int) -> None:
    """See :mod:`usema.sema.launch`. After a refusal that lasts, the device is left to PyTorch; after any other, such as
    memory that others hold, PyTorch computes this time."""
    device = arguments["x" if kernel == "mean_over_tokens" else "v"].device
    if reason := failure(device):
        raise LaunchError(reason)
    index = _index(device)
    try:
        _launch(driver(), index, _stream(device), kernel, grid, arguments, constants)
    except LaunchError as error:
        if error.code in LASTING:
            _failures[index] = str(error)
            _log.warning("SEMA attention on cuda:%d is left to PyTorch: %s", index, error)
        elif (index, str(error)) not in _said:
            _said.add((index, str(error)))
            _log.warning("SEMA attention on cuda:%d is left to PyTorch this time: %s", index, error)
        raise


def _launch(cuda: Driver, index: int, stream: int, kernel, grid, arguments, constants) -> None:
    dtype = arguments["x" if kernel == "mean_over_tokens" else "v"].dtype
    entry = _find(kernel, variants.TYPES[dtype], constants, cuda.capability(index))
    parameters = []
    for name, kind in entry["parameters"]:
        value = arguments[name]
        if kind == "i32" and not (name in variants.MULTIPLES_OF_16 and value % 16):
            parameters.append((kind, value))
        elif kind != "i32" and variants.TYPES.get(value.dtype) == kind and value.data_ptr() % 16 == 0:
            parameters.append(("pointer", value.data_ptr()))
        else:
            raise LaunchError(f"{entry['file']} does not take this {name}")
    # Triton gives its kernels two more pointers, to scratch memory that these do not use.
    parameters += [("pointer", 0), ("pointer", 0)]
    function = cuda.function(index, entry["file"], entry["kernel"], _read, entry["shared"])
    cuda.launch(index, stream, function, grid, 32 * entry["num_warps"], entry["shared"], parameters)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _stream(device: torch.device) -> int:
    """PyTorch's current stream on the device, as the driver knows it."""
    return torch.cuda.current_stream(device).cuda_stream


def _find(kernel: str, dtype: str, constants: dict[str, Any], capability: int) -> dict[str, Any]:
    """The manifest's entry of a kernel: the one for the newest architecture that this GPU can run."""
    return _found(kernel, dtype, tuple(constants.items()), capability)


@cache  # asked for by every launch
def _found(kernel: str, dtype: str, items: tuple[tuple[str, Any], ...], capability: int) -> dict[str, Any]:
    constants = dict(items)
    fitting = [
        entry
        for entry in manifest()["kernels"]
        if entry["kernel"] == kernel
        and entry["dtype"] == dtype[1:]
        and entry["constants"] == constants
        and entry["architecture"] <= capability
    ]
    if not fitting:
        what = kernel.replace("_", " ")
        if "WD" in constants:
            what += " in windows of {WD}x{WH}x{WW} with heads of {HEAD_DIM} channels".format(**constants)
        raise LaunchError(f"no PTX for {what} in {dtype[1:]}")
    return max(fitting, key=lambda entry: entry["architecture"])


@cache
def manifest() -> dict[str, Any]:
    """What was compiled: manifest.json.

    Raises:
        LaunchError: it is missing or no JSON.
    """
    try:
        return json.loads(_read("manifest.json"))
    except ValueError:
        raise LaunchError("the PTX manifest is damaged") from None


def _read(name: str) -> bytes:
    try:
        return (FOLDER / name).read_bytes()
    except OSError as error:
        raise LaunchError(f"{name} cannot be read: {error.strerror}") from None
