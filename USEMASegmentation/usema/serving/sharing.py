"""One worker for all parts of an application that want one of its kind; ended when nobody holds it any more.

To be used from one thread. Standard library only.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from .client import WorkerClient


@dataclass(eq=False)
class _Shared:
    client: WorkerClient
    holders: set[int] = field(default_factory=set)


_known: dict[str, _Shared] = {}  # by kind
_numbers = itertools.count(1)


class WorkerHold:
    """One part's hold on a worker: its own requests, and only their events.

    It takes hold on first use, and again after it let go; when it is collected, it lets go by itself.

    Args:
        kind: those that name the same kind share one worker.
        make: makes the client if there is none of this kind yet.
    """

    def __init__(self, kind: str, make: Callable[[], WorkerClient]):
        self._kind = kind
        self._make = make
        self._shared: _Shared | None = None
        self._requests: set[int] = set()  # this part's, as far as they are open
        self._let_go: Callable[[], None] | None = None

    @classmethod
    def of(cls, client: WorkerClient) -> WorkerHold:
        """On a client of the caller's: ``release`` ends its worker, being collected does not."""
        hold = cls("", lambda: client)
        hold._shared = _Shared(client)
        return hold

    @property
    def hello(self) -> dict | None:
        """What the worker last said of itself; None: it has not run yet."""
        shared = self._shared or _known.get(self._kind)
        return shared.client.hello if shared else None

    @property
    def log_tail(self) -> str:
        """The last lines of the worker's log."""
        shared = self._shared or _known.get(self._kind)
        return shared.client.log_tail if shared else ""

    def start(self, idle_minutes: float) -> None:
        """Starts the worker if it is not running, before anything is asked of it; does not wait for it.

        Args:
            idle_minutes: it ends if nothing is asked of it for so long.

        Raises:
            WorkerError: it cannot be started.
        """
        self._client().start(idle_minutes=idle_minutes)

    def request(self, command: str, **fields) -> int:
        """Sends a request; returns its id.

        Raises:
            WorkerError: the worker cannot be started.
        """
        request_id = self._client().request(command, **fields)
        self._requests.add(request_id)
        return request_id

    def poll(self, request_id: int) -> list[dict]:
        """The events of a request since the last call."""
        return self._client().poll(request_id)

    def cancel(self, request_id: int) -> None:
        """Asks to stop a request; its last answer comes by ``poll``."""
        self._client().cancel(request_id)

    def forget(self, request_id: int) -> None:
        """Stops a request if it is under way; nobody will ask for its events any more."""
        self._client().forget(request_id)
        self._requests.discard(request_id)

    def stop(self, timeout: float = 3.0) -> bool:
        """Ends the worker, unless another part waits for it; the next request starts a new one.

        Returns:
            whether it has ended.
        """
        client = self._client()
        if client.asked_besides(self._requests):
            return False
        client.stop(timeout)
        return True

    def release(self) -> None:
        """Lets go; the last one to do so ends the worker."""
        if self._let_go is not None:
            self._let_go()
            self._shared = self._let_go = None
        elif self._shared is not None:
            self._shared.client.stop()

    def _client(self) -> WorkerClient:
        if self._shared is None:
            self._shared = _known.get(self._kind) or _Shared(self._make())
            _known[self._kind] = self._shared
            number = next(_numbers)
            self._shared.holders.add(number)
            self._let_go = weakref.finalize(self, _leave, self._kind, self._shared, number, self._requests)
        return self._shared.client


def _leave(kind: str, shared: _Shared, number: int, requests: set[int]) -> None:
    shared.holders.discard(number)
    if not shared.holders:
        if _known.get(kind) is shared:
            del _known[kind]
        shared.client.stop()
    for request_id in requests:
        shared.client.forget(request_id)
    requests.clear()
