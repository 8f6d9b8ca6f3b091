"""Networks that see the whole volume at once and give its logits plane by plane, in place of tiles that overlap.

Such a network has a method ``slabs``; of ours MeshNet, which keeps the memory of a whole head under a gigabyte so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..errors import Cancelled, DeviceError, UsemaError
from .memory import is_out_of_memory


def sees_whole_volumes(network: torch.nn.Module) -> bool:
    """Whether a network is run here."""
    return hasattr(network, "slabs")


@torch.inference_mode()
def predict_whole(
    network: torch.nn.Module,
    data: np.ndarray,
    *,
    device: torch.device,
    progress: Callable[[int, int, float | None], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Logits of a whole volume, in slabs along the first axis; float32.

    Args:
        network: with ``slabs``; is moved to ``device``.
        data: (C, a, b, c) float32.
        progress: called with (planes done, planes in all, seconds left or None).
        should_stop: asked after each slab.

    Yields:
        (start, logits): (outputs, d, b, c) of the planes start to start + d, in order and without gap.

    Raises:
        DeviceError: memory is short.
        Cancelled: ``should_stop`` said so.
        UsemaError: the network produced non-finite values.
    """
    progress = progress or (lambda done, total, seconds_left: None)
    planes, started = data.shape[1], time.monotonic()
    progress(0, planes, None)
    try:
        network.to(device).eval()
        for start, logits in network.slabs(torch.from_numpy(data)[None].to(device)):
            if should_stop is not None and should_stop():
                raise Cancelled("The segmentation was stopped.")
            if not torch.isfinite(logits).all():
                raise UsemaError("The network produced values that are no numbers.", "Get the model again.")
            done = start + logits.shape[1]
            yield start, logits
            progress(done, planes, (time.monotonic() - started) / done * (planes - done))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            "There is not enough memory for a network that sees the whole volume at once.",
            "Close other programs, or run it on the CPU.",
        ) from error
