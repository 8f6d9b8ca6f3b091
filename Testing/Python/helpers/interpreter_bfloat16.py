"""Mends bfloat16 in Triton's interpreter.

It keeps such numbers as their bits, multiplies and adds these, and cuts float32 off where a GPU rounds.
"""

from __future__ import annotations

import functools
import os


@functools.cache
def mend() -> None:
    """Mend tl.dot, sums over an axis of length one, and rounding. Does nothing where the interpreter is off."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    dot = interpreter.InterpreterBuilder.create_dot
    interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest)
    add = interpreter.ReduceOps.sum

    def sum_of_one(self, x):
        if x.dtype.scalar != tl.bfloat16:
            return add(self, x)
        assert x.handle.data.shape[self.axis] == 1, "only what the kernels need"
        return self.to_tensor(np.squeeze(x.handle.data, self.axis), x.dtype)

    interpreter.ReduceOps.sum = sum_of_one
    convert = interpreter._convert_float

    def rounded(x, source, target, mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(x, source, target, mode)
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    interpreter._convert_float = rounded
