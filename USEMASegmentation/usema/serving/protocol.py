"""What the two kinds of worker have in common on the wire; ``worker.py`` describes the rest. Standard library only."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, UsemaError
from ..inference.speeds import EXACT

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
PROGRESS_SECONDS = 0.05  # a panel shows no more than 20 steps a second

Send = Callable[..., None]  # takes the parts of an event by name

_KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}


class ProtocolError(UsemaError):
    """A request that does not say what it has to."""

    code = "protocol"


@dataclass(frozen=True)
class RunOptions:
    """How a volume is segmented; everything else of a request says what. The one list of these options.

    Attributes:
        device: see ``usema.inference.device.choose_device``.
        overlap: of neighbouring tiles, 0 to 0.9 of their side; None: the model's own.
        mirror: average over mirrored copies.
        probabilities: keep them.
        speed: see ``usema.inference.speeds``.
        margins: keep them, see ``usema.volumes.margins``.
    """

    device: str = "auto"
    overlap: float | None = None
    mirror: bool = False
    probabilities: bool = False
    speed: str = EXACT
    margins: bool = False

    def to_request(self) -> dict[str, Any]:
        """The fields of a request."""
        return asdict(self)

    @classmethod
    def of_request(cls, request: Mapping[str, Any]) -> RunOptions:
        """Those that a request names, else their defaults.

        Raises:
            ProtocolError: one is of another type.
        """
        kinds = {one.name: float if one.default is None else type(one.default) for one in fields(cls)}
        return cls(**{one.name: field(request, one.name, kinds[one.name], one.default) for one in fields(cls)})


_NEEDED = object()


def field(request: Mapping[str, Any], name: str, kind: type, default: Any = _NEEDED) -> Any:
    """A field of a request; the default where it is missing or null.

    Raises:
        ProtocolError: it is missing and has no default, or is of another type.
    """
    value = request.get(name)
    if value is None and default is not _NEEDED:
        return default
    if value is None:
        raise ProtocolError(f"The request {request['command']!r} lacks {name!r}.", f"It is {_KINDS[kind]}.")
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(
            f"{name!r} of the request {request['command']!r} is {value!r:.200}.", f"It is {_KINDS[kind]}."
        )
    return value


def open_array(path: str) -> np.ndarray:
    """A .npy file, mapped into memory.

    Raises:
        InputError: it is none, or holds objects.
    """
    import numpy as np

    try:
        return np.lib.format.open_memmap(path, mode="r")  # reads .npy alone and refuses pickled objects
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is no array that can be read: {error}.") from error


def throttled(send: Send) -> Callable[[int, int, float | None], None]:
    """Progress as often as a panel can show it; the first and the last always."""
    last = None

    def progress(done: int, total: int, seconds_left: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if last is None or done == total or now - last >= PROGRESS_SECONDS:
            last = now
            send(event="progress", done=done, total=total, seconds_left=seconds_left)

    return progress


def hello() -> dict:
    """What any worker says of itself."""
    return {
        "event": "hello",
        "protocol": VERSION,
        "pid": os.getpid(),
        "usema": __version__,
        "python": platform.python_version(),
    }
