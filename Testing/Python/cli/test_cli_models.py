"""`usema models`, as a user types it: against a real web server, a folder, and no network at all."""

from __future__ import annotations

import functools
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import our_models
import pytest
from bundles import BUNDLED_VERSION, TINY, write_tiny_bundle
from cli_cases import NON_COMMERCIAL, said, usema
from click.testing import CliRunner
from usema.cli import main
from usema.models.bundle import read_bundle
from usema.store import cache, publish, settings
from usema.volumes.volume import load_volume


class Server:
    """Python's own static web server on a folder, as `python -m http.server` starts it."""

    def __init__(self, folder: Path, pause: float = 0.0):
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                server.asked.append(self.path)

            def copyfile(self, source, sink):
                while chunk := source.read(2**14):
                    sink.write(chunk)
                    time.sleep(server.pause)

        self.asked, self.pause = [], pause
        handler = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def department(tmp_path_factory) -> Path:
    """A folder with two published models and their index, as a department would put it on a server or share."""
    work = tmp_path_factory.mktemp("department")
    for name, changes in (("liver-ct", {}), ("brain-mr", {"licence": NON_COMMERCIAL})):
        bundle = write_tiny_bundle(work / name, name=name, title=f"Title of {name}", **changes).path
        result = usema("models", "publish", bundle, "-o", work / "served models", "--title", "Radiology", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["name"] == name
    return work / "served models"


@pytest.fixture
def server(department):
    running = Server(department)
    yield running
    running.stop()


@pytest.fixture
def volume(data) -> Path:
    return data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_003_0000.nii.gz"


# A department's index


@pytest.mark.parametrize("way", ["a web server", "a folder"])
def test_a_department_serves_models_from_a_static_folder(way, department, server, volume, tmp_path):
    place = server.url if way == "a web server" else department
    added = usema("models", "index", "add", place)
    assert added.exit_code == 0, added.output
    assert "Radiology: 2 model(s)" in added.output
    listed = said(usema("models", "list"))
    assert re.search(r"brain-mr .* Radiology │ available", listed)
    assert re.search(r"liver-ct │ 1.2.0 │ Title of liver-ct │ MR │ CC-BY-SA-4.0 .* Radiology │ available", listed)
    shown = usema("models", "show", "liver-ct", "--json")
    assert json.loads(shown.output)["file"]["urls"][0].endswith("liver-ct-1.2.0.usema")

    missing = usema("segment", volume, "-o", tmp_path / "a.nii.gz", "--model", "liver-ct")
    assert missing.exit_code == 1
    assert "`usema models download liver-ct`" in said(missing)

    downloaded = usema("models", "download", "liver-ct")
    assert downloaded.exit_code == 0, downloaded.output
    server.stop()  # from here on, nothing is there to be asked
    assert read_bundle(cache.place("liver-ct", "1.2.0")).metadata.architecture["config"] == TINY
    assert re.search(r"liver-ct .* installed", said(usema("models", "list")))
    verified = usema("models", "verify")
    assert verified.exit_code == 0
    assert "liver-ct 1.2.0: verified" in verified.output
    assert f"hippocampus-mr {BUNDLED_VERSION}: verified" in verified.output
    result = usema("segment", volume, "-o", tmp_path / "a.nii.gz", "--model", "liver-ct", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert np.isin(load_volume(tmp_path / "a.nii.gz").array, (0, 1, 2)).all()
    assert cache.left_parts() == []


@pytest.mark.parametrize("way", ["a share", "a file address", "a relative path"])
def test_a_folder_is_found_however_it_is_named(way, department, tmp_path, monkeypatch):
    monkeypatch.chdir(department.parent)
    place = {
        "a share": f"/{department}",  # //server/share/..., which this system reads as /server/share/...
        "a file address": department.as_uri(),
        "a relative path": department.name,
    }[way]
    assert usema("models", "index", "add", place).exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert usema("models", "download", "liver-ct").exit_code == 0
    assert usema("models", "verify", "liver-ct").exit_code == 0


def test_nothing_is_asked_of_the_network_unless_the_command_says_so(server):
    usema("models", "index", "add", server.url)
    before = list(server.asked)
    for arguments in (["list"], ["show", "liver-ct"], ["verify"], ["index", "list"]):
        assert usema("models", *arguments).exit_code == 0
    assert usema("doctor").exit_code == 0
    assert server.asked == before
    usema("models", "list", "--refresh")
    assert len(server.asked) == len(before) + 1


def test_without_a_network_the_last_copy_is_listed_and_the_reason_told(server, monkeypatch):
    monkeypatch.setattr("usema.store.download.FIRST_WAIT", 0.01)  # instead of 15 s in all
    usema("models", "index", "add", server.url)
    server.stop()
    result = usema("models", "list", "--refresh")
    assert result.exit_code == 1  # a script that keeps the copies fresh has to notice
    assert re.search(r"liver-ct .* available", said(result))
    assert f"The index {server.url}/models.json cannot be reached" in said(result)
    failed = usema("models", "download", "liver-ct")
    assert failed.exit_code == 1
    assert "usema models import" in said(failed)
    assert cache.installed() == []


def test_an_index_that_cannot_be_had_is_not_added(server, tmp_path):
    for place, reason in ((f"{server.url}/nowhere", "is not there (404)"), (tmp_path, "cannot be read")):
        result = usema("models", "index", "add", place)
        assert result.exit_code == 1
        assert reason in said(result)
    assert settings.read().indexes == ()


def test_a_narrow_terminal_cuts_neither_name_nor_version_nor_state(installed):
    narrow = CliRunner(env={"COLUMNS": "80", "FORCE_COLOR": "1"}).invoke(main, ["models", "list"])
    assert re.search(r"liver-ct .*1\.2\.0 .* MB .*installed", narrow.output)
    piped = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["models", "list"])
    assert re.search(r"liver-ct .*1\.2\.0 .*Title of liver-ct .*CC-BY-SA-4\.0 .*Radiology .*installed", piped.output)


def test_a_folder_named_like_a_model_on_offer_is_shown_as_it_is(department, tmp_path, monkeypatch):
    usema("models", "index", "add", department)
    write_tiny_bundle(tmp_path / "liver-ct", name="liver-ct", version="3.0.0")
    monkeypatch.chdir(tmp_path)
    assert json.loads(usema("models", "show", "liver-ct", "--json").output)["version"] == "3.0.0"


def test_indexes_are_listed_in_their_order_and_removed(server, department):
    usema("models", "index", "add", server.url)
    for _ in range(2):  # as by a script that runs on all computers
        assert usema("models", "index", "add", department).exit_code == 0
    listed = said(usema("models", "index", "list"))
    assert listed.index(server.url) < listed.index(str(department)) < listed.index("came with USEMA")
    hidden = f"of Radiology ({department}/models.json) is hidden by that of Radiology ({server.url}/models.json)"
    assert f"liver-ct 1.2.0 {hidden}" in said(usema("models", "list")), "two of one title are told apart"
    assert usema("models", "index", "remove", server.url).exit_code == 0
    assert settings.read().indexes == (str(department / "models.json"),)
    assert usema("models", "index", "remove", server.url).exit_code == 1


def test_the_list_says_who_offers_a_newer_version_of_what_came_from_elsewhere(tmp_path):
    publish.publish(
        write_tiny_bundle(tmp_path / "9", name="hippocampus-mr", version="9.0.0"), tmp_path / "share", title="Radiology"
    )
    usema("models", "index", "add", tmp_path / "share")
    listed = said(usema("models", "list"))
    assert re.search(r"hippocampus-mr .* USEMA +│ update: 9.0.0", listed)
    assert "hippocampus-mr 9.0.0 is offered by Radiology." in listed
    assert usema("models", "download", "hippocampus-mr", "--replace").exit_code == 0
    assert re.search(r"hippocampus-mr │ 9.0.0 .* Radiology +│ installed", said(usema("models", "list")))


def test_a_new_version_is_offered_downloaded_and_used(tmp_path):
    share = tmp_path / "share"
    for version in ("1.0.0", "1.1.0"):
        bundle = write_tiny_bundle(tmp_path / version, name="liver-ct", version=version)
        publish.publish(bundle, share, title="Radiology")
        if version == "1.0.0":
            usema("models", "index", "add", share)
            assert usema("models", "download", "liver-ct").exit_code == 0
    assert "update: 1.1.0" in said(usema("models", "list", "--refresh"))
    assert usema("models", "download", "liver-ct").exit_code == 0
    listed = said(usema("models", "list"))
    assert re.search(r"liver-ct │ 1.1.0 .* installed", listed)
    assert "`usema models remove liver-ct --version 1.0.0`" in listed
    again = usema("models", "download", "liver-ct")
    assert "liver-ct 1.1.0 is here already" in again.output


# Downloading


def test_a_licence_that_is_not_for_everybody_is_asked_about_once(department):
    usema("models", "index", "add", department)
    asked = usema("models", "download", "brain-mr", input="n\n")
    assert asked.exit_code == 1
    assert "licence CC-BY-NC-4.0, not for commercial use" in asked.output
    assert cache.installed() == []
    assert usema("models", "download", "brain-mr", input="y\n").exit_code == 0
    usema("models", "remove", "brain-mr", "--yes")
    again = usema("models", "download", "brain-mr", input="")
    assert (again.exit_code, "Do you accept" in again.output) == (0, False)


def test_a_script_accepts_the_licence_by_an_option(department):
    usema("models", "index", "add", department)
    assert usema("models", "download", "brain-mr", "liver-ct", "--accept-licence", input="").exit_code == 0
    assert [model.name for model in cache.installed()] == ["brain-mr", "liver-ct"]


def test_a_model_for_a_newer_engine_is_refused(tmp_path):
    publish.publish(write_tiny_bundle(tmp_path / "a", name="new"), tmp_path / "share", minimum_engine="99.0.0")
    usema("models", "index", "add", tmp_path / "share")
    assert "needs USEMA 99.0.0" in said(usema("models", "list"))
    result = usema("models", "download", "new")
    assert result.exit_code == 1
    assert "Update USEMA" in result.output


def test_a_file_that_is_not_what_the_index_says_is_not_installed(department, tmp_path):
    share = tmp_path / "share"
    publish.publish(write_tiny_bundle(tmp_path / "a", name="liver-ct"), share)
    usema("models", "index", "add", share)
    file = share / "liver-ct-1.2.0.usema"
    data = bytearray(file.read_bytes())
    data[-200] ^= 1
    file.write_bytes(data)
    result = usema("models", "download", "liver-ct")
    assert result.exit_code == 1
    assert "SHA-256" in result.output
    assert cache.installed() == []


def test_ctrl_c_keeps_what_has_come_and_the_next_download_goes_on(department):
    slow = Server(department, pause=0.3)
    usema("models", "index", "add", slow.url)
    command = [sys.executable, "-c", "from usema.cli import main; main()", "models", "download", "liver-ct"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(size for _, size in cache.left_parts()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 130, errors
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    ((_, size),) = cache.left_parts()
    assert 0 < size < (department / "liver-ct-1.2.0.usema").stat().st_size
    slow.pause = 0
    assert usema("models", "download", "liver-ct").exit_code == 0
    slow.stop()
    assert cache.left_parts() == []


def test_what_an_interrupted_download_left_can_be_deleted():
    cache.parts().mkdir(parents=True)
    (cache.parts() / "a.usema.part").write_bytes(bytes(10**6))
    assert "Interrupted downloads take 1.0 MB" in said(usema("models", "list"))
    assert usema("models", "remove", "--interrupted", input="n\n").exit_code == 1
    assert len(cache.left_parts()) == 1
    assert usema("models", "remove", "--interrupted", "--yes").exit_code == 0
    assert cache.left_parts() == []


def test_an_unknown_model_is_said(department):
    usema("models", "index", "add", department)
    result = usema("models", "download", "lungs")
    assert result.exit_code == 1
    offered = sorted([*our_models.OFFERED, "brain-mr", "liver-ct"])
    assert f"On offer: {', '.join(offered)}" in said(result)
    assert "is here already (bundled)" in usema("models", "download", "hippocampus-mr").output


# Files


def test_a_model_is_carried_to_a_computer_without_a_network_in_a_file(department, volume, tmp_path, monkeypatch):
    usema("models", "index", "add", department)
    usema("models", "download", "liver-ct")
    file = tmp_path / "a folder that is made/a model.usema"
    assert usema("models", "export", "liver-ct", "-o", file).exit_code == 0
    assert "exists already" in usema("models", "export", "liver-ct", "-o", file).output
    assert "does not end with .usema" in usema("models", "export", "liver-ct", "-o", tmp_path / "a.zip").output

    monkeypatch.setenv("USEMA_MODELS", str(tmp_path / "another computer"))
    monkeypatch.setenv("USEMA_SETTINGS", str(tmp_path / "another.json"))
    imported = usema("models", "import", file)
    assert imported.exit_code == 0, imported.output
    assert re.search(r"liver-ct .* file │ installed", said(usema("models", "list")))
    result = usema("segment", volume, "-o", tmp_path / "a.seg.nrrd", "--model", "liver-ct", "--device", "cpu")
    assert result.exit_code == 0, result.output


def test_what_is_no_model_is_not_imported(tmp_path):
    (tmp_path / "a.usema").write_text("this is no model")
    result = usema("models", "import", tmp_path / "a.usema")
    assert result.exit_code == 1
    assert "a.usema" in result.output
    assert cache.installed() == []


def test_publishing_leaves_a_page_for_people(department):
    page = (department / "models.html").read_text("utf-8")
    assert "Title of brain-mr" in page
    assert "Title of liver-ct" in page
    assert "not for commercial use" in page


# Keeping


@pytest.fixture
def installed(department) -> Path:
    usema("models", "index", "add", department)
    assert usema("models", "download", "liver-ct").exit_code == 0
    return cache.place("liver-ct", "1.2.0")


def test_a_damaged_model_is_found_and_downloaded_again(installed):
    data = bytearray((installed / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (installed / "weights.safetensors").write_bytes(data)
    result = usema("models", "verify")
    assert result.exit_code == 1
    assert "was altered" in result.output
    assert f"hippocampus-mr {BUNDLED_VERSION}: verified" in result.output
    assert "`usema models download liver-ct` gets it again" in said(result)
    assert usema("models", "verify", "hippocampus-mr").exit_code == 0
    assert usema("models", "download", "liver-ct").exit_code == 0
    assert usema("models", "verify", "liver-ct").exit_code == 0


def test_a_model_is_removed_when_the_user_says_so(installed):
    kept = usema("models", "remove", "liver-ct", input="n\n")
    assert kept.exit_code == 1
    assert installed.is_dir()
    removed = usema("models", "remove", "liver-ct", "liver-ct", input="y\n")  # a name given twice counts once
    assert removed.exit_code == 0, removed.output
    assert removed.output.count(str(installed)) == 1
    assert cache.installed() == []
    assert not installed.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "hippocampus-mr"], "came with USEMA and cannot be removed"),
        (["remove", "lungs"], "lungs is not installed. Installed: liver-ct 1.2.0."),
        (["remove", "liver-ct", "--version", "9.9.9"], "liver-ct 9.9.9 is not installed"),
        (["remove", "../.."], "../.. is not installed"),
        (["verify", "lungs"], "There is no model 'lungs'"),
        (["verify", "brain-mr"], "'brain-mr' is not on this computer yet"),
        (["export", "brain-mr"], "'brain-mr' is not on this computer yet"),
        (["index", "add", "ftp://a.org"], "ftp://a.org is no address of an index"),
    ],
)
def test_what_cannot_be_done_is_said(installed, arguments, message):
    result = usema("models", *arguments)
    assert result.exit_code == 1
    assert message in said(result)
    assert installed.is_dir()


def test_doctor_tells_of_the_store(installed, department, empty_store):
    result = said(usema("doctor"))
    assert f"cache {empty_store / 'Models'}, " in result
    assert "liver-ct (installed) 1.2.0, weights verified" in result
    assert "Radiology, 2 models, fresh" in result
    assert str(Path.home()) not in result
