"""Candidates for int8 that the package does not use, simulated: values are quantised, and multiplied as float32.

Inside ``simulated(scheme)``, towers are built of `SimulatedWeight`s in place of `ops.PackedWeight`, and run with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np

from qwenvis import ops

_linear, _PackedWeight = ops.linear, ops.PackedWeight


@dataclass(frozen=True)
class Scheme:
    """What happens to rows and weights along K before both are rounded to 8 bits.

    - ``balance``: columns of the weight are divided by this power of their norm, and entries of rows multiplied by it.
    - ``rotation``: the neighbours that a Hadamard matrix mixes; 0 for none. ``signs``: random ones before that.
    - ``symmetric``: rows have no zero point. ``k_block``: entries of K with a scale of their own; 0 for whole rows.
    - ``weight_block``: the same of weights, whose scales are then float16, as in the q8_0 of llama.cpp.
    - ``together``: all rows of a product have one scale.
    """

    balance: float = 1.0
    rotation: int = 128
    signs: bool = True
    symmetric: bool = False
    k_block: int = 0
    weight_block: int = 0
    together: bool = False

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """(rows, k) -> (rows, k'), k padded to whole blocks."""
        b = self.rotation
        if not b:
            return x
        x = np.pad(x, ((0, 0), (0, -x.shape[1] % b)))
        if self.signs:
            x = x * _signs(x.shape[1])
        return (x.reshape(-1, b) @ _hadamard(b)).reshape(x.shape)

    def round_rows(self, x: np.ndarray) -> np.ndarray:
        """Round rows (rows, k) to 8 bits, by row or by blocks of K."""
        parts = _blocks(x, self.k_block)
        axes = None if self.together else 2
        low, high = (end(parts, axis=axes, keepdims=True) for end in (np.min, np.max))
        low, high = low.clip(max=0), high.clip(min=0)
        if self.symmetric:
            high = np.maximum(high, -low)
            scale = _positive(high / 127)
            rounded = np.rint(parts / scale) * scale
        else:
            scale = _positive((high - low) / 255)
            zero = np.rint(-low / scale)
            rounded = ((np.rint(parts / scale) + zero).clip(0, 255) - zero) * scale
        return np.ascontiguousarray(rounded.reshape(len(x), -1)[:, : x.shape[1]])

    def round_weight(self, w: np.ndarray) -> np.ndarray:
        """Round a weight (n, k) to 8 bits, by output or by blocks of K."""
        parts = _blocks(w, self.weight_block)
        scale = _positive(np.abs(parts).max(axis=2, keepdims=True) / 127)
        rounded = np.rint(parts / scale)
        rounded *= scale.astype(np.float16) if self.weight_block else scale
        return np.ascontiguousarray(rounded.reshape(len(w), -1)[:, : w.shape[1]])


# By name, as docs/int8.md lists them.
SCHEMES = {
    "together": Scheme(balance=0, rotation=0, together=True),
    "rounding": Scheme(balance=0, rotation=0),
    **{f"h{b}": Scheme(balance=0, rotation=b) for b in (16, 64, 128)},
    "balance": Scheme(rotation=0),
    **{f"balance-h{b}": Scheme(rotation=b) for b in (16, 64, 128, 256)},
    "half-balance-h128": Scheme(balance=0.5),
    "no-signs": Scheme(signs=False),
    "symmetric": Scheme(symmetric=True),
    **{f"k{block}": Scheme(k_block=block) for block in (256, 640)},
    "q8_0": Scheme(balance=0, rotation=0, symmetric=True, k_block=32, weight_block=32),
}


class SimulatedWeight:
    """The interface of `ops.PackedWeight`, with weights and rows that are rounded as a scheme says."""

    rows_dtype = "float32"

    def __init__(self, scheme: Scheme, n: int, k: int, format: str, *, gated: bool = False) -> None:
        padded = scheme.rotate(np.zeros((1, k), np.float32)).shape[1]
        self.scheme, self.shape = scheme, (n, k)
        self.packed = _PackedWeight(n, padded, "f32", gated=gated)
        self.pack_bias = self.packed.pack_bias
        self.halves: list[np.ndarray | None] = [None] * (1 + gated)
        self.balance = np.ones(k, np.float32)

    def pack(self, array: np.ndarray, half: int = 0) -> None:
        """Keep a half; with the last one, round and pack the weight."""
        self.halves[half] = np.asarray(array, np.float32).reshape(self.shape)
        halves = [each for each in self.halves if each is not None]
        if len(halves) < len(self.halves):
            return
        weight = np.concatenate(halves)  # gate and up have the same rows
        self.balance = _positive(np.linalg.norm(weight, axis=0)) ** np.float32(self.scheme.balance)
        rounded = self.scheme.round_weight(self.scheme.rotate(weight / self.balance))
        for i, part in enumerate(np.split(rounded, len(halves))):
            self.packed.pack(part, i) if len(halves) > 1 else self.packed.pack(part)
        self.halves = []

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Round the rows that the weight multiplies."""
        return self.scheme.round_rows(self.scheme.rotate(x * self.balance))


@contextmanager
def simulated(scheme: Scheme) -> Iterator[None]:
    """Build and run towers with simulated weights."""

    def linear(x: np.ndarray, weight: Any, out: np.ndarray, **options: Any) -> np.ndarray:
        return _linear(weight.rows(x), weight.packed, out, **options)

    def packed_weight(*arguments: Any, **options: Any) -> SimulatedWeight:
        return SimulatedWeight(scheme, *arguments, **options)

    with patch.object(ops, "linear", linear), patch.object(ops, "PackedWeight", packed_weight):
        yield


def _blocks(x: np.ndarray, size: int) -> np.ndarray:
    """(rows, k) -> (rows, blocks, size), the last block filled up with zeros; size 0: one block, the whole row."""
    size = size or x.shape[1]
    return np.pad(x, ((0, 0), (0, -x.shape[1] % size))).reshape(len(x), -1, size)


@cache
def _hadamard(size: int) -> np.ndarray:
    """Sylvester's Hadamard matrix, orthonormal."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(np.float32(size))).astype(np.float32)


@cache
def _signs(k: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), k)


def _positive(x: np.ndarray) -> np.ndarray:
    """Replace zeros, so that zeros divided by them are zeros."""
    return np.where(x > 0, x, np.float32(1))
