"""Chooses what computes a network on a CPU, and can say why: OpenVINO where it is here, pays and is right; or PyTorch.

The first tile of a case is computed by PyTorch, and tells how long the others will take. Where that is long enough,
OpenVINO computes the same tile, and goes on if it finds the same and is faster. What is to be fast is computed in
bfloat16, where the processor has it.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress

import torch

from ..backends import Choice, forced
from ..sema import ENVIRONMENT_VARIABLE as SEMA_VARIABLE
from . import openvino_engine
from .allocator import give_back
from .openvino_engine import BFLOAT16, FLOAT32

ENVIRONMENT_VARIABLE = "USEMA_CPU_BACKEND"
BACKENDS = ("pytorch", "openvino")

# Seconds of PyTorch, those that were spent and those to come, from which on compiling (1 to 5 s) pays for itself, and
# loading what was compiled before (0.3 s). Of the processor's time, which does not depend on who else computes here.
COMPILING_PAYS, LOADING_PAYS = 10.0, 1.0

# By precision: ||OpenVINO - PyTorch|| / ||PyTorch|| of a tile, 1e-7 to 2e-5 in single precision and up to 2e-2 in
# bfloat16 where a network is computed right, 0.5 where it is not; and the share of its voxels whose label differs, up
# to 1.2e-2 in bfloat16 (noise in an untrained network).
TOLERANCES = {FLOAT32: 1e-3, BFLOAT16: 5e-2}
LABELS_THAT_MAY_DIFFER = {FLOAT32: 1e-3, BFLOAT16: 2e-2}


def choose(device: torch.device | str) -> Choice:
    """What is to compute networks on a device.

    Raises:
        InputError: the environment variable asks for what is not known, or cannot run here.
    """
    if torch.device(device).type != "cpu":
        return Choice("pytorch", "OpenVINO is for CPUs")
    if asked := os.environ.get(ENVIRONMENT_VARIABLE):
        return forced(
            asked,
            BACKENDS,
            lambda: openvino_engine.why_not() if asked == "openvino" else None,
            operation="CPU",
            instead="pytorch",
            by=f"set by {ENVIRONMENT_VARIABLE}",
        )
    if SEMA_VARIABLE in os.environ:
        return Choice("pytorch", f"set by {SEMA_VARIABLE}")
    if reason := openvino_engine.why_not():
        return Choice("pytorch", reason)
    return _by_openvino()


class CPUEngine(torch.nn.Module):
    """A network on a CPU, computed by what was found to be best; for PyTorch's callers a network like any other.

    Args:
        network: in evaluation mode.
        identity: of its weights and architecture; what is compiled is kept under it.
    """

    def __init__(self, network: torch.nn.Module, identity: str):
        super().__init__()
        self.network = network
        self.choice = _by_openvino()
        self._identity = identity
        self._run: openvino_engine.Run | None = None
        self._shape: tuple[int, ...] = ()
        self._precision = FLOAT32  # of what runs
        self._fast = self._refused = False
        self._not_in_bfloat16 = ""  # why this network is not, once it was tried
        self._ahead = 0
        self._spent = 0.0

    def expect(self, tiles: int, fast: bool = False) -> None:
        """So many tiles are to come, mirrored copies included; ``fast``: in bfloat16, if that is possible and right."""
        self._ahead, self._fast = tiles, fast
        if self._run is not None and self._wanted() != self._precision:
            self._run = None
        if self._run is not None:
            self.choice = self._running()
        elif not self._refused:
            self.choice = Choice("pytorch", "too little work for OpenVINO")

    @torch.inference_mode()
    def prove(self, x: torch.Tensor, fast: bool = False) -> None:
        """Decides with one tile, as if there were many."""
        self.expect(1 + math.ceil(COMPILING_PAYS * 1e6), fast)
        self(x)

    def _wanted(self) -> str:
        """The precision to compute in."""
        in_bfloat16 = self._fast and not self._not_in_bfloat16 and openvino_engine.computes_bfloat16()
        return BFLOAT16 if in_bfloat16 else FLOAT32

    @property
    def in_bfloat16(self) -> bool:
        """Whether that is what computes now."""
        return self._run is not None and self._precision == BFLOAT16

    def _running(self) -> Choice:
        return _by_openvino(self._precision, self._not_in_bfloat16 if self._fast else "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._ahead -= 1
        if self._run is not None and tuple(x.shape) == self._shape:
            return self._run(x)
        started = time.process_time()
        logits = self.network(x)
        seconds = (time.process_time() - started) / torch.get_num_threads()
        self._spent += seconds
        # A tile of one value alone tells nothing of a network.
        if self._run is None and not self._refused and x.numel() and bool(x.amax() > x.amin()):
            self._consider(x, logits, seconds)
        return logits

    def _consider(self, x: torch.Tensor, logits: torch.Tensor, seconds: float) -> None:
        to_come = self._ahead * seconds
        if to_come <= LOADING_PAYS and self._spent + to_come <= COMPILING_PAYS:
            return  # to load OpenVINO alone takes as long as a tile or two
        give_back()  # PyTorch's: 40 MB, with a small network, that OpenVINO's buffers would come beside
        precision, run, reason = FLOAT32, None, None
        try:
            precision = self._wanted()
            compiler = openvino_engine.Compiler(self.network, self._identity, x.shape, precision)
            if compiler.is_kept and to_come > LOADING_PAYS and (run := compiler.kept()):
                reason = why_not_trusted(run, x, logits, seconds, precision)
                if reason:  # perhaps a network whose code has changed since
                    compiler.forget()
            if (run is None or reason) and self._spent + to_come > COMPILING_PAYS:
                run, keep = compiler.compiled()
                reason = why_not_trusted(run, x, logits, seconds, precision)
                if not reason:
                    with suppress(Exception):  # then it is compiled again next time
                        keep()
        except Exception as error:  # whatever a compiler raises, PyTorch still works
            words = str(error).strip() or repr(error)
            run, reason = None, f"OpenVINO failed: {words.splitlines()[0][:200]}"
        if reason and precision == BFLOAT16:
            self._not_in_bfloat16 = reason
            self._consider(x, logits, seconds)
        elif reason:
            self._refused, self.choice = True, Choice("pytorch", reason)
        elif run is not None:
            self._run, self._shape, self._precision = run, tuple(x.shape), precision
            self.choice = self._running()
        # What compiling or reading took. OpenVINO has its own buffers, none of which comes and goes.
        give_back(large_blocks=self._run is not None)


def why_not_trusted(
    run: openvino_engine.Run, x: torch.Tensor, expected: torch.Tensor, seconds: float, precision: str = FLOAT32
) -> str | None:
    """Why OpenVINO is not to be taken for a network, of which PyTorch found ``expected`` in so many seconds."""
    found = run(x)
    if found.shape != expected.shape:
        return f"OpenVINO's self-test gives {tuple(found.shape)} for {tuple(expected.shape)}"
    error = float((found - expected).norm() / expected.norm())
    if not error < TOLERANCES[precision]:  # also when it is NaN
        return f"OpenVINO's self-test is off by {error:.1e}"
    differing = float((found.argmax(1) != expected.argmax(1)).float().mean())
    if differing > LABELS_THAT_MAY_DIFFER[precision]:
        return f"OpenVINO's self-test labels {differing:.1%} of the voxels otherwise"
    started = time.process_time()
    run(x)
    return "OpenVINO is no faster here" if (time.process_time() - started) / torch.get_num_threads() > seconds else None


def _by_openvino(precision: str = FLOAT32, not_in_bfloat16: str = "") -> Choice:
    how = "in bfloat16, " if precision == BFLOAT16 else ""
    why = f"; not in bfloat16: {not_in_bfloat16}" if not_in_bfloat16 else ""
    return Choice("openvino", f"{openvino_engine.version()}, {how}compared with PyTorch on the first tile{why}")
