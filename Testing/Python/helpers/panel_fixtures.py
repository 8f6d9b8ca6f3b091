"""Fixtures of the tests of the panel; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import slicer
import slicer.util
from panel_cases import pythonqt, slicer_host
from usema.serving.client import WorkerClient


@pytest.fixture(scope="module")
def app():
    """The stand-in of the application, with an empty scene."""
    host = slicer_host.start()
    yield host
    host.close()


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked; the user says yes unless ``asked.answer`` is False."""

    class Questions(list):
        answer = True

    questions = Questions()

    def ask(text, windowTitle):
        questions.append(text)
        return questions.answer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask)
    return questions


class LastingClient(WorkerClient):
    """Its worker stays for the next panel, as in an application where another part holds it: starting takes seconds."""

    def stop(self, timeout: float = 3.0) -> None:
        if self.busy:
            self.end(timeout)

    def end(self, timeout: float = 3.0) -> None:
        super().stop(timeout)


@pytest.fixture(scope="session")
def lasting():
    """The real worker of all panels that do it no harm."""
    client = LastingClient()
    yield client
    client.end()
    assert not client.running


@pytest.fixture
def openPanel(app, monkeypatch, request):
    """Opens panels, each with a worker that only follows a script, or with the real one, which may be one of its own;
    closes them afterwards."""
    panels = []

    def open_(script: str | None = "none", own: bool = False):
        from USEMASegmentationLib import Logic  # not before the application is there
        from USEMASegmentationLib.Panel import SecondClick

        monkeypatch.setattr(SecondClick, "SECONDS", 0)  # these click faster than a hand
        command = [sys.executable, str(Path(__file__).with_name("scripted_worker.py")), script] if script else None
        shares = script is None and not own
        make = (lambda *_: request.getfixturevalue("lasting")) if shares else (lambda *_: WorkerClient(command))
        monkeypatch.setattr(Logic, "WorkerClient", make)
        panels.append(slicer_host.load())
        return panels[-1]

    pythonqt.slotErrors.clear()
    yield open_
    for panel in panels:
        getattr(panel, "reopened", panel).cleanup()
    slicer.mrmlScene.Clear(False)
    assert pythonqt.slotErrors == []
    assert os.listdir(slicer.app.temporaryPath) == []


@pytest.fixture
def mainWindow():
    """The application's window, as ``slicer.util.mainWindow`` finds it: by its name, which it has in one test alone."""
    from PySide6 import QtWidgets

    window = QtWidgets.QMainWindow()
    window.setObjectName("qSlicerMainWindow")
    yield window
    window.setObjectName("")  # Qt deletes it when it comes to it
    window.deleteLater()
