"""SEMA attention: the definition against loops, the fast version against the definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from usema.errors import InputError
from usema.sema import choose, sema_attention
from usema.sema.rope import apply_rope, rope_table

# map, window side, channels, heads: ragged borders, maps smaller than a window, one window, 1..16 heads
SHAPES = [
    ((14, 14), 7, 32, 1),
    ((15, 9), 7, 32, 2),
    ((3, 20), 7, 64, 2),
    ((5, 5), 7, 64, 4),
    ((7, 6), 7, 512, 16),
    ((1, 1), 7, 16, 1),
    ((8, 8, 8), 4, 32, 2),
    ((5, 9, 6), 4, 32, 1),
    ((3, 2, 5), 7, 48, 3),
    ((9, 7, 15), 7, 16, 1),
]


def qkv(shape, channels, dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(hash((shape, channels)) % 2**31)
    return [torch.randn(batch, *shape, channels, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def by_loops(q, k, v, heads, window):
    """The formula of the paper, token by token, in float64, on a map that RoPE has already rotated."""
    batch, *shape, channels = v.shape
    dim = channels // heads
    tokens = list(itertools.product(*(range(extent) for extent in shape)))
    out = torch.zeros_like(v)
    for b, head in itertools.product(range(batch), range(heads)):
        part = slice(head * dim, (head + 1) * dim)
        average = sum(v[(b, *token)][part] for token in tokens) / len(tokens)
        for i in tokens:
            same = [j for j in tokens if all(a // window == c // window for a, c in zip(i, j, strict=True))]
            scores = [float(q[(b, *i)][part] @ k[(b, *j)][part]) / math.sqrt(dim) for j in same]
            weights = [math.exp(s - max(scores)) for s in scores]
            local = sum(w * v[(b, *j)][part] for w, j in zip(weights, same, strict=True)) / sum(weights)
            out[(b, *i)][part] = local + average
    return out


@pytest.mark.parametrize(("shape", "window", "heads"), [((5, 4), 3, 2), ((2, 3, 4), 2, 1)])
def test_the_reference_is_the_papers_formula(shape, window, heads):
    q, k, v = qkv(shape, 8, batch=1)
    expected = by_loops(apply_rope(q, shape), apply_rope(k, shape), v, heads, window)
    actual = sema_attention(q, k, v, heads=heads, window=window, backend="reference")
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "window", "channels", "heads"), SHAPES)
@pytest.mark.parametrize("rope", [True, False])
def test_eager_equals_the_reference(shape, window, channels, heads, rope):
    q, k, v = qkv(shape, channels)
    expected = sema_attention(q, k, v, heads=heads, window=window, rope=rope, backend="reference")
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        actual = sema_attention(
            *(x.to(dtype) for x in (q, k, v)), heads=heads, window=window, rope=rope, backend="eager"
        )
        assert actual.dtype == dtype
        assert (actual.double() - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_gradients_of_both_backends_are_right(shape):
    inputs = [x.requires_grad_() for x in qkv(shape, 4, batch=1)]
    for backend in ("reference", "eager"):
        assert torch.autograd.gradcheck(
            lambda q, k, v, backend=backend: sema_attention(q, k, v, heads=2, window=3, backend=backend), inputs
        )


def test_a_map_smaller_than_a_window_is_full_attention_plus_the_mean():
    q, k, v = qkv((4, 5), 16)
    actual = sema_attention(q, k, v, heads=1, window=7, rope=False)
    flat = [x.flatten(1, 2) for x in (q, k, v)]
    expected = torch.softmax(flat[0] @ flat[1].transpose(1, 2) / 4, dim=-1) @ flat[2] + flat[2].mean(1, keepdim=True)
    torch.testing.assert_close(actual.flatten(1, 2), expected)


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_the_two_halves_add_up_to_the_whole(backend):
    q, k, v = qkv((9, 10), 32)
    whole, local, mean = (
        sema_attention(q, k, v, heads=1, window=4, backend=backend, **switches)
        for switches in ({}, {"mean": False}, {"local": False})
    )
    torch.testing.assert_close(whole, local + mean)
    torch.testing.assert_close(mean, v.mean(dim=(1, 2), keepdim=True).expand_as(v))


def test_rope_makes_scores_depend_on_relative_position_alone():
    q, k, _ = (x[:, :1, :1].expand(-1, 6, 6, -1) for x in qkv((1, 1), 16))
    rotated_q, rotated_k = apply_rope(q, (6, 6)), apply_rope(k, (6, 6))
    here = (rotated_q[:, 1, 2] * rotated_k[:, 3, 1]).sum(-1)
    moved = (rotated_q[:, 3, 4] * rotated_k[:, 5, 3]).sum(-1)
    torch.testing.assert_close(here, moved)
    assert not torch.allclose(here, (rotated_q[:, 1, 2] * rotated_k[:, 4, 1]).sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("channels", "first"), [(8, 0), (6, 1), (6, 3)])
def test_rope_turns_pairs_wherever_they_lie_in_memory(dtype, channels, first):
    x = torch.randn(2, 3, 4, 2 * channels + 5, dtype=torch.float64).to(dtype)[..., first : first + channels]
    for given in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x.flip(0)[:1]):
        cos, sin = rope_table((3, 4), channels, given.device, torch.promote_types(dtype, torch.float32))
        even, odd = (given[..., n::2].to(cos.dtype) for n in (0, 1))
        expected = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(dtype)
        torch.testing.assert_close(apply_rope(given, (3, 4)), expected)
        with torch.inference_mode():
            torch.testing.assert_close(apply_rope(given, (3, 4)), expected)


def test_rope_of_a_map_turns_the_first_pairs_with_the_rows():
    """MILA's layout: C/4 pairs for rows, then C/4 for columns, angles position * 10000^(-k / (C/4))."""
    x = torch.zeros(1, 3, 4, 8, dtype=torch.float64)
    x[..., 0::2] = 1
    rotated = torch.view_as_complex(apply_rope(x, (3, 4)).unflatten(-1, (-1, 2)).contiguous())
    expected = [2.0, 2.0 * 10000 ** (-0.5), 3.0, 3.0 * 10000 ** (-0.5)]
    torch.testing.assert_close(rotated[0, 2, 3].angle(), torch.tensor(expected, dtype=torch.float64))


def test_the_choice_of_backend_gives_its_reason(monkeypatch):
    monkeypatch.delenv("USEMA_SEMA_BACKEND", raising=False)
    assert str(choose("cpu")) == "PyTorch (no NVIDIA GPU)"
    monkeypatch.setenv("USEMA_SEMA_BACKEND", "reference")
    assert choose("cpu").name == "reference"
    assert choose("cpu", "eager").name == "eager"
    with pytest.raises(InputError, match="'cuda-magic'"):
        choose("cpu", "cuda-magic")


def test_shapes_that_do_not_fit_are_named():
    q, k, v = qkv((4, 4), 10)
    with pytest.raises(InputError, match="10 channels do not divide into 3 heads"):
        sema_attention(q, k, v, heads=3, window=2)
    with pytest.raises(InputError, match=r"\(2, 4, 3, 10\)"):
        sema_attention(q, k[:, :, :3], v, heads=1, window=2)
    with pytest.raises(InputError, match=r"window \(2, 2, 2\)"):
        sema_attention(q, k, v, heads=1, window=(2, 2, 2))


def changed(position, change):
    tensors = qkv((4, 4), 8)
    tensors[position] = change(tensors[position])
    return tensors


IMPOSSIBLE = [
    ([x[:0] for x in qkv((4, 4), 8)], {}, r"are empty: their shape is \(0, 4, 4, 8\)"),
    ([x[:, :0] for x in qkv((4, 4), 8)], {}, r"are empty: their shape is \(2, 0, 4, 8\)"),
    ([x[..., :0] for x in qkv((4, 4), 8)], {}, r"are empty: their shape is \(2, 4, 4, 0\)"),
    (qkv((4, 4), 8), {"heads": 0}, "0 heads are not possible"),
    (qkv((4, 4), 8), {"heads": -2}, "-2 heads are not possible"),
    (qkv((4, 4), 8), {"heads": 2.0}, "2.0 heads are not possible"),
    (qkv((4, 4), 9), {}, "9 channels form no pairs"),
    (qkv((4, 4, 4), 3), {}, "3 channels form no pairs"),
    (qkv((4, 4), 8), {"window": 2.0}, "window 2.0 does not fit a 2D map"),
    (qkv((4, 4), 8), {"window": (2.0, 2)}, r"window \(2.0, 2\) does not fit a 2D map"),
    (qkv((4, 4), 8), {"window": 0}, "window 0 does not fit a 2D map"),
    (qkv((4, 4), 8), {"window": None}, "window None does not fit a 2D map"),
    (qkv((4, 4), 8), {"window": "77"}, "window '77' does not fit a 2D map"),
    (changed(1, lambda x: x.float()), {}, "of one floating-point type, but are torch.float64, torch.float32"),
    ([x.int() for x in qkv((4, 4), 8)], {}, "of one floating-point type, but are torch.int32"),
    (changed(0, lambda x: x.to("meta")), {}, "on one device, but are on meta, cpu, cpu"),
    (changed(2, lambda x: x.to("meta")), {}, "on one device, but are on cpu, cpu, meta"),
]


@pytest.mark.parametrize("backend", ["reference", "eager", None])
@pytest.mark.parametrize(("tensors", "settings", "message"), IMPOSSIBLE, ids=[message for *_, message in IMPOSSIBLE])
def test_what_no_attention_can_be_is_refused_in_words(tensors, settings, message, backend):
    with pytest.raises(InputError, match=message):
        sema_attention(*tensors, **{"heads": 1, "window": 2, **settings}, backend=backend)


def test_an_odd_number_of_channels_needs_no_pairs_without_rotation():
    q, k, v = qkv((4, 4), 9)
    outputs = [sema_attention(q, k, v, heads=3, window=2, rope=False, backend=b) for b in ("reference", "eager")]
    torch.testing.assert_close(*outputs)
