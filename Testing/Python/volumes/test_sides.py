"""Left and right of one structure, and how much they differ."""

from __future__ import annotations

from usema.volumes.sides import asymmetry, asymmetry_text, pairs


def test_pairs_are_told_by_names_and_what_is_on_one_side_is_none():
    found = pairs(
        {"Left kidney": 150.0, "kidney right": 140.0, "Left lung": 2000.0, "Liver": 1500.0, "Bright spot": 1.0}
    )
    assert found == {"kidney": (150.0, 140.0)}


def test_the_asymmetry_is_left_minus_right_over_the_mean():
    assert asymmetry(3.0, 1.0) == 1.0
    assert asymmetry(0.0, 0.0) is None
    text = asymmetry_text({"left hippocampus": 3.6, "right hippocampus": 4.4, "Liver": 3.0})
    assert text == "hippocampus: left 3.60 ml, right 4.40 ml, left minus right -20.0 % of their mean"
    assert asymmetry_text({"left kidney": 1.0}) == ""
