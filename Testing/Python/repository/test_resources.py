"""Bundled models and the sample volume are found wherever USEMA is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from usema.errors import InputError
from usema.resources import bundled_models, resources_folder, sample_volume

# where the engine lies -> where its resources lie
LAYOUTS = {
    "a checkout": ("USEMASegmentation", "Resources"),
    "an installed extension": ("qt-scripted-modules", "qt-scripted-modules/Resources"),
    "an installed wheel": ("site-packages", "site-packages/usema_resources"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_resources_are_found_in(layout, root, tmp_path):
    engine, resources = (tmp_path / place for place in LAYOUTS[layout])
    shutil.copytree(root / "USEMASegmentation" / "usema", engine / "usema")
    # the module's own folder of icons and forms, which is not the one meant
    (engine / "Resources" / "UI").mkdir(parents=True)
    (resources / "Models" / "liver").mkdir(parents=True)
    (resources / "Models" / "liver" / "model.json").touch()
    program = "from usema.resources import *; print(resources_folder(), *bundled_models())"
    environment = {**os.environ, "PYTHONPATH": str(engine)}
    environment.pop("USEMA_RESOURCES", None)
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=280)
    assert run.stdout == f"{resources} liver\n", run.stderr


def test_the_environment_variable_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    assert resources_folder() == tmp_path
    assert bundled_models() == {}
    with pytest.raises(InputError, match=r"no sample volume in .*Samples"):
        sample_volume()
    (tmp_path / "Samples").mkdir()
    (tmp_path / "Samples" / "LICENSE").touch()
    (tmp_path / "Samples" / "mr.nii.gz").touch()
    assert sample_volume() == tmp_path / "Samples" / "mr.nii.gz"


def test_a_wrong_environment_variable_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"USEMA_RESOURCES names .*nowhere"):
        resources_folder()
