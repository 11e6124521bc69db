"""How the patches of a merge unit become one token.

A merger is called with the residual stream and the array of tokens, and works through it by chunks of tokens. In the
shapes: d hidden_size, u patches of a unit, m tokens of a chunk.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from qwenvis import ops
from qwenvis.nn.layers import GatedMlp, LayerNorm, Linear, Norm, chunks
from qwenvis.nn.workspace import Size, Workspace
from qwenvis.weights import Weights

# Tokens of a merger's inner activations that exist at a time.
MERGE_ROWS = 256


class Merger(Protocol):
    """What a tower asks of any merger."""

    def sizes(self, n: int) -> dict[str, Size]:
        """Its part of the workspace for n patches."""

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """(n, d) -> (n / u, out)."""


class PatchMerger:
    """Norm, join the patches of a merge unit, two linears: transformers PatchMerger.

    The join costs nothing: the norm writes a unit's rows side by side. Its activation is the erf GELU, whatever the
    config's hidden_act is.
    """

    def __init__(
        self, weights: Weights, norm: Norm, d: int, unit: int, out: int, linears: tuple[str, str] = ("mlp.0", "mlp.2")
    ) -> None:
        weights, width = weights.per(unit), unit * d
        self.norm, self.unit = norm, unit
        self.fc1 = Linear(weights.scope(linears[0]), width, width, "gelu")
        self.fc2 = Linear(weights.scope(linears[1]), out, width)

    def sizes(self, n: int) -> dict[str, Size]:
        """``merged`` and ``merged_hidden``: input and inner activations of a chunk of tokens."""
        chunk = min(n // self.unit, MERGE_ROWS), self.fc1.shape[1], self.fc1.rows
        return {"merged": chunk, "merged_hidden": chunk}

    def join(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """Normed and joined: x (m·u, d) -> (m, u·d)."""
        return self.norm(x, out)

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        for rows in chunks(len(out), MERGE_ROWS):
            m = rows.stop - rows.start
            joined = self.join(x[rows.start * self.unit : rows.stop * self.unit], ws.merged[:m], ws)  # (m, u·d)
            a = self.fc1(joined, ws.merged_hidden[:m])  # (m, u·d) = gelu(joined Wᵀ + b)
            self.fc2(a, out[rows])  # (m, out) = a Wᵀ + b
        return out


class DeepstackMerger(PatchMerger):
    """The same with a norm over the joined patches: transformers Qwen3VLVisionPatchMerger, use_postshuffle_norm."""

    def sizes(self, n: int) -> dict[str, Size]:
        """Also ``joined``: the patches of a chunk of tokens side by side, as they are."""
        rows, width, _ = super().sizes(n)["merged"]
        return super().sizes(n) | {"joined": (rows, width, "float32")}

    def join(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """Joined and normed: x (m·u, d) -> (m, u·d)."""
        joined, shape = ws.joined[: len(out)], (len(out), self.unit, x.shape[1])
        np.copyto(joined.reshape(shape), x.reshape(shape))  # views, whatever the pitch
        return self.norm(joined, out)


class Downsample:
    """A convolution over a merge unit: torch.nn.Conv2d whose stride is its kernel, on patches joined side by side."""

    def __init__(self, weights: Weights, out: int, d: int, side: int) -> None:
        self.packed = weights.keep(ops.PackedWeight(out, side * side * d, weights.format))
        self.rows = self.packed.rows_dtype
        weights.ask("weight", (out, d, side, side), self._pack)
        weights.ask("bias", (out,), self.packed.pack_bias)

    def _pack(self, array: np.ndarray) -> None:
        self.packed.pack(array.transpose(0, 2, 3, 1))  # (out, row, column, d): a unit's patches come one by one

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(m, u·d) -> (m, out)."""
        return ops.linear(x, self.packed, out)


class DownsampleMerger:
    """A convolution, a linear, LayerNorm, GELU, and a gated MLP: transformers Glm4vVisionPatchMerger.

    The tower's last norm and its ``downsample`` are part of it, so ``weights`` are the tower's.
    """

    def __init__(self, weights: Weights, norm: Norm, side: int, d: int, mlp: GatedMlp) -> None:
        weights, out = weights.per(side * side), mlp.down.shape[0]
        place = weights.scope("merger")
        self.norm, self.unit, self.mlp = norm, side * side, mlp
        self.downsample = Downsample(weights.scope("downsample"), out, d, side)
        self.proj = Linear(place.scope("proj"), out, out, bias=False)
        self.post_norm = LayerNorm(place.scope("post_projection_norm"), out, 1e-5)  # the default of torch.nn.LayerNorm

    def sizes(self, n: int) -> dict[str, Size]:
        """Of a chunk of tokens: its joined patches, and what comes between the operations."""
        m, (out, width) = min(n // self.unit, MERGE_ROWS), self.downsample.packed.shape
        return {
            "merged": (m, width, self.downsample.rows),
            "merged_down": (m, out, self.proj.rows),
            "merged_proj": (m, out, "float32"),
            "merged_normed": (m, out, "float32"),
            "merged_act": (m, out, self.mlp.rows),
            **self.mlp.sizes(m),
        }

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        for rows in chunks(len(out), MERGE_ROWS):
            m = rows.stop - rows.start
            joined = self.norm(x[rows.start * self.unit : rows.stop * self.unit], ws.merged[:m])  # (m, u·d)
            h = self.downsample(joined, ws.merged_down[:m])  # (m, out) = joined Wᵀ + b
            h = self.post_norm(self.proj(h, ws.merged_proj[:m]), ws.merged_normed[:m])  # (m, out) = norm(h Wᵀ)
            a = ops.activate(h, ws.merged_act[:m], activation="gelu")
            self.mlp(a, out[rows], ws, add=False)  # (m, out) = mlp(gelu(h))
        return out
