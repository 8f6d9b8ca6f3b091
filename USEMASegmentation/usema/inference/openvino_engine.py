"""OpenVINO, which computes a network on a CPU in half of PyTorch's time or less: found at run time, never needed.

Networks are traced and compiled for one shape, in single precision or, on processors that have it, in bfloat16. What is
compiled is kept on disk (``compiled_models.py``), because tracing takes seconds. Whether it computes right is for who
asks to find out (``cpu_engine.py``).
"""

from __future__ import annotations

import hashlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata, util

import numpy as np
import torch

from .. import __version__
from . import compiled_models

Run = Callable[[torch.Tensor], torch.Tensor]

FLOAT32, BFLOAT16 = "f32", "bf16"  # precisions, as OpenVINO calls them


def why_not() -> str | None:
    """Why it cannot be used, as far as that is known without loading it."""
    return None if util.find_spec("openvino") and version() else "OpenVINO is not installed"


def version() -> str:
    """Its release; empty if it is not installed."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return ""


def load():
    """The package. It would report to its makers that and how it is used: here nothing leaves the computer."""
    # Found as None, the package that reports cannot be imported, and OpenVINO goes without.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


class Compiler:
    """Compiles one network for one shape.

    Args:
        network: in evaluation mode, on the CPU.
        identity: of its weights and architecture.
        shape: of the input, (B, C, *tile).
        precision: FLOAT32 or BFLOAT16, in which it computes.
    """

    def __init__(self, network: torch.nn.Module, identity: str, shape: Sequence[int], precision: str = FLOAT32):
        self._network = network
        self._shape = tuple(shape)
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other programs run here, too
        }
        described = (identity, self._shape, version(), __version__, torch.__version__, self._settings, _processor())
        self._key = hashlib.sha256(repr(described).encode()).hexdigest()[:32]

    @property
    def is_kept(self) -> bool:
        """Whether it was compiled before on this computer."""
        return compiled_models.holds(self._key)

    def kept(self) -> Run | None:
        """What was compiled before; None if there is none that can be read."""
        content = compiled_models.find(self._key)
        if content is None:
            return None
        try:
            return _runner(self._imported(content), self._shape, content)
        except Exception:  # of another build of OpenVINO
            self.forget()
            return None

    def _imported(self, content: bytearray):
        """Not copied: the weights are used where they lie in it."""
        openvino = load()
        core, shared = openvino.Core(), openvino.Tensor(np.frombuffer(content, np.uint8), shared_memory=True)
        try:
            return core.import_model(shared, "CPU", self._settings)
        except TypeError:  # releases of 2025 take nothing but bytes, which they copy
            return core.import_model(bytes(content), "CPU", self._settings)

    def compiled(self) -> tuple[Run, Callable[[], None]]:
        """Compiles; and what keeps it on disk, to be called when it has proved right."""
        openvino = load()
        # A thread of its own has none of the caller's modes, as inference mode, which tracing does not take.
        with ThreadPoolExecutor(1) as thread:
            model = thread.submit(self._traced).result()
        compiled = openvino.Core().compile_model(model, "CPU", self._settings)

        def keep() -> None:
            content = io.BytesIO()
            compiled.export_model(content)
            compiled_models.keep(self._key, content.getvalue())

        return _runner(compiled, self._shape), keep

    def forget(self) -> None:
        """Removes what was kept."""
        compiled_models.forget(self._key)

    @torch.no_grad()
    def _traced(self):
        example = torch.zeros(self._shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that shapes become constants is meant
            # Traced here, because OpenVINO traces twice to compare, which takes longer than all the rest.
            traced = torch.jit.trace(self._network, example, check_trace=False)
            return load().convert_model(traced, example_input=example, input=[list(self._shape)])


def _runner(compiled, shape: tuple[int, ...], content: bytearray | None = None) -> Run:
    """Runs what was compiled; ``content``, of which it was made, lives as long as this does."""
    openvino = load()
    request = compiled.create_infer_request()
    output_shape = tuple(compiled.output(0).shape)

    def run(x: torch.Tensor) -> torch.Tensor:
        # A tensor of its own for each result: the caller may keep it while the next one is computed.
        result = torch.empty(output_shape)
        request.set_output_tensor(openvino.Tensor(result.numpy(), shared_memory=True))
        request.set_input_tensor(openvino.Tensor(x.contiguous().numpy(), shared_memory=True))
        request.infer()
        return result

    run.content = content
    return run


def computes_bfloat16() -> bool:
    """Whether the processor computes bfloat16 (AMX, AVX-512 BF16); others emulate it, which pays nothing."""
    return "BF16" in _processor()


@cache
def _processor() -> tuple[str, ...]:
    """What a compiled model is made for."""
    core = load().Core()
    return core.get_property("CPU", "FULL_DEVICE_NAME"), *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
