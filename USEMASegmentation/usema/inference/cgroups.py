"""How much memory Linux' control groups leave: what a container or a job of a cluster may use. Standard library only.

A group's limit holds for all groups inside it, so the least of what is left on the way up counts. File caches that the
kernel can drop at once count as free, as they do in /proc/meminfo.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Version 1 has no word for "no limit"; its number is the largest multiple of a page.
_NO_LIMIT = 2**60

# version: limit, usage, and the line of memory.stat with what can be dropped.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def free_in_cgroups(root: Path = Path("/")) -> int | None:
    """Bytes that this process' control groups leave it; None where none of them has a limit.

    Args:
        root: of the file system; tests give another.
    """
    left = [free for folder, version in _groups(root) if (free := _left(folder, version)) is not None]
    return max(0, min(left)) if left else None


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """The folders of this process' groups and of those around them, and the version of each."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            top, version = mount, 2
        elif "memory" in controllers.split(","):
            top, version = mount / "memory", 1
        else:
            continue
        # In a container the path is often that of the host, which is not there; the top is the container's own.
        parts = [part for part in path.split("/") if part not in ("", "..", ".")]
        for depth in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:depth])
            if folder.is_dir():
                yield folder, version


def _left(folder: Path, version: int) -> int | None:
    limit_file, usage_file, droppable = _FILES[version]
    limit, usage = _number(_text(folder / limit_file)), _number(_text(folder / usage_file))
    if limit is None or usage is None or limit >= _NO_LIMIT:
        return None
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == droppable:
            usage -= _number(value) or 0
    return limit - usage


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
