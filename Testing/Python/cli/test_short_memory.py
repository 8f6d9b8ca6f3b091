"""Memory that runs out in one case of many: it is told, and the cases after it are done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from usema.volumes.volume import load_volume

# For case a there is no memory for an array of ours. While b is segmented, the process may take no more than it has, as
# beside a program that took all: what runs out first is what oneDNN needs for the first convolution.
LIMITED = """
import resource, sys
import numpy as np
import scipy.ndimage
import usema.inference.predictor
from usema.cli import main, work
from usema.inference import memory

memory.free_in_limits = lambda **_: None  # else it is refused before
whole = work.predict_case

def limited(case, *rest):
    if case.name.startswith("a"):
        np.ones(2**50)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used if case.name.startswith("b") else hard, hard))
    try:
        return whole(case, *rest)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

work.predict_case = limited
main(sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process may take is limited as Linux does it")
def test_cases_after_one_that_memory_was_too_small_for_are_done(model, small_volume, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c", "d"):
        shutil.copyfile(small_volume, tmp_path / "in" / f"{name}.nii.gz")
    arguments = ["segment", tmp_path / "in", "-o", f"{tmp_path}/out/", "--model", model, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert run.returncode == 1, run.stderr
    assert "Error: a.nii.gz: Memory is too small. Unable to allocate" in run.stderr
    assert "Error: b.nii.gz: Main memory is too small" in run.stderr
    assert run.stderr.count("Close other programs") == 2
    assert "2 of 4 failed" in run.stdout + run.stderr
    for name in ("c", "d"):
        assert load_volume(tmp_path / "out" / f"{name}.nii.gz").array.any()
