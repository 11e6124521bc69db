"""The blocks of a tower: attention and an MLP, each behind a norm and added to the residual stream.

In the shapes: n patches, d hidden_size, h heads.
"""

from __future__ import annotations

import numpy as np

from qwenvis import ops
from qwenvis.nn.layers import GatedMlp, Linear, Mlp, Norm, RMSNorm, SplitLinear
from qwenvis.nn.workspace import Size, Workspace
from qwenvis.weights import Weights

# cosines and sines of each patch's angles, (n, head_dim / 2) each
Rope = tuple[np.ndarray, np.ndarray]


class Attention:
    """Multi-head self-attention with rope on queries and keys: transformers VisionAttention.

    The columns of ``qkv`` are the queries of all heads, then the keys, then the values. Keys and values may have fewer
    heads than the queries; several heads of queries then share one head of keys and values.
    """

    def __init__(self, qkv: Linear | SplitLinear, proj: Linear, num_heads: int, key_value_heads: int) -> None:
        self.qkv, self.proj, self.format = qkv, proj, proj.format
        self.num_heads, self.head_dim = num_heads, proj.shape[1] // num_heads
        self.columns = [num_heads * self.head_dim, (num_heads + key_value_heads) * self.head_dim]  # where k and v begin

    @classmethod
    def fused(cls, weights: Weights, d: int, num_heads: int, key_value_heads: int) -> Attention:
        """Build an attention with the tensors ``qkv`` and ``proj``, both with biases."""
        width = d // num_heads * (num_heads + 2 * key_value_heads)
        qkv, proj = Linear(weights.scope("qkv"), width, d), Linear(weights.scope("proj"), d, d)
        return cls(qkv, proj, num_heads, key_value_heads)

    def sizes(self, n: int, longest: int, segments: int) -> dict[str, Size]:
        """Arrays: ``qkv``, side by side; ``context``, the result; ``attention``, packed keys and values."""
        scratch = ops.attention_scratch(longest, segments * self.num_heads, self.head_dim, self.format)
        return {
            "qkv": (n, self.qkv.shape[0], "float32"),
            "context": (n, self.proj.shape[1], self.proj.rows),
            "attention": (1, scratch, "float32"),
        }

    def heads(self, h: np.ndarray, ws: Workspace) -> list[np.ndarray]:
        """Return the queries, keys and values of ``h``: (n, their heads, d / h) each."""
        qkv = self.qkv(h, ws.qkv)  # h Wᵀ + b
        return [part.reshape(len(h), -1, self.head_dim) for part in np.split(qkv, self.columns, axis=1)]

    def __call__(self, h: np.ndarray, x: np.ndarray, rope: Rope, cu_seqlens: np.ndarray, ws: Workspace) -> None:
        """Add the attention of the normed rows ``h`` (n, d), by segment, to x (n, d)."""
        q, k, v = self.heads(h, ws)
        o = ops.attention((q, k, v), rope, cu_seqlens, ws.context, ws.attention[0], format=self.format)
        self.proj(o, x, add=True)  # (n, d) o = softmax(q kᵀ / √(d / h)) v;  x += o Wᵀ + b


class NormedAttention(Attention):
    """Attention that normalises every head of q and of k before rope: transformers GlmOcrVisionAttention."""

    def __init__(self, qkv: Linear, proj: Linear, num_heads: int, q_norm: RMSNorm, k_norm: RMSNorm) -> None:
        super().__init__(qkv, proj, num_heads, num_heads)
        self.q_norm, self.k_norm = q_norm, k_norm

    def heads(self, h: np.ndarray, ws: Workspace) -> list[np.ndarray]:
        """Return the queries, keys and values, (n, h, d / h) each; queries and keys are normalised in place."""
        parts = super().heads(h, ws)
        q, k, _ = np.split(ws.qkv, self.columns, axis=1)
        self.q_norm(q, q)  # (n, d), each head by itself
        self.k_norm(k, k)
        return parts


class Block:
    """One block of a tower: x += attention(norm1(x)); x += mlp(norm2(x))."""

    def __init__(self, norm1: Norm, attention: Attention, norm2: Norm, mlp: Mlp | GatedMlp) -> None:
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp

    def sizes(self, n: int, longest: int, segments: int) -> dict[str, Size]:
        """Arrays: ``normed``, the input of attention and MLP, and the arrays of these two."""
        d, rows = self.attention.proj.shape[0], self.attention.qkv.rows
        return {"normed": (n, d, rows)} | self.attention.sizes(n, longest, segments) | self.mlp.sizes(n)

    def __call__(self, x: np.ndarray, rope: Rope, cu_seqlens: np.ndarray, ws: Workspace) -> None:
        """Update x (n, d) in place."""
        h = self.norm1(x, ws.normed)  # (n, d)
        self.attention(h, x, rope, cu_seqlens, ws)
        h = self.norm2(x, ws.normed)  # (n, d)
        self.mlp(h, x, ws)
