"""How tiles reach the device that computes them, and how far ahead of it the host may run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .memory import free_memory, is_out_of_memory
from .tiling import Tile, Tiling

_SHARE = 0.25  # of a GPU's free memory that the volume may take; results may take half
_AHEAD = 2  # batches


class TileSource:
    """Cuts tiles out of a volume: on the GPU that computes them if the volume fits there, else in main memory.

    Args:
        data: (C, a, b, c), any number type; padded here.
        free: bytes free on a device, None if unknown.
    """

    def __init__(
        self,
        data: np.ndarray,
        tiling: Tiling,
        device: torch.device,
        free: Callable[[str], int | None] = free_memory,
    ):
        self._data = tiling.pad(data)
        self._tiling = tiling
        self._device = device
        self._there: torch.Tensor | None = None
        if device.type != "cpu" and 4 * self._data.size <= _SHARE * (free(str(device)) or 0):
            self._move()

    @property
    def on_device(self) -> bool:
        """Whether the whole volume is there."""
        return self._there is not None

    def leave_device(self) -> bool:
        """Makes room there; whether there was anything to leave."""
        had, self._there = self.on_device, None
        return had

    def batch(self, tiles: Sequence[Tile]) -> torch.Tensor:
        """(B, C, *tile) float32, on the device."""
        places = [(slice(None), *self._tiling.slices(tile)) for tile in tiles]
        if self._there is not None:
            return torch.stack([self._there[place] for place in places])
        cut = torch.from_numpy(np.stack([self._data[place] for place in places]).astype(np.float32, copy=False))
        if self._device.type == "cuda":  # pinned memory is not used again before the copy has ended
            cut = cut.pin_memory()
        return cut.to(self._device, non_blocking=True)

    def _move(self) -> None:
        try:
            self._there = torch.from_numpy(np.ascontiguousarray(self._data, np.float32)).to(self._device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise


class Pace:
    """Keeps the host at most two batches ahead of a GPU: it never waits for work, and progress is told of what is done.

    On other devices the host waits anyway.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._ends: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """To be called after each batch."""
        if self._device.type != "cuda":
            return
        self._ends.append(torch.cuda.current_stream(self._device).record_event())
        if len(self._ends) > _AHEAD:
            self._ends.popleft().synchronize()
