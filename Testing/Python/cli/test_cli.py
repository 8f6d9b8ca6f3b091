"""The command `usema`, as a user types it."""

from __future__ import annotations

import gc
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cli_cases import usema
from dicom_files import write_series
from usema import imports
from usema.cli import networks
from usema.models.bundle import read_bundle
from usema.volumes.volume import load_volume, read_volume


@pytest.fixture
def volume(small_volume) -> Path:
    return small_volume


def test_one_volume_becomes_a_label_map_on_its_grid(model, volume, tmp_path):
    result = usema("segment", volume, "-o", tmp_path / "labels.nrrd", "--model", model, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "Anterior hippocampus" in result.output
    labels = load_volume(tmp_path / "labels.nrrd")
    assert labels.geometry.same_grid(read_volume(volume).geometry)
    assert sorted(np.unique(labels.array)) == [0, 1, 2]


def test_a_segmentation_carries_names_and_provenance(model, volume, tmp_path):
    assert usema("segment", volume, "-o", tmp_path / "a.seg.nrrd", "--model", model).exit_code == 0
    image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "Anterior hippocampus"
    sha = read_bundle(model).metadata.weights["sha256"]
    assert f"USEMA.weightsSha256:{sha}" in image.GetMetaData("Segment1_Tags")


def test_probabilities_and_preview_are_written_on_request(model, volume, tmp_path):
    arguments = ("--probabilities", tmp_path / "p.nii.gz", "--preview", tmp_path / "p.png")
    assert usema("segment", volume, "-o", tmp_path / "a.mha", "--model", model, *arguments).exit_code == 0
    assert sitk.ReadImage(str(tmp_path / "p.nii.gz")).GetNumberOfComponentsPerPixel() == 3
    from matplotlib.image import imread

    picture = imread(tmp_path / "p.png")
    assert picture.shape[0] > 500
    # Contours and legend are in the labels' own colours.
    colors = np.array([label.color for label in read_bundle(model).metadata.labels]) / 255
    for color in colors:
        assert (np.abs(picture[..., :3] - color).max(-1) < 0.02).sum() > 100


def test_many_volumes_go_to_a_folder_under_their_own_names(model, volume, tmp_path):
    source = tmp_path / "in with ünicode"
    source.mkdir()
    for number in ("003", "004"):
        shutil.copy(volume, source / f"hippocampus_{number}_0000.nii.gz")
    image = sitk.ReadImage(str(volume))
    sitk.WriteImage(image, str(source / "c.mha"))
    dicom = tmp_path / "patient" / "image"
    write_series(dicom, sitk.GetArrayFromImage(image))
    result = usema("segment", source, dicom, "-o", tmp_path / "out", "--model", model, "--overlap", 0)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name not in ("cohort.csv", "status"))
    assert names == ["c.mha", "hippocampus_003_0000.nii.gz", "hippocampus_004_0000.nii.gz", "image.nii.gz"]


def test_a_failing_case_does_not_stop_the_rest_and_the_exit_code_tells(model, volume, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a_broken.nii.gz").write_text("this is no image")
    shutil.copy(volume, source / "b.nii.gz")
    result = usema("segment", source, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1
    assert "a_broken.nii.gz" in result.output
    assert "1 of 2 failed" in result.output
    assert [path.name for path in (tmp_path / "out").glob("*.nii*")] == ["b.nii.gz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.nii.gz", "-o", "{tmp}/a.nii.gz"], "nowhere.nii.gz does not exist"),
        (["{volume}", "-o", "{tmp}/a.txt"], "'a.txt' has none of the suffixes"),
        (["{volume}", "-o", "{volume}/no/a.nii.gz"], "no cannot be made: {volume} is no folder. Choose"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--model", "lungs"], "no model 'lungs'"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--overlap", "1.5"], "overlap 1.5"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--device", "cuda:9"], "'cuda:9' cannot be used"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--device", "tpu"], "'tpu' is not a device"),
        (["{volume}", __file__, "-o", "{tmp}/a.nii.gz"], "one file, but there are 2 inputs"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--channel", "{volume}"], r"takes 1 volume(s)"),
        (["{volume}", "-o", "{tmp}/a.nii.gz", "--preview", "{tmp}/a.jpg"], "not 'a.jpg'"),
        (["{tmp}", "-o", "{tmp}/a.nii.gz"], "{tmp}"),
    ],
)
def test_bad_input_gets_a_message_that_names_it_and_no_result(model, volume, tmp_path, arguments, message):
    filled = [argument.format(tmp=tmp_path, volume=volume) for argument in arguments]
    defaults = [] if "--model" in filled else ["--model", model]
    result = usema("segment", *filled, *defaults)
    assert result.exit_code == 1
    assert message.format(tmp=tmp_path, volume=volume) in re.sub(r"\s+", " ", result.output)
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "empty"),
    [
        (["segment", "", "-o", "out"], "'segment' is empty"),
        (["segment", "a.nii.gz", "-o", ""], "'-o' is empty"),
        (["segment", "a.nii.gz", "-o", "out", "--model="], "'--model=' is missing"),
        (["models", "publish", "", "-o", "out"], "'publish' is empty"),
        (["evaluate", "", "labels"], "'evaluate' is empty"),
    ],
)
def test_an_unset_variable_of_the_shell_means_neither_this_folder_nor_the_bundled_model(
    volume, tmp_path, arguments, empty, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(volume, tmp_path)
    before = sorted(tmp_path.iterdir())
    result = usema(*arguments)
    assert result.exit_code == 2
    assert f"{empty}. Is a variable of the shell not set?" in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_result_is_only_replaced_when_asked(model, volume, tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("precious")
    refused = usema("segment", volume, "-o", target, "--model", model)
    assert refused.exit_code == 1
    assert "a.nii.gz exists" in refused.output
    assert target.read_text() == "precious"
    assert usema("segment", volume, "-o", target, "--model", model, "--overwrite").exit_code == 0
    assert load_volume(target).array.any()


def test_a_folder_result_never_replaces_its_input(model, volume, tmp_path):
    shutil.copy(volume, tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    result = usema("segment", tmp_path / "a.nii.gz", "-o", tmp_path, "--model", model, "--overwrite")
    assert result.exit_code == 1
    assert "would replace its input" in re.sub(r"\s+", " ", result.output)
    assert (tmp_path / "a.nii.gz").read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--probabilities", "--channel"])
def test_no_result_replaces_an_input_or_another_result(model, volume, tmp_path, option):
    shutil.copy(volume, tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    arguments = {
        "-o": ["-o", tmp_path / "a.nii.gz"],
        "--probabilities": ["-o", tmp_path / "b.nii.gz", "--probabilities", tmp_path / "a.nii.gz"],
        "--channel": ["-o", tmp_path / "b.nii.gz", "--probabilities", tmp_path / "b.nii.gz"],
    }[option]
    result = usema("segment", tmp_path / "a.nii.gz", *arguments, "--model", model, "--overwrite")
    assert result.exit_code == 1
    assert re.search("would replace its input|Two results", re.sub(r"\s+", " ", result.output))
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_spacing_that_no_memory_is_enough_for_is_refused_by_its_value(model, volume, tmp_path):
    image = sitk.ReadImage(str(volume))
    image.SetSpacing((1000.0, 1000.0, 1000.0))
    sitk.WriteImage(image, str(tmp_path / "metres.nrrd"))
    result = usema("segment", tmp_path / "metres.nrrd", "-o", tmp_path / "a.nrrd", "--model", model)
    assert result.exit_code == 1
    assert "1000 x 1000 x 1000 mm" in re.sub(r"\s+", " ", result.output)


def test_interrupting_leaves_nothing_behind(model, data, tmp_path):
    """Ctrl+C in the middle of a long case: exit code 130, a message, no file."""
    source = data / "volumes/chest_ct/CTChest4.nrrd"
    command = [sys.executable, "-c", "from usema.cli import main; main()", "segment", str(source)]
    command += ["-o", str(tmp_path / "a.nii.gz"), "--model", model, "--overlap", "0.9"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    while "Model" not in line and process.poll() is None:
        line = process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_evaluate_prints_a_table_and_writes_rows(data, tmp_path):
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    for folder in (references, predictions):
        folder.mkdir()
    for number in ("003", "004"):
        name = f"hippocampus_{number}.nii.gz"
        shutil.copy(data / "nnUNet_raw/Dataset004_Hippocampus/labelsTr" / name, references)
        image = sitk.Cast(sitk.ReadImage(str(references / name)), sitk.sitkUInt8)
        sitk.WriteImage(sitk.BinaryDilate(image, [1, 1, 1], sitk.sitkBall, 0, 1), str(predictions / name))
    result = usema("evaluate", predictions, references, "--csv", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.output
    assert "HD95 / mm" in result.output
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2
    again = usema("evaluate", predictions, references, "--csv", tmp_path / "scores.csv")
    assert again.exit_code == 1
    assert "scores.csv exists" in again.output


def test_the_rows_of_evaluate_never_replace_a_label_map(tmp_path, small_volume):
    for name in ("predictions", "references"):
        (tmp_path / name).mkdir()
        shutil.copy(small_volume, tmp_path / name / "a.nii.gz")
    prediction = tmp_path / "predictions" / "a.nii.gz"
    before = prediction.read_bytes()
    arguments = ["evaluate", tmp_path / "predictions", tmp_path / "references", "--overwrite", "--csv"]
    result = usema(*arguments, prediction)
    assert result.exit_code == 1
    assert "Let it end with .csv" in result.output
    assert prediction.read_bytes() == before


def test_doctor_reports_what_runs_without_naming_the_user():
    result = usema("doctor")
    assert result.exit_code == 0
    for word in ("usema", "torch", "attention", "PyTorch", "device"):
        assert word in result.output
    assert str(Path.home()) not in result.output


def test_networks_prints_the_published_control_and_what_sema_adds(monkeypatch):
    """Of the plan that it was published for, and of one in 3D, with no and with all SEMA blocks; the others only differ
    in numbers."""
    monkeypatch.setattr(networks, "PLANS", (networks.PLANS[0], networks.PLANS[-1]))
    monkeypatch.setattr(networks, "VARIANTS", ("none", "all"))
    result = usema("networks", "--no-value-projection")
    assert result.exit_code == 0
    assert "106.76" in result.output  # residual control on the 9-stage endoscopy plan, last stride (1, 2)
    assert "125.10" in result.output  # with a SEMA block on each stage
    assert "Hippocampus 3D" in result.output
    assert result.output.count("Attention-Mamba") == 1  # it is 2D


def test_a_model_shows_what_it_says_of_itself(model):
    result = usema("models", "show", model, "--json")
    assert result.exit_code == 0
    assert '"SCT"' in result.output
    assert usema("models", "list").exit_code == 0


def test_help_comes_before_torch_is_loaded():
    code = "import sys; from usema.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_command_is_loaded_without_what_it_may_never_need():
    code = "import sys; from usema.cli import segment; "
    code += "print([name for name in ('torch', 'scipy.ndimage', 'scipy.spatial', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_are_looked_for_again_when_imports_have_ended_or_failed(enabled):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with imports.at_once():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), imports.at_once():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_the_package_is_the_command_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["usema", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("usema", run_name="__main__")
    assert ended.value.code == 0
    assert "segment    Segment volumes with a model." in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["nan", "-1"])
def test_a_worker_that_can_wait_for_no_such_time_says_so(minutes):
    told = usema("worker", "--idle-minutes", minutes)
    assert told.exit_code == 1
    assert f"{float(minutes):g} minutes" in told.output
