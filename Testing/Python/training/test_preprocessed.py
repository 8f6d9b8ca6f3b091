"""A training takes all of its data set or none: preprocessing that was ended, cases that came later."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from usema.errors import InputError, UsemaError
from usema.training.preprocessed import RECORD, Preprocessed

CASES = {f"case{number}": [10, 20] for number in range(4)}
PLANS = "nnUNetPlans"


@pytest.fixture
def dataset(tmp_path) -> Path:
    folder = tmp_path / "Dataset001_Four"
    folder.mkdir()
    (folder / "dataset.json").write_text("{}")
    return folder


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


def preprocess(state: Preprocessed, configuration: str, cases=CASES) -> None:
    """Leaves the files that nnU-Net leaves."""
    folder = state.folder / f"{PLANS}_{configuration}"
    folder.mkdir(parents=True)
    (state.folder / f"{PLANS}.json").write_text("{}")
    for case in cases:
        np.savez_compressed(folder / f"{case}.npz", data=np.zeros(3), seg=np.zeros(3))
        (folder / f"{case}.pkl").write_bytes(pickle.dumps({"spacing": [1, 1, 1]}))


def begin_training(runs: Path, dataset: Path) -> None:
    folder = runs / "results" / dataset.name / "Trainer__nnUNetPlans__2d" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "checkpoint_latest.pth").write_bytes(b"")


def test_what_is_complete_is_not_made_again(dataset, runs):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    assert not state.is_complete("2d")
    preprocess(state, "2d")
    state.finish("2d")
    begin_training(runs, dataset)
    again = Preprocessed(dataset, CASES, runs, PLANS)
    assert again.is_complete("2d")
    # The second configuration comes to the same plans, and what is half of it goes alone.
    preprocess(again, "3d_fullres", ["case0"])
    assert not again.is_complete("3d_fullres")
    assert not (again.folder / f"{PLANS}_3d_fullres").exists()
    assert again.is_complete("2d")
    preprocess(again, "3d_fullres")
    again.finish("3d_fullres")
    assert again.is_complete("2d")
    assert again.is_complete("3d_fullres")


def half_an_array(folder: Path) -> None:
    path = folder / "case3.npz"
    path.write_bytes(path.read_bytes()[:-30])


def half_a_description(folder: Path) -> None:
    path = folder / "case3.pkl"
    path.write_bytes(path.read_bytes()[:-5])


def no_description(folder: Path) -> None:
    (folder / "case3.pkl").unlink()


def no_case(folder: Path) -> None:
    for path in folder.glob("case3.*"):
        path.unlink()


@pytest.mark.parametrize("end", [half_an_array, half_a_description, no_description, no_case])
def test_preprocessing_that_was_ended_in_the_middle_is_begun_anew(dataset, runs, end):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    preprocess(state, "2d")
    end(state.folder / f"{PLANS}_2d")
    assert not state.is_complete("2d")
    assert not state.folder.exists(), "plans may be half as well"


@pytest.mark.parametrize("record", ["", "{", "[]", '{"cases": 1}'])
def test_data_that_were_preprocessed_without_a_record_are_taken_if_they_are_whole(dataset, runs, record):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    preprocess(state, "2d")
    if record:
        (state.folder / RECORD).write_text(record)
    begin_training(runs, dataset)
    assert state.is_complete("2d")
    assert json.loads((state.folder / RECORD).read_text())["complete"] == ["2d"]


def test_a_training_that_began_with_a_part_is_not_continued_in_silence(dataset, runs):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    preprocess(state, "2d", ["case0", "case2"])
    begin_training(runs, dataset)
    with pytest.raises(InputError, match=r"began with 2 of the 4 cases.* Choose another folder for the runs"):
        state.is_complete("2d")


def test_a_case_that_did_not_come_out_is_named(dataset, runs):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    assert not state.is_complete("2d")
    preprocess(state, "2d", ["case0", "case2"])
    with pytest.raises(UsemaError, match="preprocessed 2 of 4 cases; case1, case3 did not come out"):
        state.finish("2d")
    assert not state.is_complete("2d")


CHANGES = [
    ({**CASES, "late": [1, 2], "later": [1, 2]}, "{}", r"added: 2 \(late, later\)"),
    ({case: CASES[case] for case in ("case0", "case1")}, "{}", r"gone: 2 \(case2, case3\)"),
    ({**CASES, "case1": [10, 21]}, "{}", r"with other files: 1 \(case1\)"),
    (CASES, '{"labels": {}}', "another dataset.json"),
]


@pytest.mark.parametrize(("cases", "description", "message"), CHANGES)
def test_a_data_set_that_changed_is_preprocessed_anew_until_a_training_has_begun(
    dataset, runs, cases, description, message
):
    state = Preprocessed(dataset, CASES, runs, PLANS)
    preprocess(state, "2d")
    assert state.is_complete("2d")
    (dataset / "dataset.json").write_text(description)
    changed = Preprocessed(dataset, cases, runs, PLANS)
    begin_training(runs, dataset)
    with pytest.raises(InputError, match=message):
        changed.is_complete("2d")
    assert (state.folder / f"{PLANS}_2d").is_dir(), "nothing is lost by asking"
    (runs / "results" / dataset.name / "Trainer__nnUNetPlans__2d/fold_0/checkpoint_latest.pth").unlink()
    assert not changed.is_complete("2d")
    assert not state.folder.exists()
