"""Layers: weights bound to operations. Each layer requests its tensors by name and shape, and packs them once.

The first argument of a call is the input, the last one the output, which is returned. ``x`` is the residual stream,
which blocks update in place. In the shapes: n patches, d hidden_size, h heads, m tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise

import numpy as np

from qwenvis import ops
from qwenvis.geometry import Interpolation
from qwenvis.nn.workspace import Size, Workspace
from qwenvis.weights import Weights

# Rows of a chunk of the MLP: its inner activations take 10 MB at 5120 columns, for an image of any size.
MLP_ROWS = 512
# Patches that are gathered at a time
PATCH_ROWS = 1024


def chunks(stop: int, rows: int, start: int = 0) -> list[slice]:
    """Cut start to stop into slices of at most ``rows`` rows. Rows are independent, so no bit depends on ``rows``."""
    return [slice(first, min(first + rows, stop)) for first in range(start, stop, rows)]


class Linear:
    """activation(x Wᵀ + b): torch.nn.Linear and an activation. ``rows`` is the dtype that x must have."""

    def __init__(self, weights: Weights, n: int, k: int, activation: str = "none", *, bias: bool = True) -> None:
        self.activation, self.format, self.shape = activation, weights.format, (n, k)
        self.packed = weights.keep(ops.PackedWeight(n, k, weights.format))
        self.rows = self.packed.rows_dtype
        weights.ask("weight", (n, k), self.packed.pack)
        if bias:
            weights.ask("bias", (n,), self.packed.pack_bias)

    def __call__(self, x: np.ndarray, out: np.ndarray, add: bool = False) -> np.ndarray:
        """(rows, k) -> (rows, n); ``add`` adds the result to ``out``."""
        return ops.linear(x, self.packed, out, activation=self.activation, add=add)


class SplitLinear:
    """Linears with one input and their outputs side by side: for checkpoints whose q, k and v are separate tensors."""

    def __init__(self, weights: Weights, names: tuple[str, ...], n: int, k: int, *, bias: bool = True) -> None:
        self.parts = [Linear(weights.scope(name), n, k, bias=bias) for name in names]
        self.format, self.rows, self.shape = weights.format, self.parts[0].rows, (n * len(names), k)

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(rows, k) -> (rows, n · parts)."""
        for part, columns in zip(self.parts, np.split(out, len(self.parts), axis=1), strict=True):
            part(x, columns)
        return out


class LayerNorm:
    """torch.nn.LayerNorm."""

    def __init__(self, weights: Weights, d: int, eps: float) -> None:
        self.eps = eps
        self.weight, self.bias = (weights.keep(np.empty(d, np.float32)) for _ in range(2))
        weights.ask("weight", (d,), _into(self.weight))
        weights.ask("bias", (d,), _into(self.bias))

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d), or (n / g, g·d): g rows side by side."""
        return ops.layer_norm(x, self.weight, self.bias, self.eps, out)


class RMSNorm:
    """transformers Qwen2_5_VLRMSNorm."""

    def __init__(self, weights: Weights, d: int, eps: float) -> None:
        self.eps = eps
        self.weight = weights.keep(np.empty(d, np.float32))
        weights.ask("weight", (d,), _into(self.weight))

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d), or (n / g, g·d): g rows side by side."""
        return ops.rms_norm(x, self.weight, self.eps, out)


Norm = LayerNorm | RMSNorm


class PatchEmbed:
    """torch.nn.Conv3d whose stride is its kernel, as a product with the rows of ``pixel_values``.

    The frames of a still are equal, and those of a temporal step of a video may be. Then the product with one frame and
    the sum of the kernel's temporal slices, taken in float32, gives the same with half the work. Each temporal step is
    checked by itself, so its bits do not depend on the other steps.
    ``stored`` is the shape of the kernel in the checkpoint, if it has no axis of frames there.
    """

    def __init__(
        self,
        weights: Weights,
        d: int,
        kernel: tuple[int, int, int, int],
        *,
        bias: bool = False,
        stored: tuple[int, ...] | None = None,
    ) -> None:
        channels, frames, height, width = kernel
        self.parts = (channels, frames, height * width)
        self.full = self.folded = weights.keep(ops.PackedWeight(d, math.prod(kernel), weights.format))
        if frames > 1:
            self.folded = weights.keep(ops.PackedWeight(d, channels * height * width, weights.format))
        weights.ask("weight", (d, *(stored or kernel)), self._pack)
        if bias:
            weights.ask("bias", (d,), self._pack_bias)

    def _pack(self, array: np.ndarray) -> None:
        self.full.pack(array)
        with np.errstate(over="ignore"):  # the layer refuses a sum that is infinite
            folded = array.reshape(len(array), *self.parts).astype(np.float32).sum(axis=2)
        self.folded.pack(folded)

    def _pack_bias(self, array: np.ndarray) -> None:
        self.full.pack_bias(array)
        self.folded.pack_bias(array)

    def sizes(self, n: int) -> dict[str, Size]:
        """Array: ``patches``, rows of pixel_values in the order of x."""
        return {"patches": (min(n, PATCH_ROWS), self.full.shape[1], self.full.rows_dtype)}

    def is_still(self, patches: np.ndarray) -> bool:
        """Return whether the frames of each of these patches are all equal."""
        frames = patches.reshape(len(patches), *self.parts)
        return all(
            bool((frames[rows, :, 1:] == frames[rows, :, :1]).all()) for rows in chunks(len(patches), PATCH_ROWS)
        )

    def __call__(
        self, patches: np.ndarray, order: np.ndarray, steps: np.ndarray, x: np.ndarray, ws: Workspace
    ) -> np.ndarray:
        """Embed the rows of ``patches`` in ``order``: x (n, d). ``steps``: cumulative patches of the temporal steps."""
        split = patches.reshape(len(patches), *self.parts)
        spans = pairwise(steps.tolist())
        for still, run in groupby(spans, key=lambda span: self.is_still(patches[span[0] : span[1]])):
            span = list(run)  # neighbouring steps of one kind become one product
            source = split[:, :, 0] if still else patches
            weight = self.folded if still else self.full
            for rows in chunks(span[-1][1], PATCH_ROWS, span[0][0]):
                a = ops.gather(source, order[rows], ws.patches[: rows.stop - rows.start, : weight.shape[1]])
                ops.linear(a, weight, x[rows])  # (rows, d) = a Wᵀ + b
        return x


class PositionTable:
    """A learned embedding of each position of a square grid: torch.nn.Embedding, in float32 in every format."""

    def __init__(self, weights: Weights, count: int, d: int) -> None:
        self.side = math.isqrt(count)
        self.table = weights.keep(np.empty((count, d), np.float32))
        weights.per(0).ask("weight", (count, d), _into(self.table))

    def __call__(self, rows: Interpolation, columns: Interpolation, x: np.ndarray) -> np.ndarray:
        """Add to x (n, d) the embedding of each patch's position, interpolated in the grid: `ops.add_interpolated`."""
        return ops.add_interpolated(self.table[: self.side**2].reshape(self.side, self.side, -1), rows, columns, x)


class Mlp:
    """fc2(activation(fc1(h))): transformers VisionMlp."""

    def __init__(
        self, weights: Weights, d: int, inner: int, activation: str, linears: tuple[str, str] = ("fc1", "fc2")
    ) -> None:
        self.fc1 = Linear(weights.scope(linears[0]), inner, d, activation)
        self.fc2 = Linear(weights.scope(linears[1]), d, inner)

    def sizes(self, n: int) -> dict[str, Size]:
        """Array: ``hidden``, the inner activations of a chunk of rows."""
        return {"hidden": (min(n, MLP_ROWS), self.fc2.packed.shape[1], self.fc2.rows)}

    def __call__(self, h: np.ndarray, x: np.ndarray, ws: Workspace) -> None:
        for rows in chunks(len(h), MLP_ROWS):
            a = self.fc1(h[rows], ws.hidden[: rows.stop - rows.start])  # (rows, inner) = activation(h Wᵀ + b)
            self.fc2(a, x[rows], add=True)  # (rows, d) x += a Wᵀ + b


class GatedMlp:
    """down(silu(gate(h)) * up(h)): transformers Qwen2_5_VLMLP. Gate and up are one product.

    ``scratch`` is the name of its array in the workspace.
    """

    def __init__(self, weights: Weights, d: int, inner: int, *, bias: bool = True, scratch: str = "hidden") -> None:
        self.gate_up = weights.keep(ops.PackedWeight(inner, d, weights.format, gated=True))
        self.rows, self.scratch = self.gate_up.rows_dtype, scratch
        for half, name in enumerate(("gate_proj", "up_proj")):
            place = weights.scope(name)
            place.ask("weight", (inner, d), partial(self.gate_up.pack, half=half))
            if bias:
                place.ask("bias", (inner,), partial(self.gate_up.pack_bias, half=half))
        self.down = Linear(weights.scope("down_proj"), d, inner, bias=bias)

    def sizes(self, n: int) -> dict[str, Size]:
        """Array: ``hidden``, or the name in ``scratch``, the inner activations of a chunk of rows."""
        return {self.scratch: (min(n, MLP_ROWS), self.down.shape[1], self.down.rows)}

    def gated(self, h: np.ndarray, ws: Workspace) -> np.ndarray:
        """Compute silu(gate(h)) * up(h), (rows, inner)."""
        out = getattr(ws, self.scratch)[: len(h)]
        return ops.linear(h, self.gate_up, out, activation="silu_gate")

    def __call__(self, h: np.ndarray, x: np.ndarray, ws: Workspace, add: bool = True) -> None:
        for rows in chunks(len(h), MLP_ROWS):
            self.down(self.gated(h[rows], ws), x[rows], add)  # (rows, d) x += a Wᵀ + b


class ClampedGatedMlp(GatedMlp):
    """GatedMlp with gate at most ``limit`` and up between -limit and limit: transformers Glm5NextVisionMLP.

    Gate and up are two linears here, and `ops.activate` clamps them, because the epilogue of a tile has no limits.
    """

    def __init__(
        self, weights: Weights, d: int, inner: int, *, limit: float, bias: bool, scratch: str = "hidden"
    ) -> None:
        self.both = SplitLinear(weights, ("gate_proj", "up_proj"), inner, d, bias=bias)
        self.down = Linear(weights.scope("down_proj"), d, inner, bias=bias)
        self.rows, self.limit, self.scratch = self.both.rows, limit, scratch

    def sizes(self, n: int) -> dict[str, Size]:
        """Arrays of GatedMlp, and ``..._both``: gate and up of these rows, side by side."""
        return super().sizes(n) | {f"{self.scratch}_both": (min(n, MLP_ROWS), self.both.shape[0], "float32")}

    def gated(self, h: np.ndarray, ws: Workspace) -> np.ndarray:
        """Compute silu(min(gate(h), limit)) * max(-limit, min(up(h), limit)), (rows, inner)."""
        both = self.both(h, getattr(ws, f"{self.scratch}_both")[: len(h)])
        out = getattr(ws, self.scratch)[: len(h)]
        return ops.activate(both, out, activation="silu_gate", limit=self.limit)


def _into(target: np.ndarray) -> Callable[[np.ndarray], None]:
    def receive(array: np.ndarray) -> None:
        target[:] = array
        if not ops.all_finite(target.reshape(len(target), -1)):
            raise FloatingPointError("the tensor is not finite")

    return receive
