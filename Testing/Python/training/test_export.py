"""From the results of a training to a bundle: whatever dataset.json says, and what cannot be exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from nnunet_cases import planned
from safetensors.torch import save_file
from usema.cli import main
from usema.cli.model_text import of_entry
from usema.errors import BundleError, InputError
from usema.inference.image_plans import colours_of
from usema.inference.loading import load_finder
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.networks import ARCHITECTURES
from usema.resources import bundled_models, sample_volume
from usema.store.consent import about_entry
from usema.store.index import parse
from usema.store.publish import publish
from usema.training.export import export_bundle, model_name
from usema.volumes.volume import read_volume

DATASET = "nnUNet_raw/Dataset004_Hippocampus"
TRAINING = {
    "dataset": "Dataset004_Hippocampus",
    "cases": 4,
    "framework": "nnU-Net",
    "configuration": "2d",
    "iterations": 6,
    "seed": 0,
    "date": "2026-01-31",
}
DESCRIPTION = {
    "name": "Hippocampus",
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}


def make_results(
    folder: Path, outputs: int = 3, mean: dict | None = None, metadata: bool = True, training=(), **changes
) -> Path:
    """A results folder as a trainer leaves it, with a network that has learnt nothing, and changes of dataset.json."""
    described = {key: value for key, value in (DESCRIPTION | changes).items() if value is not None}
    network_class, config = ARCHITECTURES["USEMA"]
    settings = {"in_channels": 1, "num_classes": outputs, "features": [16, 32], "kernels": [[3, 3]] * 2}
    torch.manual_seed(0)
    network = network_class(config.from_dict({**settings, "strides": [[1, 1], [2, 2]]}))
    says = {
        "architecture": {"name": "USEMA", "config": network.config.to_dict()},
        "inference": {"mirror_axes": []},
        "training": {**TRAINING, **dict(training)},
    }
    (folder / "fold_0/validation").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(planned("hippocampus")))
    (folder / "dataset.json").write_text(json.dumps(described))
    text = {name: json.dumps(value) for name, value in says.items()} if metadata else None
    save_file(network.state_dict(), folder / "fold_0/checkpoint_final.safetensors", metadata=text)
    if mean:
        summary = {"mean": {key: {"Dice": dice} for key, dice in mean.items()}, "metric_per_case": [{}, {}]}
        (folder / "fold_0/validation/summary.json").write_text(json.dumps(summary))
    return folder


def names(bundle) -> list[str]:
    return [label.name for label in bundle.metadata.labels]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("KiTS 2023 - kidney (left)", "kits-2023-kidney-left"),
        ("Hüfte_Größe", "hufte-grosse"),
        ("  Foie & Rate  ", "foie-rate"),
        ("Ćwiczenie №5", "cwiczenie-no5"),
        ("Øre Łódź Ægir", "ore-lodz-aegir"),
        ("海馬", "dataset004-hippocampus"),  # nothing is left of it: the data set's folder
        ("---", "dataset004-hippocampus"),
        ("x" * 300, "x" * 64),
        (None, "dataset004-hippocampus"),
        (7, "7"),
    ],
)
def test_every_name_of_a_data_set_gives_a_valid_name_of_a_model(title, name, tmp_path):
    bundle = export_bundle(make_results(tmp_path / "results", name=title), tmp_path / "bundle")
    assert bundle.metadata.name == name
    assert bundle.metadata.title == str(title or TRAINING["dataset"])[:200]
    assert model_name(name) == name


def test_labels_listed_out_of_order_keep_their_values(tmp_path):
    given = {"Posterior": 2, "Anterior": 1, "background": 0}
    bundle = export_bundle(make_results(tmp_path / "results", labels=given, mean={"1": 0.9, "2": 0.8}), tmp_path / "b")
    assert names(bundle) == ["Anterior", "Posterior"]
    assert bundle.metadata.metrics["validation"] == {
        "cases": 2, "mean_dice": 0.85, "dice": {"Anterior": 0.9, "Posterior": 0.8},
    }  # fmt: skip


def test_a_label_that_training_ignored_is_no_class_of_the_model(tmp_path, data):
    """It was a class once, and every inference failed: the network has no output for it."""
    given = {"background": 0, "Anterior": 1, "Posterior": 2, "ignore": 3}
    bundle = export_bundle(make_results(tmp_path / "results", labels=given), tmp_path / "b")
    assert names(bundle) == ["Anterior", "Posterior"]
    assert bundle.metadata.training["ignored_label"] == 3
    image = data / DATASET / "imagesTr/hippocampus_001_0000.nii.gz"
    arguments = ["segment", image, "-o", tmp_path / "a.nii.gz", "--model", tmp_path / "b", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_regions_are_exported_with_what_each_writes(tmp_path):
    given = {"background": 0, "whole": [1, 2], "posterior": [2]}
    results = make_results(
        tmp_path / "results", 2, {"(1, 2)": 0.9, "(2,)": 0.7}, labels=given, regions_class_order=[1, 2]
    )
    bundle = export_bundle(results, tmp_path / "bundle")
    assert names(bundle) == ["whole without posterior", "posterior"]
    assert bundle.metadata.inference == {"mirror_axes": [], "activation": "sigmoid", "region_order": [1, 2]}
    assert bundle.metadata.metrics["validation"]["dice"] == {"whole without posterior": 0.9, "posterior": 0.7}
    (part,) = bundle.metadata.networks
    assert (part.activation, part.values) == ("sigmoid", (1, 2))


def test_channels_may_be_called_modality_as_in_nnunet_1(tmp_path):
    results = make_results(tmp_path / "results", channel_names=None, modality={"0": "T1"})
    assert export_bundle(results, tmp_path / "bundle").metadata.channels == [{"name": "T1"}]


def test_a_label_that_no_validation_case_has_is_left_out_of_the_figures(tmp_path):
    results = make_results(tmp_path / "results", mean={"1": 0.9, "2": float("nan")})
    measured = export_bundle(results, tmp_path / "bundle").metadata.metrics["validation"]
    assert (measured["dice"], measured["mean_dice"]) == ({"Anterior": 0.9}, 0.9)


def test_files_that_file_managers_hide_are_no_images(tmp_path, data):
    dataset = tmp_path / "Dataset004_Hippocampus"
    (dataset / "imagesTr").mkdir(parents=True)
    shutil.copy(data / DATASET / "imagesTr/hippocampus_001_0000.nii.gz", dataset / "imagesTr")
    for name in (".DS_Store", "._hippocampus_001_0000.nii.gz", "Thumbs.db", "notes.txt"):
        (dataset / "imagesTr" / name).write_bytes(b"x")
    results = make_results(tmp_path / "results")
    metadata = export_bundle(results, tmp_path / "bundle", dataset=dataset).metadata
    assert metadata.expected_spacing_mm == {"min": [1.0] * 3, "max": [1.0] * 3}
    assert metadata.expected_extent_mm == {"min": [35.0, 51.0, 35.0], "max": [35.0, 51.0, 35.0]}
    with pytest.raises(InputError, match=r"holds no images that end in .nii.gz"):
        export_bundle(results, tmp_path / "other", dataset=tmp_path)


def another_summary(results: Path) -> None:
    text = json.dumps({"results": {"mean": {}}})
    (results / "fold_0/validation/summary.json").write_text(text)


def a_summary_of_other_labels(results: Path) -> None:
    text = json.dumps({"mean": {"1": {"Dice": 0.5}}, "metric_per_case": []})
    (results / "fold_0/validation/summary.json").write_text(text)


def a_summary_that_is_a_list(results: Path) -> None:
    (results / "fold_0/validation/summary.json").write_text("[]")


def no_channels(results: Path) -> None:
    (results / "dataset.json").write_text(json.dumps({**DESCRIPTION, "channel_names": None}))


def gaps(results: Path) -> None:
    (results / "dataset.json").write_text(json.dumps({**DESCRIPTION, "labels": {"background": 0, "Posterior": 3}}))


def no_plans(results: Path) -> None:
    (results / "plans.json").unlink()


def other_plans(results: Path) -> None:
    (results / "plans.json").write_text("{}")


def a_cascade(results: Path) -> None:
    plans = json.loads((results / "plans.json").read_text())
    for configuration in plans["configurations"].values():
        configuration["previous_stage"] = "3d_lowres"
    (results / "plans.json").write_text(json.dumps(plans))


def half_the_weights(results: Path) -> None:
    path = results / "fold_0/checkpoint_final.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_weights(results: Path) -> None:
    (results / "fold_0/checkpoint_final.safetensors").unlink()


SPOILT = {
    another_summary: r"summary.json is not what nnU-Net writes with these labels",
    a_summary_of_other_labels: r"summary.json is not what nnU-Net writes with these labels: KeyError\('2'\)",
    a_summary_that_is_a_list: "summary.json holds list",
    no_channels: "names no channels",
    gaps: "'Posterior': 3",
    no_plans: r"plans.json is missing",
    other_plans: "plan",
    a_cascade: "second stage of a cascade, after '3d_lowres'",
    half_the_weights: r"checkpoint_final.safetensors cannot be read",
    no_weights: r"checkpoint_final.safetensors is missing.* Train with nnUNetTrainerUSEMA",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_results_that_cannot_be_exported_are_refused_by_the_file(spoil, tmp_path):
    results = make_results(tmp_path / "results", mean={"1": 0.9, "2": 0.8})
    spoil(results)
    with pytest.raises((InputError, BundleError), match=SPOILT[spoil]):
        export_bundle(results, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_weights_that_no_trainer_of_ours_wrote_are_refused(tmp_path):
    results = make_results(tmp_path / "results", metadata=False)
    with pytest.raises(InputError, match="does not say of which architecture it is: no USEMA trainer wrote it"):
        export_bundle(results, tmp_path / "bundle")


@pytest.mark.parametrize(("text", "message"), [("[]", "holds list"), ("{", "not valid JSON"), (None, "is missing")])
def test_a_card_that_is_no_object_is_refused(text, message, tmp_path):
    results, card = make_results(tmp_path / "results"), tmp_path / "card.json"
    if text is not None:
        card.write_text(text)
    arguments = ["export", str(results), "-o", str(tmp_path / "bundle"), "--card", str(card)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert str(card) in result.output
    assert message in result.output


def test_the_cards_words_override_all_others(tmp_path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "mine", "limits": "Left only."}))
    export_bundle(make_results(tmp_path / "results"), tmp_path / "bundle", card=card)
    metadata = read_bundle(tmp_path / "bundle").metadata
    assert (metadata.name, metadata.limits, metadata.title) == ("mine", "Left only.", "Hippocampus")


def test_what_was_trained_on_pictures_takes_images_and_is_fitted_as_the_card_says(tmp_path):
    results = make_results(tmp_path / "results", file_ending=".png")
    plans = planned("hippocampus") | {"image_reader_writer": "NaturalImage2DIO"}
    (results / "plans.json").write_text(json.dumps(plans))
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"preprocessing": {"fit": {"longest_side": 64}}, "measurements": ["lung_field"]}))
    plain = export_bundle(results, tmp_path / "plain").metadata
    fitted = export_bundle(results, tmp_path / "fitted", card=card).metadata
    assert plain.takes_images
    assert plain.orientation is None
    assert fitted.preprocessing == plain.preprocessing | {"fit": {"longest_side": 64}}
    assert fitted.measurements == ["lung_field"]
    (results / "plans.json").write_text(json.dumps(planned("hippocampus")))
    assert not export_bundle(results, tmp_path / "volumes").metadata.takes_images


def test_slices_and_colours_are_told_by_the_plan_and_the_channels(tmp_path):
    plans = planned("hippocampus") | {"original_median_shape_after_transp": [1, 90, 80]}
    slices, spacing = make_results(tmp_path / "slices"), plans["configurations"]["2d"]["spacing"]
    assert spacing == [1, 1]
    for own, fit in ((spacing, None), ([0.3, 0.3], {"to_spacing": True})):
        plans["configurations"]["2d"]["spacing"] = own
        (slices / "plans.json").write_text(json.dumps(plans))
        metadata = export_bundle(slices, tmp_path / f"{own[0]}").metadata
        assert metadata.takes_images
        assert metadata.preprocessing.get("fit") == fit
    names = {"red,green,blue": "rgb", "R,G,B": "rgb", "rgb_to_0_1,rgb_to_0_1,rgb_to_0_1": "rgb", "DAPI,actin,ER": None}
    for channels, colours in names.items():
        assert colours_of(channels.split(",")).get("input_colours") == colours
    assert colours_of(["R"]) == {}


def test_a_model_that_was_trained_further_says_what_its_start_says_and_still_finds_its_regions(tmp_path):
    start = read_bundle(bundled_models()["hippocampus-mr"])
    given = {"background": 0, "Anterior hippocampus": 1, "Posterior hippocampus": 2}
    bundle = export_bundle(make_results(tmp_path / "results", labels=given), tmp_path / "b", like=start)
    first, _, last = start.metadata.version.rpartition(".")
    next_version = f"{first}.{int(last) + 1}-tuned"
    assert (bundle.metadata.name, bundle.metadata.version) == (start.metadata.name, next_version)
    assert bundle.metadata.labels == start.metadata.labels
    assert bundle.metadata.find_regions == start.metadata.find_regions
    assert bundle.metadata.training == {**TRAINING, "checkpoint": "final"}
    result = Predictor(bundle, "cpu").segment(read_volume(sample_volume()))
    assert [label.value for label in result.model_labels] == [1, 2]
    finder = {name for name in start.load_weights() if name.startswith("finder.only.")}
    assert finder <= set(bundle.load_weights())
    load_finder(bundle, torch.device("cpu"))


def test_labels_other_than_those_of_the_start_are_refused(tmp_path):
    start = read_bundle(bundled_models()["hippocampus-mr"])
    with pytest.raises(
        InputError, match="has the labels Anterior hippocampus, Posterior hippocampus, and those trained"
    ):
        export_bundle(make_results(tmp_path / "results"), tmp_path / "b", like=start)


def test_a_model_is_not_said_to_be_another_one_than_its_training_began_with(tmp_path):
    start = read_bundle(bundled_models()["hippocampus-mr"])
    given = {"background": 0, "Anterior hippocampus": 1, "Posterior hippocampus": 2}
    results = make_results(tmp_path / "results", training={"started_from": "hippocampus 0.1.0"}, labels=given)
    with pytest.raises(InputError, match=r"began with hippocampus 0\.1\.0, not with hippocampus-mr"):
        export_bundle(results, tmp_path / "b", like=start)


def test_the_folders_folds_and_checkpoints_that_are_there_are_named_where_others_are_asked_for(tmp_path):
    results = make_results(tmp_path / "runs/results/Dataset004_Hippocampus/trainer")
    for folder in (tmp_path / "runs", results / "fold_0"):
        with pytest.raises(InputError, match=r"plans\.json is missing") as error:
            export_bundle(folder, tmp_path / "b")
        assert str(results) in error.value.hint
    with pytest.raises(InputError, match="has no fold 1") as error:
        export_bundle(results, tmp_path / "b", fold="1")
    assert "--fold 0" in error.value.hint
    (results / "fold_0/checkpoint_final.safetensors").rename(results / "fold_0/checkpoint_latest.safetensors")
    with pytest.raises(InputError, match="the training did not come so far") as error:
        export_bundle(results, tmp_path / "b")
    assert "--checkpoint latest" in error.value.hint


def test_what_a_bundle_does_not_say_for_want_of_a_card_or_a_data_set_is_told(tmp_path, data):
    results, said = make_results(tmp_path / "results"), []
    bundle = export_bundle(results, tmp_path / "b", report=said.append)
    assert [sentence.partition(",")[0] for sentence in said] == ["Without --card", "Without --dataset"]
    assert bundle.metadata.licence["open"] == "not stated", "nobody stated that it forbids commercial use"
    (tmp_path / "card.json").write_text("{}")
    said.clear()
    export_bundle(results, tmp_path / "c", card=tmp_path / "card.json", dataset=data / DATASET, report=said.append)
    assert said == []


def test_a_model_whose_licence_nobody_said_gives_no_address_for_it_wherever_it_is_shown(tmp_path):
    export_bundle(make_results(tmp_path / "results"), tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    assert (bundle.metadata.licence["name"], bundle.metadata.licence["url"]) == ("unknown", "")
    publish(bundle, tmp_path / "index")
    index = parse((tmp_path / "index/models.json").read_bytes(), str(tmp_path / "index/models.json"))
    assert index.document["schema_version"] == 3
    assert "<dt>Licence</dt><dd>unknown.\n" in (tmp_path / "index/models.html").read_text("utf-8")
    assert "\nlicence         unknown, not for commercial use\n" in of_entry(index.document["models"][0])
    question = about_entry(index.entries[0], None)
    assert question.text().startswith("Hippocampus 0.1.0: licence unknown, its terms are not stated clearly\n")


def test_a_licence_that_the_data_set_names_is_the_models(tmp_path):
    results = make_results(tmp_path / "results", licence="CC-BY-SA 4.0")
    assert export_bundle(results, tmp_path / "b").metadata.licence["name"] == "CC-BY-SA 4.0"
