"""In what a model of nnU-Net may come, and how one of several is chosen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from nnunet_models import zipped
from usema import converters
from usema.converters import Options, Work
from usema.errors import BundleError, InputError

pytest_plugins = ["nnunet_fixtures"]


def test_one_model_is_found_in_whatever_it_comes_in(trained, tmp_path):
    """Configuration, fold, dataset folder, plans.json, zips of any depth, checkpoint: the same weights and plans."""
    folder = trained("3D")
    renamed = shutil.copytree(folder, tmp_path / "my model")
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        shutil.copy(folder / file, flat / Path(file).name)
    bare = shutil.copy(folder / "fold_0/checkpoint_final.pth", tmp_path / "hippocampus.pth")
    places = [
        folder, folder / "fold_0", folder.parent, folder.parent.parent, folder / "plans.json", renamed, flat, bare,
        zipped(folder, tmp_path / "a.zip", ""),
        zipped(folder.parent, tmp_path / "b.zip", "nnUNet_results/Dataset004_Hippocampus/"),
        zipped(folder, tmp_path / "c.zip", "a/b/c/"),
        folder / "fold_0/checkpoint_final.pth",
    ]  # fmt: skip
    found = []
    for index, place in enumerate(places):
        assert len(converters.look(place)) == 1, place
        metadata = converters.convert(place, tmp_path / f"bundle {index}").metadata
        found.append((metadata.name, metadata.weights["sha256"], metadata.preprocessing, metadata.labels))
    assert all(one == found[0] for one in found)


def test_several_models_are_listed_and_one_is_chosen(folds, tmp_path):
    assert [model.key.partition("/")[0] for model in converters.look(folds.parent)] == [folds.name] * 2
    keys = [model.key for model in converters.look(folds)]
    assert [key.rpartition("__")[2] for key in keys] == ["2d", "3d_fullres"]
    with pytest.raises(InputError, match=r"holds 2 models:\n .*2d: fold 0\n .*3d_fullres: folds 0, 1, all"):
        converters.convert(folds, tmp_path / "a")
    with pytest.raises(InputError, match="no model is called '4d'"):
        converters.convert(folds, tmp_path / "a", ["4d"])
    for word, axes in (("2d", 2), ("3d_fullres", 3), (keys[0], 2)):
        bundle = converters.convert(folds, tmp_path / word, [word])
        assert len(bundle.metadata.preprocessing["patch_size"]) == axes


def test_models_that_are_called_alike_are_told_apart_by_their_place(trained, tmp_path):
    for place in ("a", "b"):
        shutil.copytree(trained("3D").parent, tmp_path / place / trained("3D").parent.name)
    keys = [model.key for model in converters.look(tmp_path)]
    assert keys == [f"{place}/Dataset004_Hippocampus/{trained('3D').name}" for place in ("a", "b")]
    assert converters.convert(tmp_path, tmp_path / "bundle", [keys[1]]).metadata.name == "hippocampus-3d-fullres"


def test_the_fold_of_all_cases_is_taken_unless_others_are_named(folds, tmp_path):
    said = []
    bundle = converters.convert(folds, tmp_path / "a", ["3d_fullres"], work=Work(said.append))
    assert bundle.metadata.training["folds"] == ["all"]
    assert any("--folds 0,1,all" in sentence for sentence in said)
    one = converters.convert(folds, tmp_path / "b", ["3d_fullres"], Options(folds=("fold_1",)))
    assert one.metadata.training["folds"] == ["1"]
    assert one.metadata.weights["sha256"] != bundle.metadata.weights["sha256"]
    with pytest.raises(InputError, match="has no fold 7"):
        converters.convert(folds, tmp_path / "c", ["3d_fullres"], Options(folds=("7",)))


def test_options_are_followed(trained, tmp_path):
    bundle = converters.convert(trained("3D"), tmp_path / "a", (), Options(name="mine", orientation="lps"))
    assert (bundle.metadata.name, bundle.metadata.orientation) == ("mine", "LPS")
    said = []
    converters.convert(trained("3D"), tmp_path / "b", (), Options(checkpoint="best"), Work(said.append))
    assert any("no best checkpoint" in sentence for sentence in said)


def test_two_checkpoints_in_one_folder_are_two_models(trained, tmp_path):
    for name, kind in (("a.pth", "3D"), ("b.pth", "2D")):
        shutil.copy(trained(kind) / "fold_0/checkpoint_final.pth", tmp_path / name)
    with pytest.raises(InputError, match=r"holds 2 models:\n  a.pth: one checkpoint\n  b.pth"):
        converters.convert(tmp_path, tmp_path / "bundle")
    bundle = converters.convert(tmp_path, tmp_path / "bundle", ["b.pth"])
    assert len(bundle.metadata.preprocessing["patch_size"]) == 2


@pytest.mark.parametrize("files", [["plans.pkl", "fold_0/model_final_checkpoint.model"], ["all/model_best.model.pkl"]])
def test_a_model_of_nnunet_1_is_named(tmp_path, files):
    for name in files:
        (tmp_path / "Task004" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Task004" / name).write_bytes(b"\x80\x02")
    with pytest.raises(BundleError, match="nnU-Net 1"):
        converters.look(tmp_path / "Task004")
    with pytest.raises(BundleError, match="nnU-Net 1"):
        converters.look(zipped(tmp_path / "Task004", tmp_path / "a.zip", "Task004/"))


def test_a_checkpoint_of_another_program_is_refused_alone_and_passed_over_beside_others(trained, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(BundleError, match="no model that USEMA knows"):
        converters.look(tmp_path / "a.pth")
    torch.save({"state_dict": {"a": torch.ones(1)}, "plot_stuff": ([], [])}, tmp_path / "b.pth")
    with pytest.raises(BundleError, match="nnU-Net 1"):
        converters.convert(tmp_path / "b.pth", tmp_path / "bundle")
    (tmp_path / "b.pth").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(BundleError, match="is a pickle, PyTorch's old format"):
        converters.look(tmp_path / "b.pth")
    shutil.copy(trained("3D") / "fold_0/checkpoint_final.pth", tmp_path / "c.pth")
    assert [model.key for model in converters.look(tmp_path)] == ["c.pth"]


def test_a_folder_without_a_model_says_what_can_be_imported(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(BundleError, match="holds no model that USEMA knows") as refusal:
        converters.look(tmp_path)
    assert "nnU-Net v2" in refusal.value.hint
    with pytest.raises(BundleError, match="There is no model at"):
        converters.look(tmp_path / "nowhere")
