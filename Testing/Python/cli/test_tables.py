"""Tables that a spreadsheet opens: what others named is text there and never a formula."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from bundles import METADATA, write_tiny_bundle
from cli_cases import usema
from usema.tables import as_csv

BEGINNINGS = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"]
NAMES = ['=HYPERLINK("http://x";"y")', "@SUM(1)"]


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def formulas(path: Path) -> list[str]:
    """Cells that a spreadsheet would compute: numbers are none."""

    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    return [cell for row in rows_of(path) for cell in row if cell[:1] in BEGINNINGS and cell and not is_number(cell)]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_text_is_marked_as_text_and_a_number_stays_one(tmp_path, beginning):
    text = f"{beginning}1+1"
    (tmp_path / "a.csv").write_bytes(as_csv([text, "b"], [[text, -1.5], ["1=1", -2], [None, "a-b"]]).encode())
    marked = f"'{text}"
    assert rows_of(tmp_path / "a.csv") == [[marked, "b"], [marked, "-1.5"], ["1=1", "-2"], ["", "a-b"]]


def test_names_of_files_and_labels_are_no_formulas_in_any_table(small_volume, tmp_path):
    labels = [{**METADATA["labels"][0], "value": value, "name": name} for value, name in enumerate(NAMES, 1)]
    model = write_tiny_bundle(tmp_path / "model", labels=labels).path
    volumes, results = tmp_path / "in", tmp_path / "out"
    volumes.mkdir()
    for name in ("=1+1.nii.gz", "-3.nii.gz"):
        shutil.copy(small_volume, volumes / name)
    assert usema("segment", volumes, "-o", f"{results}/", "--model", model).exit_code == 0
    table = rows_of(results / "cohort.csv")
    assert [row[0] for row in table[1:]] == ["'-3.nii.gz", "'=1+1.nii.gz"]
    assert f"'{NAMES[0]} / ml" in table[0]
    one = tmp_path / "one.csv"
    arguments = ("-o", tmp_path / "one.nii", "--statistics", one, "--model", model)
    assert usema("segment", volumes / "=1+1.nii.gz", *arguments).exit_code == 0
    assert [row[0] for row in rows_of(one)[1:]] == [f"'{name}" for name in NAMES]
    scores, compared = tmp_path / "scores.csv", tmp_path / "compared"
    shutil.copytree(results, compared, ignore=lambda *_: ["cohort.csv", "status"])
    assert usema("evaluate", compared, compared, "--model", model, "--csv", scores).exit_code == 0
    assert any("'=1+1" in cell for row in rows_of(scores) for cell in row)
    for path in (results / "cohort.csv", one, scores):
        assert formulas(path) == []
