"""One process at a time. Standard library only at file scope."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import OutputError


@contextmanager
def alone(lock: Path, seconds: float, what: str, *, leave: bool = True) -> Iterator[None]:
    """Holds a lock that the system frees when the process ends, however it ends.

    Where there are no locks (on a share that knows none, or before filelock is installed) it goes on without.

    Args:
        lock: the file; it is made.
        seconds: how long another process is waited for.
        what: is being changed, as a sentence begins.
        leave: whether the file stays. It is to go from folders that people look into.

    Raises:
        OutputError: another process holds it all the time.
    """
    try:
        import filelock
    except ImportError:
        yield
        return
    with ExitStack() as held:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            end = time.monotonic() + seconds
            while not _acquired(lock, max(end - time.monotonic(), 0.0), held, shared=not leave):
                held.close()
        except filelock.Timeout as error:  # an OSError, too
            raise OutputError(
                f"{what} cannot be changed: another process has been changing the same for {seconds:g} s.",
                "Try again when it is done.",
            ) from error
        except (OSError, NotImplementedError):
            pass  # no locks here; what cannot be written is said by who writes it
        try:
            yield
        finally:
            if not leave:
                with suppress(OSError):  # Windows deletes no open file
                    lock.unlink()


def _acquired(lock: Path, seconds: float, held: ExitStack, shared: bool) -> bool:
    """Whether the file that is locked now still is the one of that name: its last holder may have deleted it.

    Args:
        shared: other users lock it, too, and must be able to open it.
    """
    import filelock

    # As long as this is open, no other file gets its number: if it has the name before and after, it had it between.
    before = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if shared:
            with suppress(OSError, AttributeError):  # another user's; and Windows knows no such rights
                os.fchmod(before, 0o666)
        holder = filelock.FileLock(lock)
        holder.acquire(timeout=seconds)
        held.callback(holder.release)
        return lock.exists() and os.path.samestat(os.fstat(before), lock.stat())
    finally:
        os.close(before)
