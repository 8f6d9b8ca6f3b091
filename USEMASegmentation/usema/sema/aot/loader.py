"""The few functions of the CUDA driver that launch a PTX kernel, through ctypes. Standard library only.

ctypes rather than the package cuda-bindings, which no released 3D Slicer ships and which would be a second way to do
the same: libcuda.so.1 or nvcuda.dll comes with every NVIDIA driver, and its functions used here have been stable since
CUDA 4. The driver compiles PTX for the GPU it finds and keeps the result in its own cache on disk.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache

from ..launch import OUT_OF_MEMORY, LaunchError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute
_ORDINARY_SHARED_BYTES = 48 * 1024  # more must be asked for
_REASONS = {
    OUT_OF_MEMORY: "out of GPU memory",
    100: "no NVIDIA GPU",
    209: "the kernel is not made for this GPU",
    218: "the NVIDIA driver does not accept the PTX",
    222: "the NVIDIA driver is older than CUDA 12.0",
    701: "the kernel needs more than this GPU has",
}
# Refusals that the next launch would meet as well: no device, no image for this GPU, PTX that the driver does not
# accept or is too old for, a kernel that is not in it, or that needs more than the GPU has.
_NOT_FOUND = 500
LASTING = frozenset({100, 101, 200, 209, 218, 221, 222, _NOT_FOUND, 701})
_CTYPES = {"i32": ctypes.c_int32, "pointer": ctypes.c_uint64}


class Driver:
    """The CUDA driver. Devices are numbered as PyTorch numbers them: both follow CUDA_VISIBLE_DEVICES.

    Every method raises LaunchError, in plain words, where the driver refuses.
    """

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        self._lock = threading.Lock()
        self._capabilities: dict[int, int] = {}
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._functions: dict[tuple[int, str], ctypes.c_void_p] = {}
        self._call("cuInit", 0)

    def capability(self, device: int) -> int:
        """Compute capability: 75 for 7.5. Asked once: every launch needs it."""
        if device not in self._capabilities:
            major, minor = ctypes.c_int(), ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, self._device(device))
            self._call("cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, self._device(device))
            self._capabilities[device] = 10 * major.value + minor.value
        return self._capabilities[device]

    def function(
        self, device: int, name: str, entry: str, read: Callable[[str], bytes], shared: int
    ) -> ctypes.c_void_p:
        """The kernel ``entry`` of the PTX that ``read(name)`` gives, on a device; read and loaded once."""
        with self._lock:
            if (device, name) not in self._functions:
                ptx, module, function = read(name), ctypes.c_void_p(), ctypes.c_void_p()
                with self._context(device):
                    self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(ptx))
                    self._call("cuModuleGetFunction", ctypes.byref(function), module, entry.encode())
                    if shared > _ORDINARY_SHARED_BYTES:
                        self._call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
                self._functions[device, name] = function
            return self._functions[device, name]

    def launch(
        self,
        device: int,
        stream: int,
        function: ctypes.c_void_p,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        parameters: Sequence[tuple[str, int]],
    ) -> None:
        """Launch on a stream of the device's primary context, which is PyTorch's.

        Args:
            parameters: (type, value) in the kernel's order; types are "pointer" and "i32".
        """
        values = [_CTYPES[kind](value) for kind, value in parameters]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        with self._context(device):
            self._call(
                "cuLaunchKernel",
                function,
                *map(ctypes.c_uint, (*grid, threads, 1, 1, shared)),
                ctypes.c_void_p(stream),
                addresses,
                None,
            )

    def _device(self, index: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        return device

    @contextmanager
    def _context(self, device: int):
        """Make the device's primary context current, and afterwards the one that was."""
        if device not in self._contexts:
            context = ctypes.c_void_p()
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device(device))
            self._contexts[device] = context
        self._call("cuCtxPushCurrent_v2", self._contexts[device])
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments) -> None:
        try:
            code = getattr(self._library, name)(*arguments)
        except AttributeError:
            raise LaunchError(f"the NVIDIA driver has no {name}", _NOT_FOUND) from None
        if code:
            raise LaunchError(f"{_REASONS.get(code, 'the NVIDIA driver refuses')} ({name}: error {code})", code)


@cache
def driver() -> Driver:
    """The CUDA driver of this machine.

    Raises:
        LaunchError: there is none.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise LaunchError("no NVIDIA driver") from None
    return Driver(library)
