"""One verb for models of every kind: USEMA's own as file, zip or folder, and those of other programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from bundles import write_tiny_bundle
from click.testing import CliRunner
from nnunet_models import case, predicted_by_nnunet, train
from usema.cli import main
from usema.converters import Options
from usema.errors import BundleError, Cancelled, InputError, StoreError
from usema.models.bundle import read_bundle
from usema.serving.client import WorkerClient, worker_command
from usema.store import archive, cache
from usema.store.importing import import_model, look
from usema.store.library import INSTALLED, library
from usema.volumes.volume import read_volume
from workers import all_events


@pytest.fixture(scope="module")
def results(tmp_path_factory, data) -> Path:
    """nnU-Net's results folder of a dataset with two configurations."""
    folder = tmp_path_factory.mktemp("results")
    train("3D", folder, data)
    train("2D", folder, data)
    return folder / "Dataset004_Hippocampus"


@pytest.fixture
def zipped(results, tmp_path) -> Path:
    """Such a folder with one configuration, as nnU-Net exports it."""
    file = tmp_path / "hippocampus.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archived:
        for path in sorted(results.glob("*3d_fullres/**/*.*")):
            archived.write(path, path.relative_to(results.parent))
    return file


def usema(*arguments) -> tuple[int, str]:
    run = CliRunner().invoke(main, ["models", "import", *map(str, arguments)])
    assert not run.exception or isinstance(run.exception, SystemExit), run.output
    return run.exit_code, " ".join(run.output.split())


def nothing_is_left() -> bool:
    return not list(cache.folder().glob("*/*/model.json")) and not [path for path, _ in cache.left_parts()]


def test_one_verb_imports_own_models_as_file_folder_and_zip(tmp_path):
    for name, kind in (("a", "folder"), ("b", "usema"), ("c", "json"), ("d", "zip")):
        path = write_tiny_bundle(tmp_path / name, name=name).path
        (path / "README.md").write_text("card")
        if kind == "json":
            path = path / "model.json"
        elif kind != "folder":
            path = archive.pack(path, tmp_path / f"{name}.{kind}")
        assert [model.key for model in look(path)] == [name]
        import_model(path)
        assert library().get(name).state == INSTALLED
        assert (cache.place(name, "1.2.0") / "README.md").read_text() == "card"
    assert not cache.left_parts()


def test_a_damaged_folder_of_a_bundle_is_refused(tmp_path):
    path = write_tiny_bundle(tmp_path / "a", name="a").path
    weights = path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was altered"):
        import_model(path)
    assert nothing_is_left()


def test_the_command_line_imports_a_model_of_nnunet_and_segments_with_it(zipped, results, tmp_path, data):
    code, output = usema(zipped)
    assert code == 0, output
    assert "Hippocampus (nnU-Net 3d_fullres) 1.0.0" in output
    assert "--orientation" in output
    (image,) = case("3D", data)
    run = CliRunner().invoke(
        main, ["segment", str(image), "-o", str(tmp_path / "a.nii.gz"), "--model", "hippocampus-3d-fullres"]
    )
    assert run.exit_code == 0, run.output
    ours = read_volume(tmp_path / "a.nii.gz").array
    (folder,) = results.glob("*3d_fullres")
    theirs = predicted_by_nnunet(folder, [image])
    assert (theirs > 0).any()
    assert (ours == theirs).mean() > 0.999
    assert not cache.left_parts()


def test_models_are_listed_chosen_and_named(results):
    code, output = usema(results, "--list")
    assert (code, output.count("fold 0")) == (0, 2)
    code, output = usema(results)
    assert code != 0
    assert "holds 2 models" in output
    assert nothing_is_left()
    code, output = usema(results, "--configuration", "2d", "--name", "flat", "--orientation", "RAS", "--folds", "0")
    assert code == 0, output
    metadata = library().get("flat").bundle.metadata
    assert (metadata.orientation, len(metadata.preprocessing["patch_size"])) == ("RAS", 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "My Model"], "'My Model' is no name"),
        (["--orientation", "RAX"], "'RAX' is no orientation"),
        (["--orientation", "RLS"], "'RLS' is no orientation"),
        (["--folds", "3"], "has no fold 3"),
        (["--configuration", "4d"], "no model is called '4d'"),
    ],
)
def test_an_option_that_does_not_fit_is_named_and_nothing_is_left(zipped, options, said):
    code, output = usema(zipped, *options)
    assert code != 0
    assert said in output
    assert nothing_is_left()


def test_own_models_take_no_options(tmp_path):
    path = write_tiny_bundle(tmp_path / "a", name="a").path
    with pytest.raises(InputError, match="says all of itself"):
        import_model(path, options=Options(name="b"))
    with pytest.raises(InputError, match="says all of itself"):
        import_model(path, wanted=["a"])


def test_files_of_a_model_on_the_shelf_become_that_model_and_no_other_takes_its_name(data, zipped):
    weights = data / "public_models/brainchop/weights"
    with pytest.raises(StoreError, match="'brain-tissue-light' is the name of another model") as refusal:
        import_model(zipped, options=Options(name="brain-tissue-light"))
    assert "--name" in refusal.value.hint
    bundle = import_model(weights, wanted=["brain-tissue-light"])
    assert bundle.metadata.name == "brain-tissue-light"
    assert library().get("brain-tissue-light").path == bundle.path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["a.zip", "a.pth", "a.usema", "model.json"])
def test_a_named_pipe_is_refused_and_never_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    code, text = usema(tmp_path / name)
    assert code == 1
    assert "neither a folder nor a file" in text


def test_the_same_again_changes_nothing_and_another_of_that_name_is_refused(zipped, results):
    first = import_model(zipped)
    before = (first.path / "model.json").stat().st_mtime_ns
    assert import_model(zipped) == first
    assert (first.path / "model.json").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match="a model called 'hippocampus-3d-fullres' already") as refusal:
        import_model(results, wanted=["2d"], options=Options(name="hippocampus-3d-fullres"))
    assert "--name" in refusal.value.hint
    with pytest.raises(StoreError, match="'hippocampus-mr' already"):
        import_model(results, wanted=["2d"], options=Options(name="hippocampus-mr"))
    assert read_bundle(first.path).metadata == first.metadata
    assert not cache.left_parts()


class Touch:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder,) = results.glob("*3d_fullres")
    bad = shutil.copytree(folder, tmp_path / "bad")
    file = bad / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "logging": Touch()}, file)
    for path in (bad, file):
        with pytest.raises(BundleError, match=r"more than weights: it names (posix|nt).system"):
            import_model(path)
    assert not (tmp_path / "ran").exists()
    assert nothing_is_left()


def test_cancelling_leaves_nothing(zipped):
    asked = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 1

    with pytest.raises(Cancelled):
        import_model(zipped, should_stop=should_stop)
    assert nothing_is_left()


def test_a_full_disk_leaves_nothing(zipped, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))
    with pytest.raises(Exception, match="disk is too full"):
        import_model(zipped)
    assert nothing_is_left()


def test_the_worker_lists_and_imports(results):
    client = WorkerClient(worker_command(store=True))
    try:
        client.request("look", file=str(results))
        *_, listed = all_events(client)
        keys = [model["key"] for model in listed["models"]]
        assert [key.rpartition("__")[2] for key in keys] == ["2d", "3d_fullres"]
        client.request("import", file=str(results))
        *_, refused = all_events(client)
        assert refused["event"] == "error"
        assert "holds 2 models" in refused["message"]
        client.request("import", file=str(results), wanted=[keys[0]])
        *_, done = all_events(client)
    finally:
        client.stop()
    assert (done["event"], done["name"]) == ("result", "hippocampus-2d")
    assert any("orientation" in warning for warning in done["warnings"])
    assert library().get("hippocampus-2d").state == INSTALLED


def test_without_torch_a_sentence_says_what_is_missing(zipped):
    program = (
        "import sys\nimport importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'torch' else found(name, *more)\n"
        "from usema.store.importing import import_model, look\nprint(look(sys.argv[1])[0].key)\n"
        "try: import_model(sys.argv[1])\nexcept Exception as error: print(type(error).__name__, error)\n"
        "print('torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(zipped)], capture_output=True, text=True, check=True)
    assert "MissingDependencyError Importing a model of another program needs torch." in run.stdout
    assert run.stdout.split()[-1] == "False"
    assert nothing_is_left()
