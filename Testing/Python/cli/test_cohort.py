"""A cohort: what is done is not done again, nothing that a person changed is lost, and a table tells of all."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from cli_cases import said, usema
from click.testing import CliRunner
from usema.cli import cohort, main
from usema.errors import InputError
from usema.volumes.volume import load_volume


@pytest.fixture
def source(tmp_path, small_volume) -> Path:
    """Three volumes in folders and one that is none."""
    for name in ("x/a.nii.gz", "y/a.nii.gz", "ü [1].nii.gz"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small_volume, tmp_path / "in" / name)
    (tmp_path / "in" / "broken.nii").write_text("no volume")
    return tmp_path / "in"


def run(source: Path, model: Path, *more: str):
    arguments = ["segment", str(source), "-o", f"{source.parent / 'out'}/", "--model", str(model), *more]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def table(source: Path) -> dict[str, dict[str, str]]:
    with (source.parent / "out" / "cohort.csv").open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def done_now(result) -> list[str]:
    return sorted(re.findall(r"^(.*?): Anterior hippocampus .* ml \(", result.output, re.MULTILINE))


def test_the_table_tells_of_each_case_its_volumes_or_why_it_failed(source, model, small_volume):
    result = run(source, model)
    assert result.exit_code == 1
    assert "1 of 4 failed" in result.output
    rows = table(source)
    assert list(rows) == ["broken.nii", "x/a.nii.gz", "y/a.nii.gz", "ü [1].nii.gz"]
    assert rows["broken.nii"]["state"] == "failed"
    assert "cannot be read" in rows["broken.nii"]["error"]
    labels = load_volume(source.parent / "out/x/a.nii.gz")
    voxel = labels.geometry.spacing[0] * labels.geometry.spacing[1] * labels.geometry.spacing[2] / 1000
    for row in (rows["x/a.nii.gz"], rows["ü [1].nii.gz"]):
        assert row["state"] == "done"
        assert float(row["seconds"]) > 0
        assert float(row["Anterior hippocampus / ml"]) == pytest.approx((labels.array == 1).sum() * voxel, abs=1e-3)
    row, inside = rows["x/a.nii.gz"], load_volume(small_volume).array[labels.array == 1].astype(float)
    told = [float(row[f"Anterior hippocampus {name}"]) for name in ("voxels", "mean", "sd", "median")]
    expected = [len(inside), inside.mean(), inside.std(ddof=1), np.median(inside)]
    assert told == pytest.approx(expected, abs=1e-3)
    assert 1 < float(row["Anterior hippocampus longest diameter / mm"]) < 80
    assert rows["broken.nii"]["Anterior hippocampus mean"] == ""
    said = re.search(r"^x/a\.nii\.gz: Anterior hippocampus ([\d.]+) ml", result.output, re.MULTILINE)
    assert float(said[1]) == pytest.approx((labels.array == 1).sum() * voxel, abs=0.01)


def test_a_table_of_somebody_else_is_not_replaced_and_one_that_a_spreadsheet_saved_is(model, small_volume, tmp_path):
    scan = tmp_path / "in" / small_volume.name
    scan.parent.mkdir()
    shutil.copy(small_volume, scan)
    table = scan.with_name("cohort.csv")
    table.write_text("id,age\n1,70\n")
    command = ("segment", scan.parent, "-o", scan.parent, "--format", ".seg.nrrd", "--model", model)
    refused = usema(*command)
    assert refused.exit_code == 1
    assert "cohort.csv is not a table of USEMA's" in said(refused)
    assert table.read_text() == "id,age\n1,70\n"
    assert sorted(path.name for path in scan.parent.iterdir()) == ["cohort.csv", scan.name]
    table.write_text('\ufeff"case";"state";"seconds"\n', encoding="utf-8")
    again = usema(*command)
    assert again.exit_code == 0, again.output
    assert table.read_text().startswith("case,state,")


def test_results_of_a_run_into_another_folder_are_no_inputs(source, model):
    (source / "broken.nii").unlink()
    for number, kind in enumerate((".nii.gz", ".seg.nrrd"), 1):
        more = ("--format", kind, "--probabilities", source / f"p{number}", "--model", model)
        assert usema("segment", source, "-o", source / f"r{number}", *more).exit_code == 0
    command = ("segment", source, "-o", source / "r3", "--model", model)
    result = usema(*command)
    assert result.exit_code == 0, result.output
    assert len(done_now(result)) == 3
    for number in (1, 2):
        assert f"Results of an earlier run into {source / f'r{number}'} are left out (6)." in said(result)
    assert "a segmentation, not an image" not in said(result)
    assert "3 of 3 were done before" in said(usema(*command))
    only = usema("segment", source / "r1", "-o", source / "r4", "--model", model)
    assert only.exit_code == 1
    assert "There is nothing to segment: Results of an earlier run" in said(only)
    named = usema("segment", source / "r1/x/a.nii.gz", "-o", source / "r4", "--model", model)
    assert named.exit_code == 0, named.output


def test_the_same_command_does_what_is_not_done(source, model, small_volume):
    assert len(done_now(run(source, model))) == 3
    again = run(source, model)
    assert done_now(again) == []
    assert "3 of 4 were done before" in again.output
    shutil.copy(small_volume, source / "broken.nii.gz")
    (source / "broken.nii").unlink()
    (source.parent / "out" / "x" / "a.nii.gz").unlink()
    result = run(source, model)
    assert result.exit_code == 0
    assert done_now(result) == ["broken.nii.gz", "x/a.nii.gz"]


@pytest.mark.parametrize("changed", ["input", "model", "settings"])
def test_what_was_made_otherwise_is_done_again_only_when_asked(source, model, tmp_path, changed):
    assert len(done_now(run(source, model))) == 3
    more = []
    corrected = source.parent / "out" / "x" / "a.nii.gz"
    if changed == "input":
        os.utime(source / "x" / "a.nii.gz", (1, 1))
    elif changed == "model":
        model = write_tiny_bundle(tmp_path / "other", version="1.3.0").path
    else:
        more = ["--overlap", "0.25"]
    corrected.write_bytes(b"corrected by a person")
    result = run(source, model, *more)
    assert "x/a.nii.gz exists already" in result.output
    assert corrected.read_bytes() == b"corrected by a person"
    assert "x/a.nii.gz" in done_now(run(source, model, *more, "--overwrite"))
    assert load_volume(corrected).array.any()


def test_a_corrected_result_of_a_done_case_stays(source, model):
    run(source, model)
    corrected = source.parent / "out" / "x" / "a.nii.gz"
    corrected.write_bytes(b"corrected by a person")
    run(source, model)
    assert corrected.read_bytes() == b"corrected by a person"


@pytest.mark.parametrize("changed", ["settings", "an input that cannot be read"])
def test_a_run_that_another_one_refuses_or_breaks_leaves_done_what_was_done(source, model, changed):
    run(source, model)
    before = table(source)
    volume, more = source / "x" / "a.nii.gz", []
    whole, times = volume.read_bytes(), volume.stat()
    if changed == "settings":
        more = ["--overlap", "0.25"]
    else:
        volume.write_bytes(whole[:200])
    assert run(source, model, *more).exit_code == 1
    told = table(source)["x/a.nii.gz"]
    assert told["error"]
    assert {**told, "error": ""} == before["x/a.nii.gz"]
    volume.write_bytes(whole)
    os.utime(volume, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "3 of 4 were done before" in run(source, model).output
    assert table(source) == before


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_text_is_a_case_as_others(model, small_volume, tmp_path):
    for name in (b"lat\xe9.nii.gz", b"z.nii.gz"):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(small_volume, os.fsencode(tmp_path / "in") + b"/" + name)
    assert run(tmp_path / "in", model).exit_code == 0
    assert {row["state"] for row in table(tmp_path / "in").values()} == {"done"}
    assert "2 of 2 were done before" in run(tmp_path / "in", model).output


def test_results_among_the_inputs_are_no_inputs_of_the_next_run(source, model):
    command = ["segment", str(source / "x"), "-o", str(source / "x"), "--model", str(model), "--format"]
    for suffix in (".nrrd", ".nrrd", ".mha"):
        result = CliRunner().invoke(main, [*command, suffix])
        assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (source / "x").glob("a.*")) == ["a.mha", "a.nii.gz", "a.nrrd"]


def test_what_a_killed_run_left_is_done_again_unless_somebody_changed_it(source, model, monkeypatch):
    """Killed between the segmentation and the picture of the first case."""
    program = (
        "import os, signal, usema.quality.pictures as pictures\n"
        "pictures.write_preview = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from usema.cli import main; main()\n"
    )
    out = source.parent / "out"
    pictures = ["--preview", f"{source.parent / 'pictures'}/"]
    command = ["segment", str(source / "x"), str(source / "y"), "-o", f"{out}/", "--model", str(model), *pictures]
    killed = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, timeout=280)
    assert killed.returncode == -signal.SIGKILL
    (left,) = out.rglob("*.nii.gz")
    (status,) = (out / "status").iterdir()
    assert json.loads(status.read_text("utf-8"))["state"] == "begun"
    before = left.read_bytes()
    left.write_bytes(b"corrected by a person")
    assert "exists already" in CliRunner().invoke(main, command).output
    assert left.read_bytes() == b"corrected by a person"
    left.unlink()
    assert CliRunner().invoke(main, command).exit_code == 0
    assert left.read_bytes() == before
    assert len(list((source.parent / "pictures").rglob("*.png"))) == 2


def test_parts_share_the_cases_and_the_table(source, model):
    (source / "broken.nii").unlink()
    first, second = run(source, model, "--part", "1/2"), run(source, model, "--part", "2/2")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert sorted(done_now(first) + done_now(second)) == ["x/a.nii.gz", "y/a.nii.gz", "ü [1].nii.gz"]
    assert len(done_now(first)) == 2
    assert set(table(source)) == {"x/a.nii.gz", "y/a.nii.gz", "ü [1].nii.gz"}


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(InputError, match=f"'{part}' is no part"):
        cohort.part_of([], part)


def test_all_parts_together_are_all_cases():
    cases = list(range(10))
    assert sorted(case for i in (1, 2, 3) for case in cohort.part_of(cases, f"{i}/3")) == cases


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": 3}', "[" * 5000, '{"case": "x", "state": "done"}'])
def test_a_status_that_is_damaged_is_none(source, model, text):
    run(source, model)
    for status in (source.parent / "out" / "status").iterdir():
        status.write_text(text)
    result = run(source, model)
    assert result.output.count("exists already") == 3  # nobody knows who made them
    assert list(table(source)) == ["broken.nii", "x/a.nii.gz", "y/a.nii.gz", "ü [1].nii.gz"]


def test_one_volume_into_a_folder_is_no_cohort(model, small_volume, tmp_path):
    command = ["segment", str(small_volume), "-o", f"{tmp_path}/out/", "--model", str(model)]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [small_volume.name]


def test_a_folder_that_holds_one_volume_is_a_cohort_of_one(model, small_volume, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(small_volume, tmp_path / "in")
    result = run(tmp_path / "in", model, "--statistics", str(tmp_path / "s.csv"))
    assert result.exit_code == 0
    assert (tmp_path / "s.csv").is_file()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["cohort.csv", small_volume.name, "status"]
    rows = table(tmp_path / "in")
    assert list(rows) == [small_volume.name]
    assert rows[small_volume.name]["state"] == "done"
    assert float(rows[small_volume.name]["Anterior hippocampus / ml"]) > 0
    again = run(tmp_path / "in", model)
    assert (again.exit_code, done_now(again)) == (0, [])
    assert "1 of 1 were done before" in again.output
    shutil.copy(small_volume, tmp_path / "in" / "b.nii.gz")
    assert done_now(run(tmp_path / "in", model)) == ["b.nii.gz"]
    assert list(table(tmp_path / "in")) == ["b.nii.gz", small_volume.name]


def test_a_folder_that_holds_one_volume_becomes_the_file_that_is_named(model, small_volume, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(small_volume, tmp_path / "in")
    command = ["segment", str(tmp_path / "in"), "-o", f"{tmp_path}/out/r.nii.gz", "--model", str(model)]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.nii.gz"]


def test_a_folder_that_holds_one_volume_that_cannot_be_read_says_so_in_the_table(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.nii").write_text("no volume")
    assert run(tmp_path / "in", model).exit_code == 1
    assert table(tmp_path / "in")["broken.nii"]["state"] == "failed"


def test_a_status_of_an_older_version_tells_what_it_has(source, model):
    run(source, model)
    for path in (source.parent / "out" / "status").iterdir():
        document = json.loads(path.read_text("utf-8"))
        del document["measures"]
        path.write_text(json.dumps(document), "utf-8")
    assert "3 of 4 were done before" in run(source, model).output
    row = table(source)["x/a.nii.gz"]
    assert float(row["Anterior hippocampus / ml"]) > 0
    assert row["Anterior hippocampus mean"] == ""


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_statistics_of_one_volume_are_a_file(model, small_volume, tmp_path, suffix):
    file = tmp_path / f"s{suffix}"
    command = ["segment", str(small_volume), "-o", f"{tmp_path}/r.nii.gz", "--model", str(model)]
    assert CliRunner().invoke(main, [*command, "--statistics", str(file)]).exit_code == 0
    text, labels = file.read_text("utf-8"), load_volume(tmp_path / "r.nii.gz").array
    rows = json.loads(text) if suffix == ".json" else list(csv.DictReader(text.splitlines()))
    assert [row["segment"] for row in rows] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert [int(row["voxels"]) for row in rows] == [(labels == 1).sum(), (labels == 2).sum()]
    assert float(rows[0]["longest_diameter_mm"]) > 1
    again = CliRunner().invoke(
        main, [*command[:3], f"{tmp_path}/other.nii.gz", *command[4:], "--statistics", str(file)]
    )
    assert "exists already" in again.output
    assert file.read_text("utf-8") == text
    assert not (tmp_path / "other.nii.gz").exists()


def test_statistics_of_many_volumes_are_in_the_table_and_of_other_kinds_refused(source, model, small_volume, tmp_path):
    assert "cohort.csv has them" in run(source, model, "--statistics", str(tmp_path / "s.csv")).output
    command = ["segment", str(small_volume), "-o", f"{tmp_path}/r.nii.gz", "--model", str(model)]
    result = CliRunner().invoke(main, [*command, "--statistics", str(tmp_path / "s.xlsx")])
    assert "'s.xlsx'" in result.output
    assert not (tmp_path / "r.nii.gz").exists()
