"""A list of places where the model is most likely wrong, and what the user has said of each.

It is kept with the segmentation. A region is done when the user accepts it, or changes a voxel in it, which is read
from the voxels themselves, so that undo opens it again. One that was skipped comes again when all others are done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from usema.quality.review_regions import Region, find
from usema.volumes.masks import common_box, relative

from ..Steps import Working, atOnce, beside
from .Accepted import placeOf, seenIn
from .Port import COMPLETED, FLAGGED, IN_PROGRESS, Edits, Port

OPEN, SKIPPED, ACCEPTED, FIXED = "open", "skipped", "accepted", "fixed"
_DONE = (ACCEPTED, FIXED)


@dataclass(frozen=True, eq=False)
class Item:
    """A region of the list, where it comes from, and what has become of it."""

    port: Port
    number: int
    region: Region
    status: str

    @property
    def done(self) -> bool:
        return self.status in _DONE


class GuidedReview:
    """The lists of several results as one.

    Args:
        ports: the results. Beside what `Port` says, each keeps a ``state``.
    """

    def __init__(self, ports: Sequence[Port]):
        self.ports = list(ports)
        self.items: list[Item] = []
        self.index = -1  # of the item that is looked at; -1: none
        self.update()

    def search(self) -> int:
        """Find the regions anew. Those that were accepted stay so where no segment was changed since; what else was
        said is forgotten. Gives how many there are."""
        return atOnce(self.searching())

    def searching(self) -> Working:
        """As `search`, a moment at a time."""
        ports = list(self.ports)
        voxels = sum(math.prod(port.margins.shape) for port in ports)
        results = yield from beside(lambda: [find(port.margins, port.spacing) for port in ports], voxels)
        for port, found in zip(ports, results, strict=True):
            edits = port.edits()
            regions = [{**one.to_dict(), "edited": _edited(edits, one)} for one in found]
            seen = _stillAccepted(port, found, edits)
            said = dict.fromkeys(seen, ACCEPTED)
            port.state = {**port.state, "regions": regions, "said": said, "seen": seen}
        self.index = -1
        self.update()
        return len(self.items)

    def update(self) -> None:
        """What there is now: after an edit, undo, or another scene."""
        self.items = [item for port in self.ports for item in _itemsOf(port)]
        self.items.sort(key=lambda item: -item.region.ml if len(self.ports) > 1 else item.number)
        self.index = min(self.index, len(self.items) - 1)

    @property
    def searched(self) -> bool:
        """Whether a search was made, also one that found nothing."""
        return any("regions" in port.state for port in self.ports)

    @property
    def current(self) -> Item | None:
        return self.items[self.index] if 0 <= self.index < len(self.items) else None

    @property
    def done(self) -> int:
        """How many are done."""
        return sum(item.done for item in self.items)

    @property
    def millilitresLeft(self) -> float:
        """The expected error in those that are not."""
        return sum(item.region.ml for item in self.items if not item.done)

    def next(self, step: int = 1) -> Item | None:
        """Go on to the next region that is not done, or with -1 back; those that were skipped come last. None: all are
        done."""
        count = len(self.items)
        begin = self.index if self.index >= 0 else (-1 if step > 0 else count)
        for statuses in ((OPEN,), (SKIPPED,)):
            for away in range(1, count + 1):
                index = (begin + step * away) % count
                if self.items[index].status in statuses:
                    self.index = index
                    return self.items[index]
        self.index = -1
        return None

    def say(self, status: str) -> None:
        """ACCEPTED, SKIPPED or OPEN: of the region that is looked at."""
        item = self.current
        if item is not None:
            state, number = item.port.state, str(item.number)
            said = {**state.get("said", {}), number: status}
            seen = {key: text for key, text in state.get("seen", {}).items() if key != number}
            if status == ACCEPTED:
                seen[number] = seenIn(item.port.edits(), item.region.box)
            item.port.state = {**state, "said": said, "seen": seen}
            self.update()
            self._mark(item)

    def _mark(self, item: Item) -> None:
        """Segments that the item is about count as flagged while a region of theirs is skipped, as completed once all
        are done. What the user sets himself stays until he says something of a region again."""
        marks = {}
        for value in item.region.values:
            said = [one.status for one in self.items if one.port is item.port and value in one.region.values]
            done = all(status in _DONE for status in said)
            marks[value] = FLAGGED if SKIPPED in said else COMPLETED if done else IN_PROGRESS
        item.port.mark(marks)


def _itemsOf(port: Port) -> Iterator[Item]:
    state, shape = port.state, port.margins.shape
    edits = port.edits() if state.get("regions") else {}
    for number, document in enumerate(state.get("regions", ())):
        try:
            region = Region.from_dict({key: value for key, value in document.items() if key != "edited"})
        except (KeyError, TypeError, ValueError):
            continue  # of another USEMA
        if any(end >= length for end, length in zip(region.high, shape, strict=True)):
            continue
        status = state.get("said", {}).get(str(number), OPEN)
        if _edited(edits, region) != document.get("edited", 0):
            status = FIXED
        yield Item(port, number, region, status)


def _stillAccepted(port: Port, found: Sequence[Region], edits: Mapping[int, Edits]) -> dict[str, str]:
    """Of regions that were found anew, by number: what the segments are like where the user accepted them before."""
    before, seen = list(_itemsOf(port)), port.state.get("seen", {})
    places, still = [item.region for item in before], {}
    for number, region in enumerate(found):
        place = placeOf(region, places)
        if place is None or before[place].status != ACCEPTED:
            continue
        if seen.get(str(before[place].number)) == seenIn(edits, places[place].box):
            still[str(number)] = seenIn(edits, region.box)
    return still


def _edited(edits: Mapping[int, Edits], region: Region) -> int:
    """How many voxels of the region the user has changed."""
    count = 0
    for one in edits.values():
        changed = one.changed
        inner = common_box(changed.box, region.box) if changed.array.size else None
        if inner is not None:
            count += int(changed.array[relative(inner, changed.box)].sum())
    return count
