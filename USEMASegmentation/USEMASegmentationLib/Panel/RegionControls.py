"""From one doubtful region to the next: buttons, keys, and what is left."""

from __future__ import annotations

from collections.abc import Sequence

import qt
import slicer
from slicer.i18n import tr as _

from ..Review.GuidedReview import ACCEPTED, SKIPPED, GuidedReview, Item
from ..Scene.ReviewCase import ReviewCase
from ..Scene.ReviewPreview import ReviewPreview
from ..Steps import Steps
from . import RegionTexts, SliceViews
from .AskedWork import AskedWork, Surroundings
from .Signals import connect


class RegionControls:
    """Finds the regions, leads the views to them, and takes what the user says.

    Args:
        ui: the widgets of the section.
        surroundings: the section that they belong to.
    """

    def __init__(self, ui, surroundings: Surroundings):
        self.ui = ui
        self.errorsShown = surroundings.errorsShown
        self._clicked = AskedWork(surroundings, self._tell)
        self._search: Steps | None = None
        self._timer = surroundings.newTimer(self.onTimer)
        self.review = GuidedReview([])
        self._frame: ReviewPreview | None = None
        self._shortcuts: list = []
        connect(ui.findRegionsButton, "clicked(bool)", self.onFind)
        connect(ui.nextRegionButton, "clicked(bool)", self.onNext)
        connect(ui.previousRegionButton, "clicked(bool)", self.onPrevious)
        connect(ui.acceptRegionButton, "clicked(bool)", self.onAccept)
        connect(ui.skipRegionButton, "clicked(bool)", self.onSkip)

    def show(self, cases: Sequence[ReviewCase]) -> None:
        """The lists of these results."""
        self.hide()
        self._search = None  # in other results
        before, self.review = self.review, GuidedReview(cases)
        if len(before.items) == len(self.review.items):  # after a refinement the user goes on where he was
            self.review.index = before.index
        self._tell()

    def update(self) -> None:
        """Voxels were changed."""
        self.review.update()
        self._tell()

    def hide(self) -> None:
        """Take the frame around the region away."""
        if self._frame is not None:
            self._frame.remove()
            self._frame = None

    def enter(self) -> None:
        """Keys that the Segment Editor leaves free: N, Shift+N and A."""
        window = slicer.util.mainWindow()
        if window is None or self._shortcuts:
            return
        for keys, slot in (("N", self.onNext), ("Shift+N", self.onPrevious), ("A", self.onAccept)):
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(keys))
            connect(shortcut, "activated()", slot)
            self._shortcuts.append(shortcut)

    def exit(self) -> None:
        """Keys and frame go, and the views get their field of view back."""
        self._clicked.stopWaiting()
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
        self.hide()
        SliceViews.lookAway()

    def onFind(self, checked: bool = False) -> None:
        self._clicked.soon(self._find)

    def onTimer(self) -> None:
        with self.errorsShown():
            self._goOn()

    def _goOn(self) -> None:
        """Carries a search on; in a large volume it takes a while, and the timer runs."""
        try:
            ended = self._search is None or self._search.go()
        except BaseException:
            self._search = None
            raise
        if not ended:
            self._timer.start()
            self._tell()
            return
        self._timer.stop()
        if self._search is not None:
            self._search = None
            self._go(self.review.next())

    def onNext(self, checked: bool = False) -> None:
        self._clicked.soon(lambda: self._go(self.review.next()))

    def onPrevious(self, checked: bool = False) -> None:
        self._clicked.soon(lambda: self._go(self.review.next(-1)))

    def onAccept(self, checked: bool = False) -> None:
        self._clicked.soon(lambda: self._say(ACCEPTED))

    def onSkip(self, checked: bool = False) -> None:
        self._clicked.soon(lambda: self._say(SKIPPED))

    def _find(self) -> None:
        self._search = Steps(self.review.searching())
        self._goOn()

    def _say(self, status: str) -> None:
        if self.review.current is not None:
            self.review.say(status)
            self._go(self.review.next())

    def _go(self, item: Item | None) -> None:
        if item is None:
            self.hide()
        else:
            case, region = item.port, item.region
            if self._frame is not None and self._frame.isOver(case.node, case.volume):
                self._frame.place(region.box)
            else:
                self.hide()
                self._frame = ReviewPreview(case.node, case.volume, region.box, (1.0, 1.0, 1.0))
            self._frame.array[...] = True
            self._frame.refresh()
            sizes = [(part.stop - part.start) * mm for part, mm in zip(region.box, case.spacing, strict=True)]
            SliceViews.lookAt(case.worldOf(region.middle), max(sizes))
        self._tell()

    def _tell(self) -> None:
        review, ui, searching = self.review, self.ui, self._search is not None
        item, count = review.current, len(review.items)
        ui.findRegionsButton.enabled = not searching
        for button in (ui.nextRegionButton, ui.previousRegionButton):
            button.enabled = review.done < count and not searching
        for button in (ui.acceptRegionButton, ui.skipRegionButton):
            button.enabled = item is not None and not searching
        ui.regionLabel.text = _("Looking for doubtful regions...") if searching else RegionTexts.tell(review)
