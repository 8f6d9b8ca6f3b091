"""The fused kernels against the definition: on the GPU where there is one, else in Triton's interpreter on the CPU.

Triton decides when a kernel is defined whether it interprets, so the checks run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow(25)
def test_the_kernels_compute_what_the_definition_says():
    pytest.importorskip("triton", reason="the kernels are written in Triton")
    checks = Path(__file__).with_name("sema_kernel_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(checks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
