"""Models of nnU-Net that cannot be used: a sentence for each, and nothing is left behind."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from nnunet_models import changed, resaved, zipped
from usema import converters
from usema.errors import BundleError

pytest_plugins = ["nnunet_fixtures"]


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


@pytest.mark.parametrize(
    ("trainer", "said"), [("nnUNetTrainerUSEMASmall", "usema export"), ("nnUNetTrainerUMamba", "network of its own")]
)
def test_a_trainer_with_a_network_of_its_own_is_told(copied, tmp_path, trainer, said):
    resaved(copied, lambda content: content.update(trainer_name=trainer))
    converters.convert(copied, tmp_path / "bundle")  # its name does not matter where its tensors fit
    resaved(copied, lambda content: content["network_weights"].update(more=torch.ones(1)))
    with pytest.raises(BundleError, match="its more belongs to no layer") as refusal:
        converters.convert(copied, tmp_path / "other")
    assert trainer in refusal.value.hint
    assert said in refusal.value.hint


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
