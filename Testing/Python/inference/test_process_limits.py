"""How much memory `ulimit` leaves: read from made-up files, and in a process that really has a limit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from usema.inference.memory import is_out_of_memory
from usema.inference.process_limits import free_in_limits, limits_in_words

GIB = 2**30

# Sets limits for itself, and tells what is free before and after.
LIMITED = """
import json, resource, threading
from usema.inference import memory
assert "ulimit" not in memory.way_to_more()
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
told = {"limited": memory.free_memory(), "new": memory.free_memory(in_a_new_process=True)}
threading.stack_size(2**31 - 2**20)
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    told["thread"] = str(error) if memory.is_out_of_memory(error) else None
    told["hint"] = memory.too_small(error).hint
held = bytearray(2**29)
told["held"] = memory.free_memory()
resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
told["data"] = memory.free_memory()
told["more"] = memory.way_to_more()
print(json.dumps(told))
"""


@pytest.fixture
def root(tmp_path):
    def make(space: str, data: str = "unlimited", used: int = 3 * GIB, held: int = GIB):
        (tmp_path / "proc/self").mkdir(parents=True)
        rows = [("Limit", "Soft Limit", "Hard Limit", "Units"), ("Max data size", data, "unlimited", "bytes")]
        rows += [("Max stack size", "8388608", "unlimited", "bytes"), ("Max address space", space, space, "bytes")]
        text = "\n".join(f"{a:<26}{b:<21}{c:<21}{d}" for a, b, c, d in rows)
        (tmp_path / "proc/self/limits").write_text(text)
        (tmp_path / "proc/self/status").write_text(f"VmSize:\t{used // 1024} kB\nVmData:\t {held // 1024} kB\n")
        return tmp_path

    return make


def test_what_the_process_has_counts_against_its_limit(root):
    here = root(str(8 * GIB))
    assert free_in_limits(here) == 5 * GIB
    assert free_in_limits(here, in_a_new_process=True) == 8 * GIB
    assert limits_in_words(here) == "This process may use no more than 8.0 GiB (ulimit -v)."


def test_the_tighter_of_two_limits_decides(root):
    here = root(str(8 * GIB), str(2 * GIB))
    assert free_in_limits(here) == GIB
    assert limits_in_words(here) == "This process may use no more than 8.0 GiB (ulimit -v) and 2.0 GiB (ulimit -d)."


def test_more_than_the_limit_leaves_nothing(root):
    assert free_in_limits(root(str(GIB))) == 0


def test_without_a_limit_there_is_none(root, tmp_path):
    assert free_in_limits(tmp_path) is None
    assert free_in_limits(root("unlimited")) is None
    assert limits_in_words(tmp_path) == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are read as Linux tells them")
def test_a_process_under_a_limit_knows_what_is_left_of_it_and_says_so():
    run = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=60)
    told = json.loads(run.stdout)
    assert told["limited"] < 2**31
    assert told["new"] == 2**31
    assert told["limited"] - told["held"] == pytest.approx(2**29, rel=0.01)
    assert told["data"] < 2**29
    assert told["thread"] == "can't start new thread"
    assert told["hint"].startswith("This process may use no more than 2.0 GiB (ulimit -v). Raise that limit, ")
    assert told["more"].endswith("2.0 GiB (ulimit -v) and 1.0 GiB (ulimit -d). Raise that limit")


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), True),
        (ImportError("No module named 'torch'"), False),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("can't start new thread"), False),  # without a limit of memory, too many threads
    ],
)
def test_what_cannot_be_loaded_or_started_for_want_of_memory_is_called_so(error, memory):
    assert is_out_of_memory(error) is memory
