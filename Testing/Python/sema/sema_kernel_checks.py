"""What test_sema_kernel.py runs: every fused kernel against the definition, on a GPU or in Triton's interpreter.

On a GPU: `pytest Testing/Python/sema/sema_kernel_checks.py`. Elsewhere with TRITON_INTERPRET=1 in the environment.
"""

from __future__ import annotations

from types import SimpleNamespace

import interpreter_bfloat16
import pytest
import torch
from usema.errors import InputError
from usema.networks.blocks import SEMABlock
from usema.sema import Layer, aot, choose, dispatch, launch, operators, reference, sema_attention, triton_backend

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}

# map, window, channels, heads
CASES = {
    "whole windows": ((14, 7), (7, 7), 32, 1),
    "ragged borders, 16 channels a head": ((9, 12), (7, 7), 32, 2),
    "lower than a window": ((3, 10), (7, 7), 64, 2),
    "smaller than a window, 64 channels a head": ((5, 5), (7, 7), 64, 1),
    "5 heads": ((7, 6), (7, 7), 80, 5),
    "one token": ((1, 1), (7, 7), 16, 1),
    "windows of 16 tokens": ((6, 5), (4, 4), 32, 1),
    "windows of 25 tokens": ((6, 9), (5, 5), 64, 2),
    "windows of several blocks": ((10, 12), (9, 9), 32, 1),
    "3D, whole windows": ((8, 4, 4), (4, 4, 4), 32, 2),
    "3D, ragged borders, 64 channels a head": ((5, 4, 6), (4, 4, 4), 64, 1),
    "3D, smaller than a window": ((3, 2, 5), (5, 5, 5), 48, 3),
    "3D, several blocks": ((6, 5, 4), (5, 5, 5), 32, 1),
    "3D, flat windows": ((3, 9, 5), (2, 7, 7), 32, 1),
    "3D, the bundled models' window": ((5, 7, 5), (7, 7, 7), 32, 1),
    "3D, windows on each other": ((4, 2, 3), (2, 2, 3), 16, 1),
}


# Each case in each type on a GPU; the interpreter takes seconds for what is milliseconds there, and has them in turn.
RUNS = [
    pytest.param(case, dtype, id=f"{case}, {dtype}")
    for number, case in enumerate(CASES)
    for place, dtype in enumerate(TOLERANCE)
    if GPU or number % len(TOLERANCE) == place
]


@pytest.fixture(autouse=True)
def poison():
    """Every tensor that torch.empty gives is full of NaN, so that an element that no kernel writes is found."""
    interpreter_bfloat16.mend()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def inputs(shape, channels, dtype, batch=1):
    """q, k, v as the network has them, slices of one tensor, and a gradient of the output."""
    generator = torch.Generator().manual_seed(sum(shape) + channels)
    qkv, grad = (torch.randn(batch, *shape, n * channels, generator=generator) for n in (3, 1))
    # A mean that is far from zero: without it, forgetting the mean would hardly show.
    qkv[..., 2 * channels :] += torch.randn(channels, generator=generator)
    return *qkv.to(DEVICE, dtype).chunk(3, dim=-1), grad.to(DEVICE, dtype)


def by_definition(q, k, v, grad, **settings):
    """Output and gradients of q, k, v in float64 on the CPU."""
    exact = [x.detach().double().cpu().requires_grad_() for x in (q, k, v)]
    out = reference.sema_attention(*exact, **settings, local=True)
    return out.detach(), *torch.autograd.grad(out, exact, grad.double().cpu())


def error(computed: torch.Tensor, exact: torch.Tensor) -> float:
    """||computed - exact|| / ||exact||; NaN where anything is not a finite number."""
    assert computed.shape == exact.shape
    # The gradient of the scores of a lone token is zero.
    return float((computed.detach().double().cpu() - exact).norm() / exact.norm().clamp_min(1e-3))


def check(case: str, dtype: torch.dtype, batch: int = 1, rope: bool = True, mean: bool = True) -> None:
    """Output and gradients of a case equal the definition's."""
    shape, window, channels, heads = CASES[case]
    q, k, v, grad = inputs(shape, channels, dtype, batch)
    settings = {"heads": heads, "window": window, "rope": rope, "mean": mean}
    computed = [launch.forward(q, k, v, **settings, launcher=triton_backend)]
    computed += launch.backward(grad, q, k, v, **settings, launcher=triton_backend)
    exact = by_definition(q, k, v, grad, **settings)
    for name, x, y in zip(("out", "dq", "dk", "dv"), computed, exact, strict=True):
        assert x.dtype == dtype
        assert x.is_contiguous()
        assert error(x, y) < TOLERANCE[dtype], name


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_output_and_gradients_equal_the_definition(case, dtype):
    check(case, dtype)


@pytest.mark.parametrize("case", ["windows of 16 tokens", "3D, windows on each other"])
def test_every_image_of_a_batch_is_computed_by_itself(case):
    check(case, torch.float32, batch=2)


@pytest.mark.parametrize("case", ["windows of 16 tokens", "windows of 25 tokens", "one token", "3D, several blocks"])
def test_the_block_sizes_of_gpus_without_matrix_units_compute_the_same(case, monkeypatch):
    old = launch.Properties(matrix_units=False, tf32=False)
    monkeypatch.setattr(triton_backend, "properties", lambda device: old)
    check(case, torch.float16)


@pytest.mark.parametrize(("rope", "mean"), [(False, True), (True, False)])
@pytest.mark.parametrize("case", ["windows of 16 tokens", "3D, several blocks"])
def test_each_part_can_be_left_out(case, rope, mean):
    check(case, torch.float32, rope=rope, mean=mean)


@pytest.mark.parametrize("case", ["windows of 25 tokens", "3D, several blocks"])
def test_nothing_but_the_map_is_read_or_written(case):
    shape, window, channels, heads = CASES[case]
    q, k, v, _ = inputs(shape, channels, torch.float32)
    tokens = v[..., 0].numel()
    # The rows lie between others, and the channels beside others, that are not numbers.
    around = torch.full((tokens + 200, 3 * channels + 32), torch.nan, device=DEVICE)
    inside = [around[100:-100, 16 + n * channels : 16 + (n + 1) * channels] for n in range(3)]
    for place, x in zip(inside, (q, k, v), strict=True):
        place.copy_(x.reshape(-1, channels))
    qkv = [x.view(v.shape) for x in inside]
    assert all(launch.rows(x).data_ptr() == x.data_ptr() for x in qkv), "a copy would hide what is read"
    written = {}

    def launch_with_margins(kernel, grid, arguments, constants, **options):
        padded = {}
        for name in {"out", "parts"} & set(arguments):
            x = arguments[name]
            padded[name] = torch.full((x.numel() + 2048,), 12345.0, dtype=x.dtype, device=DEVICE)
            arguments = {**arguments, name: padded[name][1024:-1024].view(x.shape)}
        triton_backend.launch(kernel, grid, arguments, constants, **options)
        for name, x in padded.items():
            assert (x[:1024] == 12345).all()
            assert (x[-1024:] == 12345).all()
            written[name] = arguments[name]

    launcher = SimpleNamespace(properties=triton_backend.properties, launch=launch_with_margins)
    with pytest.MonkeyPatch.context() as patch:
        # The mean is taken from where the margins are, too.
        patch.setattr(launch, "mean_over_tokens", lambda x, images, launcher: x.unflatten(0, (images, -1)).mean(1))
        launch.forward(*qkv, heads, window, True, True, launcher)
    expected = reference.sema_attention(q, k, v, heads=heads, window=window, rope=True, mean=True, local=True)
    torch.testing.assert_close(written["out"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("images", "tokens", "channels"), [(2, 1000, 48), (1, 3, 32), (3, 513, 80)])
def test_the_mean_over_tokens_is_the_mean(images, tokens, channels, dtype):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(images * tokens, 2 * channels, generator=generator) + 3).to(DEVICE, dtype)[:, channels:]
    mean = launch.mean_over_tokens(x, images, triton_backend)
    exact = x.cpu().double().unflatten(0, (images, tokens)).mean(1)
    torch.testing.assert_close(mean.cpu().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def plain():
    """q, k, v and a gradient, and what the kernels make of them."""
    q, k, v, grad = inputs((5, 6), 32, torch.float32)
    out = launch.forward(q, k, v, 1, (4, 4), True, True, triton_backend)
    return (q, k, v, grad), out, launch.backward(grad, q, k, v, 1, (4, 4), True, True, triton_backend)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.movedim(-1, 1).contiguous().movedim(1, -1),  # channels first in memory
        lambda x: x.flatten()[1:].clone().new_zeros(x.numel() + 1)[1:].view(x.shape).copy_(x),  # not at 16 bytes
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),  # rows at no one distance
    ],
)
def test_any_memory_layout_gives_the_same(change, plain):
    (q, k, v, grad), out, gradients = plain
    readable = launch.rows(change(q))
    assert readable.data_ptr() % 16 == 0
    assert (readable.stride(0) % 16, readable.stride(1)) == (0, 1)
    settings = (1, (4, 4), True, True, triton_backend)
    torch.testing.assert_close(launch.forward(*map(change, (q, k, v)), *settings), out, rtol=0, atol=0)
    actual = launch.backward(change(grad), *map(change, (q, k, v)), *settings)
    torch.testing.assert_close(actual, gradients, rtol=0, atol=0)


def test_slices_of_one_linear_layer_are_read_where_they_lie():
    q, k, v, _ = inputs((4, 5, 6), 32, torch.float16)
    for x in (q, k, v):
        assert launch.rows(x).data_ptr() == x.data_ptr()
        assert launch.rows(x).stride() == (96, 1)


def test_training_through_the_network_gives_the_gradients_of_pytorch():
    torch.manual_seed(0)
    block = SEMABlock(32, (3, 3), heads=2, window=4).to(DEVICE)
    x = torch.randn(2, 32, 4, 5, device=DEVICE)
    gradients = {}
    for backend in ("triton", "eager"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(dispatch.ENVIRONMENT_VARIABLE, backend)
            gradients[backend] = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    for fused, eager in zip(gradients["triton"], gradients["eager"], strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-4)


def test_the_operators_keep_pytorchs_rules():
    q, k, v, grad = inputs((3, 4), 16, torch.float32)
    settings = (1, [4, 4], True, True, "triton")
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(operators.window_attention, (*leaves, *settings))
    torch.library.opcheck(operators.window_attention_backward, (grad, q, k, v, *settings))


def test_a_compiled_network_has_no_graph_break_and_computes_the_same(monkeypatch):
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "triton")
    torch.manual_seed(0)
    block = SEMABlock(32, (3, 3, 3), heads=1, window=2).to(DEVICE)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for shape in ((3, 2, 2), (2, 1, 3)):
        x = torch.randn(1, 32, *shape, device=DEVICE, requires_grad=True)
        parameters = [x, *block.parameters()]
        outputs = [run(x) for run in (compiled, block)]
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*(torch.autograd.grad(each.square().sum(), parameters) for each in outputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_its_own_type_and_gives_gradients_in_the_inputs(dtype):
    q, k, v, grad = inputs((9, 8), 32, torch.float32)
    q.requires_grad_()
    with torch.autocast(DEVICE.type, dtype):
        out = sema_attention(q, k, v, heads=1, window=7, backend="triton")
    assert out.dtype == dtype
    exact = by_definition(q, k, v, grad, heads=1, window=(7, 7), rope=True, mean=True)
    assert error(out, exact[0]) < 1e-2
    (dq,) = torch.autograd.grad(out, [q], grad.to(dtype))
    assert dq.dtype == torch.float32
    assert error(dq, exact[1]) < 2e-2  # the gradient that came in was rounded as well


def test_without_the_window_part_the_mean_alone_is_left():
    q, k, v, _ = inputs((9, 8), 32, torch.float32)
    out = sema_attention(q, k, v, heads=1, window=7, local=False, backend="triton")
    torch.testing.assert_close(out, v.mean(dim=(1, 2), keepdim=True).expand_as(v))


def test_a_kernel_that_computes_wrong_fails_its_self_test(monkeypatch):
    layer = Layer(torch.float32, (4, 4), 16, training=True)
    assert dispatch._try("triton", DEVICE, layer) is None
    right = launch.backward
    monkeypatch.setattr(launch, "backward", lambda *a, **s: [x * 1.01 for x in right(*a, **s)])
    assert dispatch._try("triton", DEVICE, layer) == "its self-test is off by 1.0e-02"
    assert dispatch._try("triton", DEVICE, Layer(torch.float32, (4, 4), 16)) is None  # inference needs no gradients
    monkeypatch.setattr(launch, "forward", lambda q, k, v, **settings: v * torch.nan)
    assert dispatch._try("triton", DEVICE, layer) == "its self-test is off by nan"


def test_a_layer_that_no_kernel_computes_is_refused_by_name():
    q, k, v, _ = inputs((9, 8), 48, torch.float32)
    with pytest.raises(InputError, match="'triton' cannot run here: no fused kernel for heads of 48 channels"):
        sema_attention(q, k, v, heads=1, window=7, backend="triton")
    with pytest.raises(InputError, match="no fused kernel for float64"):
        sema_attention(q.double(), k.double(), v.double(), heads=3, window=7, backend="triton")
    assert launch.why_not(torch.float16, (90, 90), 32) is None
    assert "windows of 14400 tokens" in launch.why_not(torch.float16, (120, 120), 32)


if GPU:

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    @pytest.mark.parametrize("shape", [(30, 45), (7, 6), (13, 14, 15), (5, 7, 5)])
    def test_ptx_equals_the_definition(shape, dtype):
        q, k, v, grad = inputs(shape, 128, dtype)
        settings = {"heads": 4, "window": (7,) * len(shape), "rope": True, "mean": True}
        out = launch.forward(q, k, v, **settings, launcher=aot)
        assert error(out, by_definition(q, k, v, grad, **settings)[0]) < TOLERANCE[dtype]

    @pytest.mark.parametrize("launcher", [triton_backend, aot])
    def test_the_same_input_gives_the_same_bits_on_any_stream(launcher):
        q, k, v, _ = inputs((60, 90), 128, torch.float16)
        settings = (4, (7, 7), True, True, launcher)
        first = launch.forward(q, k, v, *settings)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = [launch.forward(q, k, v, *settings) for _ in range(5)]
        torch.cuda.synchronize()
        assert all(torch.equal(first, other) for other in again)

    def test_this_gpu_takes_a_fused_kernel_and_every_gpu_computes_the_same():
        q, k, v, _ = inputs((30, 45), 64, torch.float16)
        assert choose("cuda").name in ("triton", "ptx")
        results = []
        for index in range(torch.cuda.device_count()):
            device = torch.device("cuda", index)
            for backend in ("triton", "ptx"):
                out = sema_attention(*(x.to(device) for x in (q, k, v)), heads=2, window=7, backend=backend)
                results.append(out.cpu())
        assert all(error(out, results[0].double()) < 1e-3 for out in results)
