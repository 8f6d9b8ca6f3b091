"""The panel's section Models: import, verify, delete, and where new models are looked for; with the real worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import BUNDLED_VERSION, write_tiny_bundle
from model_shop import LICENCE, open_shop
from panel_cases import OURS, choices, isShown, loadSample, rows, waitForStore, waitUntil
from usema.store import archive, cache, indexes, settings

pytest_plugins = ["panel_fixtures", "panel_store_fixtures"]
pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def file(tmp_path) -> Path:
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", title="Tiny (MR)", orientation="LPS")
    return archive.pack(bundle.path, tmp_path / "tiny.usema")


def importFile(panel, path) -> None:
    panel.manageSection.chooseFile = lambda: str(path)
    panel.manageSection.ui.importButton.click()
    waitForStore(panel)


def test_an_imported_model_is_chosen_and_segments(app, openPanel, file):
    panel = openPanel(script=None)
    loadSample(app)
    importFile(panel, file)
    assert panel.parameters().modelName == "tiny"
    assert panel.manageSection.ui.manageLabel.text == "Tiny (MR) is on this computer now."
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.ui.messageLabel.text.startswith("Done in")


def test_importing_nothing_or_what_is_no_model_changes_nothing(openPanel, tmp_path):
    panel = openPanel()
    assert not isShown(panel.manageSection.ui.importSelector)  # there is nothing to choose from
    importFile(panel, "")
    assert panel.manageSection.ui.manageLabel.text == ""
    (tmp_path / "other.usema").write_text("no model")
    importFile(panel, tmp_path / "other.usema")
    assert "other.usema cannot be read" in panel.manageSection.ui.manageLabel.text
    assert choices(panel) == OURS


def test_a_licence_that_asks_is_asked_before_an_import_too(openPanel, tmp_path, asked):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", licence=LICENCE)
    file = archive.pack(bundle.path, tmp_path / "tiny.usema")
    panel = openPanel()
    asked.answer = False
    importFile(panel, file)
    assert "With OK you accept this licence" in asked[0]
    assert choices(panel) == OURS
    asked.answer = True
    importFile(panel, file)
    assert len(choices(panel)) == len(OURS) + 1


def test_models_are_verified_and_deleted_but_not_what_came_with_usema(openPanel, file, asked):
    panel = openPanel()
    ui = panel.manageSection.ui
    assert not ui.verifyButton.enabled  # nothing is chosen
    importFile(panel, file)
    assert [row[:2] + row[3:] for row in rows(panel)] == [
        ["Hippocampus, head and body (MR T1)", BUNDLED_VERSION, "bundled"],
        ["Tiny (MR)", "1.2.0", "installed"],
    ]
    assert str(cache.folder()) in ui.folderLabel.text
    ui.modelsTable.setCurrentCell(0, 0)
    assert (ui.verifyButton.enabled, ui.deleteButton.enabled) == (True, False)
    ui.modelsTable.setCurrentCell(1, 0)
    ui.verifyButton.click()
    waitForStore(panel)
    assert ui.manageLabel.text == "Tiny (MR) 1.2.0 is as it was made: its checksum is right."
    asked.answer = False
    ui.deleteButton.click()
    assert asked == ["Delete Tiny (MR) 1.2.0 (0.1 MB) from this computer?"]
    assert len(cache.installed()) == 1
    asked.answer = True
    ui.deleteButton.click()
    waitForStore(panel)
    assert cache.installed() == []
    assert len(rows(panel)) == 1
    assert panel.parameters().modelName == "hippocampus-mr"


def test_a_damaged_model_is_seen_and_does_not_stop_the_panel(openPanel, file):
    panel = openPanel()
    importFile(panel, file)
    (cache.installed()[0].path / "model.json").write_text("{")
    panel.enter()
    assert rows(panel)[1][3] == "cannot be read"
    assert "tiny – cannot be read" in choices(panel)
    assert not panel.ui.segmentButton.enabled
    ui = panel.manageSection.ui
    ui.modelsTable.setCurrentCell(1, 0)
    assert (ui.verifyButton.enabled, ui.deleteButton.enabled) == (False, True)


def test_a_damaged_model_says_how_to_repair_it_and_another_import_does(openPanel, file):
    panel = openPanel()
    importFile(panel, file)
    (cache.installed()[0].path / "model.json").write_text("{")
    panel.enter()
    assert "import its file again, or delete it" in panel.ui.modelFindsLabel.text
    importFile(panel, file)
    assert "Tiny (MR) – installed" in choices(panel)


def test_a_chosen_model_stays_chosen_when_another_comes_before_it(openPanel, file, tmp_path):
    panel = openPanel()
    importFile(panel, file)
    table = panel.manageSection.ui.modelsTable
    table.setCurrentCell(1, 0)
    other = write_tiny_bundle(tmp_path / "a", name="a-first", title="First")
    importFile(panel, archive.pack(other.path, tmp_path / "a.usema"))
    assert [row[0] for row in rows(panel)][1:] == ["First", "Tiny (MR)"]
    assert table.currentRow() == 2


def test_settings_that_cannot_be_read_are_told(openPanel, empty_store):
    (empty_store / "settings.json").write_text("{")
    panel = openPanel()
    label = panel.manageSection.ui.problemsLabel
    assert "settings.json cannot be read" in label.text
    assert "Correct or delete the file." in label.text
    assert panel.parameters().modelName == "hippocampus-mr"
    (empty_store / "settings.json").unlink()
    panel.enter()
    assert label.text == ""


def test_new_models_are_looked_for_on_a_click_alone(shop, openPanel):
    shop.offer("tiny", title="Tiny (MR)")
    panel = openPanel()
    panel.enter()
    assert shop.requests == []
    panel.manageSection.ui.refreshButton.click()
    waitForStore(panel)
    assert [path for path, _ in shop.requests] == ["/models.json"]
    assert "Tiny (MR) – 0.1 MB, not downloaded" in choices(panel)
    assert panel.manageSection.ui.manageLabel.text == "The lists of models are up to date."


def test_a_list_of_models_is_added_fetched_and_removed(shop, openPanel, tmp_path):
    settings.remove_index(shop.address)
    shop.offer("tiny", title="Tiny (MR)")
    panel = openPanel()
    ui = panel.manageSection.ui
    assert not ui.addIndexButton.enabled
    assert not ui.removeIndexButton.enabled  # that of USEMA stays
    assert not ui.refreshButton.enabled  # and comes with the extension
    ui.indexEdit.text = "ftp://example.org/models.json"
    ui.addIndexButton.click()
    assert "is no address of an index" in ui.manageLabel.text
    ui.indexEdit.text = str(shop.folder)  # a folder, such as a share, does as well as an address
    ui.addIndexButton.click()
    waitForStore(panel)
    assert ui.indexEdit.text == ""
    assert ui.indexSelector.itemText(0).startswith("The shop – ")
    assert "Tiny (MR) – 0.1 MB, not downloaded" in choices(panel)
    assert ui.removeIndexButton.enabled
    ui.removeIndexButton.click()
    assert settings.read().indexes == ()
    assert choices(panel) == OURS


def test_lists_with_the_same_title_are_told_apart_by_their_addresses(offered, openPanel, tmp_path):
    with open_shop(tmp_path / "other") as other:
        other.offer("tiny", title="Another")
        indexes.refresh()
        ui = openPanel().manageSection.ui
        texts = [ui.indexSelector.itemText(row) for row in (0, 1)]
        for text, shop in zip(texts, (offered, other), strict=True):
            assert text.startswith(f"The shop ({shop.address}) – ")


def test_a_list_that_is_away_is_named_and_the_others_are_read(offered, openPanel, tmp_path):
    settings.add_index(str(tmp_path / "nowhere"))
    panel = openPanel()
    ui = panel.manageSection.ui
    ui.refreshButton.click()
    waitForStore(panel)
    assert "Not all lists of models could be read." in ui.manageLabel.text
    assert "nowhere" in ui.manageLabel.text
    assert "Tiny (MR) – 0.1 MB, not downloaded" in choices(panel)


def test_a_model_of_nnunet_is_imported_like_any_and_one_of_several_is_chosen(app, openPanel, tmp_path, data):
    from nnunet_models import train

    for kind in ("3D", "2D"):
        train(kind, tmp_path, data)
    plans = next(tmp_path.glob("*/*3d_fullres/plans.json"))
    panel = openPanel(script=None)
    loadSample(app)
    importFile(panel, plans)  # stands for its folder
    ui = panel.manageSection.ui
    assert "is on this computer now" in ui.manageLabel.text
    assert "as nnU-Net takes them" in ui.manageLabel.text
    assert panel.parameters().modelName == "hippocampus-3d-fullres"
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.ui.messageLabel.text.startswith("Done in")

    importFile(panel, tmp_path / "Dataset004_Hippocampus")
    assert "holds 2 models: choose one" in ui.manageLabel.text
    texts = [ui.importSelector.itemText(index) for index in range(ui.importSelector.count)]
    assert [text.partition(" ")[0].rpartition("__")[2] for text in texts] == ["2d", "3d_fullres", "Choose"]
    ui.importSelector.setCurrentIndex(0)
    importFile(panel, "never asked for")
    assert ui.importSelector.count == 0
    assert panel.parameters().modelName == "hippocampus-2d"
