"""Margins in 8 bits: on other grids, in layers, after steps that change labels, and as text."""

from __future__ import annotations

import numpy as np
import pytest
from usema.volumes.geometry import Geometry
from usema.volumes.margins import HIGHEST, LOWEST, Margins, PlacedMargins
from usema.volumes.volume import moves_between, restore

SHAPE = (6, 7, 8)


def random_margins(rng, order=None, shape=SHAPE) -> tuple[Margins, np.ndarray]:
    """Margins of background and two labels that exclude each other (or of two regions), and the labels they mean."""
    logits = rng.normal(0, 30, (3, *shape))
    best = logits.argmax(0)
    parts = {}
    for value in (0, 1, 2) if order is None else order:
        others = np.delete(logits, value, 0).max(0)
        steps = np.floor(logits[value] - others) if order is None else np.floor(logits[value])
        array = np.clip(steps, LOWEST, HIGHEST).astype(np.int8)
        parts[value] = PlacedMargins(array, (0, 0, 0))
    labels = best
    if order is not None:
        labels = np.zeros(shape, int)
        for value in order:
            labels[parts[value].array >= 0] = value
    return Margins(shape, parts, order), labels.astype(np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def whole(margins: Margins, value: int) -> np.ndarray:
    return margins.of[value].on(tuple(slice(0, length) for length in margins.shape))


def part(margins: Margins) -> Margins:
    """Only a box of each."""
    box = (slice(1, 5), slice(2, 6), slice(0, 7))
    return Margins(
        margins.shape, {value: PlacedMargins(one.array[box], (1, 2, 0)) for value, one in margins.of.items()}
    )


def test_axes_in_another_order_and_direction_move_margins_as_they_move_labels(rng):
    margins = part(random_margins(rng)[0])
    one = Geometry(SHAPE[::-1], (1, 1, 1), (0, 0, 0), (0, -1, 0, 0, 0, 1, -1, 0, 0))
    other = one.moved(one.moves_to("LPS"))
    moved = margins.moved(moves_between(one, other))
    assert moved.shape == other.shape
    for value in margins.of:
        assert (whole(moved, value) == restore(whole(margins, value), one, other)).all()


def test_a_larger_grid_and_a_way_for_whole_arrays_keep_their_places(rng):
    margins = part(random_margins(rng)[0]).pasted((2, 0, 1), (9, 8, 10))
    turned = margins.through(lambda values: np.repeat(values, 2, axis=0)[::-1])
    for value in margins.of:
        expected = np.repeat(whole(margins, value), 2, axis=0)[::-1]
        found, near = whole(turned, value), expected > -85
        assert (found[near] == expected[near]).all()
        assert (found[~near] <= -85).all()


@pytest.mark.parametrize("order", [None, (1, 2), (2, 1)])
def test_labels_that_were_changed_afterwards_are_what_the_margins_mean(rng, order):
    margins, labels = random_margins(rng, order)
    changed = np.where(rng.random(SHAPE) < 0.3, rng.integers(0, 3, SHAPE), labels).astype(np.uint8)
    agreeing = margins.agreeing(changed)
    found = np.zeros(SHAPE, np.uint8)
    for value in order or (1, 2):
        found[whole(agreeing, value) >= 0] = value
    assert (found == changed).all()
    for value in margins.of:
        same = changed == labels
        if order is None:
            assert (whole(agreeing, value)[same] == whole(margins, value)[same]).all()


def test_a_later_run_lies_over_an_earlier_one_in_its_box(rng):
    older, newer = part(random_margins(rng)[0]), random_margins(rng, shape=(3, 3, 3))[0]
    box = (slice(3, 6), slice(4, 7), slice(5, 8))
    both = older.under(newer.pasted((3, 4, 5), SHAPE), box)
    for value in (0, 1, 2):
        expected = whole(older, value).copy()
        expected[box] = newer.of[value].array
        assert (whole(both, value) == expected).all()


def test_they_come_back_from_their_text(rng):
    margins = part(random_margins(rng)[0])
    again = Margins.from_text(margins.to_text(), (1, 1, 1), (8, 8, 9))
    assert again.shape == (8, 8, 9)
    assert set(again.of) == set(margins.of)
    for value in margins.of:
        assert again.of[value].start == (2, 3, 1)
        assert (again.of[value].array == margins.of[value].array).all()
    regions = random_margins(rng, (2, 1))[0]
    assert Margins.from_text(regions.to_text()).order == (2, 1)


def test_a_text_that_is_damaged_is_refused(rng):
    text = part(random_margins(rng)[0]).to_text()
    head, first = text.split("\n")[:2]
    numbers = first.split(" ")
    for bad in (
        "",
        "{}",
        "[]",
        head.replace("1", "7", 1),
        "\n".join([head, first[:-1]]),
        "\n".join([head, " ".join([*numbers[:4], "100000", "100000", "100000", numbers[7]])]),
        "\n".join([head, " ".join([numbers[0], "-1", *numbers[2:]])]),
        "\n".join([head, "x " + first]),
    ):
        with pytest.raises(ValueError, match=r"margins|int|line|base"):
            list(Margins.from_text(bad).of.values())


def test_those_of_two_regions_become_one_with_labels_of_their_own(rng):
    one, first = random_margins(rng, shape=(3, 3, 3))
    other, second = random_margins(rng, shape=(3, 3, 3))
    parts = [one.renamed({1: 3, 2: 4}).pasted((0, 0, 0), SHAPE), other.renamed({1: 5, 2: 6}).pasted((3, 3, 4), SHAPE)]
    both = Margins.joined(parts)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:3, :3, :3] = np.array([0, 3, 4])[first]
    labels[3:6, 3:6, 4:7] = np.array([0, 5, 6])[second]
    assert set(both.of) == {0, 3, 4, 5, 6}
    for value in both.of:
        box = both.of[value].box
        assert ((both.of[value].array >= 0) == (labels[box] == value)).all()
