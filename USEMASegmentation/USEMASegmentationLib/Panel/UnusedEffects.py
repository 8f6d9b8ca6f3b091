"""Effects of the Segment Editor that would look at all voxels of a volume before anybody uses them. No Qt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_THRESHOLD = "Threshold"


@contextmanager
def unasked(editor) -> Iterator[None]:
    """Inside, *Threshold* sees no voxels: a new source volume, of which every effect hears, costs nothing then.

    Else it copies the volume and looks for the least and the greatest value of the copy, for a second and a half at
    700 x 512 x 512 voxels. It does so again when it is chosen, which is when somebody waits for it. Where it is chosen
    already, or is not as this file knows it, nothing is different.

    Args:
        editor: a qMRMLSegmentEditorWidget.
    """
    effect = editor.effectByName(_THRESHOLD)
    script = effect.self() if hasattr(effect, "self") else None
    if not hasattr(script, "scriptedEffect") or editor.activeEffect() == effect:
        yield
        return
    effect = script.scriptedEffect
    script.scriptedEffect = _WithoutVoxels(effect)
    try:
        yield
    finally:
        script.scriptedEffect = effect


class _WithoutVoxels:
    """What an effect asks its questions, but for those about the source volume."""

    def __init__(self, effect: Any):
        self._effect = effect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._effect, name)

    def sourceVolumeImageData(self) -> None:
        """As if there was no volume."""
