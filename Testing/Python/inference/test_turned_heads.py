"""A real head whose header turns it over the axis from left to right is refused with that as the cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from usema.errors import InputError
from usema.inference.predictor import Predictor
from usema.inference.turned_heads import turned_text
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume, read_volume

FACE_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # the front becomes the bottom of what the file says
TURNS = {
    1: (FACE_UP, 90, "the front is the top, and what it calls the top is the back", "LPI"),
    2: (FACE_UP @ FACE_UP, 180, "the front is the back, and what it calls the top is the bottom", "LSP"),
    3: (FACE_UP.T, 90, "the front is the bottom, and what it calls the top is the front", "LAS"),
}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """One for all, for it keeps what its finder found of each turn."""
    return Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu")


@pytest.fixture(scope="module")
def head(data) -> Volume:
    return read_volume(data / "volumes/whole_head/t1_whole_head.nii.gz")


def under(geometry: Geometry, turn: np.ndarray) -> Geometry:
    return replace(geometry, direction=tuple((turn @ geometry.axes).ravel().tolist()))


@pytest.mark.slow(20)
@pytest.mark.parametrize("quarters", TURNS)
def test_a_head_that_its_header_turns_is_refused_with_how_it_lies(predictor, head, quarters):
    turn, degrees, words, orientation = TURNS[quarters]
    with pytest.raises(InputError, match=r"nothing like the left hippocampus or the right hippocampus was") as error:
        predictor.segment(replace(head, geometry=under(head.geometry, turn)))
    told = error.value.message
    assert f"a head that is turned by {degrees} degrees over the axis from left to right" in told
    assert f"what the file calls {words}. The file's orientation, {orientation}, may be wrong; LIA would be" in told


def test_the_turn_that_is_told_is_the_one_in_which_something_was_found(head):
    lying = head.geometry
    for turn, degrees, words, _ in TURNS.values():
        text = turned_text(under(lying, turn), lambda seen: np.allclose(seen.axes, lying.axes))
        assert f"by {degrees} degrees" in text
        assert words in text


def test_of_what_no_turn_shows_as_a_head_nothing_is_said(head):
    assert turned_text(head.geometry, lambda seen: False) == ""
