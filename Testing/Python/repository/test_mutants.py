"""The list of mistakes that tests must see (`Testing/mutants.py`) fits the sources and the tests as they are."""

from __future__ import annotations

import re

import pytest
from testing_scripts import load


@pytest.fixture(scope="module")
def script(root):
    return load(root, "mutants")


def test_each_mistake_can_be_made_in_one_place(script, root):
    for mutant in script.mutants():
        source = (root / mutant.file).read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, f"{mutant.name}: its old text stands {source.count(mutant.old)} times"
        assert mutant.new != mutant.old
        if mutant.file.endswith(".py"):
            compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")


def test_each_names_tests_that_there_are_and_what_it_breaks(script, root):
    for mutant in script.mutants():
        assert re.fullmatch(r"[A-Z].*\.", mutant.breaks), mutant.name
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            file, _, function = test.partition("::")
            source = (root / file).read_text(encoding="utf-8")
            assert not function or f"def {function.partition('[')[0]}(" in source, f"{mutant.name}: {test}"
    names = [mutant.name for mutant in script.mutants()]
    assert len(set(names)) == len(names) >= 40


def test_a_mistake_that_no_test_sees_is_told_and_the_copy_is_as_before(script, tmp_path):
    (tmp_path / "sum.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sum.py").write_text("from sum import add\n\ndef test_add():\n    assert add(2, 2) == 4\n")
    seen = script.Mutant("minus", "sum.py", "a + b", "a - b", ["test_sum.py"], "It is told.")
    unseen = script.Mutant("times", "sum.py", "a + b", "a * b", ["test_sum.py"], "It is not told.")
    gone = script.Mutant("gone", "sum.py", "a - b", "a + b", ["test_sum.py"], "It is not there.")
    no_test = script.Mutant("none", "sum.py", "a + b", "a - b", ["test_other.py"], "There is no test.")
    assert [script.outcome(tmp_path, one, 60) for one in (seen, unseen, gone, no_test)] == [
        script.DIED, script.LIVED, script.BROKEN, script.BROKEN,
    ]  # fmt: skip
    assert "a + b" in (tmp_path / "sum.py").read_text()
