"""TotalSegmentator's zips from a web server under their own names: needed models first, each file once, faults told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from faulty_server import FaultyServer, cut_at, running, serve
from nnunet_models import zipped
from totalsegmentator_models import ct, make, public
from usema.cli import main
from usema.converters import public as public_module
from usema.converters.public import PublicFile
from usema.errors import UsemaError
from usema.store import cache, shelf, shelf_install
from usema.store.install import install
from usema.store.library import library

pytest_plugins = ("download_fixtures",)

NAMES = ("total-6mm", "kidney-cysts", "vertebrae-body", "vertebrae-pp-refined")


@pytest.fixture(scope="module")
def published(tmp_path_factory, data):
    """Name of a zip -> its bytes, as the publisher's releases hold them."""
    root, zips = tmp_path_factory.mktemp("weights"), {}
    for name in NAMES:
        for dataset in public(name).recipe["datasets"]:
            folder = dataset["folder"]
            if f"{folder}.zip" not in zips and "role" not in dataset:
                made = make(root, data, public(name), dataset)
                zips[f"{folder}.zip"] = zipped(made, root / f"{folder}.zip", f"{folder}/").read_bytes()
    return zips


@pytest.fixture
def server(own_network, published, monkeypatch):
    """A server of the zips, to which the models of the shelf lead; ``server.zips`` may be changed."""
    with running(FaultyServer(b"")) as server:
        server.zips = dict(published)
        server.always = of_its_path()
        monkeypatch.setattr(shelf, "public_models", lambda: models)
        models = tuple(_from(server, public(name)) for name in NAMES)
        for module in (public_module, shelf_install):
            monkeypatch.setattr(module, "public_models", lambda: models)
        shelf.entries.cache_clear()
        yield server
    shelf.entries.cache_clear()


def _from(server, model):
    files = []
    for file in model.files:
        path = urlsplit(file.url).path
        files.append(PublicFile(server.url(path.lstrip("/")), len(server.zips[PurePosixPath(path).name]), None))
    return replace(model, files=tuple(files))


def of_its_path(then=serve):
    """Answers with the file that the path names."""

    def answer(handler):
        handler.content = handler.server.zips[PurePosixPath(handler.path).name]
        handler.end = len(handler.content)
        then(handler)

    return answer


def entry(name: str):
    return shelf.find(f"totalsegmentator-{name}")


def asked_for(server) -> list[str]:
    return [PurePosixPath(path).name[:10] for path, _ in server.requests]


def nothing_is_left() -> bool:
    files = [one for one in cache.sources().rglob("*") if one.is_file() and one.name != "first_seen.json"]
    return cache.installed() == [] and files == [] and not list(cache.parts().glob("*.converted"))


def test_a_task_brings_the_model_that_finds_its_region_and_runs_from_the_command_line(server, data, tmp_path):
    install(entry("kidney-cysts"))
    assert asked_for(server) == ["Dataset298", "Dataset789"]
    assert all("/wasserth/TotalSegmentator/releases/download/" in path for path, _ in server.requests)
    assert library().get("totalsegmentator-total-6mm").state == "installed"
    sitk.WriteImage(ct(data, (slice(10, 20), slice(24, 40), slice(40, 60)), air=4), str(tmp_path / "ct.nii.gz"))
    arguments = ["segment", str(tmp_path / "ct.nii.gz"), "--model", "totalsegmentator-kidney-cysts", "-o"]
    arguments += [str(tmp_path / "found.nii.gz"), "--device", "cpu", "--only"]
    result = CliRunner().invoke(main, [*arguments, "left kidney cyst"])
    assert result.exit_code == 0, result.output
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "found.nii.gz"))))) == {0, 1}
    result = CliRunner().invoke(main, [*arguments, "spleen"])
    assert result.exit_code != 0
    assert "has no label 'spleen'" in result.output + result.stderr


def test_a_file_that_two_tasks_share_comes_down_once(server):
    install(entry("vertebrae-body"))
    install(entry("vertebrae-pp-refined"))
    assert sorted(asked_for(server)) == ["Dataset305", "Dataset803"]


def test_a_download_that_breaks_off_goes_on(server):
    server.faults = [of_its_path(cut_at(5))]
    install(entry("total-6mm"))
    (_, first), (_, second) = server.requests
    assert first is None
    assert second.startswith("bytes=")
    assert server.sent < 1.2 * len(server.zips[asked_file(server)])


def asked_file(server) -> str:
    return PurePosixPath(server.requests[0][0]).name


@pytest.mark.parametrize("fault", ["changed", "page", "half", "another task", "another program"])
def test_what_is_not_the_publishers_file_is_refused_with_the_reason(fault, server):
    (name,) = [PurePosixPath(urlsplit(file.url).path).name for file in entry("total-6mm").model.files]
    good = server.zips[name]
    if fault == "changed":
        install(entry("total-6mm"))
        cache.remove(*cache.installed())
    server.zips[name] = {
        "changed": good[:-1] + b"!",
        "page": b"<!DOCTYPE html><html>Sign in to continue</html>".ljust(len(good)),
        "half": good[: len(good) // 2].ljust(len(good), b"\0"),
        "another task": server.zips[next(zip for zip in server.zips if "Dataset789" in zip)],
        "another program": good.replace(b"checkpoint_final.pth", b"checkpoint_final.txt"),
    }[fault]
    model = entry("total-6mm").model
    sized = replace(model, files=(replace(model.files[0], size=len(server.zips[name])),))
    with pytest.raises(UsemaError) as refused:
        install(replace(entry("total-6mm"), model=sized))
    said = f"{refused.value.message} {refused.value.hint}"
    words = {
        "changed": "another file than the first time",
        "page": "cannot be read",
        "half": "cannot be read",
        "another task": "Dataset298",
        "another program": "no checkpoint",
    }
    assert words[fault] in said, said
    assert "Traceback" not in said
    assert nothing_is_left()
