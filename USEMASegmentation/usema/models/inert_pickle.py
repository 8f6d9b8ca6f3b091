"""Follows a pickle that PyTorch wrote as far as it makes plain values and describes tensors, and runs nothing.

A pickle is a program: loading one may call any function of any module. Here none is loaded. ``pickletools`` lists the
instructions, and they are followed with a stack of values. Of the functions that a pickle may name, a table holds the
few that PyTorch and nnU-Net write, and not even these are called: what they would give is described. Whatever else is
named is refused, by name. Standard library only.
"""

from __future__ import annotations

import math
import pickletools
import struct
from dataclasses import dataclass, field
from typing import Any

from ..errors import BundleError

_MAX_VALUES = 4_000_000  # of one plain value, counted as often as they stand there
_GET_AGAIN = "Download or copy the checkpoint again."
_UNSAFE = "Nothing of it was run, and it was not imported. Do not open it elsewhere unless you know who made it."

# PyTorch's storages -> numpy's type of their numbers. bfloat16 is the upper half of a float32.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_TENSORS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")
_NUMBERS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_KNOWN = {
    *_TENSORS,
    *_NUMBERS,
    *(f"torch {name}" for name in _STORAGES),
    "collections OrderedDict",
    "torch device",
    "torch Size",
    "numpy dtype",
    "_codecs encode",  # how old pickles write bytes
}


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor's numbers lie in the file.

    Attributes:
        storage: member of the zip, under ``data/``.
        dtype: of its numbers, as numpy has it, or "bfloat16".
        numel: how many the storage holds.
        offset: the tensor's first.
        shape, stride: in numbers.
    """

    storage: str
    dtype: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def follow(pickle: bytes, path: str) -> Any:
    """What a pickle describes.

    Args:
        pickle: the instructions.
        path: where they come from, for messages.

    Returns:
        dictionaries, lists, tuples, texts, numbers, and TensorRecords in the place of tensors.

    Raises:
        BundleError: it names something, or has an instruction, that no checkpoint of nnU-Net has; or it is damaged.
    """
    return _Reader(path).read(pickle)


def plain(value: Any, what: str) -> Any:
    """A copy of dictionaries, lists, tuples (as lists), texts, numbers and None, as JSON has them.

    Args:
        value: part of a checkpoint's content.
        what: how messages call it.

    Raises:
        BundleError: there is something else in it, or it has no end, as a list that holds itself.
    """
    left = _MAX_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 64:
            raise BundleError(f"{what} is nested without an end.", _GET_AGAIN)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [copy(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {str(key): copy(item, depth + 1) for key, item in value.items()}
        raise BundleError(f"{what} holds {_described(value)}, where texts and numbers are expected.", _GET_AGAIN)

    return copy(value, 0)


def _described(value: Any) -> str:
    return f"a call of {value.name}" if isinstance(value, _Call) else f"a {type(value).__name__}"


def tensors(value: Any, what: str) -> dict[str, TensorRecord]:
    """A dictionary of tensors, such as a network's state. Raises BundleError if it is none."""
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, TensorRecord) for name, tensor in value.items()
    ):
        raise BundleError(f"{what} is no table of tensors.", _GET_AGAIN)
    return value


@dataclass(frozen=True)
class _Global:
    """The name of a function or class, as the pickle has it: module, space, name."""

    name: str


@dataclass
class _Call:
    """A call that was not made: what it would have given is of no use here, or not known before its state is."""

    name: str
    arguments: tuple = ()
    state: list = field(default_factory=list)


_MARK = object()


class _Reader:
    """Follows a pickle's instructions, with a stack and a memo as the pickle protocol has them."""

    def __init__(self, path: str):
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._follow(opcode.name, argument)
        except BundleError:
            raise
        # Whatever a made-up pickle does to the stack: too short, of another kind, a key that cannot be one.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, OverflowError) as error:
            raise BundleError(f"{self.path}: its description is damaged: {error}.", _GET_AGAIN) from error
        raise BundleError(f"{self.path}: its description has no end.", _GET_AGAIN)

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self._to_mark()
            stack.append(tuple(items))
        elif name == "APPEND":
            item = stack.pop()
            _list(stack[-1]).append(item)
        elif name == "APPENDS":
            items = self._to_mark()
            _list(stack[-1]).extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _dict(stack[-1])[key] = value
        elif name == "SETITEMS":
            items = self._to_mark()
            _dict(stack[-1]).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(self._known(argument))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(self._known(f"{module} {function}"))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_result(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Call):  # of a dictionary, PyTorch's version numbers: not needed
                stack[-1].state.append(state)
        else:
            raise BundleError(
                f"{self.path} holds the pickle instruction {name}, which no checkpoint of nnU-Net does.", _UNSAFE
            )

    def _to_mark(self) -> list:
        last = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[last + 1 :]
        del self.stack[last:]
        return items

    def _known(self, name: str) -> _Global:
        if name not in _KNOWN:
            raise BundleError(f"{self.path} holds more than weights: it names {name.replace(' ', '.')}.", _UNSAFE)
        return _Global(name)

    def _storage(self, identity: Any) -> tuple[str, str, int]:
        """(member, dtype, numbers) of PyTorch's ("storage", class, member, device, numbers)."""
        kind, storage, member, _, numel = identity
        name = storage.name.removeprefix("torch ")
        if kind != "storage" or name not in _STORAGES or not str(member).isalnum() or not 0 <= numel < 2**40:
            raise ValueError("a storage is none of PyTorch's")
        return str(member), _STORAGES[name], int(numel)


_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES",
}  # fmt: skip
_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} is no list")
    return value


def _dict(value: Any) -> dict:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} is no dictionary")
    return value


def _result(function: _Global, arguments: tuple) -> Any:
    """What a function of the table would give, described instead of computed."""
    name = function.name
    if name == "collections OrderedDict":
        return dict(*arguments)
    if name == "torch._utils _rebuild_tensor_v2":
        (storage, dtype, numel), offset, shape, stride = arguments[:4]
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        # No more numbers than there are in the storage: what is repeated would take memory without a limit.
        if min((offset, *shape, *stride)) < 0 or math.prod(shape) > numel or (0 not in shape and last >= numel):
            raise ValueError(f"a tensor of {math.prod(shape)} numbers does not lie in its storage of {numel}")
        return TensorRecord(storage, dtype, numel, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))
    if name == "torch._utils _rebuild_parameter":
        return arguments[0]
    if name == "torch device":
        return ":".join(map(str, arguments))
    if name == "torch Size":
        return tuple(*arguments)
    if name == "_codecs encode":
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError(f"bytes as {encoding!r}")
        return text.encode("latin1")
    if name in _NUMBERS:
        return _number(*arguments)
    return _Call(name, arguments)


def _number(dtype: _Call, data: bytes) -> float | int | bool:
    """A numpy number, from its type, as ``numpy.dtype("f8", False, True)``, and its bytes."""
    kind = str(dtype.arguments[0])
    order = next((str(state[1]) for state in dtype.state), "<")
    codes = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
    if kind in codes:
        (number,) = struct.unpack((">" if order == ">" else "<") + codes[kind], data)
        return number
    if kind[:1] in "iu" and len(data) == int(kind[1:]):
        return int.from_bytes(data, "big" if order == ">" else "little", signed=kind[0] == "i")
    raise ValueError(f"a number of the type {kind!r} with {len(data)} bytes")
