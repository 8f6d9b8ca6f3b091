"""The threshold's slider: an outline while it moves, and one step when it is applied. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from slicer.i18n import tr as _
from usema.volumes.margins import STEP

from ..Review.Threshold import LiveThreshold, probabilityOf
from ..Scene.ReviewCase import ReviewCase
from ..Scene.ReviewPreview import ReviewPreview
from .Signals import connect


class ThresholdControls:
    """Selector of a segment, slider, and what it does in millilitres.

    Args:
        ui: the widgets of the section.
        guarded: gives a context in which errors are shown.
        changed: called when voxels were changed.
    """

    def __init__(self, ui, guarded: Callable[[], AbstractContextManager], changed: Callable[[], None]):
        self.ui = ui
        self.guarded = guarded
        self.changed = changed
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
        self.forget()

    def forget(self) -> None:
        """What was computed, because voxels have changed; and the outline. The slider shows what is written."""
        self._live = None
        self.hide()
        case, value = self._chosen()
        self._isFilling = True
        self.ui.thresholdSlider.value = 0.0 if case is None else case.thresholds.get(value, 0) * STEP
        self._isFilling = False
        self._tell()

    def hide(self) -> None:
        """Take the outline away."""
        if self._preview is not None:
            self._preview.remove()
            self._preview = None

    def onSegmentChosen(self, index: int) -> None:
        if not self._isFilling:
            self._chosenId = self._segmentId()
            with self.guarded():
                self.forget()

    def onMoved(self, position: float) -> None:
        if not self._isFilling:
            with self.guarded():
                self._follow()

    def onApply(self, checked: bool = False) -> None:
        with self.guarded():
            self._apply()

    def onCancel(self, checked: bool = False) -> None:
        with self.guarded():
            self.forget()

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
        if case is None:
            return
        if self._live is None:
            self._live = LiveThreshold(case, value)
        if self._preview is None:
            self._preview = ReviewPreview(case.node, case.volume, self._live.box)
        self._live.mask(self._steps, out=self._preview.array)
        self._preview.refresh()
        self._tell()

    def _apply(self) -> None:
        case, value = self._chosen()
        if case is None:
            return
        LiveThreshold(case, value).apply(self._steps)  # anew: masks may have been changed since
        self.changed()

    def _tell(self) -> None:
        live = self._live
        moved = live is not None and self._steps != live.steps
        self.ui.thresholdApplyButton.enabled = self.ui.thresholdCancelButton.enabled = moved
        self.ui.thresholdNeutralButton.enabled = self._steps != 0
        if live is None:
            self.ui.thresholdLabel.text = _("Move the slider: an outline in the slice views shows what Apply would do.")
            return
        now, then = live.millilitres(live.steps), live.millilitres(self._steps)
        self.ui.thresholdLabel.text = _(
            "From a probability of {probability:.0%} on: {ml:.2f} ml ({change:+.2f} ml)"
        ).format(probability=probabilityOf(self._steps * STEP), ml=then, change=then - now)
