"""Models that nnU-Net's own trainer trained: imported, and compared with nnU-Net's own results on real volumes."""

from __future__ import annotations

import json

import pytest
import torch
from nnunet_fixtures import assert_same, segmented
from nnunet_models import KINDS, case, changed, predicted_by_nnunet, resaved
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing
from nnunetv2.postprocessing.remove_connected_components import (
    remove_all_but_largest_component_from_segmentation as theirs,
)
from usema import converters
from usema.converters import Options, Work
from usema.errors import BundleError

pytest_plugins = ["nnunet_fixtures"]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"regions", "cascade"}))
def test_an_imported_model_finds_what_nnunet_finds(trained, tmp_path, data, kind):
    folder = trained(kind)
    bundle = converters.convert(folder, tmp_path / "bundle")
    files = case(kind, data)
    assert_same(segmented(bundle, files), predicted_by_nnunet(folder, files))


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


def test_names_of_several_processes_and_compilers_are_taken_off(copied, trained, tmp_path):
    def rename(content: dict) -> None:
        content["network_weights"] = {
            f"module._orig_mod.{key}": value for key, value in content["network_weights"].items()
        }

    resaved(copied, rename)
    hashes = [converters.convert(folder, tmp_path / f"{index}").metadata.weights["sha256"]
              for index, folder in enumerate((copied, trained("3D")))]  # fmt: skip
    assert hashes[0] == hashes[1]


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


def test_what_stays_of_the_labels_is_what_nnunet_leaves(copied, tmp_path, data):
    found = copied / "crossval_results_folds_0"
    found.mkdir()
    steps = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    document = {"postprocessing_fns": [theirs.__name__] * 2, "postprocessing_kwargs": steps}
    (found / "postprocessing.json").write_text(json.dumps(document))
    files = case("3D", data)
    before = predicted_by_nnunet(copied, files)
    expected = apply_postprocessing(before, [theirs] * 2, steps)
    assert (expected != before).any(), "nothing had to go"
    assert_same(segmented(converters.convert(copied, tmp_path / "bundle"), files), expected)
