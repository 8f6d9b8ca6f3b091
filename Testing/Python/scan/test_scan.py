"""The selective scan: the definition against loops and a closed form, the fast version against the definition."""

from __future__ import annotations

import importlib.util
import math
import weakref

import pytest
import torch
from usema.errors import InputError
from usema.scan import choose, chunked, selective_scan

# batch, channels, groups, N, L; a chunk has 2**17 / (batch * channels * N) positions, at least 8
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 6, 3, 4, 7),
    (3, 8, 1, 16, 65),
    (1, 4, 2, 16, 2100),
    (2, 1024, 4, 16, 19),
    (5, 512, 1, 16, 40),
]


def problem(batch, channels, groups, states, length, decay=1.0) -> list[torch.Tensor]:
    """u, delta, A, B, C, D and delta_bias in float64; a larger decay forgets sooner, 0 never."""
    generator = torch.Generator().manual_seed(batch * length + channels)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    A = -decay * torch.arange(1, states + 1, dtype=torch.float64).repeat(channels, 1)
    B, C = random(batch, groups, states, length), random(batch, groups, states, length)
    delta = random(batch, channels, length)
    return [random(batch, channels, length), delta, A, B, C, random(channels), random(channels) - 3]


def with_gradients(inputs, backend, dtype=torch.float64) -> list[torch.Tensor]:
    """Output, and gradients of a fixed weighting of it with respect to all inputs; in float64."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    y = selective_scan(*leaves, True, backend=backend)
    assert y.dtype == dtype
    weights = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).view_as(y).to(dtype)
    return [x.detach().double() for x in (y, *torch.autograd.grad(y, leaves, weights))]


def error(actual, expected) -> float:
    return max(float((x - y).norm() / y.norm().clamp_min(1e-300)) for x, y in zip(actual, expected, strict=True))


def test_the_reference_is_the_papers_recurrence():
    u, delta, A, B, C, D, bias = problem(1, 2, 2, 3, 5)
    expected = torch.zeros_like(u)
    for channel in range(2):
        state = [0.0] * 3
        for t in range(5):
            step = math.log1p(math.exp(float(delta[0, channel, t] + bias[channel])))
            value = float(u[0, channel, t])
            for n in range(3):
                decayed = math.exp(step * float(A[channel, n])) * state[n]
                state[n] = decayed + step * float(B[0, channel, n, t]) * value
            output = sum(float(C[0, channel, n, t]) * state[n] for n in range(3))
            expected[0, channel, t] = output + float(D[channel]) * value
    actual = selective_scan(u, delta, A, B, C, D, bias, True, backend="reference")
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stepping", [0, 2**62], ids=["stepping", "doubling"])
def test_chunked_equals_the_reference_gradients_included(size, stepping, monkeypatch):
    monkeypatch.setattr(chunked, "STEPPING", stepping)
    inputs = problem(*size)
    expected = with_gradients(inputs, "reference")
    assert error(with_gradients(inputs, "chunked"), expected) < 1e-12
    assert error(with_gradients(inputs, "chunked", torch.float32), expected) < 2e-5


@pytest.mark.parametrize("decay", [0.0, 30.0], ids=["none", "strong"])
def test_neither_strong_decay_nor_none_harms_long_sequences(decay):
    inputs = problem(1, 4, 1, 16, 2000, decay)
    expected = with_gradients(inputs, "reference")
    actual = with_gradients(inputs, "chunked", torch.float32)
    assert all(x.isfinite().all() for x in actual)
    assert error(actual, expected) < 1e-4


def test_gradients_are_right(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", {"cpu": 8})  # several chunks and parts of the batch
    monkeypatch.setattr(chunked, "POSITION", {"cpu": 8})
    inputs = [x.requires_grad_() for x in problem(2, 2, 1, 2, 11)]
    for backend in ("reference", "chunked"):
        assert torch.autograd.gradcheck(lambda *x, backend=backend: selective_scan(*x, True, backend=backend), inputs)


def test_without_decay_the_scan_is_a_cumulative_sum():
    u, delta, A, B, C, *_ = problem(2, 3, 1, 2, 50, decay=0.0)
    products = (delta * u).unsqueeze(2) * B
    expected = (products.cumsum(-1) * C).sum(2)
    torch.testing.assert_close(selective_scan(u, delta, A, B, C), expected)


def test_one_group_may_be_left_out_of_the_shapes():
    u, delta, A, B, C, D, bias = problem(2, 6, 1, 4, 9)
    expected = selective_scan(u, delta, A, B, C, D, bias, True)
    torch.testing.assert_close(selective_scan(u, delta, A, B[:, 0], C[:, 0], D, bias, True), expected)


def test_what_comes_later_does_not_matter():
    u, *others = problem(1, 4, 2, 4, 40)
    changed = u.clone()
    changed[..., 25:] += 1
    before, after = (selective_scan(x, *others, True) for x in (u, changed))
    torch.testing.assert_close(before[..., :25], after[..., :25])
    assert not torch.allclose(before[..., 25:], after[..., 25:])


def test_inference_holds_no_more_than_a_chunk(monkeypatch):
    """The states of all positions would be 16 times the input."""
    monkeypatch.setattr(chunked, "CHUNK", {"cpu": 2**10})
    largest, borders, most = 0, [], 0
    new_empty, clone = torch.Tensor.new_empty, torch.Tensor.clone

    def watched_new_empty(self, *size):
        nonlocal largest
        largest = max(largest, math.prod(size))
        return new_empty(self, *size)

    def watched_clone(self):
        nonlocal most
        copy = clone(self)
        borders.append(weakref.ref(copy))
        most = max(most, sum(border() is not None for border in borders))
        return copy

    monkeypatch.setattr(torch.Tensor, "new_empty", watched_new_empty)
    monkeypatch.setattr(torch.Tensor, "clone", watched_clone)
    with torch.inference_mode():
        selective_scan(*(x.float() for x in problem(1, 4, 1, 16, 3000)), True)
    assert largest == 2 * 2**10  # decays and states
    assert len(borders) > 100
    assert most <= 2


def test_autocast_does_not_make_it_coarse():
    inputs = problem(2, 64, 4, 16, 30)
    expected = with_gradients(inputs, "reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert error(with_gradients(inputs, "chunked", torch.float32), expected) < 1e-5
    half = [inputs[0].bfloat16(), *(x.float() for x in inputs[1:])]
    assert selective_scan(*half, True).dtype == torch.bfloat16


def test_the_choice_of_backend_gives_its_reason():
    assert str(choose("cpu")) == "PyTorch (no NVIDIA GPU)"
    assert str(choose("cpu", "reference")) == "PyTorch, by definition (asked for by the caller)"
    with pytest.raises(InputError, match="'mamba'"):
        choose("cpu", "mamba")
    with pytest.raises(InputError, match="'mamba-ssm' cannot run here: no NVIDIA GPU"):
        choose("cpu", "mamba-ssm")


@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba-ssm is installed")
def test_without_mamba_ssm_a_gpu_gets_pytorch_and_the_reason():
    assert str(choose("cuda")) == "PyTorch (mamba-ssm is not installed)"


def test_a_mamba_ssm_that_cannot_be_imported_is_not_chosen(tmp_path, monkeypatch):
    """As where its binary was built for another PyTorch."""
    from usema.scan.dispatch import _why_not_mamba_ssm

    (tmp_path / "mamba_ssm").mkdir()
    (tmp_path / "mamba_ssm/__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    _why_not_mamba_ssm.cache_clear()
    assert choose("cuda").reason == "mamba-ssm: ImportError: undefined symbol: _ZN3c10"
    _why_not_mamba_ssm.cache_clear()


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("mamba_ssm") is None, reason="needs mamba-ssm and a GPU"
)
def test_the_kernel_of_mamba_ssm_equals_the_reference():
    inputs = problem(2, 64, 4, 16, 300)
    expected = with_gradients(inputs, "reference")
    actual = with_gradients([x.cuda() for x in inputs], "mamba-ssm", torch.float32)
    assert error([x.cpu() for x in actual], expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 6, 8), r"delta has the shape \(2, 6, 8\), but \(2, 6, 9\)"),
        ("C", (2, 1, 4, 9), r"C has the shape \(2, 1, 4, 9\), but \(2, 2, 4, 9\)"),
        ("D", (5,), r"D has the shape \(5,\)"),
        ("u", (6, 9), "u must be"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, shape, message):
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    inputs = dict(zip(names, problem(2, 6, 2, 4, 9), strict=True)) | {name: torch.zeros(shape)}
    with pytest.raises(InputError, match=message):
        selective_scan(**inputs)


def test_groups_must_divide_the_channels():
    u, delta, A, B, C, *_ = problem(1, 6, 3, 4, 9)
    with pytest.raises(InputError, match="5 channels do not divide into 3 groups"):
        selective_scan(u[:, :5], delta[:, :5], A[:5], B, C)
