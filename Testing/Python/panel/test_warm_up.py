"""The engine starts before the click: once there is something to segment, never twice, and in silence."""

from __future__ import annotations

import logging

import pytest
import slicer
from panel_cases import choose, loadSample, waitUntil
from slicer_cases import children, nodes
from usema.serving.client import WorkerClient
from workers import is_alive, wait_until

pytest_plugins = ["panel_fixtures"]


def client(panel) -> WorkerClient:
    return panel.logic._worker._client()


def events() -> None:
    for _ in range(3):
        slicer.app.processEvents()


def segment(panel):
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    return panel.logic.status


def test_the_engine_is_there_before_the_click_and_it_is_the_one_that_segments(app, openPanel):
    before = children()
    panel = openPanel(None, own=True)
    events()
    assert children() == before  # without a volume there is nothing to segment
    loadSample(app)
    shown = nodes()
    events()
    (engine,) = children() - before
    assert nodes() == shown
    assert not panel.logic.busy
    waitUntil(lambda: client(panel).poll() == [] and client(panel).hello is not None)
    assert segment(panel).state == "done"
    assert client(panel).hello["pid"] == engine
    assert children() - before == {engine}
    panel.cleanup()
    wait_until(lambda: not is_alive(engine))


def test_a_click_at_once_waits_for_the_engine_that_is_starting(app, openPanel):
    before = children()
    panel = openPanel()
    loadSample(app)
    events()
    started = children() - before
    assert len(started) == 1
    assert segment(panel).state == "done"
    assert children() - before == started


def test_it_is_started_once_for_each_choice_and_again_when_the_panel_is_opened(app, openPanel):
    panel = openPanel()
    loadSample(app)
    events()
    assert client(panel).running
    panel.logic.releaseMemory()
    panel.updateState()
    events()
    assert not client(panel).running  # the user wants the memory
    panel.exit()
    panel.enter()
    events()
    assert client(panel).running
    assert segment(panel).state == "done"


@pytest.mark.parametrize("way", ["memory is short", "panel not shown", "model not here", "panel closed"])
def test_nothing_is_started(app, openPanel, monkeypatch, way):
    from USEMASegmentationLib import Logic

    panel, before = openPanel(), children()
    if way == "memory is short":
        monkeypatch.setattr(Logic, "free_memory", lambda in_a_new_process: 2**30)
    elif way == "panel not shown":
        panel.parent.isEntered = False
        panel.exit()
    elif way == "model not here":
        choose(panel, "sarcoma-mr")
        assert panel.modelSection.isMissing("sarcoma-mr")
    loadSample(app)
    panel.updateState()
    if way == "panel closed":
        panel.cleanup()
    events()
    assert children() == before


def test_a_failure_is_told_by_the_click_alone(app, openPanel, monkeypatch, caplog):
    from USEMASegmentationLib import Logic

    panel = openPanel()
    monkeypatch.setattr(Logic, "WorkerClient", lambda *_: WorkerClient(["/nowhere/python"]))
    with caplog.at_level(logging.WARNING):
        loadSample(app)
        events()
    assert (panel.ui.messageLabel.text, caplog.text) == ("", "")
    assert panel.ui.segmentButton.enabled
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert "/nowhere/python cannot be started" in panel.ui.messageLabel.text
