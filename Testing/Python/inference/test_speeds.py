"""Exact, fast, and exact with a first look: what each runs, and that a look changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bundles import plan, write_tiny_bundle
from usema.errors import InputError
from usema.inference.predictor import Predictor
from usema.inference.provenance import shares
from usema.inference.speeds import EXACT, FAST, FIRST_PASS, offer, overlap_between
from usema.volumes.volume import Volume, read_volume


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    coarse = {**plan(), "spacing": [2.0, 2.0, 2.0], "patch_size": [16, 16, 16]}
    return Predictor(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", preprocessing=coarse), "cpu")


@pytest.fixture(scope="module")
def spine(data):
    return read_volume(data / "volumes/spine_mr/t2.nii.gz")


def tiles_of(predictor, volume, **options) -> tuple[list[int], object]:
    """Totals that progress tells, each once, and the result."""
    totals = []
    result = predictor.segment(volume, progress=lambda done, total, left: totals.append(total), **options)
    return list(dict.fromkeys(totals)), result


def test_fast_runs_the_tiles_of_an_overlap_of_a_quarter_and_says_so(predictor, spine):
    (exact,), slow = tiles_of(predictor, spine)
    (fast,), quick = tiles_of(predictor, spine, speed="fast")
    (quarter,), same = tiles_of(predictor, spine, overlap=0.25)
    assert fast == quarter < exact / 1.5
    assert quick.provenance["overlap"] == "0.25"
    np.testing.assert_array_equal(quick.labels, same.labels)
    for result in (slow, quick):
        assert result.seconds_by_speed[EXACT] / result.seconds_by_speed[FAST] == pytest.approx(exact / fast)
    assert 0 < slow.seconds_by_speed[EXACT] < float(slow.provenance["seconds"]) + 0.1


def test_a_first_look_comes_before_a_result_that_it_does_not_change(predictor, spine):
    seen = []
    totals, result = tiles_of(predictor, spine, speed="preview", preview=seen.append)
    (exact,), expected = tiles_of(predictor, spine, speed="exact")
    (alone,), first = tiles_of(predictor, spine, overlap=0.0)
    assert totals == [alone, exact]
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], first.labels)
    assert (seen[0] != expected.labels).any()
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.max_foreground_probability == expected.max_foreground_probability
    changing = {"seconds", "time", "times"}
    told = [{k: v for k, v in one.provenance.items() if k not in changing} for one in (result, expected)]
    assert told[0] == told[1]


def test_there_is_no_look_where_it_would_take_as_long_as_the_result(predictor, spine):
    small = Volume(spine.array[:14, :14, :14], replace(spine.geometry, size=(14, 14, 14)))
    totals, _ = tiles_of(predictor, small, speed="preview", preview=lambda labels: pytest.fail("a look"))
    assert totals == [1]


def test_whether_a_look_pays_is_a_matter_of_the_overlap_that_was_asked_for(predictor, spine):
    part = Volume(spine.array[:14, :14, :60], replace(spine.geometry, size=(60, 14, 14)))
    seen = []
    assert tiles_of(predictor, part, speed="preview", preview=seen.append)[0] == [3]  # of which a look would take two
    assert tiles_of(predictor, part, speed="preview", overlap=0.0, preview=seen.append)[0] == [2]
    assert seen == []
    assert tiles_of(predictor, part, speed="preview", overlap=0.75, preview=seen.append)[0] == [2, 5]
    assert len(seen) == 1


def test_a_speed_that_is_none_and_two_overlaps_are_refused(predictor, spine):
    with pytest.raises(InputError, match="'turbo'"):
        predictor.segment(spine, speed="turbo")
    with pytest.raises(InputError, match=r"'fast' and the overlap 0\.5"):
        predictor.segment(spine, speed="fast", overlap=0.5)


def test_fast_never_takes_more_tiles_than_the_model_asks_for():
    assert [overlap_between(own, FAST) for own in (0.625, 0.5, 0.25, 0.1)] == [0.25, 0.25, 0.25, 0.1]
    assert [overlap_between(0.5, wish) for wish in (None, 0.7, FIRST_PASS)] == [0.5, 0.7, 0.0]


def test_what_the_time_was_spent_on_adds_up_to_all_of_it(predictor, spine):
    told = predictor.segment(spine, overlap=0.0).provenance
    parts, seconds = told["times"].split(" = ")
    percents = dict(part.rsplit(" ", 2)[:2] for part in parts.split(", "))
    assert set(percents) == {"preparing", "network", "labels", "rest"}
    assert sum(map(int, percents.values())) == 100
    assert int(percents["network"]) > int(percents["labels"])
    assert seconds == f"{told['seconds']} s"
    assert shares({"network": 1.0, "labels": 0.5}, 2.0) == "network 50 %, labels 25 %, rest 25 % = 2.0 s"
    assert shares({"a": 1.0}, 1.0) == "a 100 %, rest 0 % = 1.0 s"


def test_what_fast_would_take_here_is_told_where_it_saves_something():
    assert offer({EXACT: 100.0, FAST: 41.6}, EXACT) == "with --speed fast about 42 s here"
    assert offer({EXACT: 100.0, FAST: 41.6}, "preview") == "with --speed fast about 42 s here"
    assert offer({EXACT: 100.0, FAST: 41.6}, FAST) == ""
    assert offer({EXACT: 100.0, FAST: 95.0}, EXACT) == offer({}, EXACT) == ""
