"""The table of the accuracy experiment: folds are pooled, seeds averaged, and networks compared on the same cases."""

import numpy as np


def row(network: str, fold: int, seed: int, **dice: float) -> dict:
    scores = [[case, "Anterior", its, its / 2, 1.0] for case, its in dice.items()]
    return {"network": network, "fold": fold, "seed": seed, "scores": scores}


def test_folds_are_pooled_and_seeds_averaged_case_by_case():
    from accuracy import per_case

    rows = [row("plain", 1, 0, c=0.5), row("plain", 0, 0, a=0.8, b=0.6), row("plain", 0, 1, b=0.8, a=0.9)]
    found = per_case(rows)
    np.testing.assert_allclose(found["Anterior"][:, 0], [0.85, 0.7, 0.5])
    np.testing.assert_allclose(found["mean"][:, 1], [0.425, 0.35, 0.25])


def test_networks_are_compared_on_the_folds_that_all_were_trained_on():
    from accuracy import in_common

    both = [row("plain", 0, 0, a=0.8), row("all", 0, 0, a=0.9)]
    assert in_common([*both, row("plain", 1, 0, b=0.1)]) == both
    assert in_common([row("plain", 1, 0, b=0.1), row("all", 0, 0, a=0.9)]) == []


def test_a_network_is_compared_with_the_plain_one_on_the_seeds_that_both_have():
    from accuracy import paired

    plain = [row("plain", 0, 0, a=0.8, b=0.6), row("plain", 0, 1, a=0.1, b=0.1)]
    rows = {"plain": plain, "all": [row("all", 0, 0, a=0.9, b=0.7)], "residual": [row("residual", 0, 2, a=0.9)]}
    assert paired(rows, "all", "Anterior").startswith("0.100 ")
    assert paired(rows, "residual", "Anterior") == ""
