"""What the vision towers are made of, in NumPy float64: short, slow, obvious. Operations, places, parts.

With reference_towers.py, this is the spine of the tests. It imports nothing of the package; transformers checks it, and
it checks the package. In the shapes: n patches, d hidden_size, m tokens (m = n / merge_size²). Weights are named as in
the checkpoint, below the tower's prefix; a Linear's weight is (outputs, inputs).
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import numpy as np

EPS = 1e-6  # of every norm of the Qwen families; written in the code of transformers, not in the config


def in_float64(operation):
    """Whatever kind of float an operation is given, it computes in float64; integers stay integers."""

    def widen(value):
        return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind not in "biu" else value

    @functools.wraps(operation)
    def widened(*args, **kwargs):
        return operation(*map(widen, args), **{name: widen(value) for name, value in kwargs.items()})

    return widened


# Operations: arrays in, arrays out.


@in_float64
def linear(x, w, b=None):
    """Every row of x through one layer."""
    return x @ w.T + (0 if b is None else b)  # y = x Wᵀ + b, (M, K) -> (M, N)


@in_float64
def layer_norm(x, w, b, eps=EPS):
    """torch.nn.LayerNorm over the last axis; the variance is the biased one."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * w + b  # y = (x - mean) / √(var + ε) · w + b


@in_float64
def rms_norm(x, w, eps=EPS):
    """Qwen2_5_VLRMSNorm over the last axis."""
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * w  # y = x / √(mean x² + ε) · w


@in_float64
def sigmoid(x):
    """Through the logarithm, which neither overflows nor loses the small tail."""
    return np.exp(-np.logaddexp(0, -x))  # σ(x) = 1 / (1 + e⁻ˣ)


@in_float64
def quick_gelu(x):
    """QuickGELUActivation: the MLP of Qwen2-VL."""
    return x * sigmoid(1.702 * x)


@in_float64
def gelu(x):
    """torch.nn.GELU(), the one with erf: every merger. erfc(-x) is 1 + erf(x) without its cancellation."""
    return x / 2 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))  # x Φ(x)


@in_float64
def gelu_tanh(x):
    """torch.nn.GELU("tanh"), an approximation of `gelu` that models use by name."""
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@in_float64
def silu(x):
    """torch.nn.SiLU()."""
    return x * sigmoid(x)


@in_float64
def silu_gate(gate, up):
    """The middle of a gated MLP, as in Qwen2.5-VL."""
    return silu(gate) * up


@in_float64
def clamped_gate(gate, up, limit):
    """The middle of the gated MLPs of GLM-5.3."""
    return silu_gate(np.minimum(gate, limit), np.clip(up, -limit, limit))


@in_float64
def softmax(x):
    """Over the last axis; the maximum is taken off first so that nothing overflows."""
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


@in_float64
def rope(x, cos, sin):
    """Turn lane i and lane i + head_dim/2 of every head by the angle of the row's place (apply_rotary_pos_emb_vision).

    x (n, heads, head_dim); cos and sin (n, head_dim/2) from `rope_table`.
    """
    a, b = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]  # the same for every head
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@in_float64
def attention(q, k, v, cu_seqlens):
    """Rows attend to the rows of their own segment, head by head.

    q (n, heads, head_dim); k and v (n, kv_heads, head_dim), each of them shared by heads/kv_heads neighbouring heads.
    Returns (n, heads, head_dim).
    """
    out = np.zeros_like(q)
    shared = q.shape[1] // k.shape[1]
    for start, stop in pairwise(cu_seqlens):
        for head in range(q.shape[1]):
            qs, ks, vs = q[start:stop, head], k[start:stop, head // shared], v[start:stop, head // shared]
            out[start:stop, head] = softmax(qs @ ks.T / math.sqrt(q.shape[2])) @ vs  # softmax(q kᵀ/√d) v
    return out


# Places: everything that follows from grid_thw, the (frames/2, rows, cols) of every item.


def block_order(rows, cols, merge_size):
    """Every (row, col) of a grid in the order of the sequence: merge block by merge block, each one row by row."""
    return [
        (row + i, col + j)
        for row in range(0, rows, merge_size)
        for col in range(0, cols, merge_size)
        for i in range(merge_size)
        for j in range(merge_size)
    ]


def vol2col(frames, patch_size, temporal_patch_size=2, merge_size=2):
    """Cut frames (t, H, W, 3) into patches, the rows of pixel_values; the type of the numbers is kept.

    The last frame is repeated up to a multiple of temporal_patch_size. Inside a row: channel, frame, y, x.
    """
    missing = -len(frames) % temporal_patch_size
    frames = np.concatenate([frames, *[frames[-1:]] * missing])
    rows, cols = frames.shape[1] // patch_size, frames.shape[2] // patch_size
    patches = []
    for t in range(0, len(frames), temporal_patch_size):
        for row, col in block_order(rows, cols, merge_size):
            y, x = row * patch_size, col * patch_size
            cube = frames[t : t + temporal_patch_size, y : y + patch_size, x : x + patch_size]
            patches.append(cube.transpose(3, 0, 1, 2).ravel())
    return np.stack(patches)  # (n, 3 · temporal · patch²)


def coords(grid_thw, merge_size):
    """(row, col) of every patch in the order of the sequence, (n, 2). Frames do not count: each starts anew."""
    return np.concatenate([block_order(rows, cols, merge_size) for t, rows, cols in grid_thw for _ in range(t)])


def corners(size, side):
    """Where the `size` places of an axis lie on one of `side` places, first on first and last on last; in float32."""
    return np.arange(size, dtype=np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))


def centres(size, side):
    """The same where places are squares and both axes have the same length; in float32."""
    at = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return at * np.float32(side) / np.float32(size) - np.float32(0.5)


def sampled_centres(size, side):
    """The same as torch.nn.functional.grid_sample is asked for it: in units of half the axis, in float32."""
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return ((np.float64(at * np.float32(2) - np.float32(1)) + 1) * side - 1) / 2


def hat(x):
    """Linear interpolation: the weight of a place at a distance."""
    return np.maximum(1 - np.abs(x), 0)


def keys(x, a=-0.75):
    """Cubic interpolation (Keys 1981)."""
    x = np.abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def taps(at, side, kernel):
    """Around each place of an axis, four of one of `side`, and their weights; beyond its ends the last ones go on."""
    around = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    return np.clip(around, 0, side - 1), kernel(at[:, None] - around.astype(at.dtype))


def learned_positions(table, grid_thw, merge_size, places, kernel):
    """A learned grid (side², d), interpolated to each item's, (n, d). Of float32 places the weights are float32 too."""
    side, rows = math.isqrt(len(table)), []
    for t, height, width in grid_thw:
        (row, of_row), (col, of_col) = (taps(places(size, side), side, kernel) for size in (height, width))
        y, x = np.array(block_order(height, width, merge_size)).T
        at, weight = row[y][:, :, None] * side + col[x][:, None, :], of_row[y][:, :, None] * of_col[x][:, None, :]
        rows += [(table.astype(np.float64)[at] * weight[..., None]).sum(axis=(1, 2))] * t
    return np.concatenate(rows)


def rope_table(places, head_dim, theta=10000.0):
    """The cos and sin of every patch's angles, each (n, head_dim/2): first its row's, then its column's.

    places (n, 2) are the `coords`, in any order. The angles are float32 because those of transformers are
    (Qwen2_5_VLVisionRotaryEmbedding): at row 500 the rounding moves an angle by 3e-5; exact ones would be wrong.
    """
    exponent = np.arange(0, head_dim // 2, 2, dtype=np.float32) / np.float32(head_dim // 2)
    inv_freq = np.float32(1) / np.power(theta, exponent.astype(np.float64)).astype(np.float32)  # θ^(-2j / (head_dim/2))
    angles = places.astype(np.float32)[:, :, None] * inv_freq  # (n, 2, head_dim/4)
    angles = angles.reshape(len(places), -1).astype(np.float64)
    return np.cos(angles), np.sin(angles)


def frame_cu_seqlens(grid_thw):
    """One segment per frame: patches never attend across time."""
    return np.cumsum([0, *[rows * cols for t, rows, cols in grid_thw for _ in range(t)]])


def window_order(grid_thw, merge_size, side):
    """Order of the merge units window by window, and the cu_seqlens (in patches) of the windows.

    Each frame is tiled from its top left corner by windows of side x side merge units, smaller at its edges.
    """
    order, lengths = [], []
    for t, rows, cols in grid_thw:
        rows, cols = rows // merge_size, cols // merge_size
        units = len(order) + np.arange(t * rows * cols).reshape(t, rows, cols)
        for frame in units:
            for row in range(0, rows, side):
                for col in range(0, cols, side):
                    window = frame[row : row + side, col : col + side]
                    order.extend(window.ravel())
                    lengths.append(window.size * merge_size**2)
    return np.array(order), np.cumsum([0, *lengths])


def reorder(rows, order, unit):
    """Permute groups of `unit` neighbouring rows: group i of the result is group order[i]."""
    return rows.reshape(-1, unit, *rows.shape[1:])[order].reshape(rows.shape)


# Parts: operations with their weights.


def below(w, name):
    """The weights below a name: of "blocks.0", they are "norm1.weight", "attn.qkv.weight" and so on."""
    return {key.removeprefix(f"{name}."): value for key, value in w.items() if key.startswith(f"{name}.")}


def layer(x, w, name):
    """A torch.nn.Linear, with its bias if it has one."""
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def patch_embed(pixel_values, w, b=None):
    """A convolution whose stride is its kernel, w (d, 3, temporal, patch, patch), is a matmul over flat patches."""
    return linear(pixel_values, w.reshape(len(w), -1), b)  # (n, 1176) -> (n, d)


def split_qkv(qkv, num_heads, key_value_heads):
    """The fused projection holds all of q, then all of k, then all of v: three (n, heads, head_dim)."""
    heads = qkv.reshape(len(qkv), num_heads + 2 * key_value_heads, -1)
    return np.split(heads, [num_heads, num_heads + key_value_heads], axis=1)


def self_attention(x, w, config, table, cu_seqlens):
    """VisionAttention; `table` is (cos, sin). Heads of q and k are normalised where there are weights for that."""
    heads = config["num_heads"]
    q, k, v = split_qkv(layer(x, w, "qkv"), heads, config.get("num_key_value_heads", heads))
    if "q_norm.weight" in w:
        eps = config["rms_norm_eps"]
        q, k = rms_norm(q, w["q_norm.weight"], eps), rms_norm(k, w["k_norm.weight"], eps)
    out = attention(rope(q, *table), rope(k, *table), v, cu_seqlens)
    return layer(out.reshape(x.shape), w, "proj")  # (n, d)


def join(rows, merge_size):
    """merge_size² neighbouring rows are one, (m, 4d): left to right, top to bottom."""
    return rows.reshape(-1, merge_size**2 * rows.shape[1])


def mlp(x, w, first, activation, second):
    """Two layers by their names."""
    return layer(activation(layer(x, w, first)), w, second)


def gated_mlp(x, w, gate=silu_gate):
    """gate_proj, up_proj, down_proj."""
    return layer(gate(layer(x, w, "gate_proj"), layer(x, w, "up_proj")), w, "down_proj")
