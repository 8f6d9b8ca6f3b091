"""How many tiles at a time a GPU computes fastest, found with the first tiles of a run."""

from __future__ import annotations

import math

PAYS = 0.97  # of a tile's time: what a larger batch saves less than that, it may cost in memory


class BatchSearch:
    """Doubles the batch while a tile takes less time that way.

    Each size runs twice, and the second time counts: with the first, libraries choose how to compute it. All these
    tiles are part of the run.

    Args:
        most: the largest batch.

    Attributes:
        batch_size: of the next batch.
        ended: whether it is what it will be.
    """

    def __init__(self, most: int):
        self.batch_size = 1
        self.ended = most <= 1
        self._most = most
        self._warm = False
        self._best, self._seconds = 1, math.inf

    def took(self, tiles: int, seconds: float) -> None:
        """A batch of so many tiles was computed in so many seconds."""
        if self.ended or tiles != self.batch_size:  # the run's last tiles
            return
        if not self._warm:
            self._warm = True
            return
        each, self._warm = seconds / tiles, False
        if each > PAYS * self._seconds:
            self.batch_size, self.ended = self._best, True
            return
        self._best, self._seconds = tiles, each
        self.ended = tiles >= self._most
        self.batch_size = min(2 * tiles, self._most)
