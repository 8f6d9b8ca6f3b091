"""The header of a safetensors file: checked before a library reads it. Standard library only.

The format (github.com/huggingface/safetensors): eight bytes with the length of the header, the header in JSON, then the
values of all tensors, one behind the other.
"""

from __future__ import annotations

from math import prod
from typing import Any

from .. import strict_json

LENGTH_BYTES = 8
MAX_BYTES = 16 * 2**20  # about 150 bytes a tensor: room for 100,000 tensors
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_MAX_DIMENSIONS = 8


def check(header: bytes, body: int) -> None:
    """Refuses a header whose tensors overlap, leave gaps, or are not what a network's weights are.

    Args:
        header: the JSON, without its length.
        body: bytes behind it.

    Raises:
        ValueError: says what is wrong.
    """
    document = strict_json.loads(header)
    if not isinstance(document, dict):
        raise ValueError("its header is no JSON object")
    places = []
    for name, tensor in document.items():
        if name != "__metadata__":
            places.append((*_place(name, tensor), name))
    end = 0
    for start, stop, name in sorted(places):
        if start != end:
            what = "overlaps with the one before it" if start < end else f"begins {start - end} bytes too late"
            raise ValueError(f"the tensor {name!r} {what}")
        end = stop
    if end != body:
        raise ValueError(f"its tensors take {end} bytes, and there are {body}")


def _place(name: str, tensor: Any) -> tuple[int, int]:
    """(first byte, end) of a tensor, behind the header."""
    try:
        dtype, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the tensor {name!r} has no dtype, shape or data_offsets") from None
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ValueError(f"the tensor {name!r} is of the type {dtype!r}, which no network here has")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, [*shape, start, stop])):
        raise ValueError(f"the tensor {name!r} has a shape or data_offsets that are no sizes")
    if stop - start != prod(shape) * _BYTES[dtype]:
        raise ValueError(f"the tensor {name!r} does not take the bytes that its shape needs")
    return start, stop


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
