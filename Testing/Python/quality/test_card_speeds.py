"""What each speed costs, in the card: measured on the same cases, paired, and read by whoever offers the speeds."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import plan, write_tiny_bundle
from card_text import section, table
from test_card_figures import case_of, results_of
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.quality.card.figures import speed_metrics
from usema.quality.card.results import SpeedResult, read_results, write_results
from usema.quality.card.speeds import Tiles, at_every_speed, mean_dice
from usema.quality.card.text import render
from usema.resources import bundled_models
from usema.store.library import KnownModel
from usema.volumes.volume import Volume, read_volume


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    coarse = {**plan(), "spacing": [2.0, 2.0, 2.0], "patch_size": [16, 16, 16]}
    return Predictor(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", preprocessing=coarse), "cpu")


@pytest.fixture(scope="module")
def spine(data) -> Volume:
    return read_volume(data / "volumes/spine_mr/t2.nii.gz")


def speeds_of(predictor, volume, reference):
    tiles = Tiles()
    exact = predictor.segment(volume, progress=tiles)
    return at_every_speed(
        predictor, [volume], (exact, tiles.count), lambda found: mean_dice(found.labels, reference, found.model_labels)
    )


def test_each_speed_is_measured_by_what_it_finds_itself(predictor, spine):
    found = {"exact": predictor.segment(spine)}
    found |= {"fast": predictor.segment(spine, speed="fast"), "first look": predictor.segment(spine, overlap=0.0)}
    speeds = speeds_of(predictor, spine, found["exact"].labels)
    assert [speed.speed for speed in speeds] == list(found)
    assert speeds[0].dice == 1.0
    assert speeds[0].tiles > speeds[1].tiles > speeds[2].tiles
    for speed in speeds[1:]:
        other = found[speed.speed]
        assert speed.dice == mean_dice(other.labels, found["exact"].labels, other.model_labels) < 1


def test_a_case_of_one_tile_is_run_once_and_a_look_that_is_not_shown_not_at_all(predictor, spine, monkeypatch):
    small = Volume(spine.array[:14, :14, :14], replace(spine.geometry, size=(14, 14, 14)))
    reference = np.zeros(small.array.shape, np.uint8)
    reference[3:9, 3:9, 3:9] = 1
    (only,) = speeds_of(predictor, small, reference)
    assert (only.speed, only.tiles) == ("exact", 1)
    monkeypatch.setattr("usema.quality.card.speeds.PAYS", 0.01)
    assert [speed.speed for speed in speeds_of(predictor, spine, spine.array > 0)] == ["exact", "fast"]


def test_dice_is_the_mean_over_the_labels_that_are_there():
    labels = [SimpleNamespace(value=value) for value in (1, 2, 3)]
    one, other = np.array([1, 1, 2, 0, 0]), np.array([1, 0, 0, 0, 0])
    assert mean_dice(one, other, labels) == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(mean_dice(one * 0, other * 0, labels))


def measured():
    """Four cases; one of them a single tile, one without a look, one in which there was nothing to measure."""
    ways = [
        [("exact", 0.90, 10), ("fast", 0.88, 4), ("first look", 0.80, 2)],
        [("exact", 0.80, 10), ("fast", 0.81, 6)],
        [("exact", 0.70, 1)],
        [("exact", math.nan, 8), ("fast", math.nan, 4)],
    ]
    return [
        replace(case_of(str(number), 0.5), speeds=tuple(SpeedResult(*speed) for speed in speeds))
        for number, speeds in enumerate(ways)
    ]


def test_differences_are_paired_case_by_case():
    figures = speed_metrics(results_of(*measured()))
    assert (figures["cases"], figures["of_more_than_one_tile"]) == (3, 2)
    assert figures["exact"] == {"dice": 0.8}
    fast = figures["fast"]
    assert (fast["cases"], fast["tiles"], fast["dice"]) == (3, round(11 / 21, 3), round((0.88 + 0.81 + 0.7) / 3, 4))
    assert (fast["difference"], fast["worst"]) == (round((-0.02 + 0.01 + 0) / 3, 4), -0.02)
    assert fast["low"] == -0.02
    assert fast["high"] == 0.01
    look = figures["first look"]
    assert (look["cases"], look["dice"], look["difference"], look["low"]) == (1, 0.8, -0.1, None)
    assert speed_metrics(results_of(case_of("old", 0.9))) == {}, "measured before there were speeds"


def test_the_card_and_the_file_of_cases_hold_them(tmp_path):
    bundle = read_bundle(bundled_models()["hippocampus-mr"])
    results = replace(results_of(*measured()), weights_sha256=bundle.metadata.weights["sha256"])
    write_results(tmp_path, results)
    again = read_results(replace(bundle, path=tmp_path))
    assert repr(again) == repr(results)
    text = render(bundle.metadata, again, [])
    assert table(text, "Speeds") == [
        ["exact", "3 *", "100 %", "0.8000"],
        ["fast", "3 *", "52 %", "0.7967", "-0.0033 (-0.0200 to +0.0100)", "-0.0200"],
        ["first look", "1 *", "20 %", "0.8000", "-0.1000 (too few cases)", "-0.1000"],
    ]
    single = replace(again, cases=(again.cases[2],), pictured=())
    assert "all speeds give the same result" in section(render(bundle.metadata, single, []), "Speeds")


def test_who_offers_the_speeds_reads_them_from_the_model_or_its_entry(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "model")
    assert KnownModel("model", "installed", bundle=bundle).dice_by_speed == {}
    metrics = {"speeds": speed_metrics(results_of(*measured()))}
    known = KnownModel("model", "installed", bundle=change_metadata(bundle, metrics=metrics))
    assert known.dice_by_speed == {"fast": -0.0033, "first look": -0.1}
    for strange in ("fast", {"fast": "free"}, {"fast": {"difference": "none"}}, {"fast": {"difference": None}}):
        known = KnownModel("model", "installed", bundle=change_metadata(bundle, metrics={"speeds": strange}))
        assert known.dice_by_speed == {}
