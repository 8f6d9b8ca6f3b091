"""How much the user corrected of what the next result would replace; counted again only where something has changed."""

from __future__ import annotations

from usema.errors import UsemaError

from .Parameters import Parameters
from .Scene import EditMask, Preflight, ResultWriter
from .Scene.EditMask import Corrections
from .Scene.VolumeBridge import boxOf
from .Steps import Steps


class CorrectionsCount:
    """Remembers the last count."""

    def __init__(self):
        self._state: tuple | None = None  # that the count, or the counting, is of
        self._found: Corrections | None = None
        self._steps: Steps | None = None

    def now(self, parameters: Parameters) -> Corrections:
        """The count, however long it takes."""
        found = self.soon(parameters)
        while found is None:
            found = self.soon(parameters)
        return found

    def soon(self, parameters: Parameters) -> Corrections | None:
        """The count, or None while it goes on: it is carried on for a moment at each call."""
        target, volume = parameters.segmentation, parameters.inputVolume
        if target is None or volume is None or parameters.existing != "replace":
            return Corrections()
        try:
            metadata, box = Preflight.modelHere(parameters.modelName).metadata, boxOf(parameters)
            if ResultWriter.whyNot(target, volume):
                return Corrections()
            state = (*EditMask.stateOf(target, metadata), volume.GetID(), box, tuple(parameters.labels))
            if state != self._state:
                counting = EditMask.counting(target, metadata, volume, box, parameters.labels)
                self._state, self._found, self._steps = state, None, Steps(counting)
            if self._steps is not None and self._steps.go():
                self._found, self._steps = self._steps.value, None
        except UsemaError:  # ``check`` says so
            self._state = None
            return Corrections()
        except BaseException:
            self._state = None  # what has failed half-way would never come to an end
            raise
        return self._found
