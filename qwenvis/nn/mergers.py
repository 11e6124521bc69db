"""Mergers: the patches of a merge unit become one token.

A merger takes the residual stream and the array of tokens to fill, and works by chunks of tokens. In the shapes: d
hidden_size, u patches of a unit, m tokens of a chunk.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from qwenvis import ops
from qwenvis.nn.layers import GatedMlp, LayerNorm, Linear, Norm, chunks
from qwenvis.nn.workspace import Size, Workspace
from qwenvis.weights import Weights

# Tokens of a chunk, whose inner activations exist at the same time.
MERGE_ROWS = 256


class Merger(Protocol):
    """The interface of a merger."""

    def sizes(self, n: int) -> dict[str, Size]:
        """The arrays of the workspace that it needs for n patches."""

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """(n, d) -> (n / u, out)."""


class PatchMerger:
    """Norm, the patches of a merge unit joined, two linears: transformers PatchMerger.

    Joining costs nothing, because the norm writes the rows of a unit side by side. The activation is GELU with erf,
    not the hidden_act of the config.
    """

    def __init__(
        self, weights: Weights, norm: Norm, d: int, unit: int, out: int, linears: tuple[str, str] = ("mlp.0", "mlp.2")
    ) -> None:
        weights, width = weights.per(unit), unit * d
        self.norm, self.unit = norm, unit
        self.fc1 = Linear(weights.scope(linears[0]), width, width, "gelu")
        self.fc2 = Linear(weights.scope(linears[1]), out, width)

    def sizes(self, n: int) -> dict[str, Size]:
        """Arrays: ``merged`` and ``merged_hidden``, the input and the inner activations of a chunk."""
        chunk = min(n // self.unit, MERGE_ROWS), self.fc1.shape[1], self.fc1.rows
        return {"merged": chunk, "merged_hidden": chunk}

    def join(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """Norm the patches of each unit, then join them: x (m·u, d) -> (m, u·d)."""
        return self.norm(x, out)

    def __call__(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        for rows in chunks(len(out), MERGE_ROWS):
            m = rows.stop - rows.start
            joined = self.join(x[rows.start * self.unit : rows.stop * self.unit], ws.merged[:m], ws)  # (m, u·d)
            a = self.fc1(joined, ws.merged_hidden[:m])  # (m, u·d) = gelu(joined Wᵀ + b)
            self.fc2(a, out[rows])  # (m, out) = a Wᵀ + b
        return out


class DeepstackMerger(PatchMerger):
    """PatchMerger with the norm after joining: transformers Qwen3VLVisionPatchMerger with use_postshuffle_norm."""

    def sizes(self, n: int) -> dict[str, Size]:
        """Arrays of PatchMerger, and ``joined``: the patches of a chunk, joined but not normed."""
        rows, width, _ = super().sizes(n)["merged"]
        return super().sizes(n) | {"joined": (rows, width, "float32")}

    def join(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """Join the patches of each unit, then norm them: x (m·u, d) -> (m, u·d)."""
        joined, shape = ws.joined[: len(out)], (len(out), self.unit, x.shape[1])
        np.copyto(joined.reshape(shape), x.reshape(shape))  # views, at any pitch
        return self.norm(joined, out)


class Downsample:
    """torch.nn.Conv2d whose kernel and stride are a merge unit, as a product with the joined patches."""

    def __init__(self, weights: Weights, out: int, d: int, side: int) -> None:
        self.packed = weights.keep(ops.PackedWeight(out, side * side * d, weights.format))
        self.rows = self.packed.rows_dtype
        weights.ask("weight", (out, d, side, side), self._pack)
        weights.ask("bias", (out,), self.packed.pack_bias)

    def _pack(self, array: np.ndarray) -> None:
        self.packed.pack(array.transpose(0, 2, 3, 1))  # (out, row, column, d): one patch of the unit after the other

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(m, u·d) -> (m, out)."""
        return ops.linear(x, self.packed, out)


class DownsampleMerger:
    """A convolution, a linear, LayerNorm, GELU, and a gated MLP: transformers Glm4vVisionPatchMerger.

    It includes the tower's last norm and its ``downsample``, so ``weights`` are those of the whole tower.
    """

    def __init__(self, weights: Weights, norm: Norm, side: int, d: int, mlp: GatedMlp) -> None:
        weights, out = weights.per(side * side), mlp.down.shape[0]
        place = weights.scope("merger")
        self.norm, self.unit, self.mlp = norm, side * side, mlp
        self.downsample = Downsample(weights.scope("downsample"), out, d, side)
        self.proj = Linear(place.scope("proj"), out, out, bias=False)
        self.post_norm = LayerNorm(place.scope("post_projection_norm"), out, 1e-5)  # the default of torch.nn.LayerNorm

    def sizes(self, n: int) -> dict[str, Size]:
        """Arrays of a chunk: ``merged``, the joined patches, and the results of the operations in between."""
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
