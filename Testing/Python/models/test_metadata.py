"""What model.json may say: one schema, read by the engine as jsonschema reads it."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from bundles import METADATA
from usema.errors import BundleError
from usema.json_schema import problems
from usema.models.metadata import SCHEMA, SCHEMA_VERSION, ModelMetadata


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
    (("schema_version"), 3, r"made for a newer USEMA \(schema 3, this one reads 2\). Update USEMA"),
    (("schema_version"), 1, "inference.temperature needs schema_version 2, and schema_version is 1"),
    (("inference", "temperature"), 0, "inference.temperature is 0, less than 0.01"),
    (("inference", "temperature"), 10**400, "inference.temperature is 10+.*, more than 100"),
    (("inference", "temperature"), "1.5", 'inference.temperature is "1.5", which is no number'),
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
