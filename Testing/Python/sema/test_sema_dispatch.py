"""Which backend computes SEMA attention, and what is said about it."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from usema.backends import Choice
from usema.errors import InputError
from usema.networks.blocks import SEMABlock
from usema.sema import Layer, aot, choose, dispatch, launch, operators, sema_attention, triton_backend

GPU = torch.device("cuda", 0)
TRY = dispatch._try


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)
    dispatch._automatic.cache_clear()
    yield
    dispatch._automatic.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """A machine with an NVIDIA GPU, where ``refuse`` says why a backend cannot run, and ``fail`` how its test ends."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    state = {"refuse": {}, "fail": {}, "tested": []}

    def self_test(backend, device, layer):
        state["tested"].append(backend)
        return state["fail"].get(backend)

    monkeypatch.setattr(triton_backend, "why_not", lambda device: state["refuse"].get("triton"))
    monkeypatch.setattr(aot, "why_not", lambda *layer: state["refuse"].get("ptx"))
    monkeypatch.setattr(aot, "_failures", {})
    monkeypatch.setattr(dispatch, "_try", self_test)
    return state


def decide(layer=None):
    """The choice that a new process would make."""
    dispatch._automatic.cache_clear()
    return choose(GPU, layer=layer)


def test_triton_comes_first(machine):
    assert str(decide()) == "Triton (compiled for this GPU)"
    assert machine["tested"] == ["triton"]


def test_ptx_comes_next_and_says_what_triton_lacks(machine):
    machine["fail"]["triton"] = "no C compiler here"
    assert str(decide()) == "PTX (no C compiler here)"
    machine["refuse"]["triton"] = "triton is not installed"
    assert str(decide()) == "PTX (triton is not installed)"


def test_pytorch_comes_last_and_says_what_both_lack(machine):
    machine["refuse"]["triton"] = "triton is not installed"
    machine["refuse"]["ptx"] = "this GPU is older than Turing"
    assert str(decide()) == "PyTorch (Triton: triton is not installed; PTX: this GPU is older than Turing)"
    machine["refuse"]["ptx"] = None
    machine["fail"]["ptx"] = "its self-test is off by 3.0e-01"
    assert str(decide()) == "PyTorch (Triton: triton is not installed; PTX: its self-test is off by 3.0e-01)"


def test_ptx_is_not_taken_for_training(machine):
    machine["refuse"]["triton"] = "triton is not installed"
    choice = decide(Layer(training=True))
    assert str(choice) == "PyTorch (Triton: triton is not installed; PTX: the kernels have no backward pass)"
    assert decide(Layer(training=False)).name == "ptx"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer(dtype=torch.float64), "no fused kernel for float64"),
        (Layer(head_dim=24), "no fused kernel for heads of 24 channels"),
        (Layer(window=(300, 300)), "no fused kernel for windows of 90000 tokens, 300 x 300"),
        (Layer(window=(2049, 1)), "no fused kernel for windows of 2049 tokens, 2049 x 1"),  # would read before the map
    ],
)
def test_a_layer_that_no_kernel_computes_goes_to_pytorch_untried(machine, layer, reason):
    assert choose(GPU, layer=layer) == Choice("eager", reason)
    assert machine["tested"] == []


@pytest.mark.parametrize("device", ["cpu", "meta", "mps"])
def test_other_devices_go_to_pytorch(device):
    assert str(choose(device)) == "PyTorch (no NVIDIA GPU)"


def test_a_pytorch_for_amd_is_not_taken_for_nvidia(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert str(choose(GPU)) == "PyTorch (no NVIDIA GPU)"


def test_a_gpu_whose_launches_failed_goes_to_pytorch_and_says_so(machine):
    machine["refuse"]["triton"] = "triton is not installed"
    assert choose(GPU).name == "ptx"
    aot._failures[0] = "out of GPU memory (cuLaunchKernel: error 2)"
    assert str(choose(GPU)) == "PyTorch (PTX: out of GPU memory (cuLaunchKernel: error 2))"
    assert choose(torch.device("cuda", 1)).name == "ptx"


def test_each_kind_of_layer_is_tested_once_on_each_device(machine):
    for _ in range(3):
        choose(GPU)
        choose(torch.device("cuda", 1))
        choose(GPU, layer=Layer(window=(7, 7)))
    assert machine["tested"] == ["triton"] * 3


def in_32_bits(t: np.ndarray, divisor: int) -> np.ndarray:
    """The kernels' division, as the GPU's registers do it."""
    factor = np.int32((2**20 + divisor - 1) // divisor)
    return (t.astype(np.int32) * factor) >> np.int32(20)  # wraps, as on the GPU


def test_every_window_that_is_admitted_divides_exactly():
    """Against exact integers, for every number that a kernel gives a token."""
    random = np.random.default_rng(0)
    sides = [(int(2 ** random.uniform(0, 13)), int(2 ** random.uniform(0, 13))) for _ in range(400)]
    sides += [tuple(int(2 ** random.uniform(0, 5)) for _ in range(3)) for _ in range(400)]
    sides += [(tall, 1) for tall in (1900, 1919, 1920, 1921, 2048, 2049, 3000, 4096, 8000)] + [(1, 900), (7, 7, 7)]
    admitted = [window for window in sides if launch.why_not(torch.float16, window, 32) is None]
    assert len(admitted) > 300
    for window in admitted:
        *_, high, wide = window
        t = np.arange(math.prod(window) + 128)
        for divisor in (wide, high * wide) if len(window) == 3 and window[0] > 1 else (wide,):
            assert (in_32_bits(t, divisor) == t // divisor).all(), (window, divisor)
    refused = [window for window in ((2049, 1), (3000, 1), (4096, 1)) if window not in admitted]
    assert len(refused) == 3
    assert any((in_32_bits(np.arange(math.prod(window) + 128), 1) < 0).any() for window in refused)


def test_what_is_forced_is_taken_untried(machine, monkeypatch):
    assert str(choose(GPU, "ptx")) == "PTX (asked for by the caller)"
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "eager")
    assert str(choose(GPU)) == "PyTorch (set by USEMA_SEMA_BACKEND)"
    assert choose(GPU, "triton").name == "triton", "the caller comes before the environment"
    assert machine["tested"] == []


def test_what_is_forced_but_cannot_run_is_an_error_with_its_reason(machine, monkeypatch):
    machine["refuse"]["ptx"] = "no PTX for this layer"
    with pytest.raises(InputError, match="'ptx' cannot run here: no PTX for this layer"):
        choose(GPU, "ptx")
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "ptx")
    with pytest.raises(InputError, match="the kernels have no backward pass"):
        choose(GPU, layer=Layer(training=True))


def test_here_without_a_gpu_the_fused_backends_say_so():
    x = torch.zeros(1, 4, 4, 32)
    for backend in operators.LAUNCHERS:
        with pytest.raises(InputError, match=f"'{backend}' cannot run here: no NVIDIA GPU"):
            sema_attention(x, x, x, heads=1, window=4, backend=backend)


def test_the_layer_that_is_judged_is_the_one_that_is_computed(monkeypatch):
    judged = []

    def judge(device, backend, layer):
        judged.append(layer)
        return Choice("eager", "")

    monkeypatch.setattr("usema.sema.choose", judge)
    x = torch.zeros(1, 4, 5, 6, 64, requires_grad=True)
    sema_attention(x, x, x, heads=4, window=(2, 3, 4), rope=False)
    with torch.no_grad():
        sema_attention(x.half(), x.half(), x.half(), heads=2, window=3, mean=False)
    assert judged == [
        Layer(torch.float32, (2, 3, 4), 16, rope=False, training=True),
        Layer(torch.float16, (3, 3, 3), 32, mean=False),
    ]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("Failed to find C compiler. Please specify via CC environment variable."), "no C compiler here"),
        (RuntimeError("/tmp/main.c:4:10: fatal error: Python.h: No such file or directory"), "no Python headers here"),
        (launch.LaunchError("no NVIDIA driver"), "no NVIDIA driver"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (ValueError(), "ValueError: no message"),
    ],
)
def test_a_self_test_that_breaks_gives_its_reason_in_plain_words(monkeypatch, raised, reason):
    def broken(*arguments, **settings):
        raise raised

    monkeypatch.setattr(launch, "forward", broken)
    assert dispatch._self_test("triton", torch.device("cpu"), Layer(torch.float32, (2, 2), 16)) == reason


def test_too_little_memory_for_the_self_test_says_nothing_about_the_kernel(machine, monkeypatch):
    def full(*problem):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dispatch, "_largest_error", full)
    monkeypatch.setattr(dispatch, "_try", TRY)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        choose(GPU)

    def no_room(*problem):
        raise launch.LaunchError("out of GPU memory (cuLaunchKernel: error 2)", launch.OUT_OF_MEMORY)

    monkeypatch.setattr(dispatch, "_largest_error", no_room)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of GPU memory"):
        choose(GPU)
    monkeypatch.setattr(dispatch, "_largest_error", lambda *problem: 0.0)
    assert choose(GPU).name == "triton"


def test_the_self_test_sees_none_of_the_callers_modes(monkeypatch):
    seen = []

    def modes(backend, device, layer):
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        seen.append(threading.current_thread() is threading.main_thread())
        return None

    monkeypatch.setattr(dispatch, "_try", modes)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        dispatch._self_test("triton", torch.device("cpu"), Layer())
    assert seen == [(False, True, False), False]


def test_maps_of_more_windows_than_a_gpu_takes_at_once_go_to_pytorch():
    assert launch.fits_grid((2, 65535 * 7, 3, 32), (7, 7))
    assert not launch.fits_grid((2, 65535 * 7 + 1, 3, 32), (7, 7))
    assert not launch.fits_grid((40_000, 14, 7, 7, 32), (7, 7, 7))
    assert launch.fits_grid((40_000, 7, 7, 7, 32), (7, 7, 7))
    x = torch.randn(1, 70_000, 1, 16)
    out = operators.sema_attention(
        x, x, x, heads=1, window=(1, 1), rope=True, mean=False, local=True, launcher="triton"
    )  # fmt: skip
    torch.testing.assert_close(out, x)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("axes", [2, 3])
def test_a_compiled_network_block_has_no_graph_break(axes):
    torch.manual_seed(0)
    block = SEMABlock(32, (3,) * axes, heads=1, window=3)
    x = torch.randn(1, 32, *(3, 4, 2)[:axes], requires_grad=True)
    # Symbolic sizes would take minutes here: PyTorch's own way cuts the map by its size.
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(compiled(x), block(x))
    expected = torch.autograd.grad(block(x).sum(), [x])
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), [x]), expected)
