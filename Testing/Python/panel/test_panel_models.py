"""Models in the panel: chosen, downloaded after a question, updated; with the real worker, a real server."""

from __future__ import annotations

import re
import sys
from html import unescape

import pytest
import slicer
import slicer.util
from bundles import BUNDLED_VERSION, write_tiny_bundle
from model_shop import LICENCE, open_shop
from panel_cases import OURS, choices, choose, isShown, loadSample, rows, waitForStore, waitUntil
from PySide6 import QtCore
from slicer_cases import children
from usema.serving.client import WorkerClient
from usema.store import cache, indexes, settings

pytest_plugins = ["panel_fixtures", "panel_store_fixtures"]
pytestmark = pytest.mark.usefixtures("impatient")


# What can be chosen


def test_each_model_says_where_it_is_and_one_that_is_here_is_chosen_first(offered, openPanel):
    panel = openPanel()
    assert choices(panel) == [*OURS, "Tiny (MR) – 0.1 MB, not downloaded"]
    assert panel.parameters().modelName == "hippocampus-mr"
    assert not isShown(panel.ui.downloadButton)
    assert f"{BUNDLED_VERSION}, came with USEMA" in panel.ui.modelInfoLabel.text
    assert offered.requests == []  # nothing was asked of the network


def test_a_model_that_is_not_here_describes_itself_and_offers_itself(app, offered, openPanel):
    panel = openPanel()
    loadSample(app)
    choose(panel, "tiny")
    ui = panel.ui
    assert "Head and body of the hippocampus." in ui.modelFindsLabel.text
    assert "CC-BY-SA-4.0" in ui.modelInfoLabel.text
    assert "1.0.0, not downloaded yet" in ui.modelInfoLabel.text
    assert "The shop" in ui.modelInfoLabel.text
    assert [ui.labelsList.item(row).text() for row in (0, 1)] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert isShown(ui.downloadButton)
    assert ui.downloadButton.text == "Download..."
    assert ui.segmentButton.enabled
    assert ui.reasonLabel.text == "This model is not on this computer yet. Segment downloads it first (0.1 MB)."
    assert "Please cite" in ui.modelInfoLabel.toolTip


def test_without_the_stores_packages_the_panel_opens_and_shows_what_came_with_it(shop, openPanel, monkeypatch):
    monkeypatch.delenv("USEMA_MODELS")
    monkeypatch.delenv("USEMA_SETTINGS")
    for name in ("platformdirs", "filelock", "requests", "truststore", "urllib3"):
        monkeypatch.setitem(sys.modules, name, None)
    panel = openPanel()
    assert choices(panel) == OURS
    assert rows(panel) == [["Hippocampus, head and body (MR T1)", BUNDLED_VERSION, "4.1 MB", "bundled"]]
    assert panel.manageSection.ui.folderLabel.text == ""


def test_a_model_for_a_newer_usema_says_so_and_is_not_offered(shop, openPanel, tmp_path):
    from usema.store.publish import publish

    publish(write_tiny_bundle(tmp_path / "future", name="future"), shop.folder, minimum_engine="99.0.0")
    indexes.refresh()
    panel = openPanel()
    choose(panel, "future")
    assert "needs USEMA 99.0.0" in panel.ui.modelFindsLabel.text
    assert not panel.ui.downloadButton.enabled
    assert not panel.ui.segmentButton.enabled


def test_a_scene_whose_model_is_not_known_here_says_so_and_chooses_another(app, openPanel, tmp_path):
    panel = openPanel()
    loadSample(app)
    node = panel._parameterNode
    panel.binding.release()
    node.modelName, node.labels = "of-another-computer", ["Liver"]
    app.saveBundle(tmp_path / "case.mrb")
    app.openBundle(tmp_path / "case.mrb")
    assert panel.parameters().modelName == "hippocampus-mr"
    assert panel.parameters().labels == []
    message = unescape(panel.ui.messageLabel.text)
    assert "'of-another-computer' is not on this computer" in message
    assert "'Hippocampus, head and body (MR T1)' was chosen in its place" in message
    assert panel.ui.segmentButton.enabled


def test_a_title_may_have_any_character(shop, openPanel, asked):
    shop.offer("tiny", title="Children's hand & foot")
    indexes.refresh()
    panel = openPanel()
    choose(panel, "tiny")
    assert any(choice.startswith("Children's hand & foot – ") for choice in choices(panel))
    panel.ui.downloadButton.click()
    waitForStore(panel)
    assert "Children&#x27;s hand &amp; foot 1.0.0" in asked[0]
    assert panel.ui.downloadLabel.text == "Children&#x27;s hand &amp; foot is on this computer now."
    for label in (panel.ui.downloadLabel, panel.ui.messageLabel, panel.manageSection.ui.manageLabel):
        assert label.textFormat == QtCore.Qt.TextFormat.RichText  # by itself, Qt looks for tags alone


def test_of_two_lists_with_the_same_name_the_second_is_named_as_not_used(offered, openPanel, tmp_path):
    with open_shop(tmp_path / "other") as other:
        other.offer("tiny", "2.0.0", title="Another")
        indexes.refresh()
        panel = openPanel()
        choose(panel, "tiny")
    assert "1.0.0, not downloaded yet" in panel.ui.modelInfoLabel.text
    told = f"Not used, because an earlier list offers it too: The shop ({other.address}) (2.0.0)"
    assert panel.ui.modelInfoLabel.text.endswith(told)


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (34e6, 120e6, "34 of 120 MB"),
        (120e6, 1.2e9, "120 MB of 1.2 GB"),
        (1.1e9, 1.2e9, "1.1 of 1.2 GB"),
    ],
)
def test_progress_never_mixes_units(app, done, total, text):
    from USEMASegmentationLib.ModelStore import StoreStatus
    from USEMASegmentationLib.Panel.StoreTexts import taskProgress

    assert taskProgress(StoreStatus(done=done, total=total)) == text


def test_a_slow_download_shows_its_speed():
    from USEMASegmentationLib.ModelStore import StoreStatus
    from USEMASegmentationLib.Panel.StoreTexts import taskProgress

    texts = [taskProgress(StoreStatus(done=10**6, total=10**7, bytesPerSecond=speed)) for speed in (4e4, 2.1e6)]
    assert texts == ["1.0 of 10 MB, 40 kB/s", "1.0 of 10 MB, 2.1 MB/s"]


# Download


def test_a_question_names_size_address_and_licence_before_the_first_byte(offered, openPanel, asked):
    panel = openPanel()
    choose(panel, "tiny")
    asked.answer = False
    panel.ui.downloadButton.click()
    (text,) = asked
    for words in ("Tiny (MR) 1.0.0", "0.1 MB", "127.0.0.1", "CC-BY-SA-4.0", "commercial use allowed"):
        assert words in text
    assert "Nothing about you or your images is sent" in text
    assert "you accept" not in text
    assert offered.requests == []
    assert panel.ui.downloadButton.text == "Download..."


def test_a_download_shows_its_progress_and_segment_works_right_after(app, offered, openPanel, asked):
    panel = openPanel(script=None)
    loadSample(app)
    choose(panel, "tiny")
    ui, offered.held = panel.ui, 20_000
    ui.downloadButton.click()
    assert ui.downloadButton.text == "Cancel"
    assert not ui.segmentButton.enabled
    assert ui.reasonLabel.text == "This model is being downloaded."
    waitUntil(lambda: ui.downloadBar.value > 0)
    assert re.match(r"\d+ kB of 0.1 MB", ui.downloadBar.text)
    assert isShown(ui.downloadBar)
    assert ui.downloadLabel.text == "Downloading Tiny (MR)"
    offered.release()
    waitForStore(panel)
    assert not isShown(ui.downloadBar)
    assert not isShown(ui.downloadButton)
    assert ui.downloadLabel.text == "Tiny (MR) is on this computer now."
    assert "Tiny (MR) – installed" in choices(panel)
    ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetAttribute("USEMA.model") == "tiny"
    assert [path for path, _ in offered.requests] == ["/tiny-1.0.0.usema"]  # and nothing else was asked


def test_a_cancelled_download_goes_on_from_there(offered, openPanel, asked, monkeypatch):
    monkeypatch.setattr("usema.serving.client.CANCEL_SECONDS", 0.5)  # it waits for the network, and hears nothing
    panel = openPanel()
    choose(panel, "tiny")
    ui, offered.held = panel.ui, 20_000
    ui.downloadButton.click()
    waitUntil(lambda: ui.downloadBar.value > 0)
    ui.downloadButton.click()
    assert not ui.downloadButton.enabled
    waitForStore(panel)
    assert ui.downloadButton.text == "Download..."
    assert ui.downloadButton.enabled
    assert ui.downloadLabel.text
    offered.release()
    ui.downloadButton.click()
    waitForStore(panel)
    assert "Tiny (MR) – installed" in choices(panel)
    assert offered.requests[-1] == ("/tiny-1.0.0.usema", "bytes=20000-")


def test_segment_and_download_at_the_same_time(app, offered, openPanel, asked):
    panel = openPanel("waits")
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.state == "running")
    choose(panel, "tiny")
    panel.ui.downloadButton.click()
    waitForStore(panel)
    assert "Tiny (MR) – installed" in choices(panel)
    assert panel.logic.status.state == "running"
    assert panel.ui.segmentButton.text == "Cancel"
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)


def test_segment_asks_once_downloads_and_segments(app, offered, openPanel, asked):
    panel = openPanel(script=None)
    loadSample(app)
    choose(panel, "tiny")
    asked.answer = False
    panel.ui.segmentButton.click()
    assert len(asked) == 1
    assert asked[0].endswith("<p>Then the volume is segmented.</p>")
    assert not panel.logic.busy
    assert not panel.logic.store.busy
    asked.answer = True
    panel.ui.segmentButton.click()
    assert panel.ui.reasonLabel.text == "This model is being downloaded; then the volume is segmented."
    waitForStore(panel)
    assert panel.ui.downloadLabel.text == "Tiny (MR) is on this computer now."
    assert panel.logic.busy
    waitUntil(lambda: not panel.logic.busy)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetAttribute("USEMA.model") == "tiny"
    assert len(asked) == 2


@pytest.mark.parametrize("change", ["another volume", "another model", "cancelled", "Download..."])
def test_a_download_is_followed_by_no_segmentation_that_nobody_waits_for(app, offered, openPanel, asked, change):
    panel = openPanel()
    loadSample(app)
    choose(panel, "tiny")
    offered.held = 20_000
    (panel.ui.downloadButton if change == "Download..." else panel.ui.segmentButton).click()
    waitUntil(lambda: panel.ui.downloadBar.value > 0)
    if change == "another volume":
        panel.ui.inputSelector.setCurrentNode(loadSample(app))
    elif change == "another model":
        choose(panel, "hippocampus-mr")
    elif change == "cancelled":
        panel.ui.downloadButton.click()
    offered.release()
    waitForStore(panel)
    assert not panel.logic.busy
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_a_licence_that_asks_is_accepted_once_for_all_its_versions(shop, openPanel, asked):
    shop.offer("tiny", title="Tiny (MR)", licence=LICENCE)
    indexes.refresh()
    panel = openPanel()
    choose(panel, "tiny")
    asked.answer = False
    panel.ui.downloadButton.click()
    assert "no commercial use" in asked[-1]
    assert LICENCE["url"] in asked[-1]
    assert "With OK you accept this licence" in asked[-1]
    assert settings.read().accepted_licences == ()
    assert not panel.logic.store.busy
    asked.answer = True
    panel.ui.downloadButton.click()
    waitForStore(panel)
    shop.offer("tiny", "1.1.0", title="Tiny (MR)", licence=LICENCE)
    panel.manageSection.ui.refreshButton.click()
    waitForStore(panel)
    asked.clear()
    panel.ui.downloadButton.click()
    waitForStore(panel)
    assert "you accept" not in asked[0]
    assert panel.logic.store.find("tiny").version == "1.1.0"


def test_a_licence_that_nobody_said_is_shown_and_asked_about_without_a_link(shop, openPanel, asked):
    shop.offer("tiny", licence={**LICENCE, "name": "unknown", "url": "", "open": "not stated"})
    indexes.refresh()
    asked.answer, panel = False, openPanel()
    choose(panel, "tiny")
    assert "<b>Licence:</b> unknown, its terms are not stated clearly" in panel.ui.modelInfoLabel.text
    panel.ui.downloadButton.click()
    assert "Licence: unknown, its terms are not stated clearly<" in asked[0]


def test_an_update_leaves_the_old_version_usable_until_it_is_there(app, offered, openPanel, asked):
    panel = openPanel()
    loadSample(app)
    choose(panel, "tiny")
    panel.ui.downloadButton.click()
    waitForStore(panel)
    offered.offer("tiny", "1.1.0", title="Tiny (MR)")
    panel.manageSection.ui.refreshButton.click()
    waitForStore(panel)
    ui = panel.ui
    assert "Tiny (MR) – update 1.1.0" in choices(panel)
    assert (ui.downloadButton.text, isShown(ui.downloadButton)) == ("Update...", True)
    offered.held = 20_000
    ui.downloadButton.click()
    waitUntil(lambda: ui.downloadBar.value > 0)
    assert ui.segmentButton.enabled
    ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert ui.messageLabel.text.startswith("Done in")
    offered.release()
    waitForStore(panel)
    assert "Tiny (MR) – installed" in choices(panel)
    assert panel.parameters().modelName == "tiny"


def test_a_network_that_is_down_is_told_with_what_to_do(app, offered, openPanel, asked):
    panel = openPanel()
    loadSample(app)
    offered.close()
    choose(panel, "tiny")
    panel.ui.downloadButton.click()
    waitForStore(panel)
    assert "refuses the connection" in panel.ui.downloadLabel.text
    assert "Check the network" in panel.ui.downloadLabel.text
    assert panel.ui.downloadButton.enabled
    assert panel.ui.segmentButton.enabled
    choose(panel, "hippocampus-mr")
    assert panel.ui.downloadLabel.text == ""
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.ui.messageLabel.text.startswith("Done in")


def test_what_the_store_lacks_is_named_in_the_same_question_and_installed(offered, openPanel, asked, monkeypatch):
    panel = openPanel()
    from USEMASegmentationLib.Panel.Installer import STORING

    missing, pip = [STORING[0]], []
    monkeypatch.setattr(type(panel.installer), "missing", lambda self, its: [one for one in missing if one in its])

    def install(arguments: list[str]) -> None:
        pip.append(arguments)
        missing.clear()

    monkeypatch.setattr(slicer.util, "pip_install", install, raising=False)
    choose(panel, "tiny")
    panel.ui.downloadButton.click()
    assert len(asked) == 1
    assert "filelock" in asked[0]
    assert "pypi.org" in asked[0]
    assert pip == [["filelock>=3.12"]]
    waitForStore(panel)
    assert "Tiny (MR) – installed" in choices(panel)


# The application goes on, and goes away


def test_quitting_in_the_middle_ends_the_worker_and_keeps_the_part(offered, openPanel, asked):
    before = children()
    panel = openPanel()
    choose(panel, "tiny")
    offered.held = 20_000
    panel.ui.downloadButton.click()
    waitUntil(lambda: panel.ui.downloadBar.value > 0)
    assert len(children()) == len(before) + 1
    for receiver in slicer.app.receivers["aboutToQuit()"]:
        receiver()
    assert children() == before
    assert [size for path, size in cache.left_parts() if path.suffix == ".part"] == [20_000]


def test_a_download_goes_on_while_scenes_and_modules_change(offered, openPanel, asked):
    panel = openPanel()
    choose(panel, "tiny")
    offered.held = 20_000
    panel.ui.downloadButton.click()
    waitUntil(lambda: panel.ui.downloadBar.value > 0)
    slicer.mrmlScene.Clear(False)
    panel.exit()
    offered.release()
    waitForStore(panel)
    panel.enter()
    assert "Tiny (MR) – installed" in choices(panel)


def test_a_worker_that_dies_is_told_and_the_panel_goes_on(offered, openPanel, asked, monkeypatch):
    from USEMASegmentationLib import ModelStore

    monkeypatch.setattr(ModelStore, "WorkerClient", lambda *_: WorkerClient(["false"]))
    panel = openPanel()
    choose(panel, "tiny")
    panel.ui.downloadButton.click()
    waitForStore(panel)
    assert "ended unexpectedly" in panel.ui.downloadLabel.text
    assert panel.ui.downloadButton.enabled
