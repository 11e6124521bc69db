"""Weights bound to operations. Each layer asks for its tensors by name and shape and packs them once.

A layer is called with its input first, its output last, and returns the output. ``x`` is the residual stream, which
blocks update in place. In the shapes: n patches, d hidden_size, h heads, m tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise

import numpy as np

from qwenvis import ops
from qwenvis.weights import Weights
from qwenvis.workspace import Size, Workspace

# (cos, sin) of the angles of each patch, (n, head_dim / 2) each
Rope = tuple[np.ndarray, np.ndarray]

# Rows of the MLP's inner activations that exist at a time: 10 MB at 5120 columns, whatever the image.
MLP_ROWS = 512
# Tokens of the merger's inner activations that exist at a time, and patches that are gathered at a time.
MERGE_ROWS = 256
PATCH_ROWS = 1024


def chunks(stop: int, rows: int, start: int = 0) -> list[slice]:
    """Slices of at most ``rows`` rows from start to stop. Rows are independent, so the bits do not depend on it."""
    return [slice(first, min(first + rows, stop)) for first in range(start, stop, rows)]


class Linear:
    """y = activation(x Wᵀ + b): torch.nn.Linear and what follows it. ``rows`` is the dtype that x must have."""

    def __init__(self, weights: Weights, n: int, k: int, activation: str = "none") -> None:
        self.activation = activation
        self.packed = ops.PackedWeight(n, k, weights.format)
        self.rows = self.packed.rows_dtype
        weights.ask("weight", (n, k), self.packed.pack)
        weights.ask("bias", (n,), self.packed.pack_bias)

    def __call__(self, x: np.ndarray, out: np.ndarray, add: bool = False) -> np.ndarray:
        """(rows, k) -> (rows, n); ``add`` adds to what is there."""
        return ops.linear(x, self.packed, out, activation=self.activation, add=add)


class LayerNorm:
    """torch.nn.LayerNorm."""

    def __init__(self, weights: Weights, d: int, eps: float) -> None:
        self.eps = eps
        self.weight, self.bias = np.empty(d, np.float32), np.empty(d, np.float32)
        weights.ask("weight", (d,), _into(self.weight))
        weights.ask("bias", (d,), _into(self.bias))

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d), or (n / g, g·d): g rows side by side."""
        return ops.layer_norm(x, self.weight, self.bias, self.eps, out)


class RMSNorm:
    """transformers Qwen2_5_VLRMSNorm."""

    def __init__(self, weights: Weights, d: int, eps: float) -> None:
        self.eps = eps
        self.weight = np.empty(d, np.float32)
        weights.ask("weight", (d,), _into(self.weight))

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d), or (n / g, g·d): g rows side by side."""
        return ops.rms_norm(x, self.weight, self.eps, out)


Norm = LayerNorm | RMSNorm


class PatchEmbed:
    """A convolution whose stride is its kernel: a product with the rows of ``pixel_values``.

    A still repeats its frame, so the sum of the kernel's temporal slices does the same with half the work. The sum is
    taken in float32.
    """

    def __init__(self, weights: Weights, d: int, kernel: tuple[int, int, int, int]) -> None:
        channels, frames, height, width = kernel
        self.parts = (channels, frames, height * width)
        self.full = ops.PackedWeight(d, channels * frames * height * width, weights.format)
        self.folded = ops.PackedWeight(d, channels * height * width, weights.format)
        weights.ask("weight", (d, *kernel), self._pack)

    def _pack(self, array: np.ndarray) -> None:
        self.full.pack(array)
        self.folded.pack(array.astype(np.float32).sum(axis=2))

    def sizes(self, n: int) -> dict[str, Size]:
        """``patches``: rows of pixel_values in the order of x."""
        return {"patches": (min(n, PATCH_ROWS), self.full.shape[1], self.full.rows_dtype)}

    def is_still(self, patches: np.ndarray) -> bool:
        """Do all temporal slices of these rows repeat the first?"""
        frames = patches.reshape(len(patches), *self.parts)
        return all(
            bool((frames[rows, :, 1:] == frames[rows, :, :1]).all()) for rows in chunks(len(patches), PATCH_ROWS)
        )

    def __call__(
        self, patches: np.ndarray, order: np.ndarray, items: np.ndarray, x: np.ndarray, ws: Workspace
    ) -> np.ndarray:
        """Rows of ``patches`` in ``order`` -> x (n, d). ``items``: cumulative patches of the items, starting with 0."""
        split = patches.reshape(len(patches), *self.parts)
        spans = pairwise(items.tolist())
        for still, run in groupby(spans, key=lambda span: self.is_still(patches[span[0] : span[1]])):
            span = list(run)  # neighbours of one kind are one product; an item's kind is its own affair
            source = split[:, :, 0] if still else patches
            weight = self.folded if still else self.full
            for rows in chunks(span[-1][1], PATCH_ROWS, span[0][0]):
                a = ops.gather(source, order[rows], ws.patches[: rows.stop - rows.start, : weight.shape[1]])
                ops.linear(a, weight, x[rows])  # (rows, d) = a Wᵀ
        return x


class Attention:
    """Multi-head self-attention with rope on queries and keys: transformers VisionAttention."""

    def __init__(self, weights: Weights, d: int, num_heads: int) -> None:
        self.num_heads, self.format = num_heads, weights.format
        self.qkv = Linear(weights.scope("qkv"), 3 * d, d)
        self.proj = Linear(weights.scope("proj"), d, d)

    def sizes(self, n: int, longest: int, segments: int) -> dict[str, Size]:
        """``qkv``: queries, keys and values side by side; ``context``: its result; ``attention``: packed k and v."""
        d = self.proj.packed.shape[1]
        scratch = ops.attention_scratch(longest, segments * self.num_heads, d // self.num_heads, self.format)
        return {
            "qkv": (n, 3 * d, "float32"),
            "context": (n, d, self.proj.rows),
            "attention": (1, scratch, "float32"),
        }

    def __call__(self, h: np.ndarray, x: np.ndarray, rope: Rope, cu_seqlens: np.ndarray, ws: Workspace) -> None:
        qkv = self.qkv(h, ws.qkv)  # (n, 3d) = h Wᵀ + b
        q, k, v = (part.reshape(len(h), self.num_heads, -1) for part in np.split(qkv, 3, axis=1))  # (n, h, d / h)
        o = ops.attention((q, k, v), rope, cu_seqlens, ws.context, ws.attention[0], format=self.format)
        self.proj(o, x, add=True)  # (n, d) o = softmax(q kᵀ / √(d / h)) v;  x += o Wᵀ + b


class Mlp:
    """fc2(activation(fc1(h))): transformers VisionMlp."""

    def __init__(self, weights: Weights, d: int, inner: int, activation: str) -> None:
        self.fc1 = Linear(weights.scope("fc1"), inner, d, activation)
        self.fc2 = Linear(weights.scope("fc2"), d, inner)

    def sizes(self, n: int) -> dict[str, Size]:
        """``hidden``: the inner activations of a chunk of rows."""
        return {"hidden": (min(n, MLP_ROWS), self.fc2.packed.shape[1], self.fc2.rows)}

    def __call__(self, h: np.ndarray, x: np.ndarray, ws: Workspace) -> None:
        for rows in chunks(len(h), MLP_ROWS):
            a = self.fc1(h[rows], ws.hidden[: rows.stop - rows.start])  # (rows, inner) = activation(h Wᵀ + b)
            self.fc2(a, x[rows], add=True)  # (rows, d) x += a Wᵀ + b


class GatedMlp:
    """down(silu(gate(h)) * up(h)): transformers Qwen2_5_VLMLP. Gate and up are one product."""

    def __init__(self, weights: Weights, d: int, inner: int) -> None:
        self.gate_up = ops.PackedWeight(inner, d, weights.format, gated=True)
        for half, name in enumerate(("gate_proj", "up_proj")):
            place = weights.scope(name)
            place.ask("weight", (inner, d), partial(self.gate_up.pack, half=half))
            place.ask("bias", (inner,), partial(self.gate_up.pack_bias, half=half))
        self.down = Linear(weights.scope("down_proj"), d, inner)

    def sizes(self, n: int) -> dict[str, Size]:
        """``hidden``: the inner activations of a chunk of rows."""
        return {"hidden": (min(n, MLP_ROWS), self.down.packed.shape[1], self.down.rows)}

    def __call__(self, h: np.ndarray, x: np.ndarray, ws: Workspace) -> None:
        for rows in chunks(len(h), MLP_ROWS):
            a = ops.linear(h[rows], self.gate_up, ws.hidden[: rows.stop - rows.start], activation="silu_gate")
            self.down(a, x[rows], add=True)  # (rows, d) x += a Wᵀ + b


class Block:
    """One layer of the tower: x += attention(norm1(x)); x += mlp(norm2(x))."""

    def __init__(self, norm1: Norm, attention: Attention, norm2: Norm, mlp: Mlp | GatedMlp) -> None:
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp

    def sizes(self, n: int, longest: int, segments: int) -> dict[str, Size]:
        """``normed``: input of attention and of the MLP; and what these two take."""
        d, rows = len(self.norm1.weight), self.attention.qkv.rows
        return {"normed": (n, d, rows)} | self.attention.sizes(n, longest, segments) | self.mlp.sizes(n)

    def __call__(self, x: np.ndarray, rope: Rope, cu_seqlens: np.ndarray, ws: Workspace) -> None:
        h = self.norm1(x, ws.normed)  # (n, d)
        self.attention(h, x, rope, cu_seqlens, ws)
        h = self.norm2(x, ws.normed)  # (n, d)
        self.mlp(h, x, ws)


class PatchMerger:
    """Norm, join the patches of a merge unit, two linears: transformers PatchMerger.

    The join costs nothing: the norm writes a unit's rows side by side. Its activation is the erf GELU, whatever the
    config's hidden_act is.
    """

    def __init__(self, weights: Weights, norm: Norm, d: int, unit: int, out: int) -> None:
        self.norm, self.unit = norm, unit
        self.fc1 = Linear(weights.scope("mlp.0"), unit * d, unit * d, "gelu")
        self.fc2 = Linear(weights.scope("mlp.2"), out, unit * d)

    def sizes(self, n: int) -> dict[str, Size]:
        """``merged`` and ``merged_hidden``: input and inner activations of a chunk of tokens."""
        chunk = min(n // self.unit, MERGE_ROWS), self.fc1.packed.shape[1], self.fc1.rows
        return {"merged": chunk, "merged_hidden": chunk}

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        for rows in chunks(len(out), MERGE_ROWS):
            m = rows.stop - rows.start
            joined = self.norm(x[rows.start * self.unit : rows.stop * self.unit], ws.merged[:m])  # (m, 4d)
            a = self.fc1(joined, ws.merged_hidden[:m])  # (m, 4d) = gelu(joined Wᵀ + b)
            self.fc2(a, out[rows])  # (m, out) = a Wᵀ + b
        return out


def _into(target: np.ndarray) -> Callable[[np.ndarray], None]:
    def receive(array: np.ndarray) -> None:
        target[:] = array

    return receive
