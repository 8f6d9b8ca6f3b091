"""`usema segment` as a new user meets it: the sample twice, refusals before anything is loaded, names as they are."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import METADATA, plan, write_tiny_bundle
from cli_cases import usema
from usema.cli import main
from usema.resources import sample_volume
from usema.volumes.volume import load_volume

COMMAND = [sys.executable, "-c", "from usema.cli import main; main()"]
# Runs commands in one process: a line of JSON for each, and a line of JSON back. "memory": what is free, for the check.
REFUSED = """
import io, json, sys
import usema.inference.checks as checks
from usema.cli import main
answers, free_memory = sys.stdout, checks.free_memory
for line in sys.stdin:
    asked = json.loads(line)
    checks.free_memory = free_memory if asked["memory"] is None else lambda: asked["memory"]
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code = None
    try:
        main(asked["arguments"])
    except SystemExit as stop:
        code = stop.code
    sys.stderr.flush()
    told = {"code": code, "errors": sys.stderr.buffer.getvalue().decode(), "torch": "torch" in sys.modules}
    print(json.dumps(told), file=answers, flush=True)
"""
ODD_NAMES = ["Kidney [left]", "Kidney [right]", "Vessel [/a]", "[bold]b[/bold]", "a:heart:b", "טחול", "海馬 🧠", "$x"]


@pytest.fixture(scope="module")
def odd_model(tmp_path_factory) -> str:
    """A model whose labels have names that mean something to what prints and draws them."""
    first = METADATA["labels"][0]
    labels = [{**first, "value": value, "name": name} for value, name in enumerate(ODD_NAMES, 1)]
    config = {"in_channels": 1, "num_classes": 9, "features": [8, 16], "kernels": [[3, 3, 3]] * 2}
    config |= {"strides": [[1, 1, 1], [2, 2, 2]], "blocks": 1, "window": 4, "head_dim": 8}
    changes = {"labels": labels, "architecture": {"name": "USEMA", "config": config}, "preprocessing": plan()}
    return str(write_tiny_bundle(tmp_path_factory.mktemp("odd") / "odd", **changes).path)


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory) -> str:
    config = {"in_channels": 2, "num_classes": 3, "features": [8, 16], "kernels": [[3, 3, 3]] * 2}
    config |= {"strides": [[1, 1, 1], [2, 2, 2]], "blocks": 1, "window": 4, "head_dim": 8}
    changes = {"channels": [{"name": "T1"}, {"name": "T2"}], "preprocessing": plan(2)}
    changes |= {"architecture": {"name": "USEMA", "config": config}, "name": "two"}
    return str(write_tiny_bundle(tmp_path_factory.mktemp("two") / "two", **changes).path)


# The sample


def test_the_first_command_of_the_readme_may_be_given_again_and_never_replaces_what_somebody_worked_on(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = usema("segment", "--sample")
        assert result.exit_code == 0, result.output
        assert re.findall(r"Dice with the reference, label (.*): 0.9", result.output) == ["1", "2"]
        assert result.output.count("Dice") == 2
    (folder,) = tmp_path.iterdir()
    assert folder.name == "usema-sample"
    assert sorted(path.name for path in folder.iterdir()) == [".written.json", "preview.png", "segmentation.seg.nrrd"]
    picture = folder / "elsewhere.png"
    again = usema("segment", "--sample", "--preview", picture)
    assert again.exit_code == 0, again.output
    assert "elsewhere.png exists already" in usema("segment", "--sample", "--preview", picture).output
    picture.unlink()

    corrected = folder / "segmentation.seg.nrrd"
    with corrected.open("r+b") as file:  # at once
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    before = corrected.read_bytes()
    drawn = tmp_path / "usema-sample-2" / "preview.png"  # somebody's own, before there was any result
    drawn.parent.mkdir()
    drawn.write_text("a picture")
    assert usema("segment", "--sample").exit_code == 0
    assert corrected.read_bytes() == before
    assert [path.name for path in drawn.parent.iterdir()] == ["preview.png"]
    assert drawn.read_text() == "a picture"
    assert (tmp_path / "usema-sample-3" / "segmentation.seg.nrrd").is_file()


def test_only_what_was_asked_for_is_compared_with_the_reference(tmp_path):
    alone = usema("segment", "--sample", "-o", tmp_path / "a.nii", "--only", "Posterior hippocampus")
    assert re.findall(r"Dice with the reference, label (.*): 0.9", alone.output) == ["2"]
    assert alone.output.count("Dice") == 1
    assert not (tmp_path / ".written.json").exists()
    named = str(write_tiny_bundle(tmp_path / "other", name="other").path)
    other = usema("segment", "--sample", "-o", tmp_path / "b.nii", "--model", named)
    assert other.exit_code == 0, other.output
    assert "Dice" not in other.output


# Refusals come first


@pytest.fixture(scope="module")
def without_torch():
    """Gives `usema segment` arguments that it refuses, and returns what it says; PyTorch may not be loaded for that.

    One process takes all of them, one after the other: the first that loads PyTorch shows.
    """
    command = [sys.executable, "-c", REFUSED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def refused(*arguments: str, memory: int | None = None) -> str:
            process.stdin.write(json.dumps({"arguments": ["segment", *arguments], "memory": memory}) + "\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            assert told["code"] == 1
            assert not told["torch"]
            return told["errors"]

        yield refused
        process.stdin.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{volume}", "-o", "{tmp}/a.nii", "--device", "tpu"], "'tpu' is not a device"),
        (["{volume}", "-o", "{tmp}/a.nii", "--device", "cuda:x"], "'cuda:x' is not a device"),
        (["{volume}", "-o", "{tmp}/a.nii", "--device", "mps"], "'mps' cannot be used"),
        (["{volume}", "-o", "{tmp}/a.nii", "--overlap", "0.95"], "overlap 0.95"),
        (["{volume}", "-o", "{tmp}/a.nii", "--overlap", "nan"], "overlap nan"),
        (["{volume}", "-o", "{tmp}/a.nii", "--model", "lungs"], "no model 'lungs'"),
        (["{volume}", "-o", "{tmp}/a.nii", "--channel", "{volume}"], "takes 1 volume(s) (MRI), not 2"),
        (["{volume}", "-o", "{tmp}/there.nii"], "there.nii exists already"),
        (["{volume}", "-o", "{tmp}/x/", "--preview", "{tmp}/there.png"], "there.png exists already"),
        (["{volume}", "-o", "{tmp}/a.nii", "--probabilities", "{tmp}/there.nii"], "there.nii exists already"),
        (
            ["{volume}", "-o", "{tmp}/a.nii", "--probabilities", "{tmp}/p.seg.nrrd"],
            "'p.seg.nrrd' has none of the suffixes",
        ),
        (["{volume}", "-o", "{tmp}/{long}.nii"], "File name too long"),
        (["{tmp}/there.nii", "-o", "{tmp}/a.nii"], "there.nii"),
        (["{tmp}/nowhere.nii", "-o", "{tmp}/a.nii"], "nowhere.nii does not exist"),
        (["{tmp}/empty", "-o", "{tmp}/a.nii"], "empty"),
    ],
)
def test_what_needs_no_model_is_refused_before_torch_is_loaded(arguments, message, tmp_path, without_torch):
    (tmp_path / "there.nii").write_text("precious")
    (tmp_path / "there.png").write_text("precious")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    filled = [text.format(tmp=tmp_path, volume=sample_volume(), long="ü" * 130) for text in arguments]
    assert message in without_torch(*filled)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.nii").read_text() == "precious"


def test_a_missing_channel_is_refused_with_the_names_of_all(two_channels, tmp_path):
    result = usema("segment", sample_volume(), "-o", tmp_path / "a.nii", "--model", two_channels)
    assert result.exit_code == 1
    assert "takes 2 volume(s) (T1, T2), not 1" in result.output
    assert "--channel" in result.output


def test_one_volume_for_two_channels_is_warned_of(two_channels, small_volume, tmp_path):
    arguments = ("-o", tmp_path / "a.nii", "--channel", small_volume, "--model", two_channels)
    result = usema("segment", small_volume, *arguments)
    assert result.exit_code == 0
    assert result.output.index("The T2 volume is the same as the T1 volume") < result.output.index("attention:")


# Where results go


def test_folders_are_made_for_files_too_and_go_again_if_the_case_fails(model, small_volume, tmp_path):
    arguments = ("--preview", tmp_path / "c/d.png", "--probabilities", tmp_path / "p/q/r.nii", "--model", model)
    assert usema("segment", small_volume, "-o", tmp_path / "a/b/out.seg.nrrd", *arguments).exit_code == 0
    assert (tmp_path / "a/b/out.seg.nrrd").is_file()
    assert (tmp_path / "c/d.png").is_file()
    assert (tmp_path / "p/q/r.nii").is_file()
    broken = tmp_path / "broken.nii"
    broken.write_text("no volume")
    assert usema("segment", broken, "-o", tmp_path / "x/y/out.nii", "--model", model).exit_code == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["ü" * 115 + ".seg.nrrd", "v1.2.nii.gz", "x" * 245 + ".mha"])
def test_any_name_that_the_disk_takes_is_written(model, small_volume, tmp_path, name):
    picture = tmp_path / ("ö" * 120 + ".png")
    result = usema("segment", small_volume, "-o", tmp_path / name, "--preview", picture, "--model", model)
    assert result.exit_code == 0, result.output
    assert load_volume(tmp_path / name).array.shape == load_volume(small_volume).array.shape
    assert picture.is_file()


def test_a_failed_picture_leaves_the_segmentation_and_says_so(model, small_volume, tmp_path, monkeypatch):
    """The disk is full when the picture comes."""

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usema.quality.pictures.replace_file", full)
    arguments = ("--preview", tmp_path / "a.png", "--model", model)
    result = usema("segment", small_volume, "-o", tmp_path / "a.nii", *arguments)
    assert result.exit_code == 1
    assert "a.png cannot be written: No space left on device" in result.output
    assert f"Written before: {tmp_path / 'a.nii'}" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]


# The default model


@pytest.fixture
def far(tmp_path) -> Path:
    """The sample as if its voxels were 2.5 mm wide: nothing that the default model was made for."""
    image = sitk.ReadImage(str(sample_volume()))[10:24]
    image.SetSpacing((2.5, 1.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "far.nii.gz"))
    return tmp_path / "far.nii.gz"


def test_without_a_model_named_an_input_far_from_the_default_is_refused(far, tmp_path):
    result = usema("segment", far, "-o", tmp_path / "a.nii")
    assert result.exit_code == 1
    assert "2.5 mm" in result.output
    assert "'hippocampus-mr'" in result.output
    assert "--anyway" in result.output
    assert not (tmp_path / "a.nii").exists()


@pytest.mark.parametrize("name", ["body_ct/example_ct_sm.nii.gz"])
def test_without_a_model_named_an_abdomen_is_refused_at_once(data, name, tmp_path, without_torch):
    said = without_torch(str(data / "volumes" / name), "-o", str(tmp_path / "a.nii"))
    assert "far more than the model is for" in said
    assert "--anyway" in said
    assert list(tmp_path.iterdir()) == []


def test_what_memory_is_too_small_for_is_refused_before_torch_is_loaded(model, tmp_path, without_torch):
    """A computer without a byte to spare, as the check sees it."""
    arguments = [str(sample_volume()), "-o", str(tmp_path / "a.nii"), "--model", str(model)]
    assert "Main memory is too small" in without_torch(*arguments, memory=1000)


def test_labels_given_as_the_image_are_refused_without_a_model_named_and_warned_of_with_one(model, tmp_path):
    labels = sample_volume().parent / "reference" / sample_volume().name
    refused = usema("segment", labels, "-o", tmp_path / "a.nii")
    assert refused.exit_code == 1
    assert "looks like a label map, not an image: it has 3 values" in refused.output
    warned = usema("segment", labels, "-o", tmp_path / "a.nii", "--model", model)
    assert warned.exit_code == 0
    assert warned.output.count("it has 3 values") == 1


def test_told_so_or_named_the_model_runs_and_warns_before_the_run(model, far, tmp_path):
    for arguments in (("--anyway", "-o", tmp_path / "a.nii"), ("--model", model, "-o", tmp_path / "b.nii")):
        result = usema("segment", far, *arguments)
        assert result.exit_code == 0, result.output
        warned, ran = result.output.index("2.5 mm"), result.output.index("attention:")
        assert warned < ran
        assert result.output.count("The spacing along x") <= 1


# Names


def test_names_stand_as_they_are_and_pictures_say_what_they_lack(odd_model, small_volume, tmp_path):
    volume = tmp_path / "[bold]x :heart: [a].nii.gz"
    shutil.copy(small_volume, volume)
    result = usema("segment", volume, "-o", tmp_path / "a.nii", "--preview", tmp_path / "a.png", "--model", odd_model)
    assert result.exit_code == 0, result.output
    for name in (*ODD_NAMES, volume.name):
        assert name in result.output
    assert "Glyph" not in result.output
    assert 'The picture has "?" for letters that no font of this computer has: ' in result.output
    assert "🧠" in result.output.split("computer has: ")[1].splitlines()[0]


def test_names_of_files_cannot_command_the_terminal(model, small_volume, tmp_path):
    """\x1b]0; would change its title, \x9b31m its colour, \u202e the direction of what follows."""
    commands = "\x1b]0;title\x07\x9b31m\u202e"
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(small_volume, source / f"good{commands}.nii.gz")
    (source / f"bad{commands}.nii.gz").write_text("no volume")
    run = usema("segment", source, "-o", tmp_path / "out", "--model", model)
    assert "1 of 2 failed" in run.output
    runs = [run, usema("segment", source / f"bad{commands}.nii.gz", "-o", tmp_path / "a.nii", "--model", model)]
    runs += [usema("evaluate", tmp_path / f"missing{commands}", source)]
    for run in runs:
        assert run.exit_code == 1
        assert not set("\x1b\x07\x9b\u202e") & set(run.output)
    assert "good\\x1b]0;title\\x07\\x9b31m\\u202e.nii.gz" in runs[0].output
    assert (tmp_path / "out" / f"good{commands}.nii.gz").is_file()


def test_names_stand_as_they_are_in_the_table_of_scores(odd_model, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[2:6] = np.arange(1, 9)[:, None]
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / folder / "case.nii.gz"))
    result = usema("evaluate", tmp_path / "a", tmp_path / "b", "--model", odd_model)
    assert result.exit_code == 0, result.output
    for name in ODD_NAMES:
        assert name in result.output


# Without a terminal


@pytest.mark.parametrize("code_page", ["cp1252", "cp850", "cp437", "cp936", "ascii"])
def test_letters_that_the_output_lacks_are_replaced(odd_model, small_volume, code_page, tmp_path, monkeypatch):
    """On outputs as Python opens them under PYTHONIOENCODING=...:strict."""
    for arguments in (
        ("models", "list"),
        ("segment", small_volume, "-o", tmp_path / f"{code_page}.nii", "--model", odd_model),
    ):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), code_page, "strict"))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        sys.stderr.flush()
        said = sys.stderr.buffer.getvalue()
        assert ended.value.code == 0, said
        assert b"Traceback" not in said
    assert b"Kidney [left]" in said
    assert b"?" in said


def test_any_locale_gives_the_same_result(model, small_volume, tmp_path):
    """Numbers with a comma; where that is not installed, as on most servers, the C locale."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    environment |= {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "TERM": "dumb"}
    command = [*COMMAND, "segment", str(small_volume), "-o", str(tmp_path / "ä.nrrd"), "--model", str(model)]
    run = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL, timeout=280)
    assert run.returncode == 0, run.stderr
    assert load_volume(tmp_path / "ä.nrrd").geometry.same_grid(load_volume(small_volume).geometry)
