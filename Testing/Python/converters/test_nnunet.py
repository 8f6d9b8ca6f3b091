"""Models that nnU-Net's own trainer trained: imported, and compared with nnU-Net's own results on real volumes."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_models import KINDS, case, predicted_by_nnunet, train
from usema import converters
from usema.converters import Options, Work
from usema.errors import BundleError, InputError
from usema.inference.predictor import Predictor
from usema.volumes.volume import read_volume

STAGES = ("low resolution", "cascade")  # which need each other


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """The configuration folder of a kind, trained when it is first asked for."""
    folders = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = train(kind, tmp_path_factory.mktemp("results"), data)
        return folders[kind]

    return folder


@pytest.fixture(scope="module")
def folds(tmp_path_factory, data) -> Path:
    """The results folder of a dataset: 3d_fullres with folds 0, 1 and all, and 2d."""
    results = tmp_path_factory.mktemp("results")
    for fold in (0, 1, "all"):
        folder = train("3D", results, data, fold=fold, steps=4)
    train("2D", results, data)
    return folder.parent


def segmented(bundle, files) -> np.ndarray:
    return Predictor(bundle, "cpu").segment([read_volume(file) for file in files]).labels


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert (theirs > 0).sum() > 50, "a model that finds nothing proves nothing"
    assert (ours == theirs).mean() > 0.999
    both = ((ours > 0) & (theirs > 0)).sum()
    assert 2 * both / ((ours > 0).sum() + (theirs > 0).sum()) > 0.97


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(STAGES)))
def test_an_imported_model_finds_what_nnunet_finds(trained, tmp_path, data, kind):
    folder = trained(kind)
    bundle = converters.convert(folder, tmp_path / "bundle")
    files = case(kind, data)
    assert_same(segmented(bundle, files), predicted_by_nnunet(folder, files))


def test_folds_are_averaged(folds, tmp_path, data):
    (folder,) = folds.glob("*3d_fullres")
    bundle = converters.convert(folds, tmp_path / "bundle", ["3d_fullres"], Options(folds=("0", "1", "all")))
    assert bundle.metadata.training["folds"] == ["0", "1", "all"]
    files = case("3D", data)
    theirs = predicted_by_nnunet(folder, files, (0, 1, "all"))
    assert_same(segmented(bundle, files), theirs)
    assert (predicted_by_nnunet(folder, files) != theirs).any(), "one fold alone finds the same"


def test_configurations_are_averaged(folds, tmp_path, data):
    bundle = converters.convert(folds, tmp_path / "bundle", ["2d", "3d_fullres"], Options(folds=("0",)))
    assert bundle.metadata.title == "Hippocampus (nnU-Net 2d + 3d_fullres)"
    files = case("3D", data)
    each = [predicted_by_nnunet(folder, files, probabilities=True) for folder in sorted(folds.glob("*__*"))]
    theirs = np.mean(each, axis=0).argmax(0)
    assert_same(segmented(bundle, files), theirs)
    assert all((one.argmax(0) != theirs).any() for one in each), "one alone finds the same"


@pytest.fixture(scope="module")
def stages(tmp_path_factory, data) -> Path:
    """The results folder of a cascade: 3d_lowres and 3d_cascade_fullres."""
    results = tmp_path_factory.mktemp("results")
    for kind in STAGES:
        folder = train(kind, results, data)
    return folder.parent


def test_a_cascade_brings_its_first_stage(stages, tmp_path, data):
    first, second = sorted(stages.glob("*__*"), reverse=True)
    files = case("cascade", data)
    before = predicted_by_nnunet(first, files)
    theirs = predicted_by_nnunet(second, files, previous=before)
    assert (theirs != predicted_by_nnunet(second, files, previous=np.zeros_like(before))).any(), "it is not looked at"
    bundle = converters.convert(stages, tmp_path / "bundle", ["3d_cascade_fullres"])
    assert [part.previous for part in bundle.metadata.networks] == [None, "3d_lowres"]
    assert_same(segmented(bundle, files), theirs)
    with pytest.raises(BundleError, match="second stage of a cascade, after '3d_lowres'") as refusal:
        converters.convert(second, tmp_path / "other")
    assert "dataset's folder" in refusal.value.hint


def test_regions_are_named_by_what_is_left_of_them(trained, tmp_path):
    metadata = converters.convert(trained("regions"), tmp_path / "bundle").metadata
    assert [label.name for label in metadata.labels] == ["whole without Posterior", "Posterior"]
    assert metadata.inference == {"mirror_axes": [0, 1, 2], "activation": "sigmoid", "region_order": [1, 2]}


def test_what_is_known_of_a_model_stands_in_its_bundle(trained, tmp_path):
    said = []
    bundle = converters.convert(trained("CT"), tmp_path / "bundle", work=Work(said.append))
    metadata = bundle.metadata
    assert (metadata.name, metadata.modality, metadata.version) == ("body-3d-fullres", "CT", "1.0.0")
    assert [label.name for label in metadata.labels] == ["spleen", "kidney_right", "Left kidney"]
    spleen, right, left = metadata.labels
    assert spleen.color == (157, 108, 162)
    assert spleen.terminology["type"] == {"scheme": "SCT", "value": "78961009", "meaning": "Spleen"}
    assert [label.terminology["type_modifier"]["meaning"] for label in (right, left)] == ["Right", "Left"]
    assert metadata.inference["mirror_axes"] == [0, 1, 2]
    assert metadata.licence["open"] == "not stated"
    checkpoint = trained("CT") / "fold_0/checkpoint_final.pth"
    with checkpoint.open("rb") as stream:
        assert metadata.source["sha256"] == converters.source.sha256_of(stream)
    assert metadata.orientation is None
    assert any("--orientation" in sentence for sentence in said)


def test_each_tensor_is_kept_once_and_the_optimisers_never(trained, tmp_path):
    folder = trained("residual encoder")
    bundle = converters.convert(folder, tmp_path / "bundle")
    weights = bundle.load_weights()
    whole = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=False)["network_weights"]
    assert len(weights) == len({tensor.data_ptr() for tensor in whole.values()}) < len(whole) / 3
    assert (
        sum(tensor.numel() * 4 for tensor in weights.values())
        < bundle.metadata.weights["bytes"]
        < 100_000 + sum(tensor.numel() * 4 for tensor in weights.values())
    )
    for name, tensor in weights.items():
        assert torch.equal(tensor, whole[name])


def zipped(folder: Path, file: Path, top: str) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder)}")
    return file


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


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of a model's folder, to be spoilt."""
    return shutil.copytree(trained("3D"), tmp_path / "spoilt" / trained("3D").name)


def changed(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def resaved(folder: Path, change) -> None:
    file = folder / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)


def with_plans(change):
    """Of the checkpoint and the file alike, as training would have left them."""

    def spoil(folder: Path) -> None:
        changed(folder / "plans.json", change)
        resaved(folder, lambda content: change(content["init_args"]["plans"]))

    return spoil


def with_dataset(change):
    def spoil(folder: Path) -> None:
        changed(folder / "dataset.json", change)
        resaved(folder, lambda content: change(content["init_args"]["dataset_json"]))

    return spoil


def configuration(plans: dict) -> dict:
    return plans["configurations"]["3d_fullres"]


def kwargs(plans: dict) -> dict:
    return configuration(plans)["architecture"]["arch_kwargs"]


def network(name: str):
    return with_plans(lambda plans: configuration(plans)["architecture"].update(network_class_name=name))


def weights(change):
    return lambda folder: resaved(folder, lambda content: change(content["network_weights"]))


STEM = "encoder.stages.0.0.convs.0.conv.weight"
SPOILT = {
    "another network": (network("a.b.primus.Primus"), "the network is a Primus"),
    "a network by code": (network("os.system"), "the network is a system"),
    "bottleneck blocks": (
        with_plans(lambda plans: kwargs(plans).update(block="x.residual.BottleneckD")),
        "settings that USEMA does not know: block x.residual.BottleneckD",
    ),
    "an unknown setting": (with_plans(lambda plans: kwargs(plans).update(squeeze=True)), "does not know: squeeze"),
    "another normalisation": (
        with_plans(lambda plans: kwargs(plans).update(norm_op="torch.nn.GroupNorm")),
        "names torch.nn.GroupNorm",
    ),
    "another activation": (with_plans(lambda plans: kwargs(plans).update(nonlin="torch.nn.GELU")), "torch.nn.GELU"),
    "another preprocessor": (
        with_plans(lambda plans: configuration(plans).update(preprocessor_name="Mine")),
        "preprocessor 'Mine'",
    ),
    "another label manager": (with_plans(lambda plans: plans.update(label_manager="Mine")), "label manager 'Mine'"),
    "no kernels": (with_plans(lambda plans: kwargs(plans).pop("kernel_sizes")), "no 'kernel_sizes'"),
    "kernels of text": (with_plans(lambda plans: kwargs(plans).update(kernel_sizes="abc")), "value of another kind"),
    "no configuration": (with_plans(lambda plans: plans["configurations"].pop("3d_fullres")), "no configuration"),
    "a circle": (
        with_plans(lambda plans: configuration(plans).update(inherits_from="3d_fullres")),
        "inherits from itself",
    ),
    "other stages": (with_plans(lambda plans: kwargs(plans).update(n_stages=4)), "3 values for 4 stages"),
    "an even kernel": (with_plans(lambda plans: kwargs(plans).update(kernel_sizes=[[2, 3, 3]] * 3)), "should be odd"),
    "other features": (
        with_plans(lambda plans: kwargs(plans).update(features_per_stage=[8, 12, 16])),
        "does not fit its plans: .* by the plans 8 x 1 x 3 x 3 x 3",
    ),
    "a channel too many": (
        with_dataset(lambda dataset: dataset["channel_names"].update({"1": "T2"})),
        "has 2 channel.*plans normalise 1",
    ),
    "a label too many": (
        with_dataset(lambda dataset: dataset["labels"].update(third=3)),
        "does not fit its plans: its decoder.seg_layers",
    ),
    "labels with a gap": (with_dataset(lambda dataset: dataset["labels"].update(Posterior=3)), r"values \[1, 3\]"),
    "no background": (with_dataset(lambda dataset: dataset["labels"].pop("background")), "no label 'background'"),
    "ignored in between": (with_dataset(lambda dataset: dataset["labels"].update(ignore=7)), "'ignore' is 7"),
    "regions without an order": (
        with_dataset(lambda dataset: dataset["labels"].update(whole=[1, 2])),
        "regions_class_order is",
    ),
    "plans that were changed": (
        lambda folder: changed(folder / "plans.json", lambda plans: configuration(plans).update(spacing=[2, 2, 2])),
        "was changed after training: the preprocessing is another",
    ),
    "plans that are no JSON": (lambda folder: (folder / "plans.json").write_text("{"), "not valid JSON"),
    "plans that are no table": (lambda folder: (folder / "plans.json").write_text("[]"), "no table of settings"),
    "a tensor that is missing": (weights(lambda state: _drop(state, STEM)), f"it has no {STEM}"),
    "a tensor too many": (weights(lambda state: state.update(more=torch.ones(1))), "its more belongs to no layer"),
    "copies that differ": (
        weights(lambda state: state.update({f"decoder.{STEM}": state[STEM] + 1})),
        f"decoder.{STEM} should be the same as {STEM}",
    ),
    "numbers that are none": (
        weights(lambda state: state["decoder.seg_layers.1.bias"].fill_(float("nan"))),
        "not finite",
    ),
    "no plans at all": (
        lambda folder: (
            (folder / "plans.json").unlink(), resaved(folder, lambda content: content["init_args"].pop("plans")),
        ),
        "does not say how its network is built",
    ),
    "no configuration's name": (
        lambda folder: resaved(folder, lambda content: content["init_args"].pop("configuration")),
        "does not say which configuration",
    ),
    "another program's checkpoint": (
        lambda folder: resaved(folder, lambda content: content.pop("network_weights")),
        "no checkpoint of nnU-Net 2",
    ),
    "a cascade without its first stage": (
        with_plans(lambda plans: configuration(plans).update(previous_stage="3d_lowres")),
        "does not fit its plans|second stage of a cascade, after '3d_lowres'",
    ),
    "no checkpoint": (lambda folder: (folder / "fold_0/checkpoint_final.pth").unlink(), "but no checkpoint"),
}  # fmt: skip


def _drop(state: dict, name: str) -> None:
    for copy in [key for key in state if converters.nnunet_weights.canonical_name(key) == name]:
        del state[copy]


@pytest.mark.parametrize("case", SPOILT)
def test_a_model_that_cannot_be_used_ends_in_a_sentence_and_leaves_nothing(copied, tmp_path, case):
    spoil, said = SPOILT[case]
    spoil(copied)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError, match=said) as refusal:
        converters.convert(copied, tmp_path / "bundle")
    assert refusal.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_names_of_several_processes_and_compilers_are_taken_off(copied, trained, tmp_path):
    def rename(content: dict) -> None:
        content["network_weights"] = {
            f"module._orig_mod.{key}": value for key, value in content["network_weights"].items()
        }

    resaved(copied, rename)
    hashes = [converters.convert(folder, tmp_path / f"{index}").metadata.weights["sha256"]
              for index, folder in enumerate((copied, trained("3D")))]  # fmt: skip
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("files", [["plans.pkl", "fold_0/model_final_checkpoint.model"], ["all/model_best.model.pkl"]])
def test_a_model_of_nnunet_1_is_named(tmp_path, files):
    for name in files:
        (tmp_path / "Task004" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Task004" / name).write_bytes(b"\x80\x02")
    with pytest.raises(BundleError, match="nnU-Net 1"):
        converters.look(tmp_path / "Task004")
    with pytest.raises(BundleError, match="nnU-Net 1"):
        converters.look(zipped(tmp_path / "Task004", tmp_path / "a.zip", "Task004/"))


@pytest.mark.parametrize("cut", [200, 5_000, 50_000])
def test_a_truncated_zip_ends_in_a_sentence(trained, tmp_path, cut):
    file = zipped(trained("3D"), tmp_path / "a.zip", "a/")
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(BundleError, match="is a zip that cannot be read"):
        converters.convert(file, tmp_path / "bundle")
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_damaged_member_of_a_zip_ends_in_a_sentence(trained, tmp_path):
    file = zipped(trained("3D"), tmp_path / "a.zip", "a/")
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo("a/fold_0/checkpoint_final.pth")
    data = bytearray(file.read_bytes())
    data[member.header_offset + 500 : member.header_offset + 600] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(BundleError, match="cannot be read"):
        converters.convert(file, tmp_path / "bundle")
    assert sorted(tmp_path.iterdir()) == [file]


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


def test_two_checkpoints_in_one_folder_are_two_models(trained, tmp_path):
    for name, kind in (("a.pth", "3D"), ("b.pth", "2D")):
        shutil.copy(trained(kind) / "fold_0/checkpoint_final.pth", tmp_path / name)
    with pytest.raises(InputError, match=r"holds 2 models:\n  a.pth: one checkpoint\n  b.pth"):
        converters.convert(tmp_path, tmp_path / "bundle")
    bundle = converters.convert(tmp_path, tmp_path / "bundle", ["b.pth"])
    assert len(bundle.metadata.preprocessing["patch_size"]) == 2


def test_the_largest_component_is_kept_where_nnunet_found_that_it_helps(copied, tmp_path):
    found = copied / "crossval_results_folds_0_1_2_3_4"
    found.mkdir()
    (found / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    steps = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}, {"labels_or_regions": [[1, 2], 2]}]
    name = "remove_all_but_largest_component_from_segmentation"
    document = {"postprocessing_fns": [name] * 3, "postprocessing_kwargs": steps}
    (found / "postprocessing.json").write_text(json.dumps(document))
    bundle = converters.convert(copied, tmp_path / "a")
    assert bundle.metadata.postprocess == [
        {"step": "keep_largest", "labels": labels} for labels in ([1, 2], [2], [1, 2])
    ]
    assert converters.convert(copied, tmp_path / "b", (), Options(postprocessing=False)).metadata.postprocess is None
    changed(found / "postprocessing.json", lambda content: content.update(postprocessing_fns=["mine"] * 3))
    with pytest.raises(BundleError, match="mine is no step") as refusal:
        converters.convert(copied, tmp_path / "c")
    assert "--no-postprocessing" in refusal.value.hint
