"""The folds of five_folds.py: every case is left out once."""

import json


def test_a_split_of_one_fold_is_completed_so_that_every_case_is_left_out_once(tmp_path):
    from five_folds import with_five_folds

    dataset, cases = tmp_path / "Dataset001_Some", [f"case_{number}" for number in range(15)]
    (dataset / "imagesTr").mkdir(parents=True)
    (dataset / "labelsTr").mkdir()
    (dataset / "dataset.json").write_text("{}")
    assert with_five_folds(dataset, tmp_path / "runs") == dataset  # nnU-Net deals five
    own = {"train": cases[3:], "val": cases[:3]}
    (dataset / "splits_final.json").write_text(json.dumps([own]))
    linked = with_five_folds(dataset, tmp_path / "runs")
    folds = json.loads((linked / "splits_final.json").read_text())
    assert len(folds) == 5
    assert folds[0] == own
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases)
    assert all(sorted(fold["train"] + fold["val"]) == sorted(cases) for fold in folds)
    assert [len(fold["val"]) for fold in folds] == [3] * 5
    assert linked == with_five_folds(dataset, tmp_path / "runs")
    assert json.loads((dataset / "splits_final.json").read_text()) == [own]
