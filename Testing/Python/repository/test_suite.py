"""The suite of tests itself, where a part of what it needs is not installed."""

from __future__ import annotations

import io

import pytest
from _pytest.terminal import TerminalReporter


def test_a_file_that_is_left_out_as_a_whole_does_not_end_the_summary(pytestconfig):
    (ours,) = [plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "SLOW_SECONDS")]
    told = io.StringIO()
    reporter = TerminalReporter(pytestconfig, told)
    reporter.stats["skipped"] = [pytest.CollectReport("test_x.py", "skipped", None, [])]
    passed = pytest.TestReport("test_y.py::y", ("", 0, ""), {"fault": 1}, "passed", None, "call")
    reporter.stats["passed"] = [passed]
    ours.pytest_terminal_summary(reporter)
    assert "1 passed, 0 failed, 0 skipped" in told.getvalue()
