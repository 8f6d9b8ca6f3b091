"""Sliding-window inference: a network made for one tile size predicts a volume of any size.

Tiles overlap and their logits are averaged with a Gaussian importance, optionally over mirrored copies (test-time
augmentation), as in nnU-Net 2.5 (``nnUNetPredictor``): the same network gives the same logits to rounding. Two
things differ:

- Memory. Tiles run in rows along the first axis, and planes that no later tile touches leave at once
  (``rolling_logits.py``). So the logits of one tile height are held, not those of the whole volume. This costs no
  time, therefore it is no step of the memory ladder (``memory.py``) but how it always works.
- Precision. Logits are collected in float32; nnU-Net collects in float16.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from ..errors import BundleError, Cancelled, DeviceError, InputError, UsemaError
from .device_tiles import Pace, TileSource
from .memory import MemoryLadder, is_out_of_memory
from .rolling_logits import RollingLogits
from .tiling import Tile, Tiling

# Bounds the batch chosen on a GPU: 2 tiles of 128 x 128 x 128, or 16 of 512 x 512, keep one busy.
MOST_VOXELS_PER_BATCH = 2**22


def predict_logits(
    network: torch.nn.Module,
    data: np.ndarray | torch.Tensor,
    *,
    patch_size: Sequence[int],
    num_classes: int,
    overlap: float = 0.5,
    mirror_axes: Sequence[int] = (),
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    progress: Callable[[int, int, float | None], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    report: Callable[[str], None] | None = None,
    tiling_type: type[Tiling] = Tiling,
    along: int = 0,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Logits of a whole volume, in slabs along the first axis, each as soon as it is finished.

    Args:
        network: maps (B, C, *tile) to logits (B, num_classes, *tile). Is moved to ``device`` and run in evaluation
            mode (its training flags are put back), on CUDA under float16 autocast, elsewhere in float32.
        data: (C, a, b, c) float32, preprocessed, in the plan's axis order. Where it is smaller than a tile it is
            padded with zeros.
        patch_size: tile size; three numbers for a 3D network, two for a 2D network, which sees each plane (b, c) alone.
        overlap: of neighbouring tiles as a share of the tile, 0 to 0.9; 1 minus nnU-Net's ``tile_step_size``.
        mirror_axes: axes of the tile (0 is its first) whose mirrored copies are averaged, as nnU-Net's
            ``inference_allowed_mirroring_axes``; n axes take 2**n times as long.
        batch_size: tiles at a time. None: on CUDA what fits, elsewhere 1.
        progress: called with (tiles done, tiles in all, seconds left or None) before the first batch and after each.
        should_stop: asked before each batch.
        report: receives a sentence whenever memory or precision forces a slower way.
        tiling_type: where tiles lie and what their voxels count: nnU-Net's rule or another.
        along: the axis of the network's tiles that is the first of ``data``; its other axes are in their order.

    Yields:
        (start, logits): float32 (num_classes, d, b, c) of the planes start to start + d, in order, without gap or
        overlap, on the device or in main memory. The receiver owns the tensor.

    Raises:
        InputError: at once, for an argument that cannot be used.
        DeviceError: at once or while iterating: memory is short and the ladder has no further step.
        BundleError: while iterating: the network returns something else than the logits announced.
        Cancelled: while iterating: ``should_stop`` said so.
        UsemaError: while iterating: the network produced non-finite values.
    """
    data = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)
    _check(data, patch_size, overlap, mirror_axes, batch_size)
    report = report or (lambda message: None)
    tiling = tiling_type.of(data.shape[1:], turned(patch_size, along), overlap)
    ladder = MemoryLadder(
        str(device),
        accumulator_bytes=4 * (num_classes + (not tiling.sums_to_one)) * tiling.open_voxels,
        batch_size=batch_size,
        most=min(tiling.count, max(1, MOST_VOXELS_PER_BATCH // math.prod(tiling.tile))),
        report=report,
    )
    tile_network = TileNetwork(
        network,
        num_classes,
        mirror_axes,
        planar=len(patch_size) == 2,
        device=torch.device(device),
        report=report,
        along=along,
    )
    return run_tiles(tile_network, data, RollingLogits(tiling, num_classes), ladder, progress, should_stop)


def turned(values: Sequence, along: int) -> tuple:
    """Three values, one an axis, with that of the axis ``along`` first; two, of a 2D network, as they are."""
    return (values[along], *values[:along], *values[along + 1 :]) if along else tuple(values)


def _check(data, patch_size, overlap, mirror_axes, batch_size) -> None:
    if data.ndim != 4 or 0 in data.shape:
        raise InputError(f"The data have shape {data.shape}; (channels, a, b, c) with at least one voxel is needed.")
    if len(patch_size) not in (2, 3) or min(patch_size) < 1:
        raise InputError(f"The tile size {tuple(patch_size)} is not two or three positive numbers.")
    if not 0 <= overlap <= 0.9:
        raise InputError(f"The overlap {overlap} of tiles is not between 0 and 0.9.", "0.5 is the usual value.")
    if len(set(mirror_axes)) < len(mirror_axes) or not set(mirror_axes) <= set(range(len(patch_size))):
        raise InputError(
            f"The mirror axes {tuple(mirror_axes)} are not distinct axes of a tile in {len(patch_size)} dimensions.",
            f"Choose from 0 to {len(patch_size) - 1}.",
        )
    if batch_size is not None and batch_size < 1:
        raise InputError(f"The batch size {batch_size} is not a positive number.")


def run_tiles(
    tile_network: TileNetwork,
    data: np.ndarray,
    collected: RollingLogits,
    ladder: MemoryLadder,
    progress: Callable[[int, int, float | None], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """The loop of ``predict_logits`` over its parts, which tests put together in other ways."""
    tiling = collected.tiling
    tiles = tiling.tiles
    progress = progress or (lambda done, total, seconds_left: None)
    with tile_network.evaluating():
        source, pace = TileSource(data, tiling, tile_network.device), Pace(tile_network.device)
        clock = _Clock(len(tiles))
        progress(0, len(tiles), None)
        done, given, doubtful = 0, 0, _Doubtful()
        while done < len(tiles):
            if should_stop is not None and should_stop():
                raise Cancelled("The segmentation was stopped.")
            batch = tiles[done : done + ladder.batch_size]
            if not _run_batch(tile_network, source, collected, ladder, batch, doubtful):
                _make_room(source, ladder)
                continue
            pace.step()
            done += len(batch)
            progress(done, len(tiles), clock.seconds_left(done))
            finished = tiling.finished_planes(done)
            if finished > given:
                for tile in doubtful.failed():
                    tile_network.leave_half()
                    while not _run_batch(tile_network, source, collected, ladder, [tile], doubtful):
                        _make_room(source, ladder)
            for start, slab in collected.finished(finished):
                _refuse_non_finite(slab)
                yield start, slab
                del slab  # else it would be held while the next is computed
            given = finished


class _Doubtful:
    """Tiles that were computed in half precision, with flags, on the device, of which of them are finite.

    Those that are not were collected as zeros, so that they can be added later. The flags are read for many tiles at
    once: for each of them the device would run dry.
    """

    def __init__(self):
        self._tiles: list[Tile] = []
        self._finite: list[torch.Tensor] = []

    def add(self, tiles: Sequence[Tile], finite: torch.Tensor) -> None:
        self._tiles += tiles
        self._finite.append(finite)

    def failed(self) -> list[Tile]:
        """Those that are not finite; all are forgotten."""
        tiles, finite = self._tiles, torch.cat(self._finite).tolist() if self._finite else []
        self._tiles, self._finite = [], []
        return [tile for tile, is_finite in zip(tiles, finite, strict=True) if not is_finite]


def _make_room(source: TileSource, ladder: MemoryLadder) -> None:
    if not source.leave_device():
        ladder.step_down()


def _run_batch(tile_network, source, collected, ladder, batch, doubtful) -> bool:
    """Whether there was memory for the batch; if not, nothing of it has been collected.

    A function of its own, so that the batch's tensors are gone while the receiver works, and before the next attempt.
    """
    try:
        collected.open(batch, ladder.accumulate_on)
        with ladder.measured(len(batch)):
            logits, finite = tile_network.checked(source.batch(batch))
        collected.add(batch, logits)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    if finite is not None:
        doubtful.add(batch, finite)
    return True


class TileNetwork:
    """The network as the tiles see it: averaged over mirrored copies, in half precision where that is safe, checked.

    Args:
        planar: a 2D network, for which the first axis of the tiles, one plane high, is left out.
        half: whether to start in half precision; None: on CUDA.
        along: see ``predict_logits``.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        num_classes: int,
        mirror_axes: Sequence[int],
        *,
        planar: bool,
        device: torch.device,
        report: Callable[[str], None],
        half: bool | None = None,
        along: int = 0,
    ):
        self._network = network
        self._num_classes = num_classes
        self._mirror_axes = mirror_axes
        self._planar = planar
        self.device = device
        self._report = report
        self._along = along
        self._half = device.type == "cuda" if half is None else half
        self._first = True

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The network on its device and in evaluation mode; afterwards the training flags are as before."""
        try:
            self._network.to(self.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                "The model alone does not fit into GPU memory.", "Close other programs that use the GPU."
            ) from error
        training = {module: module.training for module in self._network.modules()}
        self._network.eval()
        try:
            yield
        finally:
            for module, flag in training.items():
                module.training = flag

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of ``checked``."""
        return self.checked(x)[0]

    @torch.inference_mode()
    def checked(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean logits of tiles (B, C, *tile) on the device, and which of the tiles are finite.

        Returns:
            Float32 (B, num_classes, *tile), and bool (B,), both on the device: tiles that are not finite are zeros. In
            single precision None instead: then each voxel is looked at once, when all that it adds up to is known.
        """
        x = x.movedim(2, 2 + self._along).contiguous()
        if self._planar:
            x = x.squeeze(2)
        logits, finite = self._mean(x), None
        if self._half:
            finite = logits.flatten(1).sum(1).isfinite()  # NaN and infinity survive a sum
            if self._first and not finite.all():
                self.leave_half()
                logits, finite = self._mean(x), None
            else:
                logits.masked_fill_(~finite.reshape(-1, *[1] * (logits.ndim - 1)), 0)
        if self._first:
            _refuse_non_finite(logits)
            self._first = False
        return (logits.unsqueeze(2) if self._planar else logits.movedim(2 + self._along, 2)), finite

    def leave_half(self) -> None:
        """Single precision from now on: float16 ends at 65504, and what exceeds it once will do so again."""
        if self._half:
            self._half = False
            self._report("Half precision does not suffice for this volume: continuing in single precision, slower.")

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        total = self._logits(x)
        spatial = [axis + 2 for axis in self._mirror_axes]
        flips = [axes for n in range(1, len(spatial) + 1) for axes in itertools.combinations(spatial, n)]
        for axes in flips:
            total = total + self._logits(x.flip(axes)).flip(axes)
        return total / (len(flips) + 1) if flips else total

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.float16) if self._half else nullcontext():
            logits = self._network(x)
        expected = (x.shape[0], self._num_classes, *x.shape[2:])
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        if found != expected:
            raise BundleError(
                f"The network returned {found} where logits of shape {expected} were expected.",
                "The model's description does not belong to its network.",
            )
        return logits.float()


def _refuse_non_finite(logits: torch.Tensor) -> None:
    if not _all_finite(logits):
        raise UsemaError(
            "The network produced non-finite values (NaN or infinity), so there is no segmentation.",
            "The model may be damaged, or the volume's intensities are far from those it was trained on.",
        )


def _all_finite(x: torch.Tensor) -> bool:
    # NaN and infinity survive a sum; isfinite() would need a quarter more memory than the logits themselves.
    return math.isfinite(x.sum().item())


class _Clock:
    """Estimates the time left from the batches so far; the first one, which warms up, only until there is another."""

    def __init__(self, total: int):
        self._total = total
        self._since = (0, time.monotonic())
        self._first = True

    def seconds_left(self, done: int) -> float:
        now = time.monotonic()
        tiles, seconds = done - self._since[0], now - self._since[1]
        if self._first:
            self._since, self._first = (done, now), False
        return seconds / tiles * (self._total - done)
