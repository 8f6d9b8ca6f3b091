"""Codes that Slicer's own list lacks, read by Slicer's own terminology logic."""

from __future__ import annotations

from types import SimpleNamespace

import slicer
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.volumes.segments import OWN_TYPES, needs_own_list, terminology_entry
from USEMASegmentationLib.Scene import Terminologies

pytest_plugins = ["slicer_fixtures"]


def test_slicers_logic_finds_the_modifier_of_each_label_of_the_bundled_model(host, monkeypatch):
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    slicer.modules.terminologies = SimpleNamespace(logic=lambda: logic)
    monkeypatch.setattr(Terminologies, "_told", "")
    Terminologies.offer()
    assert logic.IsTerminologyContextLoaded(OWN_TYPES)
    for label in read_bundle(bundled_models()["hippocampus-mr"]).metadata.labels:
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(terminology_entry(label.terminology), entry)
        name, category, kind = entry.GetTerminologyContextName(), entry.GetCategoryObject(), entry.GetTypeObject()
        modifiers = {}
        for index in range(logic.GetNumberOfTypeModifiersInTerminologyType(name, category, kind)):
            modifier = slicer.vtkSlicerTerminologyType()
            assert logic.GetNthTypeModifierInTerminologyType(name, category, kind, index, modifier)
            modifiers[modifier.GetCodeValue()] = modifier.GetRecommendedDisplayRGBValue()
        assert modifiers[entry.GetTypeModifierObject().GetCodeValue()] == tuple(label.color)


def test_what_slicers_own_list_has_is_left_to_it():
    left = {"scheme": "SCT", "value": "7771000", "meaning": "Left"}
    codes = {"category": left, "type": left, "type_modifier": left}
    assert not needs_own_list(codes)
    assert not needs_own_list({"category": left, "type": left})
    assert "DICOM master list" in terminology_entry(codes)
    label = SimpleNamespace(terminology=codes, color=(1, 2, 3))
    assert Terminologies.document([label, SimpleNamespace(terminology=None)])["SegmentationCodes"] == {"Category": []}


def test_an_application_without_terminologies_is_left_alone(host):
    Terminologies.offer()
