"""From one doubtful region of a result to the next: the panel's own list, for the page."""

from __future__ import annotations

from collections.abc import Callable

from USEMASegmentationLib.Panel import RegionTexts
from USEMASegmentationLib.Review.GuidedReview import ACCEPTED, SKIPPED, GuidedReview
from USEMASegmentationLib.Scene.ReviewCase import casesOf


class Reviewing:
    """The regions of the segmentation that is shown.

    Args:
        show: shows words, see ``flow.Page``.
        look: takes the views to a place: RAS millimetres in the world.
    """

    def __init__(self, show: Callable, look: Callable[[tuple[float, float, float]], None]):
        self._show, self._look = show, look
        self.review = GuidedReview([])

    def of(self, segmentation) -> None:
        """Review another segmentation, or None."""
        cases = casesOf(segmentation)[0] if segmentation is not None else []
        self.review = GuidedReview(cases)
        self.update()

    def update(self) -> None:
        """Voxels may have changed: a region with a changed voxel counts as done."""
        self.review.update()
        self._tell()

    def find(self) -> None:
        """Find the regions anew, and go to the first."""
        self.review.search()
        self.go(1)

    def go(self, step: int) -> None:
        """Go to the next region that is not done, or with -1 to the one before."""
        self.review.update()
        item = self.review.next(step)
        if item is not None:
            self._look(item.port.worldOf(item.region.middle))
        self._tell()

    def accept(self) -> None:
        """The region that is looked at is right."""
        self._say(ACCEPTED)

    def skip(self) -> None:
        """The region that is looked at comes again when all others are done."""
        self._say(SKIPPED)

    def _say(self, status: str) -> None:
        if self.review.current is not None:
            self.review.say(status)
            self.go(1)

    def _tell(self) -> None:
        review = self.review
        self._show(
            reviewable=bool(review.ports),
            regions=RegionTexts.tell(review) if review.ports else "",
            regionsLeft=len(review.items) - review.done,
            region=review.current is not None,
        )
