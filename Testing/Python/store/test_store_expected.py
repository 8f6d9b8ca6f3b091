"""What a public model takes on this computer: told where it can be known, and only then."""

from __future__ import annotations

import math

import pytest
from bundles import write_tiny_bundle
from usema.converters.public import public_models
from usema.converters.public_cost import least_bytes
from usema.inference.checks import needed_bytes
from usema.store import cache, expected, shelf


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """A processor of one thread as fast as the one that the published times are of."""
    monkeypatch.setattr(expected, "rate", lambda: expected.REFERENCE_FLOPS)
    monkeypatch.setattr(expected, "threads", lambda: 1.0)


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("USEMA_MODELS", str(tmp_path))


def of(name: str, **how) -> expected.Expected:
    return expected.of(shelf.find(name).model, **how)


def test_a_model_whose_region_is_found_first_takes_as_long_as_both():
    rough = of("totalsegmentator-total-6mm")
    assert (rough.seconds, rough.is_all) == (40, True)
    alone = of("totalsegmentator-liver-vessels")
    assert (alone.seconds, alone.is_all) == (40, False)
    assert expected.in_words(alone) == "40 s to find the region, then more"
    assert of("totalsegmentator-teeth").seconds == 40  # through the model that its own finder needs


def test_of_what_nobody_measured_here_the_publishers_time_is_told_as_such():
    assert expected.in_words(of("auto3dseg-aorta")) == "12 min on its publisher's processor"
    assert of("auto3dseg-aorta").seconds is None
    assert expected.in_words(of("totalsegmentator-breasts")) == ""


def test_the_last_run_here_counts_more_than_any_guess(tmp_path):
    assert expected.in_words(of("brain-tissue-light")) == "about 15 s"
    expected.remember("brain-tissue-light", 33.3)
    expected.remember("my-own-model", 5)
    assert expected.in_words(of("brain-tissue-light")) == "35 s the last time"
    assert of("brain-mask").was_measured is False
    assert "my-own-model" not in (tmp_path / ".runs.json").read_text()
    for broken in (b"{", b"[1]", b'{"brain-tissue-light": "x"}', b'{"brain-tissue-light": -1}'):
        (tmp_path / ".runs.json").write_bytes(broken)
        assert expected.in_words(of("brain-tissue-light")) == "about 15 s"
    assert cache.installed() == []


def test_memory_and_time_grow_with_the_volume():
    small = of("totalsegmentator-total-3mm", shape=(30, 100, 120), spacing_zyx=(3, 3, 3)).memory
    large = of("totalsegmentator-total-3mm", shape=(900, 512, 512), spacing_zyx=(1, 0.8, 0.8)).memory
    assert 1.5e9 < small < 2.72e9  # which a run of a network of half the width took
    assert large > 2 * small
    assert of("brain-mask").memory > of("brain-subcortical").memory > of("brain-tissue-light").memory > 7e8
    assert of("brain-mask").memory < 2.5e9
    assert of("auto3dseg-brats-gli", shape=(200, 256, 256)).memory > of("auto3dseg-aorta", shape=(200, 256, 256)).memory
    usual, twice = {"shape": (300, 512, 512), "spacing_zyx": (1.5, 0.8, 0.8)}, (600, 512, 512)
    assert of("auto3dseg-aorta").memory == of("auto3dseg-aorta", **usual).memory == 500_000_000 + 6 * 300 * 512 * 512
    assert of("totalsegmentator-total-3mm", **usual).seconds == of("totalsegmentator-total-3mm").seconds
    assert of("totalsegmentator-total-3mm", **usual | {"shape": twice}).seconds == 2 * 140
    assert of("totalsegmentator-liver-vessels", **usual | {"shape": twice}).seconds == 2 * 40
    assert of("brain-mask", **usual | {"shape": twice}).seconds == of("brain-mask").seconds
    assert of("totalsegmentator-total-3mm", shape=(2, 9, 9), spacing_zyx=(1, 1, 1)).seconds == pytest.approx(14)


def test_of_a_model_that_is_here_its_own_tiles_and_classes_count(tmp_path):
    metadata = write_tiny_bundle(tmp_path / "own", name="auto3dseg-aorta").metadata
    volume = {"shape": (60, 60, 60), "spacing_zyx": (1, 1, 1)}
    own = of("auto3dseg-aorta", **volume, metadata=metadata).memory
    tile = 4 * math.prod(metadata.preprocessing["patch_size"]) * 2 * metadata.architecture["config"]["features"][0]
    assert own == 500_000_000 + metadata.weights["bytes"] + tile + needed_bytes(metadata, *volume.values())
    assert own != of("auto3dseg-aorta", **volume).memory


def test_memory_that_is_not_free_is_told_with_both_numbers():
    takes = expected.Expected(memory=2_340_000_000)
    assert expected.memory_in_words(takes) == expected.memory_in_words(takes, 3_000_000_000)
    assert expected.memory_in_words(takes, 1_000_000_000) == "at least 2.3 GB of memory, of which only 1.0 are free"


def test_something_is_known_of_most_models():
    takes = [expected.of(model) for model in public_models()]
    assert sum(bool(expected.in_words(one)) for one in takes) >= 68
    assert all(5e8 < least_bytes(model) < 3e10 for model in public_models())


def test_the_speed_is_that_of_the_processor_not_of_the_moment(monkeypatch):
    monkeypatch.undo()
    expected.rate.cache_clear()
    assert 1e9 < expected.rate() < 1e12
    assert expected.threads() >= 1
