"""What is told of device and engine, and the report that names nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_cases import addVolume
from usema.errors import UsemaError
from USEMASegmentationLib import Diagnostics

pytest_plugins = ["slicer_fixtures"]

MODEL = "tiny"  # its weights are never read here


@pytest.fixture
def volume(host, tiny):
    array = np.random.default_rng(0).integers(0, 1000, (24, 32, 24)).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


def test_the_badge_names_device_and_backend_and_gives_the_reason_in_its_tooltip(volume, logicWith):
    logic = logicWith("none")
    assert logic.badge()[0] == "Engine not started"
    logic.segment(volume, MODEL)
    assert logic.badge(MODEL) == (
        "cpu, none",
        "The last segmentation with this model:\nDevice: cpu\nAttention: none (a script)",
    )
    assert logic.badge("another") == ("cpu, none", "What is here:\nDevice: cpu\nSEMA attention: none (a script)")


def test_diagnostics_name_versions_but_nobody(host, volume, logicWith, monkeypatch):
    volume.SetName("Doe^Jane")
    monkeypatch.setattr(Diagnostics.getpass, "getuser", lambda: "jane")
    monkeypatch.setattr(Diagnostics.Path, "home", lambda: Path("/home/jane"))
    logic = logicWith("dies")
    with pytest.raises(UsemaError):
        logic.segment(volume, MODEL)
    host.app.temporaryPath = f"{host.app.temporaryPath}/Slicer-jane"
    paths = ["/home/jane/.cache/x", r"C:\Users\jane\AppData\y", "/media/jane", "/media/janet/z"]
    logic._lastFailure += "\n".join(["", f"{host.app.temporaryPath}/USEMA-x", *paths, ""])
    text = logic.diagnostics()
    host.app.temporaryPath = str(Path(host.app.temporaryPath).parent)
    assert "3D Slicer 5.11.0" in text
    assert "<temporary>/USEMA-x" in text
    assert "Slicer-jane" not in text
    assert "Doe" not in text
    assert "~/.cache/x" in text
    assert r"C:\Users\<user>\AppData\y" in text
    assert "/media/<user>\n" in text
    assert "/media/janet/z" in text
