"""How much memory the limits of a process leave it on Linux: ``ulimit -v`` and ``-d``. Standard library only.

Both count addresses, not what is touched: libraries that are mapped, and what an allocator has asked for ahead.
"""

from __future__ import annotations

import re
from pathlib import Path

# How /proc/self/limits calls a limit, the line of /proc/self/status that counts against it, and the shell's name.
_LIMITS = (("Max address space", "VmSize", "ulimit -v"), ("Max data size", "VmData", "ulimit -d"))


def free_in_limits(root: Path = Path("/"), *, in_a_new_process: bool = False) -> int | None:
    """Bytes that this process' limits leave it; None where there is no limit.

    Args:
        root: of the file system; tests give another.
        in_a_new_process: what they leave one that this one starts, which has the same limits, and uses nothing yet.
    """
    used = _read(root / "proc/self/status") if not in_a_new_process else ""
    left = [limit - _bytes(used, line) for limit, line, _ in _limits(root)]
    return max(0, min(left)) if left else None


def limits_in_words(root: Path = Path("/")) -> str:
    """For a hint beside a failed allocation: a sentence, or nothing where there is no limit."""
    words = [f"{limit / 2**30:.1f} GiB ({name})" for limit, _, name in _limits(root)]
    return f"This process may use no more than {' and '.join(words)}." if words else ""


def _limits(root: Path) -> list[tuple[int, str, str]]:
    text = _read(root / "proc/self/limits")
    found = [(re.search(rf"^{title} +(\d+) ", text, re.MULTILINE), line, name) for title, line, name in _LIMITS]
    return [(int(limit[1]), line, name) for limit, line, name in found if limit]


def _bytes(status: str, line: str) -> int:
    found = re.search(rf"^{line}:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
