"""Safetensors files that were made to harm, and what is said of each."""

from __future__ import annotations

import json


def f16(*offsets: int, shape=(16,), dtype="F16") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def packed(header: dict | bytes, body: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(body)


HOSTILE = {
    "overlap": (packed({"a": f16(0, 32), "b": f16(16, 48)}, 48), "'b' overlaps"),
    "the same place": (packed({"a": f16(0, 32), "b": f16(0, 32)}, 32), "'b' overlaps"),
    "a gap": (packed({"a": f16(0, 32), "b": f16(40, 72)}, 72), "'b' begins 8 bytes too late"),
    "bytes that are no tensor's": (packed({"a": f16(0, 32)}, 64), "take 32 bytes, and there are 64"),
    "a tensor behind the end": (packed({"a": f16(0, 32)}, 16), "take 32 bytes, and there are 16"),
    "a size that overflows": (packed({"a": f16(0, 64, shape=(2**63, 2))}, 64), "does not take the bytes"),
    "a negative size": (packed({"a": f16(0, 32, shape=(-16, -1))}, 32), "that are no sizes"),
    "offsets turned round": (packed({"a": f16(32, 0)}, 32), "does not take the bytes"),
    "a size that is no number": (packed({"a": f16(0, 32, shape=("16",))}, 32), "that are no sizes"),
    "a type that torch has no tensors of": (packed({"a": f16(0, 16, dtype="F8_E8M0")}, 16), "type 'F8_E8M0'"),
    "an unknown type": (packed({"a": f16(0, 16, dtype=["F16"])}, 16), "type \\['F16'\\]"),
    "no offsets": (packed({"a": {"dtype": "F16", "shape": [16]}}, 32), "'a' has no dtype, shape or data_offsets"),
    "no tensor": (packed({"a": 7}, 0), "'a' has no dtype, shape or data_offsets"),
    "a thousand dimensions": (packed({"a": f16(0, 2, shape=[1] * 1000)}, 2), "that are no sizes"),
    "a huge header": (packed(b"{" + b" " * (17 * 2**20), 0), "header has 17825793 bytes"),
    "a deep header": (packed(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", 0), "nested deeper"),
    "a header cut off": (packed(b'{"a": {"dtype"', 0), "cannot be read"),
}
