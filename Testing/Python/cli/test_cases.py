"""From what the user typed to cases: folders of folders, names of results, what is left out and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_cases import said, usema
from usema.cli.cases import Target, plan_cases, targets
from usema.cli.finding import find
from usema.errors import InputError, OutputError

MRI, PET = "volumes/sarcoma_ct_dicom/MR_T1", "volumes/sarcoma_ct_dicom/PET"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def results(root: Path, *inputs: Path, output: Path | None = None, expected: int = 1) -> dict[str, str]:
    """Input -> result, both as paths from ``root`` and the folder of results."""
    output = output or root / "out"
    cases, _ = plan_cases(inputs or (root,), (), targets(f"{output}/", None, None), expected)
    return {
        " + ".join(p.relative_to(root).as_posix() for p in c.inputs): str(c.output.relative_to(output)) for c in cases
    }


def test_a_tree_of_folders_is_walked_and_results_are_named_by_their_path(tmp_path):
    touch(tmp_path, "sub-01/anat/T1.nii.gz", "sub-02/anat/T1.nii.gz", "c.mhd", "sub-01/notes.txt")
    assert results(tmp_path) == {
        "c.mhd": "c.mha",
        "sub-01/anat/T1.nii.gz": "sub-01/anat/T1.nii.gz",
        "sub-02/anat/T1.nii.gz": "sub-02/anat/T1.nii.gz",
    }


def test_dicom_below_the_folder_is_found_without_structure_sets(data, tmp_path):
    for patient, source in (("A", MRI), ("B", PET)):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "image").symlink_to(data / source / "image")
    (tmp_path / "A" / "mask").symlink_to(data / "volumes/sarcoma_ct_dicom/CT/mask")  # a structure set
    assert results(tmp_path) == {"A/image": "A/image.nii.gz", "B/image": "B/image.nii.gz"}


def test_two_folders_of_one_name_become_two_results(data):
    root = data / "volumes/sarcoma_ct_dicom"
    given = results(root, root / "MR_T1/image", root / "PET/image", output=root / "out")
    assert given == {"MR_T1/image": "MR_T1/image.nii.gz", "PET/image": "PET/image.nii.gz"}


def test_a_single_series_below_the_folder_may_go_to_one_file(data, tmp_path):
    cases, _ = plan_cases([data / MRI], (), targets(str(tmp_path / "mr.nii.gz"), None, None))
    assert [(case.inputs[0].name, case.output.name) for case in cases if case.output.name] == [("image", "mr.nii.gz")]


@pytest.mark.parametrize("name", ["mask.nii.gz", "DOSE.NRRD", "a.mha"])
def test_a_mask_that_was_saved_among_dicom_images_is_left_out_with_a_word(data, tmp_path, name):
    shutil.copytree(data / MRI / "image", tmp_path / "both")
    touch(tmp_path, f"both/{name}", "other.nii.gz")
    cases, words = plan_cases([tmp_path], (), targets(f"{tmp_path / 'out'}/", None, None))
    assert [case.name for case in cases] == ["both", "other.nii.gz"]
    (word,) = words
    assert name in word
    assert "DICOM" in word


def test_what_is_no_image_is_left_out_with_a_word(tmp_path):
    touch(tmp_path, "MR.nrrd", "Segmentation.seg.nrrd", ".DS_Store", "._MR.nrrd", ".hidden/a.nii")
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "dataset.json", "raw/labelsTr/b.nii")
    found, words = find(tmp_path)
    names = [one.relative.as_posix() for one in found]
    assert names == ["MR.nrrd", "imagesTr/a_0000.nii.gz", "raw/labelsTr/b.nii"]
    assert [word.split(" ")[0].rpartition("/")[2] for word in words] == ["Segmentation.seg.nrrd", "labelsTr"]


def test_derivatives_of_a_bids_data_set_are_left_out(tmp_path):
    touch(tmp_path, "dataset_description.json", "sub-01/anat/T1.nii.gz", "derivatives/other/sub-01/seg.nii.gz")
    touch(tmp_path, "sub-01/derivatives/a.nii")
    assert list(results(tmp_path)) == ["sub-01/anat/T1.nii.gz", "sub-01/derivatives/a.nii"]


def test_results_of_an_earlier_run_are_no_inputs_of_the_next(tmp_path):
    touch(tmp_path, "a.nii.gz", "results/a.nii.gz", "pictures/a.png", "p/a.nii.gz")
    places = targets(f"{tmp_path / 'results'}/", f"{tmp_path / 'p'}", f"{tmp_path / 'pictures'}")
    cases, _ = plan_cases([tmp_path], (), places)
    assert [case.name for case in cases] == ["a.nii.gz"]


def test_a_result_that_is_a_link_in_a_circle_is_refused_in_words(model, small_volume, tmp_path):
    (tmp_path / "r.nii").symlink_to("r.nii")
    result = usema("segment", small_volume, "-o", tmp_path / "r.nii", "--model", model)
    assert result.exit_code == 1
    assert "r.nii" in said(result)
    assert "Please report it" not in said(result)


def test_a_link_to_a_folder_above_is_not_walked_for_ever(tmp_path):
    touch(tmp_path, "a/b.nii")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert list(results(tmp_path)) == ["a/b.nii"]


def test_channels_in_nnunets_naming_are_one_case_of_a_model_that_takes_several(tmp_path):
    touch(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz", "y_0001.nii.gz", "z.nii.gz")
    assert results(tmp_path, expected=2) == {
        "x_0000.nii.gz + x_0001.nii.gz": "x.nii.gz",
        "y_0001.nii.gz": "y_0001.nii.gz",
        "z.nii.gz": "z.nii.gz",
    }
    assert len(results(tmp_path, expected=1)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.nii.gz", "file"),
        ("A.Seg.NRRD", "file"),
        ("v1.2.nii", "file"),
        ("2026.11.25", "folder"),
        ("2026.11.25/", "folder"),
        ("a.nii.gz/", "folder"),
        ("results.v2", "folder"),
        ("out", "folder"),
        (".", "folder"),
        ("..", "folder"),
        (".hidden", "folder"),
        ("ü" * 120, "folder"),
        ("Dr. Smith", "folder"),
        ("a.txt/", "folder"),
    ],
)
def test_an_output_is_a_file_or_a_folder(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (target, *_) = targets(text, None, None)
    assert expected == ("file" if target.is_file else "folder")


@pytest.mark.parametrize("text", ["a.txt", "a.nii.bz2", "a.mp4", "a.seg.nrd", "b/a.jpg"])
def test_an_output_that_looks_like_another_kind_of_file_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=f"'{Path(text).name}' has none of the suffixes") as caught:
        targets(text, None, None)
    assert f"{text}/" in caught.value.hint


def test_an_existing_folder_is_a_folder_whatever_its_name(tmp_path):
    (tmp_path / "a.txt").mkdir()
    assert Target(str(tmp_path / "a.txt"), (".nii",)).is_folder


def test_a_volume_that_two_inputs_give_is_taken_once_and_links_to_it_by_their_names(tmp_path):
    touch(tmp_path, "in/a.nii", "in/x/b.nii")
    (tmp_path / "in/link.nii").symlink_to("a.nii")
    once = {"in/a.nii": "a.nii", "in/link.nii": "link.nii", "in/x/b.nii": "x/b.nii"}
    assert results(tmp_path, tmp_path / "in/a.nii", tmp_path / "in", tmp_path / "in/a.nii") == once
    output = targets(f"{tmp_path}/r.nii", None, None)
    assert len(plan_cases([tmp_path / "in/a.nii"] * 2, (), output)[0]) == 1


def test_a_picture_of_one_volume_is_a_file_and_of_several_a_folder(tmp_path):
    touch(tmp_path, "in/a.nii", "in/b.nii")
    output, picture = f"{tmp_path / 'out'}/", str(tmp_path / "one.png")
    (case,), _ = plan_cases([tmp_path / "in/a.nii"], (), targets(output, None, picture))
    assert case.preview == tmp_path / "one.png"
    with pytest.raises(OutputError, match=r"one\.png' is one file, but there are 2 inputs"):
        plan_cases([tmp_path / "in"], (), targets(output, None, picture))
    (case,), _ = plan_cases([tmp_path / "in/a.nii"], (), targets(str(tmp_path / "x.nii"), None, f"{tmp_path / 'p'}/"))
    assert case.preview == tmp_path / "p" / "a.png"


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        find(tmp_path / "nowhere")
    assert [one.path for one in find(tmp_path)[0]] == [tmp_path]  # whoever reads it says what is missing
