"""What is missing is said, asked for once, and installed as 3D Slicer wants it; here, nothing is really installed."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
import slicer
import slicer.util
from panel_cases import loadSample, waitUntil
from usema.errors import Cancelled, MissingDependencyError

pytest_plugins = ["panel_fixtures"]

FOR_THE_STORE = ["filelock>=3.12", "platformdirs>=4.0", "requests>=2.31", "truststore>=0.9", "urllib3>=2.2"]


@pytest.fixture
def installed(app, monkeypatch):
    """What this 3D Slicer has: package -> version; nothing at first."""
    from USEMASegmentationLib.Panel import Installer

    versions = {}
    monkeypatch.setattr(Installer.Requirement, "installed", lambda self: versions.get(self.package))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    import qt

    yield versions
    qt.QSettings().remove(Installer.AFTER_RESTART)


@pytest.fixture
def pip(installed, monkeypatch):
    """The argument lists that pip was given; what they name is installed afterwards."""
    calls = []

    def install(arguments):
        calls.append(arguments)
        for argument in arguments:
            if found := re.fullmatch(r"(\w+)>=([\d.]+)", argument):
                installed[found[1]] = found[2]

    monkeypatch.setattr(slicer.util, "pip_install", install, raising=False)
    return calls


@pytest.fixture
def pytorchExtension(installed, monkeypatch):
    """The calls of the PyTorch extension, which is there."""
    calls, module = [], ModuleType("PyTorchUtils")

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
            calls.append((askConfirmation, forceComputationBackend, torchVersionRequirement))
            installed["torch"] = "2.9.1+cu126"

    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return calls


@pytest.fixture
def installer(installed):
    from USEMASegmentationLib.Panel.Installer import Installer

    return Installer()


def test_what_is_missing_is_said_in_words(installer, installed):
    assert installer.words() == "Segmenting needs PyTorch >=2.4 (not installed) and safetensors >=0.4 (not installed)."
    installed["torch"] = "2.3.1+cu118"
    installed["safetensors"] = "0.4.0"
    assert installer.words() == "Segmenting needs PyTorch >=2.4 (2.3.1+cu118 is installed)."
    installed["torch"] = "2.13.0"
    assert installer.words() == ""


def test_the_versions_are_those_of_the_engine(installer, root):
    from USEMASegmentationLib.Panel.Installer import REQUIREMENTS

    text = (root / "pyproject.toml").read_text("utf-8")
    for one in REQUIREMENTS:
        assert f'"{one.package}{one.specifier}"' in text


def test_all_comes_after_one_question_torch_by_its_extension(installer, installed, asked, pip, pytorchExtension):
    installer.install()
    assert len(asked) == 1
    assert "between 200 MB and 3 GB" in asked[0]
    assert pytorchExtension == [(False, None, ">=2.4")]
    assert pip == [["safetensors>=0.4", *FOR_THE_STORE]]
    assert installer.missing() == installer.missingForStore() == []
    assert "torch" not in sys.modules  # its files would stay open


def test_what_is_there_is_left_alone(installer, installed, asked, pip, pytorchExtension):
    installed["torch"] = "2.9.1"
    installer.install()
    assert pytorchExtension == []
    assert pip == [["safetensors>=0.4", *FOR_THE_STORE]]


def test_a_no_installs_nothing(installer, asked, pip, pytorchExtension):
    asked.answer = False
    with pytest.raises(Cancelled, match="Nothing was installed"):
        installer.install()
    assert pip == pytorchExtension == []
    assert not installer.isPending()


def test_without_the_extension_it_goes_on_after_the_restart_and_does_not_ask_again(installer, asked, pip, request):
    with pytest.raises(MissingDependencyError, match=r"extension PyTorch is not installed.*Extensions Manager"):
        installer.install()
    assert installer.isPending()
    request.getfixturevalue("pytorchExtension")
    installer.install()
    assert len(asked) == 1
    assert installer.missing() == []
    assert not installer.isPending()


def test_a_torch_in_use_is_replaced_after_the_restart(installer, installed, asked, pip, pytorchExtension, monkeypatch):
    installed["torch"] = "2.1.0"
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(MissingDependencyError, match=r"PyTorch 2.1.0 is in use.*Restart"):
        installer.install()
    assert pytorchExtension == []
    monkeypatch.delitem(sys.modules, "torch")
    installer.install()
    assert pytorchExtension == [(False, None, ">=2.4")]


def test_a_folder_of_wheels_needs_neither_internet_nor_question(installer, asked, pip, pytorchExtension):
    installer.install("/media/stick/my wheels")
    folder = ["--no-index", "--find-links", "/media/stick/my wheels"]
    assert pip == [[*folder, "torch>=2.4", "safetensors>=0.4", *FOR_THE_STORE]]
    assert asked == pytorchExtension == []


def test_a_newer_slicer_shows_its_own_progress(installer, installed, asked, pytorchExtension, monkeypatch):
    calls, module = [], ModuleType("slicer.packaging")

    def pip_install(requirements, requester=None):
        calls.append((requirements, requester))
        installed.update(dict.fromkeys((one.split(">")[0] for one in requirements), "99.0"))

    module.pip_install = pip_install
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    installer.install()
    assert calls == [(["safetensors>=0.4", *FOR_THE_STORE], "USEMA Segmentation")]


def test_a_failure_of_pip_says_what_else_can_be_done(installer, asked, pytorchExtension, monkeypatch):
    def fail(arguments):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(slicer.util, "pip_install", fail, raising=False)
    with pytest.raises(MissingDependencyError, match=r"no route to host.*Install from folder"):
        installer.install()
    assert not installer.isPending()  # it would try again each time the panel is opened


def test_an_installation_that_changed_nothing_is_not_called_a_success(installer, asked, pytorchExtension, monkeypatch):
    monkeypatch.setattr(slicer.util, "pip_install", lambda arguments: None, raising=False)
    with pytest.raises(MissingDependencyError, match="Still missing: safetensors"):
        installer.install()


# What downloading and keeping models needs


def test_the_store_gets_its_small_packages_alone_after_a_question_of_its_own(installer, asked, pip, pytorchExtension):
    installer.installForStore()
    assert "filelock, platformdirs, requests, truststore, urllib3" in asked[0]
    assert pip == [FOR_THE_STORE]
    assert pytorchExtension == []
    installer.installForStore()
    assert len(asked) == len(pip) == 1


def test_the_store_does_not_ask_again_what_was_agreed_to(installer, asked, pip):
    installer.installForStore(agreed=True)
    assert asked == []
    assert pip == [FOR_THE_STORE]


def test_a_no_installs_nothing_for_the_store(installer, asked, pip):
    asked.answer = False
    with pytest.raises(Cancelled, match="Nothing was installed"):
        installer.installForStore()
    assert pip == []


def test_without_internet_the_store_says_how_its_packages_get_here(installer, asked, monkeypatch):
    def fail(arguments):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(slicer.util, "pip_install", fail, raising=False)
    with pytest.raises(
        MissingDependencyError, match=r"no route to host.*pip download filelock platformdirs.*-d wheels"
    ):
        installer.installForStore()


# What a training set needs


def test_adding_to_a_training_set_asks_for_what_it_lacks_alone_and_once(installer, installed, asked, pip, root):
    from USEMASegmentationLib.Panel.Installer import TRAINING_SET

    assert "nibabel" not in installer.words()
    asked.answer = False
    with pytest.raises(Cancelled, match="Nothing was installed"):
        installer.installForTrainingSet()
    asked.answer = True
    installer.installForTrainingSet()
    installer.installForTrainingSet()
    assert pip == [["nibabel>=5.0"]]
    assert len(asked) == 2
    assert "nibabel" in asked[-1]
    assert f'"{TRAINING_SET[0].package}>={TRAINING_SET[0].version[0]}"' in (root / "pyproject.toml").read_text("utf-8")


# What is only faster


def test_what_is_only_faster_is_asked_for_alone_and_never_called_missing(installer, installed, asked, pip, root):
    from USEMASegmentationLib.Panel.Installer import FASTER

    assert "OpenVINO" not in installer.words()
    asked.answer = False
    with pytest.raises(Cancelled, match="Nothing was installed"):
        installer.installFaster()
    asked.answer = True
    installer.installFaster()
    assert pip == [["openvino>=2025.0"]]
    assert "Apache-2.0" in asked[-1]
    assert FASTER.isMet()
    assert f'"{FASTER.package}{FASTER.specifier}"' in (root / "pyproject.toml").read_text("utf-8")


def test_the_panel_offers_what_is_faster_once(app, openPanel, installed, asked, pip):
    ui = openPanel().ui
    ui.advancedCollapsibleButton.collapsed = False
    offered = lambda: ui.fasterButton.isVisibleTo(ui.fasterButton.parent())  # noqa: E731
    assert offered()
    asked.answer = False
    ui.fasterButton.click()
    assert pip == []
    assert offered()
    asked.answer = True
    ui.fasterButton.click()
    assert pip == [["openvino>=2025.0"]]
    assert not offered()


def test_what_is_faster_and_cannot_be_installed_is_told_with_the_reason(app, openPanel, installed, asked, monkeypatch):
    def fail(arguments):
        raise RuntimeError("no route to host")

    told = []
    monkeypatch.setattr(slicer.util, "pip_install", fail, raising=False)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: told.append(text), raising=False)
    openPanel().ui.fasterButton.click()
    assert "no route to host" in told[0]
    assert "pip download openvino -d wheels" in told[0]


# In the panel


def test_the_panel_opens_without_torch_and_says_what_to_do(app, openPanel, installed):
    ui = openPanel().ui
    loadSample(app)
    assert not ui.segmentButton.enabled
    assert ui.reasonLabel.text == "Install what is missing first (see above)."
    assert "PyTorch" in ui.setupLabel.text
    assert ui.setupSection.isVisibleTo(ui.setupSection.parent())


def test_one_click_installs_and_readies_the_panel(app, openPanel, installed, asked, pip, pytorchExtension):
    ui = openPanel().ui
    loadSample(app)
    ui.installButton.click()
    assert not ui.setupSection.isVisibleTo(ui.setupSection.parent())
    assert "installed" in ui.messageLabel.text
    assert ui.segmentButton.enabled


def test_a_pending_installation_goes_on_once_the_panel_is_shown(app, openPanel, installed, asked, pip, request):
    panel = openPanel()
    panel.ui.installButton.click()
    assert "extension PyTorch is not installed" in panel.ui.messageLabel.text
    request.getfixturevalue("pytorchExtension")
    panel.enter()
    assert pip == []  # not while the application is still showing the module
    waitUntil(lambda: panel.installer.missing() == [])
    waitUntil(lambda: panel.ui.setupLabel.text == "")
    assert len(asked) == 1
