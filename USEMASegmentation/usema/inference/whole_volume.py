"""Networks that see the whole volume at once and give its logits plane by plane, in place of tiles that overlap.

Such a network has the methods ``slabs`` and ``strips``; of ours MeshNet, which keeps the memory of a whole head under a
gigabyte so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ..errors import Cancelled, DeviceError, UsemaError
from .memory import is_out_of_memory


def sees_whole_volumes(network: torch.nn.Module) -> bool:
    """Whether a network is run here."""
    return hasattr(network, "slabs")


def strips_of(network: torch.nn.Module, shape: Sequence[int], takes_strips: bool) -> list[tuple[int, int]]:
    """How a volume (a, b, c) is cut along its second axis, (begin, end) each.

    Args:
        takes_strips: whether what collects the logits takes planes that are not whole.
    """
    return network.strips(shape) if takes_strips else [(0, shape[1])]


@torch.inference_mode()
def predict_whole(
    network: torch.nn.Module,
    data: np.ndarray,
    strips: Sequence[tuple[int, int]],
    *,
    device: torch.device,
    progress: Callable[[int, int, float | None], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, torch.Tensor, int]]:
    """Logits of a whole volume, in slabs along the first axis; float32.

    The strips, for volumes whose planes would take too much memory, come one after the other.

    Args:
        network: with ``slabs``; is moved to ``device``.
        data: (C, a, b, c) float32.
        strips: of ``strips_of``.
        progress: called with (planes done of all strips, planes in all, seconds left or None).
        should_stop: asked after each slab.

    Yields:
        (start, logits, row): (outputs, d, rows, c) of the planes start to start + d and the rows from ``row`` on; of
        each strip in order and without gap.

    Raises:
        DeviceError: memory is short.
        Cancelled: ``should_stop`` said so.
        UsemaError: the network produced non-finite values.
    """
    progress = progress or (lambda done, total, seconds_left: None)
    planes, started = data.shape[1], time.monotonic()
    total = planes * len(strips)
    progress(0, total, None)
    try:
        network.to(device).eval()
        image = torch.from_numpy(data)[None].to(device)
        for number, strip in enumerate(strips):
            for start, logits in network.slabs(image, strip):
                if should_stop is not None and should_stop():
                    raise Cancelled("The segmentation was stopped.")
                if not torch.isfinite(logits).all():
                    raise UsemaError("The network produced values that are no numbers.", "Get the model again.")
                done = number * planes + start + logits.shape[1]
                yield start, logits, strip[0]
                progress(done, total, (time.monotonic() - started) / done * (total - done))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            "There is not enough memory for a network that sees the whole volume at once.",
            "Close other programs, or run it on the CPU.",
        ) from error
