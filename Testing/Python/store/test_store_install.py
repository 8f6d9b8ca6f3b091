"""From an index's entry, or a file, to a model in the cache: whole and verified, or as it was before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty_server as faulty
import pytest
import trustme
from faulty_server import FaultyServer, cut_at, running, status
from install_cases import NAME, VERSION, assert_installed, entry_for, packed
from small_disk import mounted
from usema.errors import BundleError, Cancelled, MissingDependencyError, StoreError
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE
from usema.store import cache, install, settings

pytest_plugins = ["download_fixtures", "install_fixtures"]


# From the network


def test_a_model_is_downloaded_unpacked_and_can_be_used(model_server, file):
    bundle = install.install(entry_for(file, model_server.url()))
    assert bundle.path == cache.place(NAME, VERSION)
    assert bundle.load_weights()["weight"].shape == (500_000,)
    assert_installed(file)
    assert sorted(path.name for path in bundle.path.iterdir()) == [METADATA_FILE, WEIGHTS_FILE]


def test_progress_ends_with_the_unpacking(model_server, file):
    steps = []
    install.install(entry_for(file, model_server.url()), progress=steps.append)
    assert {step.message for step in steps} == {"", "Unpacking"}
    assert {step.total for step in steps} == {file.stat().st_size}
    assert max(step.done for step in steps) == file.stat().st_size


def test_what_is_installed_is_not_downloaded_again_but_what_is_damaged_is(model_server, file):
    entry = entry_for(file, model_server.url())
    path = install.install(entry).path
    install.install(entry)
    assert len(model_server.requests) == 1
    data = (path / WEIGHTS_FILE).read_bytes()
    (path / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    install.install(entry)
    assert len(model_server.requests) == 2
    assert_installed(file)


@pytest.mark.fault
def test_an_older_version_stays_as_it_is_whatever_happens_to_the_new_one(model_server, file, tmp_path):
    old = install.install_file(packed(tmp_path / "old", version="1.0.0"))
    model_server.always = status(404)
    with pytest.raises(StoreError):
        install.install(entry_for(file, model_server.url()))
    old.verify()
    assert cache.installed_versions(NAME) == ["1.0.0"]
    model_server.always = faulty.serve
    install.install(entry_for(file, model_server.url()))
    old.verify()
    assert cache.installed_versions(NAME) == [VERSION, "1.0.0"]


@pytest.mark.fault
def test_a_cut_download_is_gone_on_from_by_the_next_installation(model_server, file):
    entry, size = entry_for(file, model_server.url()), file.stat().st_size
    model_server.faults, model_server.always = [cut_at(7)], status(500)
    with pytest.raises(StoreError, match="MB are kept"):
        install.install(entry)
    assert cache.installed() == []
    model_server.always = faulty.serve
    install.install(entry)
    assert model_server.sent == size
    assert_installed(file)


@pytest.mark.fault
def test_cancelling_leaves_no_model_and_keeps_what_came(model_server, file):
    model_server.pause, seen = 0.03, []
    with pytest.raises(Cancelled):
        install.install(
            entry_for(file, model_server.url()),
            progress=seen.append,
            should_stop=lambda: seen and seen[-1].done > 100_000,
        )
    assert cache.installed() == []
    assert any(path.name.endswith(".part") for path in cache.parts().iterdir())
    install.install(entry_for(file, model_server.url()))
    assert_installed(file)


@pytest.mark.fault
def test_cancelling_while_it_is_unpacked_leaves_no_model(model_server, file):
    seen = []
    with pytest.raises(Cancelled):
        install.install(
            entry_for(file, model_server.url()),
            progress=seen.append,
            should_stop=lambda: seen and seen[-1].message == "Unpacking",
        )
    assert cache.installed() == []
    install.install(entry_for(file, model_server.url()))
    assert len(model_server.requests) == 1
    assert_installed(file)


@pytest.mark.fault
def test_a_file_that_is_no_model_is_refused_although_it_is_what_the_index_describes(model_server, tmp_path):
    wrong = tmp_path / "wrong.usema"
    wrong.write_bytes(os.urandom(10_000))
    model_server.content = wrong.read_bytes()
    with pytest.raises(BundleError, match="no model, or is damaged"):
        install.install(entry_for(wrong, model_server.url()))
    assert cache.installed() == []
    assert [path for path in cache.parts().iterdir() if path.suffix != ".lock"] == []


@pytest.mark.fault
@pytest.mark.parametrize("changes", [{"name": "liver-ct"}, {"version": "9.9.9"}])
def test_another_model_than_the_entry_names_is_refused(changes, model_server, tmp_path):
    other = packed(tmp_path / "other", **changes)
    model_server.content = other.read_bytes()
    with pytest.raises(BundleError, match=f"The file for {NAME} {VERSION} holds {changes.get('name', NAME)}"):
        install.install(entry_for(other, model_server.url()))
    assert cache.installed() == []


@pytest.mark.fault
def test_a_model_for_a_newer_usema_is_not_downloaded(model_server, file):
    with pytest.raises(StoreError, match=r"needs USEMA 99\.0\.0 or newer.*Update USEMA"):
        install.install(entry_for(file, model_server.url(), minimum_engine="99.0.0"))
    assert not model_server.requests


def test_the_certificates_of_the_settings_are_used(file, tmp_path, monkeypatch):
    import ssl

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "hospital.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with running(FaultyServer(file.read_bytes()), context) as model_server:
        with pytest.raises(StoreError, match="certificate of localhost"):
            install.install(entry_for(file, model_server.url()))
        settings.trust(tmp_path / "hospital.pem")
        install.install(entry_for(file, model_server.url()))
    assert_installed(file)


# From a file


def test_a_file_is_imported_without_a_network_and_stays(file, tmp_path):
    copy = shutil.copy(file, tmp_path / "from a stick.usema")
    steps = []
    bundle = install.install_file(copy, progress=steps.append)
    assert bundle.path == cache.place(NAME, VERSION)
    assert_installed(file)
    assert copy.exists()
    assert steps[-1].message == "Unpacking"


@pytest.mark.fault
def test_what_a_kill_left_of_a_replaced_version_is_not_in_the_way_of_the_next(file, tmp_path):
    install.install_file(file)
    left = cache.parts() / f"{NAME}-{VERSION}.unpacked-old"
    left.mkdir()
    (left / "model.json").write_text("{}")
    other = packed(tmp_path / "other", seed=1)
    install.install_file(other, consent=install.question_of_file(other))
    assert not left.exists()


@pytest.mark.fault
def test_a_broken_file_leaves_what_is_there(file, tmp_path):
    install.install_file(file)
    broken = tmp_path / "broken.usema"
    data = bytearray(packed(tmp_path / "other", seed=1).read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    with pytest.raises(BundleError, match=r"broken\.usema is no model, or is damaged"):
        install.install_file(broken)
    assert_installed(file)


@pytest.mark.fault
def test_cancelling_an_import_leaves_what_is_there(file, tmp_path):
    install.install_file(file)
    with pytest.raises(Cancelled):
        install.install_file(packed(tmp_path / "other", seed=1), should_stop=lambda: True)
    assert_installed(file)


# Disks


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The cache on a real file system of 2.5 MB: room for one file of 1 MB and what is unpacked from it."""
    with mounted(tmp_path / "disk", "size=2500k") as place:
        monkeypatch.setenv("USEMA_MODELS", str(place / "Models"))
        yield place


@pytest.mark.fault
def test_a_disk_that_is_too_full_is_said_before_anything_is_downloaded(disk, model_server, file):
    (disk / "ballast").write_bytes(bytes(800_000))
    with pytest.raises(StoreError, match=r"too full for Hippocampus: 2\.0 MB are needed, 1\.\d MB are free") as caught:
        install.install(entry_for(file, model_server.url()))
    assert "USEMA_MODELS" in caught.value.hint
    assert not model_server.requests
    (disk / "more").write_bytes(bytes(900_000))
    with pytest.raises(StoreError, match="too full"):
        install.install_file(file)
    assert cache.installed() == []
    for name in ("ballast", "more"):
        (disk / name).unlink()
    install.install(entry_for(file, model_server.url()))
    assert_installed(file)


@pytest.mark.fault
def test_a_disk_that_fills_up_while_it_is_unpacked_is_said_and_nothing_is_downloaded_twice(disk, model_server, file):
    def fill(step) -> None:
        if step.message == "Unpacking" or step.done == step.total:
            (disk / "ballast").write_bytes(bytes(1_000_000))

    with pytest.raises(StoreError, match=r"The disk is (too )?full"):
        install.install(entry_for(file, model_server.url()), progress=fill)
    assert cache.installed() == []
    (disk / "ballast").unlink()
    install.install(entry_for(file, model_server.url()))
    assert len(model_server.requests) == 1
    assert_installed(file)


@pytest.mark.fault
def test_a_read_only_cache_gives_what_it_has_and_says_that_it_takes_no_more(disk, model_server, file):
    install.install_file(file)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    install.install(entry_for(file, model_server.url()))
    install.install_file(file)
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        install.install(entry_for(file, model_server.url(), version="2.0.0"))
    assert "USEMA_MODELS" in caught.value.hint
    assert not model_server.requests


@pytest.mark.fault
def test_a_missing_lock_library_is_said(model_server, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingDependencyError, match="pip install filelock"):
        install.install(entry_for(file, model_server.url()))


# Processes: real ones, killed or side by side


INSTALL = """
import json, sys
from dataclasses import replace
from usema.store import index, install
url, size, sha256, name, version = json.loads(sys.argv[1])
licence = index.Licence("CC0-1.0", "https://example.org", True, "")
file = index.EntryFile((url,), size, sha256)
entry = index.Entry(name, name, "", version, "MR", "", (), file, licence, "", "0.0.1", {})
install.install(entry, progress=lambda step: print(step.message or step.done, flush=True)).verify()
print("installed", flush=True)
"""


def start(model_server: FaultyServer, file: Path, root: Path) -> subprocess.Popen:
    entry = entry_for(file, model_server.url())
    asked = json.dumps([model_server.url(), entry.file.size, entry.file.sha256, NAME, VERSION])
    environment = {**os.environ, "PYTHONPATH": str(root / "USEMASegmentation")}
    return subprocess.Popen([sys.executable, "-c", INSTALL, asked], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault
def test_two_processes_at_once_share_one_download(model_server, file, root):
    model_server.pause = 0.05
    with start(model_server, file, root) as one, start(model_server, file, root) as other:
        outputs = [one.communicate()[0], other.communicate()[0]]
        assert (one.returncode, other.returncode) == (0, 0)
    assert all("installed" in output for output in outputs)
    assert sum("Waiting for another process" in output for output in outputs) == 1
    assert model_server.sent == file.stat().st_size
    assert len(model_server.requests) == 1
    assert_installed(file)


@pytest.mark.fault
def test_a_process_that_waits_goes_on_with_the_download_of_one_that_is_killed(model_server, file, root):
    model_server.pause = 0.5  # a process takes its time to start
    with start(model_server, file, root) as one:
        while sum(size.stat().st_size for size in cache.parts().glob("*.part")) < 200_000:
            time.sleep(0.01)
        with start(model_server, file, root) as other:
            assert "Waiting for another process" in other.stdout.readline()
            one.send_signal(signal.SIGKILL)
            model_server.pause = 0
            output = other.communicate()[0]
        one.communicate()
    assert other.returncode == 0
    assert "installed" in output
    assert len(model_server.requests) == 2
    assert int(model_server.requests[1][1].removeprefix("bytes=").removesuffix("-")) >= 200_000
    assert_installed(file)


@pytest.mark.fault
@pytest.mark.parametrize("moment", ["a fifth has come", "it is unpacked"])
def test_a_kill_at_any_moment_and_again_leaves_a_whole_model_or_none(moment, model_server, file, root):
    model_server.pause = 0.02
    for _ in range(3):
        with start(model_server, file, root) as child:
            for line in child.stdout:
                said = line.strip()
                come = int(said) if said.isdecimal() and moment == "a fifth has come" else 0
                if said in ("installed", "Unpacking") or come > file.stat().st_size // 5:
                    break
            child.send_signal(signal.SIGKILL)
        for model in cache.installed():
            assert model.problem == ""
            model.bundle.verify()
    model_server.pause = 0
    install.install(entry_for(file, model_server.url()))
    assert_installed(file)
