"""The table of five_folds.py: every case of all folds counts once, beside the atlas of its own fold."""

import json


def case(name: str, dice: float, reference_ml: float, label: str = "Tumour", **changed) -> dict:
    same = {"surface_dice": 0.5, "hausdorff95_mm": 10.0, "predicted_ml": reference_ml, "missing_ml": 1, "added_ml": 2}
    return {"case": name, "label": label, "dice": dice, "reference_ml": reference_ml, **same, **changed}


def row(fold: int, atlas: float, *cases: dict) -> dict:
    training = {"dataset": "Dataset001_Some", "trainer": "nnUNetTrainerSome", "iterations": 50, "minutes": 3}
    told = {"spacing": [3.0, 3.0, 3.0], "tolerance_mm": 1.0, "machine": "2 CPU cores", "date": "2026-01-01"}
    return {"fold": fold, "training": training, **told, "atlas": {c["case"]: [atlas] for c in cases}, "cases": [*cases]}


ROWS = (
    row(0, 0.5, case("a", 0.9, 10.0), case("b", 0.7, 40.0, hausdorff95_mm=30.0)),
    row(1, 0.3, case("c", 0.8, 20.0, predicted_ml=30.0), case("d", 0.4, 80.0)),
)


def test_all_folds_are_pooled_and_compared_with_their_own_atlas(tmp_path):
    from five_folds_table import write_table

    for one in ROWS:
        (tmp_path / f"fold-{one['fold']}.json").write_text(json.dumps(one))
    write_table(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "--iterations 50 --spacing 3 3 3 --folds 0 1`" in text
    assert "\n4 cases, each segmented" in text
    assert "| Tumour | 4 | Dice | 0.700 (" in text
    assert "| 0.400 (d) |" in text
    assert "| Tumour | 4 | Dice of the atlas | 0.400 (" in text
    assert "| Tumour | 4 | Dice minus the atlas's | 0.300 (" in text
    assert "| 30.00 (b) |" in text  # the longest distance is the worst, not the shortest
    assert "Calibration" not in text


def test_cases_are_grouped_by_fold_and_in_thirds_of_size():
    from five_folds_table import groups

    lines = groups([{**one, "fold": row["fold"]} for row in ROWS for one in row["cases"]]).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == [
        "fold 0",
        "fold 1",
        "small, 10.0 to 20.0 ml",
        "medium, 40.0 to 40.0 ml",
        "large, 80.0 to 80.0 ml",
    ]
    assert lines[2].split(" | ")[2] == "2"
    assert lines[2].endswith("| 15.0 | 20.0 |")
    assert lines[3].split(" | ")[3] == "0.700"  # one case has no interval


def test_the_worst_cases_come_first_with_what_is_wrong_in_them():
    from five_folds_table import worst

    cases = [{**one, "fold": row["fold"]} for row in ROWS for one in row["cases"]]
    assert worst(cases).splitlines()[4:6] == [
        "| d | Tumour | 0.400 | 80.0 | 1.0 | 2.0 |",
        "| b | Tumour | 0.700 | 40.0 | 1.0 | 2.0 |",
    ]


def test_a_case_of_several_segments_counts_with_their_mean_too(tmp_path):
    from five_folds_table import write_table

    several = row(0, 0.5, case("a", 0.9, 1.0, "Front"), case("a", 0.7, 3.0, "Back"), case("b", 0.5, 2.0, "Front"))
    several["cases"].append(case("b", 0.3, 2.0, "Back"))
    several["atlas"] = {"a": [0.6, 0.2], "b": [0.4, 0.4]}
    (tmp_path / "fold-0.json").write_text(json.dumps(several))
    write_table(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "\n2 cases, each segmented" in text
    assert "| mean | 2 | Dice | 0.600 (0.400 to 0.800) | 0.600 | 0.400 (b) |" in text
    assert "| mean | 2 | Dice of the atlas | 0.400 (" in text
    assert "| mean | fold 0 | 2 | 0.600 (0.400 to 0.800) | 4.0 | 4.0 |" in text
    assert text.count("| b | ") == 2  # the worst are segments


def test_the_temperature_of_a_published_model_is_measured_beside_those_of_the_folds():
    from five_folds_table import calibrated

    measured = {"region": "near", "temperature": 4.0, "of_the_other_folds": {"0": 3.5}, "asked": 3.12}
    text = calibrated({**measured, "ece": [0.2, 0.05, 0.03], "nll": [0.9, 0.6, 0.7], "brier": [0.5, 0.4, 0.4]})
    assert "| with that of the other folds | with 3.12 |" in text
    assert "| expected calibration error | 0.2000 | 0.0500 | 0.0300 |" in text
