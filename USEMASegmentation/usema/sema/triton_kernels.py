"""The fused kernels of SEMA attention, in Triton: forward, backward, and the mean over tokens.

A program computes one block of tokens of one window for one head. It reads q, k and v where the network left them: one
row of C channels a token, any distance (stride) between rows. 2D maps are 3D maps of depth one. Windows that reach
over the border of the map are masked. :mod:`usema.sema.launch` says what is launched, with which sizes.

Names: a *row* is a token of the batch; t is a token's number in its window; WD, WH, WW are a window's sides; M is the
block of tokens that a program owns, N the block that it walks over; *_m and *_n belong to these blocks.

Numbers: everything is accumulated in float32; matrix products take their operands in the inputs' own type. Exponentials
are in base two, the only one the hardware has, so scores are scaled by head_dim ** -0.5 * log2(e). PRECISION says how
float32 operands are multiplied ("ieee" or "tf32"); half types do not look at it.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
# One compiled kernel serves maps of any size and any number of heads, as the kernels compiled ahead of time must.
MAP = ["depth", "height", "width", "heads"]


@triton.jit
def _window(depth, height, width, heads, WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, M: tl.constexpr):
    """What this program owns: head, image, first token; and its window's first row and extents.

    Heads change fastest, since they lie beside each other in memory, then the blocks of a window, which share its keys.
    The extents (deep, high, wide) are less than the sides where the window reaches over the border.
    """
    blocks: tl.constexpr = (WD * WH * WW + M - 1) // M
    head = tl.program_id(0) % heads
    rest = tl.program_id(0) // heads
    layers = tl.cdiv(depth, WD)
    image = tl.program_id(2) // layers
    z = tl.program_id(2) % layers * WD
    y = tl.program_id(1) * WH
    x = rest // blocks * WW
    # 64 bits: a row times its stride may pass 2 ** 31.
    corner = (image * depth + z).to(tl.int64) * height * width + (y * width + x)
    deep, high, wide = tl.minimum(depth - z, WD), tl.minimum(height - y, WH), tl.minimum(width - x, WW)
    return head, image, rest % blocks * M, corner, deep, high, wide


@triton.jit
def _rows(t, corner, deep, high, wide, height, width, WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr):
    """Rows of the tokens t of a window, and which of them lie on the map."""
    # Division by a constant, as a multiplication: exact as long as t * divisor < 2 ** 20 (launch.fits sees to it). The
    # compiler's own takes the 16-bit way, three times the instructions, which were a tenth of the whole kernel.
    line = t * ((2**20 + WW - 1) // WW) >> 20
    dx = t - line * WW
    if WD == 1:
        return corner + (line * width + dx), (line < high) & (dx < wide)
    dz = t * ((2**20 + WH * WW - 1) // (WH * WW)) >> 20
    dy = line - dz * WH
    return corner + ((dz * height + dy) * width + dx), (dz < deep) & (dy < high) & (dx < wide)


@triton.jit
def _load(pointer, rows, stride, head, on_map, HEAD_DIM: tl.constexpr):
    """One head of some rows: (tokens, HEAD_DIM), zeros off the map."""
    offsets = (rows * stride + head * HEAD_DIM)[:, None] + tl.arange(0, HEAD_DIM)[None, :]
    return tl.load(pointer + offsets, mask=on_map[:, None], other=0.0)


@triton.jit
def _store(pointer, x, rows, head, heads, on_map, HEAD_DIM: tl.constexpr):
    """The other way round, into contiguous rows."""
    offsets = (rows * heads + head)[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(pointer + offsets, x.to(pointer.dtype.element_ty), mask=on_map[:, None])


@triton.jit
def _rotate(x, cos, sin, t, head, heads, on_map, SIGN: tl.constexpr):
    """Turn neighbouring channels of x (tokens, HEAD_DIM) by their position in the window; SIGN -1 turns them back.

    Turning back is also the transpose, which gradients need. Positions in the window serve as well as positions on the
    map, because scores depend on differences alone. cos, sin: (tokens of a window, heads * HEAD_DIM / 2), float32. A
    table for each token and channel costs 8 KB of cache reads where a program reads 12 KB of q, k, v (2D, float16) but
    four load instructions; computing indices into a smaller table, or the angles, costs hundreds.
    """
    PAIRS: tl.constexpr = x.shape[1] // 2
    offsets = (t * heads + head)[:, None] * PAIRS + tl.arange(0, PAIRS)[None, :]
    c = tl.load(cos + offsets, mask=on_map[:, None], other=0.0)
    s = tl.load(sin + offsets, mask=on_map[:, None], other=0.0) * SIGN
    even, odd = tl.split(tl.reshape(x.to(tl.float32), (x.shape[0], PAIRS, 2)))
    turned = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (x.shape[0], x.shape[1], 1)).to(x.dtype)
    # A sum over an axis of length one changes nothing, but keeps Triton 3 from repeating the rotation in every warp:
    # it moves element-wise work behind the exchange through shared memory, where each warp holds all keys. Measured for
    # sm_80, 2D, float16: 1224 instead of 1456 instructions a warp, 96 instead of 168 registers.
    return tl.sum(turned, 2)


@triton.jit
def _load_turned(pointer, cos, sin, rows, t, stride, head, heads, on_map, HEAD_DIM: tl.constexpr, ROPE: tl.constexpr):
    x = _load(pointer, rows, stride, head, on_map, HEAD_DIM)
    if ROPE:
        x = _rotate(x, cos, sin, t, head, heads, on_map, 1)
    return x


@triton.jit
def _store_turned_back(pointer, x, cos, sin, rows, t, head, heads, on_map, HEAD_DIM: tl.constexpr, ROPE: tl.constexpr):
    if ROPE:
        x = _rotate(x, cos, sin, t, head, heads, on_map, -1)
    _store(pointer, x, rows, head, heads, on_map, HEAD_DIM)


@triton.jit
def _load_mean(mean, image, head, heads, HEAD_DIM: tl.constexpr):
    """One head of the mean (images, C): (1, HEAD_DIM)."""
    return tl.load(mean + (image * heads + head) * HEAD_DIM + tl.arange(0, HEAD_DIM))[None, :]


@triton.jit(do_not_specialize=["tokens", "splits"])
def mean_over_tokens(x, parts, stride, tokens, channels, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One share of the mean over the tokens of an image; parts (images, splits, channels), float32, add up to the mean.

    No atomics, so that the same input gives the same bits.
    """
    # The last tokens first, so that those which the attention reads first were read last, and are in the cache still.
    split, image = splits - 1 - tl.program_id(0), tl.num_programs(2) - 1 - tl.program_id(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    share = tl.cdiv(tokens, splits)
    end = tl.minimum((split + 1) * share, tokens)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(split * share, end, ROWS):
        t = start + tl.arange(0, ROWS)
        offsets = ((image.to(tl.int64) * tokens + t) * stride)[:, None] + columns[None, :]
        inside = (t < end)[:, None] & (columns < channels)[None, :]
        total += tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    part = tl.sum(total, 0) / tokens
    tl.store(parts + (image * splits + split) * channels + columns, part, mask=columns < channels)


@triton.jit(do_not_specialize=MAP)
def window_attention(
    q, k, v, mean, cos, sin, out, q_stride, k_stride, v_stride, depth, height, width, heads,
    WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEAD_DIM: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    ROPE: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = attention inside each window + mean. out is contiguous; mean (images, C) is float32."""
    TOKENS: tl.constexpr = WD * WH * WW
    SCALE: tl.constexpr = HEAD_DIM**-0.5 * LOG2_E
    head, image, first, corner, deep, high, wide = _window(depth, height, width, heads, WD, WH, WW, M)
    if first >= deep * (WH * WW):  # nothing of this block is left where the border cuts the window
        return
    tm = first + tl.arange(0, M)
    rows_m, on_map_m = _rows(tm, corner, deep, high, wide, height, width, WD, WH, WW)
    qm = _load_turned(q, cos, sin, rows_m, tm, q_stride, head, heads, on_map_m, HEAD_DIM, ROPE)

    if TOKENS <= N:
        tn = tl.arange(0, N)
        rows_n, on_map_n = _rows(tn, corner, deep, high, wide, height, width, WD, WH, WW)
        kn = _load_turned(k, cos, sin, rows_n, tn, k_stride, head, heads, on_map_n, HEAD_DIM, ROPE)
        vn = _load(v, rows_n, v_stride, head, on_map_n, HEAD_DIM)
        scores = tl.where(on_map_n[None, :], tl.dot(qm, tl.trans(kn), input_precision=PRECISION), float("-inf"))
        p = tl.exp2(scores * SCALE - (tl.max(scores, 1) * SCALE)[:, None])
        total = tl.sum(p, 1)
        acc = tl.dot(p.to(vn.dtype), vn, input_precision=PRECISION)
    else:
        # Online softmax over blocks of keys (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022). The first
        # block holds at least one key, so top is finite from there on.
        top = tl.full((M,), float("-inf"), tl.float32)
        total = tl.zeros((M,), tl.float32)
        acc = tl.zeros((M, HEAD_DIM), tl.float32)
        for start in range(0, deep * (WH * WW), N):
            tn = start + tl.arange(0, N)
            rows_n, on_map_n = _rows(tn, corner, deep, high, wide, height, width, WD, WH, WW)
            kn = _load_turned(k, cos, sin, rows_n, tn, k_stride, head, heads, on_map_n, HEAD_DIM, ROPE)
            vn = _load(v, rows_n, v_stride, head, on_map_n, HEAD_DIM)
            scores = tl.where(on_map_n[None, :], tl.dot(qm, tl.trans(kn), input_precision=PRECISION), float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1) * SCALE)
            p = tl.exp2(scores * SCALE - new_top[:, None])
            shrink = tl.exp2(top - new_top)
            total = total * shrink + tl.sum(p, 1)
            acc = tl.dot(p.to(vn.dtype), vn, acc * shrink[:, None], input_precision=PRECISION)
            top = new_top

    acc = acc * (1.0 / total)[:, None]
    if MEAN:
        acc += _load_mean(mean, image, head, heads, HEAD_DIM)
    _store(out, acc, rows_m, head, heads, on_map_m, HEAD_DIM)


@triton.jit(do_not_specialize=MAP)
def window_attention_backward(
    q, k, v, grad, grad_mean, cos, sin, dq, dk, dv, q_stride, k_stride, v_stride, grad_stride,
    depth, height, width, heads,
    WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEAD_DIM: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    ROPE: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of a window that is one block. Nothing was kept from the forward pass but q, k, v.

    grad_mean (images, C), float32, is the mean of grad over tokens: what every v receives through the mean.
    """
    SCALE: tl.constexpr = HEAD_DIM**-0.5
    head, image, _first, corner, deep, high, wide = _window(depth, height, width, heads, WD, WH, WW, M)
    t = tl.arange(0, M)
    rows, on_map = _rows(t, corner, deep, high, wide, height, width, WD, WH, WW)
    qm = _load_turned(q, cos, sin, rows, t, q_stride, head, heads, on_map, HEAD_DIM, ROPE)
    km = _load_turned(k, cos, sin, rows, t, k_stride, head, heads, on_map, HEAD_DIM, ROPE)
    vm = _load(v, rows, v_stride, head, on_map, HEAD_DIM)
    dout = _load(grad, rows, grad_stride, head, on_map, HEAD_DIM)

    scores = tl.where(on_map[None, :], tl.dot(qm, tl.trans(km), input_precision=PRECISION), float("-inf"))
    p = tl.exp2((scores - tl.max(scores, 1)[:, None]) * (SCALE * LOG2_E))
    p = p * (1.0 / tl.sum(p, 1))[:, None]
    grad_v = tl.dot(tl.trans(p.to(vm.dtype)), dout, input_precision=PRECISION)
    if MEAN:
        grad_v += _load_mean(grad_mean, image, head, heads, HEAD_DIM)
    _store(dv, grad_v, rows, head, heads, on_map, HEAD_DIM)

    dp = tl.dot(dout, tl.trans(vm), input_precision=PRECISION)
    ds = (p * (dp - tl.sum(p * dp, 1)[:, None])).to(qm.dtype)
    grad_q = tl.dot(ds, km, input_precision=PRECISION) * SCALE
    grad_k = tl.dot(tl.trans(ds), qm, input_precision=PRECISION) * SCALE
    _store_turned_back(dq, grad_q, cos, sin, rows, t, head, heads, on_map, HEAD_DIM, ROPE)
    _store_turned_back(dk, grad_k, cos, sin, rows, t, head, heads, on_map, HEAD_DIM, ROPE)


@triton.jit(do_not_specialize=MAP)
def window_attention_backward_q(
    q, k, v, grad, cos, sin, dq, log_total, delta, q_stride, k_stride, v_stride, grad_stride,
    depth, height, width, heads,
    WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEAD_DIM: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    ROPE: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of M queries of a window of several blocks, and what the gradient of the keys needs of these queries.

    log_total, delta (rows, heads), float32: log2 of each query's softmax denominator, and the sum of p * dp over its
    keys. Both are computed anew in a first walk over the keys, rather than kept from the forward pass: delta from the
    rounded output would carry the error of taking the mean off again, and inference would have to write them as well.
    """
    SCALE: tl.constexpr = HEAD_DIM**-0.5
    head, _image, first, corner, deep, high, wide = _window(depth, height, width, heads, WD, WH, WW, M)
    if first >= deep * (WH * WW):  # nothing of this block is left where the border cuts the window
        return
    tm = first + tl.arange(0, M)
    rows_m, on_map_m = _rows(tm, corner, deep, high, wide, height, width, WD, WH, WW)
    qm = _load_turned(q, cos, sin, rows_m, tm, q_stride, head, heads, on_map_m, HEAD_DIM, ROPE)
    dout = _load(grad, rows_m, grad_stride, head, on_map_m, HEAD_DIM)

    top = tl.full((M,), float("-inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    weighted = tl.zeros((M,), tl.float32)
    for start in range(0, deep * (WH * WW), N):
        tn = start + tl.arange(0, N)
        rows_n, on_map_n = _rows(tn, corner, deep, high, wide, height, width, WD, WH, WW)
        kn = _load_turned(k, cos, sin, rows_n, tn, k_stride, head, heads, on_map_n, HEAD_DIM, ROPE)
        vn = _load(v, rows_n, v_stride, head, on_map_n, HEAD_DIM)
        scores = tl.where(on_map_n[None, :], tl.dot(qm, tl.trans(kn), input_precision=PRECISION), float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * (SCALE * LOG2_E))
        p = tl.exp2(scores * (SCALE * LOG2_E) - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, 1)
        weighted = weighted * shrink + tl.sum(p * tl.dot(dout, tl.trans(vn), input_precision=PRECISION), 1)
        top = new_top
    log_total_m = top + tl.log2(total)
    delta_m = weighted / total
    tl.store(log_total + rows_m * heads + head, log_total_m, mask=on_map_m)
    tl.store(delta + rows_m * heads + head, delta_m, mask=on_map_m)

    acc = tl.zeros((M, HEAD_DIM), tl.float32)
    for start in range(0, deep * (WH * WW), N):
        tn = start + tl.arange(0, N)
        rows_n, on_map_n = _rows(tn, corner, deep, high, wide, height, width, WD, WH, WW)
        kn = _load_turned(k, cos, sin, rows_n, tn, k_stride, head, heads, on_map_n, HEAD_DIM, ROPE)
        vn = _load(v, rows_n, v_stride, head, on_map_n, HEAD_DIM)
        # Keys off the map need no mask here: they are zeros.
        scores = tl.dot(qm, tl.trans(kn), input_precision=PRECISION)
        p = tl.exp2(scores * (SCALE * LOG2_E) - log_total_m[:, None])
        ds = p * (tl.dot(dout, tl.trans(vn), input_precision=PRECISION) - delta_m[:, None])
        acc = tl.dot(ds.to(kn.dtype), kn, acc, input_precision=PRECISION)
    _store_turned_back(dq, acc * SCALE, cos, sin, rows_m, tm, head, heads, on_map_m, HEAD_DIM, ROPE)


@triton.jit(do_not_specialize=MAP)
def window_attention_backward_kv(
    q, k, v, grad, grad_mean, cos, sin, log_total, delta, dk, dv, q_stride, k_stride, v_stride, grad_stride,
    depth, height, width, heads,
    WD: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEAD_DIM: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    ROPE: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of M keys and values of a window of several blocks, after window_attention_backward_q."""
    SCALE: tl.constexpr = HEAD_DIM**-0.5
    head, image, first, corner, deep, high, wide = _window(depth, height, width, heads, WD, WH, WW, M)
    if first >= deep * (WH * WW):  # nothing of this block is left where the border cuts the window
        return
    tm = first + tl.arange(0, M)
    rows_m, on_map_m = _rows(tm, corner, deep, high, wide, height, width, WD, WH, WW)
    km = _load_turned(k, cos, sin, rows_m, tm, k_stride, head, heads, on_map_m, HEAD_DIM, ROPE)
    vm = _load(v, rows_m, v_stride, head, on_map_m, HEAD_DIM)

    grad_k = tl.zeros((M, HEAD_DIM), tl.float32)
    grad_v = tl.zeros((M, HEAD_DIM), tl.float32)
    for start in range(0, deep * (WH * WW), N):
        tn = start + tl.arange(0, N)
        rows_n, on_map_n = _rows(tn, corner, deep, high, wide, height, width, WD, WH, WW)
        qn = _load_turned(q, cos, sin, rows_n, tn, q_stride, head, heads, on_map_n, HEAD_DIM, ROPE)
        dout = _load(grad, rows_n, grad_stride, head, on_map_n, HEAD_DIM)
        log_total_n = tl.load(log_total + rows_n * heads + head, mask=on_map_n, other=0.0)
        delta_n = tl.load(delta + rows_n * heads + head, mask=on_map_n, other=0.0)
        # Transposed, (keys, queries), so that nothing computed has to be transposed. Queries off the map need no mask:
        # their gradient is zero.
        scores = tl.dot(km, tl.trans(qn), input_precision=PRECISION)
        p = tl.exp2(scores * (SCALE * LOG2_E) - log_total_n[None, :])
        grad_v = tl.dot(p.to(dout.dtype), dout, grad_v, input_precision=PRECISION)
        ds = p * (tl.dot(vm, tl.trans(dout), input_precision=PRECISION) - delta_n[None, :])
        grad_k = tl.dot(ds.to(qn.dtype), qn, grad_k, input_precision=PRECISION)
    if MEAN:
        grad_v += _load_mean(grad_mean, image, head, heads, HEAD_DIM)
    _store(dv, grad_v, rows_m, head, heads, on_map_m, HEAD_DIM)
    _store_turned_back(dk, grad_k * SCALE, cos, sin, rows_m, tm, head, heads, on_map_m, HEAD_DIM, ROPE)
