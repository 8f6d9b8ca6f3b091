"""What model.json may say: one schema, read by the engine as jsonschema reads it."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from bundles import METADATA
from usema.errors import BundleError
from usema.json_schema import problems
from usema.models.metadata import SCHEMA, SCHEMA_VERSION, ModelMetadata, least_schema_version


@pytest.fixture
def document() -> dict:
    weights = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1000, "dtype": "float16"}
    inference = {"mirror_axes": [], "temperature": 1.5}
    return copy.deepcopy({**METADATA, "schema_version": SCHEMA_VERSION, "inference": inference, "weights": weights})


def places(value, path=()):
    """Every place in a document: the keys that lead there."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(document, path, edit):
    document = copy.deepcopy(document)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    edit(holder, path[-1])
    return document


STRANGE = [None, True, 0, -1, 1.0, 1.5, 300, 10**400, "", "x", "1.0.0\n", "CT\n", "a b", [], ["a", 1, 2], {}, {"x": 1}]


def variants(document):
    for path in filter(None, places(document)):
        yield changed(document, path, lambda holder, key: holder.pop(key))
        for value in STRANGE:
            yield changed(document, path, lambda holder, key, value=value: holder.__setitem__(key, value))
        if isinstance(path[-1], str):
            yield changed(document, path, lambda holder, key: holder.__setitem__("unknown", 1))
        else:
            yield changed(document, path, lambda holder, key: holder.insert(key, holder[key]))
    yield from STRANGE


def test_the_schema_is_valid_and_read_as_jsonschema_reads_it(document):
    """One rule, one place: the engine's small reader of schemas and the reference agree about every broken variant."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    reference = jsonschema.Draft202012Validator(SCHEMA)
    assert reference.is_valid(document)
    verdicts = {True: 0, False: 0}
    for variant in variants(document):
        valid = reference.is_valid(variant)
        assert (next(problems(variant, SCHEMA), None) is None) == valid, json.dumps(variant)[:2000]
        verdicts[valid] += 1
        if not valid:
            with pytest.raises(BundleError):
                ModelMetadata.from_dict(variant)
    assert verdicts[True] > 100
    assert verdicts[False] > 1000


def test_every_key_the_schema_requires_is_missed(document):
    for key in SCHEMA["required"]:
        with pytest.raises(BundleError, match=f"'{key}'|newer"):
            ModelMetadata.from_dict({name: value for name, value in document.items() if name != key})


def test_what_version_1_says_is_still_read(document):
    del document["inference"]["temperature"]
    metadata = ModelMetadata.from_dict({**document, "schema_version": 1})
    assert metadata.schema_version == 1
    assert metadata.inference == {"mirror_axes": []}


def test_a_schema_keyword_that_would_be_ignored_is_an_error():
    with pytest.raises(NotImplementedError, match="multipleOf"):
        next(problems(3, {"type": "integer", "multipleOf": 2}))


NAMED = [
    (("labels", 1, "color", 2), 300, r"labels\[1\].color\[2\] is 300, more than 255"),
    (("labels", 0, "terminology", "type", "value"), 5366008, r"labels\[0\].terminology.type.value is 5366008"),
    (("version"), "1.2", 'version is "1.2", not of the form'),
    (("licence", "license"), "MIT", "licence.license is not a known key"),
    (("weights", "sha256"), "ABC", 'weights.sha256 is "ABC"'),
    (("orientation"), "LRS", 'orientation is "LRS"'),
    (("schema_version"), 6, r"made for a newer USEMA \(schema 6, this one reads 5\). Update USEMA"),
    (("schema_version"), 1, "inference.temperature needs schema_version 2, and schema_version is 1"),
    (("inference", "temperature"), 0, "inference.temperature is 0, less than 0.01"),
    (("inference", "temperature"), 10**400, "inference.temperature is 10+.*, more than 100"),
    (("inference", "temperature"), "1.5", 'inference.temperature is "1.5", which is no number or array'),
    (("inference", "temperature"), [1.0, 1.5], "inference.temperature has 2 numbers, and should have one for each reg"),
    (("inference", "activation"), "sigmoid", "inference.region_order belongs to the activation sigmoid"),
    (("inference", "region_order"), [1, 2], "inference.region_order belongs to the activation sigmoid"),
    (("architecture", "config", "features", 1), 10**5, r"architecture.config.features\[1\] is 100000, more than 4096"),
    (("architecture", "config", "features"), [8] * 10**4, "architecture.config.features has 10000 entries, more than"),
    (("preprocessing", "patch_size"), [10**5] * 3, "preprocessing.patch_size is .*, more voxels than any tile has"),
    (("preprocessing", "patch_size"), [500] * 3, "preprocessing.patch_size is .*, more voxels than any tile has"),
    (("crop_first",), {"margin_mm": 20}, "crop_first should name either a part or a model"),
    (("crop_first",), {"margin_mm": 20, "part": "a"}, "crop_first.part is 'a', and there are no parts"),
    (("combine",), "labels", "combine says how parts become one result, and there are no parts"),
    (("postprocess",), [{"step": "keep_largest", "volume_mm3": 3}], r"postprocess\[0\].volume_mm3 is nothing that"),
    (("postprocess",), [{"step": "remove_small"}], r"postprocess\[0\] has no 'volume_mm3'"),
    (("postprocess",), [{"step": "keep_largest", "labels": [3]}], r"postprocess\[0\].labels has 3, which is no label"),
    (("postprocess",), [{"step": "keep_largest", "connectivity": 8}], "connectivity is 8, none of 6, 18 and 26"),
    (("postprocess",), [{"step": "exec"}], 'step is "exec", none of'),
    (("expected_extent_mm",), {"min": [3] * 3, "max": [3, 2, 3]}, "expected_extent_mm runs from 3 to 2 along y"),
    (("architecture",), None, "architecture is null"),
    (("labels", 1, "value"), 3, r"labels have the values \[1, 3\], which should be 1 to 2 in order"),
    (("labels", 1, "name"), "Anterior hippocampus", r"labels\[1\].name is 'Anterior hippocampus', as labels\[0\]"),
    (("expected_spacing_mm", "min", 2), 1.6, "expected_spacing_mm runs from 1.6 to 1.5 along z"),
    (("expected_intensity_range"), [200, -1000], "expected_intensity_range runs from 200 to -1000"),
]


@pytest.mark.parametrize(("path", "value", "message"), NAMED, ids=lambda value: str(value)[:40])
def test_the_message_names_the_key_and_its_value(path, value, message, document):
    path = (path,) if isinstance(path, str) else path
    broken = changed(document, path, lambda holder, key: holder.__setitem__(key, value))
    with pytest.raises(BundleError, match=f"^liver/model.json.*{message}"):
        ModelMetadata.from_dict(broken, "liver/model.json")


def part(name, **changes):
    network = {key: copy.deepcopy(METADATA[key]) for key in ("architecture", "preprocessing", "inference")}
    return {"name": name, "folds": ["0"], **network, **changes}


@pytest.fixture
def several(document) -> dict:
    """Two parts, the second in a cascade behind a third, which a rough part looks for first."""
    for key in ("architecture", "preprocessing", "inference"):
        del document[key]
    regions = {"mirror_axes": [0], "activation": "sigmoid", "region_order": [2, 1], "temperature": [1.0, 2]}
    document["parts"] = [
        part("rough"),
        part("low", folds=["0", "1", "all"]),
        part("high", previous="low", inference=regions),
        part("other", labels=[1, 0]),
    ]
    document["crop_first"] = {"part": "rough", "margin_mm": 20, "labels": ["Anterior hippocampus"]}
    document["postprocess"] = [{"step": "remove_small", "volume_mm3": 50, "connectivity": 6, "labels": [1]}]
    document["pre_resample"] = {"spacing_mm": [1.5, 1.5, 1.5]}
    document["expected_extent_mm"] = {"min": [30, 40, 30], "max": [40, 60, 40]}
    document["source"] = {"format": "nnU-Net v2", "sha256": "0" * 64}
    return document


def test_the_networks_of_a_model_with_parts(several):
    metadata = ModelMetadata.from_dict(several)
    rough, low, high, other = metadata.networks
    assert low.prefixes == ("low.0.", "low.1.", "low.all.")
    assert (rough.values, high.values, other.values) == ((0, 1, 2), (2, 1), (0, 1, 0))
    assert (high.previous, high.activation, high.outputs, high.temperatures) == ("low", "sigmoid", 2, (1.0, 2.0))
    assert {network.kind for network in metadata.networks} == {"nnunet"}
    assert metadata.architecture == several["parts"][-1]["architecture"]
    assert json.loads(json.dumps(metadata.to_dict())) == {**several, "combine": "labels"}
    assert least_schema_version(several) == 3


def test_the_network_of_a_model_without_parts(document):
    metadata = ModelMetadata.from_dict(document)
    (network,) = metadata.networks
    assert network.prefixes == ("",)
    assert network.values == (0, 1, 2)
    assert network.temperatures == (1.5,)
    assert metadata.to_dict() == document


def test_every_broken_variant_of_a_model_with_parts_is_refused_in_a_sentence(several):
    """Whatever the schema allows, what is read on top of it ends in metadata or in a sentence, never otherwise."""
    read = 0
    for variant in variants(several):
        try:
            ModelMetadata.from_dict(variant)
        except BundleError:
            continue
        read += 1
    assert read > 100


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("parts", 1, "name"), "rough", r"parts\[1\].name is 'rough', as parts\[0\].name is"),
        (("parts", 1, "name"), "a.b", 'name is "a.b", not of the form'),
        (("parts", 1, "folds"), ["0", "0"], r"parts\[1\].folds\[1\] is '0' again"),
        (("parts", 2, "previous"), "other", r"parts\[2\].previous is 'other', which is no earlier part"),
        (("parts", 3, "labels"), [1, 3], r"parts\[3\].labels has 3, which is no label"),
        (("parts", 2, "labels"), [1, 2], r"parts\[2\].labels belongs to the activation softmax"),
        (("parts", 2, "inference", "region_order"), [1, 1], "the label 2 is made by no network"),
        (("parts", 2, "inference", "region_order"), [1, 9], r"parts\[2\].inference.region_order has 9"),
        (("crop_first", "part"), "none", "crop_first.part is 'none', which is none of the parts"),
        (("crop_first", "model"), "liver", "crop_first should name either a part or a model"),
        (("combine",), "probabilities", "combine is probabilities, and the parts do not have the same classes"),
        (("architecture",), METADATA["architecture"], "architecture stands beside parts"),
        (
            ("parts", 2, "architecture", "config", "features"),
            [10**5],
            r"parts\[2\].architecture.config.features\[0\] is",
        ),
        (("schema_version",), 2, "parts needs schema_version 3, and schema_version is 2"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_contradicts_itself_among_parts_is_named(path, value, message, several):
    broken = changed(several, path, lambda holder, key: holder.__setitem__(key, value))
    with pytest.raises(BundleError, match=message):
        ModelMetadata.from_dict(broken)


def test_a_model_writes_the_oldest_version_that_knows_its_keys(document):
    assert least_schema_version(document) == 2
    assert least_schema_version({**document, "inference": {"mirror_axes": []}}) == 1
    assert least_schema_version({**document, "preprocessing": {"kind": "conform"}}) == 3
    assert least_schema_version({**document, "training": {**document["training"], "date": None}}) == 3
    unknown = {**document, "licence": {**document["licence"], "url": ""}}
    assert least_schema_version(unknown) == 5
    with pytest.raises(BundleError, match=r"an empty licence\.url needs schema_version 5, and schema_version is 4"):
        ModelMetadata.from_dict({**unknown, "schema_version": 4})


def test_ten_thousand_labels_are_refused(document):
    document["labels"] = [{**document["labels"][0], "value": value} for value in range(1, 10**4 + 1)]
    with pytest.raises(BundleError, match=r"labels is .*, longer than 2048"):
        ModelMetadata.from_dict(document)
