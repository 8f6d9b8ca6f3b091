"""The figures of a model card: averages, intervals, agreement, and cases in which a label is missed or absent."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from card_text import section, table
from usema.models.bundle import read_bundle
from usema.models.card_files import CASES_FILE
from usema.quality.card.figures import agreement, bootstrap_interval, groups, spread, validation_metrics
from usema.quality.card.results import CaseResult, LabelResult, Pictured, Results, read_results, write_results
from usema.quality.card.text import render
from usema.resources import bundled_models


def case_of(
    name: str, dice: float, reference: float = 1.0, predicted: float = 1.0, distance: float = 1.0
) -> CaseResult:
    label = LabelResult("Liver", dice, dice, distance, reference, predicted, {"background": 0.1}, {"background": 0.1})
    return CaseResult(name, 1.0, "floating point", (0.0, 1.0), (1.0, 1.0, 1.0), (label,))


def results_of(*cases: CaseResult) -> Results:
    return Results(
        "0" * 64, "0.1.0", "2026-01-31", "cpu", 1.0, True, "here", cases, (Pictured(cases[0].case, 0.0, ""),)
    )


def test_the_interval_covers_the_mean_of_the_population_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(0.9, 0.05, 30), seed=2) for _ in range(200)]
    assert 0.88 <= np.mean([low <= 0.9 <= high for low, high in intervals]) <= 0.99
    assert bootstrap_interval([0.7] * 5) == pytest.approx((0.7, 0.7))


def test_limits_of_agreement_are_bland_and_altmans():
    pairs = results_of(case_of("a", 0.9, 1.0, 1.3), case_of("b", 0.9, 2.0, 1.9), case_of("c", 0.9, 3.0, 3.1)).of_label(
        "Liver"
    )
    found = agreement(pairs)
    deviation = statistics.stdev([0.3, -0.1, 0.1])
    assert (found.reference_ml, found.difference_ml) == (pytest.approx(2.0), pytest.approx(0.1))
    assert found.limits_ml == pytest.approx((0.1 - 1.96 * deviation, 0.1 + 1.96 * deviation))
    assert agreement(pairs[:1]) is None


def test_a_missed_label_and_an_absent_one_are_kept_and_shown_for_what_they_are(tmp_path):
    missed, absent = case_of("missed", 0.0, 2.0, 0.0, math.inf), case_of("absent", math.nan, 0.0, 0.0, math.nan)
    invented = case_of("invented", 0.0, 0.0, 0.5, math.inf)
    bundle = read_bundle(bundled_models()["hippocampus-mr"])
    results = replace(
        results_of(missed, absent, invented, case_of("found", 0.9)), weights_sha256=bundle.metadata.weights["sha256"]
    )
    write_results(tmp_path, results)
    json.loads((tmp_path / CASES_FILE).read_text(), parse_constant=pytest.fail)
    again = read_results(replace(bundle, path=tmp_path))
    assert repr(again) == repr(results)
    pairs = again.of_label("Liver")
    assert [case.case for case, _ in pairs] == ["missed", "invented", "found"]
    assert spread(pairs, "hausdorff95_mm").worst_case == "missed"
    assert [group.name for group in groups(pairs) if group.kind == "size"][-1] == "absent from the reference"
    measured = validation_metrics(again)
    assert (measured["hausdorff95_mm"], measured["missed"]) == ({"Liver": 1.0}, {"Liver": 2})
    assert measured["dice"]["Liver"] == pytest.approx(0.3)
    text = render(bundle.metadata, again, [])
    (row,) = (row for row in table(text, "Results") if row[2] == "HD95 / mm")
    assert row[3:] == ["1.00 (2 missed)", "too few cases", "missed", "missed (missed)"]
    assert "left out of the mean HD95" in section(text, "How it was evaluated")
    only = validation_metrics(results_of(missed, invented))
    assert (only["hausdorff95_mm"], only["missed"]) == ({"Liver": None}, {"Liver": 2})
