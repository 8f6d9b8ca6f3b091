"""Contracts with whoever is outside: what each holds lies beside this file as text and changes only on purpose."""

from __future__ import annotations

import inspect

import pytest
from contract_text import commands, data_fields, members, schema_lines, signature

pytest_plugins = ["slicer_fixtures"]


def test_the_scripting_api(host, promised):
    from usema import errors
    from USEMASegmentationLib import Logic, ModelStore, Parameters

    lines = ["# USEMASegmentation.py: the logic; logic.store is a ModelStore"]
    lines.append(signature("USEMASegmentationLogic", Logic.USEMASegmentationLogic))
    lines += members(Logic.USEMASegmentationLogic)
    logic = Logic.USEMASegmentationLogic()
    lines += [f"USEMASegmentationLogic.{name}" for name in sorted(vars(logic)) if not name.startswith("_")]
    lines += ["", "# The options of a segmentation, by name", *data_fields(Parameters.Parameters)]
    lines += [f"also called {word}: {name}" for word, name in sorted(Parameters._OTHER_WORDS.items())]
    lines += [f"existing is one of {', '.join(Parameters.EXISTING)}"]
    lines += ["", "# What is heard back"]
    for kind in (Parameters.Readiness, Parameters.Status, ModelStore.StoreStatus, ModelStore.ModelHere):
        lines += data_fields(kind)
    lines += ["", "# The models", signature("ModelStore", ModelStore.ModelStore), *members(ModelStore.ModelStore)]
    lines += ["", "# What is raised: each has message and hint, and this code"]
    kinds = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.UsemaError)]
    lines += [f"{one.__name__}({one.__mro__[1].__name__}): {one.code}" for one in kinds]
    promised("scripting_api", lines)


def test_the_command_line(promised):
    from usema.cli import main

    promised("command_line", commands(main, "usema"))


def test_the_schemas_of_models_and_indexes(promised):
    from usema.models import metadata
    from usema.store import index

    lines = [f"# model.json: versions 1 to {metadata.SCHEMA_VERSION}; * must be there, <...> stands below"]
    lines += schema_lines(metadata.SCHEMA)
    lines += ["", f"# models.json, the index: versions 1 to {index.SCHEMA_VERSION}", *schema_lines(index.SCHEMA)]
    promised("schemas", lines)


def test_the_names_that_scripts_import_of_bundles(promised):
    import usema.bundle

    lines = []
    for name in sorted(usema.bundle.__all__):
        one = getattr(usema.bundle, name)
        lines.append(signature(name, one) if callable(one) else f"{name} = {one!r}")
    promised("usema_bundle", [*lines, *members(usema.bundle.Bundle)])


def test_a_broken_promise_says_what_and_how_to_change_it(promised, monkeypatch):
    monkeypatch.delenv("USEMA_WRITE_CONTRACTS", raising=False)
    with pytest.raises(pytest.fail.Exception) as failure:
        promised("usema_bundle", ["METADATA_FILE = 'other.json'"])
    assert "+METADATA_FILE = 'other.json'" in str(failure.value)
    assert "-METADATA_FILE = 'model.json'" in str(failure.value)
    assert "USEMA_WRITE_CONTRACTS=1" in str(failure.value)
