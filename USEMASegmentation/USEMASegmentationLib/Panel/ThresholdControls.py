"""The threshold's slider: an outline while it moves, and one step when it is applied. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from slicer.i18n import tr as _
from usema.volumes.margins import STEP

from ..Review.Threshold import LiveThreshold, applying, probabilityOf
from ..Scene.ReviewCase import ReviewCase
from ..Scene.ReviewPreview import ReviewPreview
from .AskedWork import AskedWork, Surroundings
from .Signals import connect


class ThresholdControls:
    """Selector of a segment, slider, and what it does in millilitres.

    What takes long in a large segment is done a moment at a time, and the timer runs: the outline appears when it is
    ready, at the position that the slider has then.

    Args:
        ui: the widgets of the section.
        surroundings: the section that they belong to.
    """

    def __init__(self, ui, surroundings: Surroundings):
        self.ui = ui
        self.errorsShown = surroundings.errorsShown
        self.isUpToDate = surroundings.isUpToDate
        self._outlining, self._applying = (AskedWork(surroundings, self._tell) for _n in range(2))
        self._choices: list[tuple[ReviewCase, int]] = []
        self._chosenId = ""  # of the segment
        self._live: LiveThreshold | None = None
        self._preview: ReviewPreview | None = None
        self._isFilling = False
        connect(ui.thresholdSelector, "currentIndexChanged(int)", self.onSegmentChosen)
        connect(ui.thresholdSlider, "valueChanged(double)", self.onMoved)
        connect(ui.thresholdApplyButton, "clicked(bool)", self.onApply)
        connect(ui.thresholdCancelButton, "clicked(bool)", self.onCancel)
        connect(ui.thresholdNeutralButton, "clicked(bool)", self.onNeutral)

    def show(self, cases: Sequence[ReviewCase]) -> None:
        """The segments of these results."""
        selector, before = self.ui.thresholdSelector, self._chosenId
        self._choices = [(case, value) for case in cases for value in case.names]
        self._isFilling = True
        selector.clear()
        selector.addItems([case.names[value] for case, value in self._choices])
        ids = [case.segmentId(value) for case, value in self._choices]
        selector.setCurrentIndex(ids.index(before) if before in ids else 0)
        self._chosenId = self._segmentId()
        self._isFilling = False
        self.close()

    def close(self) -> None:
        """Gives up what was asked for; the slider shows what is written."""
        self._outlining.giveUp()
        self._applying.giveUp()
        self.forget()

    def forget(self) -> None:
        """What was computed, because voxels have changed; and the outline. The slider shows what is written, but where
        an outline is on its way: that is made of what there is now."""
        self._live = None
        self._removeOutline()
        self._outlining.again()
        if not self._outlining.busy and not self._applying.busy:
            case, value = self._chosen()
            self._isFilling = True
            self.ui.thresholdSlider.value = 0.0 if case is None else case.thresholds.get(value, 0) * STEP
            self._isFilling = False
        self._tell()

    def enter(self) -> None:
        """The outline of a slider that was left moved comes back: Apply must not do what nobody sees."""
        with self.errorsShown():
            self.isUpToDate()  # the slider has gone back where voxels have changed meanwhile
            case, value = self._chosen()
            if case is not None and self._steps != case.thresholds.get(value, 0):
                self._follow()

    def hide(self) -> None:
        """Take the outline away, and what has not begun to be applied."""
        self._outlining.giveUp()
        self._applying.stopWaiting()
        self._removeOutline()
        self._tell()

    def onSegmentChosen(self, index: int) -> None:
        if not self._isFilling:
            self._chosenId = self._segmentId()
            with self.errorsShown():
                self.close()

    def onMoved(self, position: float) -> None:
        if not self._isFilling:
            with self.errorsShown():
                self._follow()

    def onApply(self, checked: bool = False) -> None:
        with self.errorsShown():
            case, value = self._chosen()
            if case is not None and not self._applying.busy:
                self._outlining.giveUp()
                # anew: masks may have been changed since the outline was made
                self._applying.ask(partial(applying, case, value, self._steps), self._onApplied)

    def onCancel(self, checked: bool = False) -> None:
        with self.errorsShown():
            self.close()

    def onNeutral(self, checked: bool = False) -> None:
        self.ui.thresholdSlider.value = 0.0

    def _chosen(self) -> tuple[ReviewCase | None, int]:
        index = self.ui.thresholdSelector.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else (None, 0)

    def _segmentId(self) -> str:
        case, value = self._chosen()
        return "" if case is None else case.segmentId(value)

    @property
    def _steps(self) -> int:
        return round(self.ui.thresholdSlider.value / STEP)

    def _follow(self) -> None:
        case, value = self._chosen()
        if case is None or self._applying.busy:
            return
        if self.isUpToDate() and self._live is not None:
            self._outline()
            self._tell()
        elif not self._outlining.busy:
            self._outlining.ask(partial(LiveThreshold.preparing, case, value), self._onPrepared)

    def _onPrepared(self, live: LiveThreshold) -> None:
        self._live = live
        self._outline()

    def _onApplied(self, count: int) -> None:
        self.forget()
        self.isUpToDate()

    def _outline(self) -> None:
        """At the position of the slider."""
        case, live = self._live.port, self._live
        if self._preview is None:
            self._preview = ReviewPreview(case.node, case.volume, live.box, array=live.outline)
        live.mask(self._steps, out=self._preview.array)
        self._preview.refresh()

    def _removeOutline(self) -> None:
        if self._preview is not None:
            self._preview.remove()
            self._preview = None

    def _tell(self) -> None:
        ui, live, applying = self.ui, self._live, self._applying.busy
        moved = live is not None and self._steps != live.steps and not applying
        ui.thresholdApplyButton.enabled = moved
        ui.thresholdCancelButton.enabled = moved or self._outlining.busy or applying
        ui.thresholdNeutralButton.enabled = self._steps != 0 and not applying
        ui.thresholdSlider.enabled = ui.thresholdSelector.enabled = not applying
        if applying or self._outlining.busy:
            ui.thresholdLabel.text = _("Applying...") if applying else _("Making the outline...")
            return
        if live is None:
            ui.thresholdLabel.text = _("Move the slider: an outline in the slice views shows what Apply would do.")
            return
        now, then = live.millilitres(live.steps), live.millilitres(self._steps)
        ui.thresholdLabel.text = _("From a probability of {probability:.0%} on: {ml:.2f} ml ({change:+.2f} ml)").format(
            probability=probabilityOf(self._steps * STEP), ml=then, change=then - now
        )
