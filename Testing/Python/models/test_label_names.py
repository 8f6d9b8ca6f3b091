"""Names of labels as people and programs write them."""

from __future__ import annotations

import pytest
from usema.converters.public import public_models
from usema.errors import InputError
from usema.models.label_names import chosen, same
from usema.models.metadata import Label

MODELS = [model for model in public_models() if model.labels]


def labels(*names: str) -> list[Label]:
    return [Label(value, name, (0, 0, 0), {}) for value, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    "name", ["Left kidney", "kidney_left", "left kidney", "LEFT_KIDNEY", "kidney-left", "kidney left"]
)
def test_a_name_is_found_however_it_is_written(name):
    (found,) = chosen([name], labels("Right kidney", "Left kidney", "Left kidney cyst"))
    assert found.name == "Left kidney"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_names_of_public_models_are_found_as_published_and_as_shown(model):
    assert [same(name) for name in model.raw_labels] == [same(name) for name in model.labels]
    assert len({same(name) for name in model.labels}) == len(model.labels)


def test_several_names_stand_between_commas_and_a_name_may_hold_one():
    model = labels("Liver", "Spleen", "Thalamus, left")
    assert [label.value for label in chosen(["spleen,liver"], model)] == [1, 2]
    assert [label.value for label in chosen(["thalamus, left", " Liver "], model)] == [1, 3]
    assert chosen([], model) == ()


@pytest.mark.parametrize("names", [["livre"], ["liver,livre"], [""], [","]])
def test_an_unknown_name_is_told_with_those_that_are_known(names):
    with pytest.raises(InputError) as refused:
        chosen(names, labels("Liver", "Spleen"))
    assert "It has: Liver, Spleen." in refused.value.hint
    if "livre" in names[0]:
        assert "'livre'" in refused.value.message
        assert "Did you mean Liver?" in refused.value.hint
