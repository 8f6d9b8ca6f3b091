"""How much memory is free, and what inference does step by step when it is short.

Only the standard library at file scope: the panel asks for the free main memory before torch is installed.
"""

from __future__ import annotations

import ctypes
import errno
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DeviceError
from .batch_search import BatchSearch
from .cgroups import free_in_cgroups
from .process_limits import free_in_limits, limits_in_words

GIB = 2**30

# A failed allocation on the CPU, on Apple's GPU or in cuDNN and cuBLAS is a plain RuntimeError; only its text tells.
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "bad_alloc")
# oneDNN, where it has no memory for the code of a convolution. What it cannot compute at all ends "... descriptor for".
_NO_PRIMITIVE = "could not create a primitive"
_NOT_LOADED = ("failed to map segment", "cannot allocate memory")  # the dynamic linker of Linux
_NO_THREAD = "can't start new thread"  # for want of room for its stack, or of the right to have more of them


def free_memory(device: str = "cpu", *, in_a_new_process: bool = False) -> int | None:
    """Bytes that can be allocated without pushing anything out; None where the system does not say.

    Args:
        device: torch device name. "cuda" asks the driver and adds what torch has reserved but does not use; any other
            device shares the main memory.
        in_a_new_process: who will allocate them is a process yet to be started, against whose limits nothing counts.
    """
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if sys.platform == "win32":
        return _free_windows()
    if sys.platform == "darwin":
        return free_from_vm_stat(subprocess.run(["vm_stat"], capture_output=True, text=True, check=False).stdout)
    free = free_from_meminfo(Path("/proc/meminfo").read_text())
    limits = [free, free_in_cgroups(), free_in_limits(in_a_new_process=in_a_new_process)]
    return min((limit for limit in limits if limit is not None), default=None)


def free_from_meminfo(text: str) -> int | None:
    """MemAvailable of Linux' /proc/meminfo in bytes: it counts the page cache as free, which MemFree does not."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def free_from_vm_stat(text: str) -> int | None:
    """Free, inactive and speculative pages of macOS' ``vm_stat`` in bytes."""
    page = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", text, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page and pages else None


def _free_windows() -> int | None:
    class MemoryStatus(ctypes.Structure):  # MEMORYSTATUSEX of the Windows API
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total_physical", ctypes.c_ulonglong),
            ("available_physical", ctypes.c_ulonglong),
            ("total_page_file", ctypes.c_ulonglong),
            ("available_page_file", ctypes.c_ulonglong),
            ("total_virtual", ctypes.c_ulonglong),
            ("available_virtual", ctypes.c_ulonglong),
            ("available_extended_virtual", ctypes.c_ulonglong),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    answered = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.available_physical if answered else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is a failed allocation: of torch on any device, of numpy, of Python, or of what loads a library
    or starts a thread. Does not load torch."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower().rstrip()
    if isinstance(error, ImportError):
        return any(text in said for text in _NOT_LOADED)
    if said == _NO_THREAD:
        return free_in_limits() is not None
    return isinstance(error, RuntimeError) and (
        said.endswith(_NO_PRIMITIVE) or any(text in said for text in _OUT_OF_MEMORY)
    )


def too_small(error: BaseException) -> DeviceError:
    """What to tell of a failed allocation that no step of the ladder met."""
    hint = f"{way_to_more()}, crop the volume, or use a computer with more memory."
    return DeviceError(f"Memory is too small. {error}".strip(), hint)


def way_to_more(device: str = "cpu") -> str:
    """How a hint begins where a device's memory is short: what to do about whatever leaves the least."""
    left, free = free_in_limits(), free_memory()
    if device.startswith("cuda") or left is None or free is None or left > free:
        return "Close other programs"
    return f"{limits_in_words()} Raise that limit"


class MemoryLadder:
    """How many tiles run at a time and where their results are collected, one step lower whenever memory is short.

    The steps, each reported in words when it is taken and none of them changing the result beyond rounding:

    1. ``batch_size`` is halved, down to one tile at a time;
    2. ``accumulate_on`` moves from the GPU to the main memory;
    3. nothing is left: DeviceError.

    Where it starts is chosen from what is free: results that would take more than half of the GPU start in main
    memory, and on CUDA the first tile is measured to find how large a batch may be, and the next ones how large it
    should be.

    Args:
        device: torch device name on which the network runs.
        accumulator_bytes: the most that collected results take at a time.
        batch_size: the caller's wish; None chooses, at most ``most``.
        report: receives each step as a sentence.
        free: bytes free on a device, None if unknown.

    Raises:
        DeviceError: the results do not fit into main memory. Linux would grant the allocation and end the process
            later, so this cannot be left to the allocation itself.
    """

    def __init__(
        self,
        device: str,
        accumulator_bytes: int,
        *,
        batch_size: int | None,
        most: int,
        report: Callable[[str], None],
        free: Callable[[str], int | None] = free_memory,
    ):
        self.device = device
        self.batch_size = batch_size or 1
        self.accumulate_on = device
        # Not on a CPU, where several tiles gain nothing (a U-Net on one core, seconds for each tile of 40 x 56 x 40:
        # 0.37 one at a time, 0.38 by twos, 0.43 by fours) and take their memory.
        self._to_be_measured = batch_size is None and device.startswith("cuda")
        self._search: BatchSearch | None = None
        self._most = most
        self._accumulator_bytes = accumulator_bytes
        self._report = report
        self._free = free
        self._on_gpu = device != "cpu"
        self._memory = "GPU memory" if self._on_gpu else "Main memory"
        if not self._on_gpu:
            self._check_main_memory()
        elif accumulator_bytes > (free(device) or math.inf) / 2:
            self._collect_in_main_memory()

    @contextmanager
    def measured(self, tiles: int) -> Iterator[None]:
        """Around the network's run on a batch of so many tiles. The first on CUDA, of one tile, tells how large a batch
        may be; those after it, how large a batch is fastest."""
        if self._search is not None and not self._search.ended:
            with self._timed(tiles):
                yield
            return
        if not self._to_be_measured:
            yield
            return
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield
        self._to_be_measured = False
        self.choose_batch(torch.cuda.max_memory_allocated(self.device) - before)
        self.search(self.batch_size)

    def search(self, most: int) -> None:
        """From the next batch on, find out how many tiles at a time, at most so many, are fastest."""
        self._search = BatchSearch(most)
        self.batch_size = self._search.batch_size

    @contextmanager
    def _timed(self, tiles: int) -> Iterator[None]:
        self._wait()
        begun = time.perf_counter()
        yield
        self._wait()
        self._search.took(tiles, time.perf_counter() - begun)
        self.batch_size = self._search.batch_size

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)

    def choose_batch(self, tile_bytes: int) -> None:
        """Sets the batch to what is free, if one tile takes ``tile_bytes`` at its peak."""
        room = self._free(self.device) - (self._accumulator_bytes if self.accumulate_on == self.device else 0)
        # A fifth stays free: memory gets fragmented, and a batch may take more than its tiles one by one.
        self.batch_size = max(1, min(self._most, int(0.8 * room / tile_bytes)))
        if self.batch_size < self._most:
            self._report_batch()

    def step_down(self) -> None:
        """Takes the next step after an allocation failed.

        Raises:
            DeviceError: there is no further step.
        """
        self._search = None
        if self.batch_size > 1:
            self.batch_size //= 2
            self._report_batch()
        elif self.accumulate_on != "cpu":
            self._collect_in_main_memory()
        else:
            raise DeviceError(
                f"{self._memory} is too small: not even one tile at a time fits into the {self._free_text(self.device)}"
                " that are free.",
                "Close other programs that use the GPU, or run on the CPU."
                if self._on_gpu
                else f"{way_to_more()}, or use a computer with more memory.",
            )

    def _report_batch(self) -> None:
        self._report(
            f"{self._memory} is short: tiles are processed {self.batch_size} at a time. Slower, with the same result."
        )

    def _collect_in_main_memory(self) -> None:
        self._check_main_memory()
        self.accumulate_on = "cpu"
        self._report("GPU memory is short: results are collected in main memory. Slower, with the same result.")

    def _check_main_memory(self) -> None:
        free = self._free("cpu")
        if free is not None and self._accumulator_bytes > free:
            raise DeviceError(
                f"Main memory is too small: the results need {self._accumulator_bytes / GIB:.1f} GiB, "
                f"{self._free_text('cpu')} are free.",
                f"{way_to_more()}, crop the volume, or choose a model with fewer classes or larger voxels.",
            )

    def _free_text(self, device: str) -> str:
        free = self._free(device)
        return "few GiB" if free is None else f"{free / GIB:.1f} GiB"
