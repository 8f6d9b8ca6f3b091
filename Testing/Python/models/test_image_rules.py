"""What model.json may say of two-dimensional images, and what only there."""

from __future__ import annotations

import copy

import pytest
from bundles import METADATA
from usema.errors import BundleError
from usema.models.metadata import SCHEMA_VERSION, ModelMetadata, least_schema_version

CELL = copy.deepcopy(METADATA["labels"][1])
IMAGE_MODEL = {
    **METADATA,
    "schema_version": SCHEMA_VERSION,
    "orientation": None,
    "labels": [{**METADATA["labels"][0], "name": "Nucleus"}, {**CELL, "name": "Rim"}],
    "preprocessing": {"kind": "image", "spacing": [1.0, 1.0], "patch_size": [64, 64], "fit": {"longest_side": 256}},
    "input_colours": "luminance",
    "instances": {"label": "Nucleus", "boundary": "Rim", "method": "watershed", "minimum_pixels": 9},
    "measurements": ["objects"],
    "weights": {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1000, "dtype": "float16"},
}


def test_a_model_for_images_is_told_by_its_preprocessing():
    metadata = ModelMetadata.from_dict(IMAGE_MODEL)
    assert metadata.takes_images
    assert metadata.instances["boundary"] == "Rim"
    assert metadata.measurements == ["objects"]
    assert metadata.to_dict() == IMAGE_MODEL
    assert least_schema_version(IMAGE_MODEL) == 4


def test_no_other_model_takes_images():
    metadata = ModelMetadata.from_dict({**METADATA, "schema_version": 1, "weights": IMAGE_MODEL["weights"]})
    assert not metadata.takes_images
    assert metadata.input_colours is metadata.instances is metadata.measurements is None


PLAN = {"spacing": [1.0, 1.0], "patch_size": [64, 64]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 3}, "input_colours needs schema_version 4, and schema_version is 3"),
        ({"preprocessing": PLAN}, "input_colours belongs to models for images"),
        ({"orientation": "LPS"}, "takes images as they are stored"),
        ({"input_colours": "rgb"}, "input_colours is rgb, and there are 1 channels, not 3"),
        ({"input_colours": "cmyk"}, "none of"),
        ({"preprocessing": {"kind": "image", **PLAN, "fit": {}}}, "either longest_side or to_spacing"),
        ({"preprocessing": {"kind": "image", **PLAN, "fit": {"longest_side": 8}}}, "less than 16"),
        ({"preprocessing": {"kind": "image", **PLAN, "patch_size": [8, 8, 8]}}, "an image has 2 dimensions"),
        ({"instances": {**IMAGE_MODEL["instances"], "label": "Cell"}}, "instances.label is 'Cell', which is no label"),
        ({"instances": {**IMAGE_MODEL["instances"], "boundary": "Cell"}}, "boundary is 'Cell', which is no label"),
        ({"instances": {**IMAGE_MODEL["instances"], "boundary": "Nucleus"}}, "boundary is 'Nucleus', as"),
        ({"instances": {"label": "Nucleus", "method": "magic"}}, "none of"),
        ({"measurements": ["eval(1)"]}, "none of"),
        ({"crop_first": {"model": "other", "margin_mm": 5}}, "crop_first is nothing that a model for images has"),
        ({"postprocess": [{"step": "grow", "distance_mm": 3}]}, "with millimetres, which an image may not have"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, message):
    with pytest.raises(BundleError, match=message):
        ModelMetadata.from_dict({**IMAGE_MODEL, **changes})


def test_objects_are_only_counted_where_there_are_some():
    document = {key: value for key, value in IMAGE_MODEL.items() if key != "instances"}
    with pytest.raises(BundleError, match="measurements has objects, and the model has no instances"):
        ModelMetadata.from_dict(document)


def test_fit_is_nothing_for_volumes():
    keys = ("input_colours", "instances", "measurements")
    document = {key: value for key, value in IMAGE_MODEL.items() if key not in keys}
    with pytest.raises(BundleError, match=r"preprocessing\.fit belongs to models for images"):
        ModelMetadata.from_dict({**document, "preprocessing": {**PLAN, "fit": {"longest_side": 256}}})


def test_only_images_have_ellipses():
    steps = {"postprocess": [{"step": "ellipse", "labels": [1]}]}
    assert ModelMetadata.from_dict({**IMAGE_MODEL, **steps}).postprocess
    volumes = {**METADATA, "schema_version": SCHEMA_VERSION, "weights": IMAGE_MODEL["weights"]}
    with pytest.raises(BundleError, match="ellipse, which belongs to models for images"):
        ModelMetadata.from_dict({**volumes, **steps})
