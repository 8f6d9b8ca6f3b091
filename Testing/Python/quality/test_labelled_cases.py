"""Which cases a model is measured on, and whether its training is known to have left them out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from usema.models.bundle import read_bundle
from usema.quality.labelled_cases import describe_cases, names_sha256
from usema.resources import bundled_models

CASES = ("hippocampus_001", "hippocampus_007", "hippocampus_149", "hippocampus_181")


def test_only_the_split_whose_cases_have_the_hashes_of_the_training_is_taken_for_its_own(tmp_path):
    metadata, images = read_bundle(bundled_models()["hippocampus-mr"]).metadata, Path("Dataset004_Hippocampus/imagesTr")
    hashes = {"cases_sha256": names_sha256("ab"), "validation_cases_sha256": names_sha256(CASES)}
    metadata = replace(metadata, training={**metadata.training, **hashes})
    path = tmp_path / "splits_final.json"

    def left_out(train, val, metadata=metadata) -> bool:
        path.write_text(json.dumps([{"train": list(train), "val": list(val)}]))
        return describe_cases(metadata, images, path, 0)[1]

    assert left_out("ab", CASES)
    assert left_out("ba", reversed(CASES))
    # As many cases, but validated are those that were trained on; or trained on were those that are validated.
    assert not left_out(["a", CASES[0]], [*CASES[1:], "b"])
    assert not left_out(CASES[:2], ["a", "b", *CASES[2:]])
    assert not left_out("ab", CASES[:3])
    unknown = {key: value for key, value in metadata.training.items() if not key.endswith("sha256")}
    assert not left_out("ab", CASES, replace(metadata, training=unknown))
    assert not left_out("ab", CASES, replace(metadata, training={**metadata.training, "dataset": "Dataset007"}))
    assert not describe_cases(metadata, images, None, 0)[1]
