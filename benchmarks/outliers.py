"""Outliers like those of trained transformers, injected into the random weights of a synthetic Qwen2-VL tower.

    python -m benchmarks.outliers /tmp/gains --outliers gains --blocks 4
    python -m benchmarks.peers --cases /tmp/gains/224 --engines openvino-i8 onnxruntime-i8

The first command writes a checkpoint with outliers, which any other command reads. An injection edits tensors while
they are read, by their names.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from qwenvis.spec import ModelSpec

# The name of a tensor and its values to its new values, float32.
Edit = Callable[[str, np.ndarray], np.ndarray]

UNIT = 4  # patches that the merger joins: its first linear reads the same norm once for each
TOP = 3000.0  # of the residual stream; published towers reach 2500 to 5000
NORMS = ("norm1", "norm2", "ln_q")
READERS = ("attn.qkv.weight", "mlp.fc1.weight", "merger.mlp.0.weight")  # of normed rows
WRITERS = ("attn.proj", "mlp.fc2")  # of the residual stream


def gains(name: str, w: np.ndarray) -> np.ndarray:
    """Multiply the output of all norms by 32 or 64 in six channels; their readers divide by as much."""
    return _through_norms(name, w, lambda d: _spikes(d, np.array([64.0, 32.0, 32.0, 64.0, 32.0, 64.0])))


def lognormal(name: str, w: np.ndarray) -> np.ndarray:
    """Multiply each channel of all norms by exp(N(0, 1)); their readers divide by as much."""
    return _through_norms(name, w, lambda d: np.exp(np.random.default_rng(3).standard_normal(d)))


def hidden(name: str, w: np.ndarray, factor: float = 50.0, compensated: bool = True) -> np.ndarray:
    """Multiply 20 rows of each MLP's first linear; the second linear divides by as much, if ``compensated``."""
    if _is(name, "mlp.fc1", "merger.mlp.0"):
        return _scaled(w, _channels(len(w), 20), factor)
    if compensated and _is(name, "mlp.fc2.weight", "merger.mlp.2.weight"):
        return _scaled(w.T, _channels(w.shape[1], 20), 1 / factor).T
    return w


def values(name: str, w: np.ndarray, factor: float = 50.0) -> np.ndarray:
    """Multiply 16 channels of the values of attention; ``proj`` divides by as much."""
    if _is(name, "attn.qkv"):
        d = len(w) // 3
        return _scaled(w, 2 * d + _channels(d, 16), factor)
    if _is(name, "attn.proj.weight"):
        return _scaled(w.T, _channels(w.shape[1], 16), 1 / factor).T
    return w


def stream(name: str, w: np.ndarray, depth: int) -> np.ndarray:
    """Let two channels of the residual stream grow to 3000 and -3000, as published towers do.

    They also vary 8 times more than before. Gains restore the other channels, and let the two reach 30 after a norm;
    the readers divide them by 30.
    """
    if _is(name, *NORMS) and name.endswith("weight"):
        return w * _restoring_gains(len(w), _writes_before(name, depth), depth)
    if _is(name, *READERS):
        return _through_norms(name, w, lambda d: _spikes(d, np.full(2, 30.0)))
    if _is(name, "patch_embed", *WRITERS):
        two = _channels(len(w), 2)
        w = _scaled(w, two, 8.0)
        if name.endswith("bias"):
            w[two] += np.array([TOP, -TOP], np.float32) / (2 * depth)
    return w


def heavy(name: str, w: np.ndarray) -> np.ndarray:
    """Turn normal weights into Student's t with 4 degrees of freedom, of the same variance."""
    if w.ndim == 1:
        return w
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return w / np.sqrt(rng.chisquare(4, w.shape) / 4 * 2)


# By name, as docs/int8.md lists them: the edits of a tower of so many blocks.
OUTLIERS: dict[str, Callable[[int], list[Edit]]] = {
    "none": lambda depth: [],
    "gains": lambda depth: [gains],
    "lognormal": lambda depth: [lognormal],
    "stream": lambda depth: [partial(stream, depth=depth)],
    "hidden": lambda depth: [hidden],
    "values": lambda depth: [values],
    "all": lambda depth: [gains, partial(stream, depth=depth), hidden, values],
    "hidden-alone": lambda depth: [partial(hidden, compensated=False)],
    "heavy": lambda depth: [heavy],
    "massive": lambda depth: [],
}


class MassiveTokens:
    """A block after which three tokens have two entries of thousands in the residual stream."""

    TOKENS, CHANNELS = [0, 100, 233], [7, 50]

    def __init__(self, block: Any) -> None:
        self.block, self.sizes = block, block.sizes

    def __call__(self, x: np.ndarray, *arguments: Any) -> None:
        self.block(x, *arguments)
        x[np.ix_(self.TOKENS, self.CHANNELS)] += np.array([2500, -1250], np.float32)


def inject(spec: ModelSpec, outliers: str, blocks: int | None = None) -> ModelSpec:
    """Edit the weights that a spec will read; keep the first ``blocks`` blocks only. Return the spec."""
    tower: Any = spec.tower
    depth = min(blocks or spec.config.depth, spec.config.depth)
    tower.config, tower.blocks = replace(spec.config, depth=depth), tower.blocks[:depth]
    if outliers == "massive":
        tower.blocks[depth // 2] = MassiveTokens(tower.blocks[depth // 2])
    edits = OUTLIERS[outliers](depth)
    for i, request in enumerate(spec.weights.requests):
        block = _block(request.name)
        receive = _ignore if block is not None and block >= depth else partial(_edited, request, edits)
        spec.weights.requests[i] = replace(request, receive=receive)
    return spec


def save(spec: ModelSpec, outliers: str, blocks: int | None, directory: Path) -> None:
    """Write the tower of a spec, with outliers, into a new directory in the Hub's layout."""
    tensors: dict[str, np.ndarray] = {}
    for i, request in enumerate(spec.weights.requests):
        spec.weights.requests[i] = replace(request, receive=partial(tensors.__setitem__, request.name))
    spec.checkpoint.fill(inject(spec, outliers, blocks).weights)
    directory.mkdir(parents=True)
    vision_config = {**spec.checkpoint.vision_config, "depth": spec.config.depth}
    replace(spec.checkpoint, vision_config=vision_config).write_configs(directory)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _edited(request: Any, edits: list[Edit], array: np.ndarray) -> None:
    array = array.astype(np.float32)
    for edit in edits:
        array = edit(request.name, array).astype(np.float32)
    request.receive(np.ascontiguousarray(array))


def _ignore(array: np.ndarray) -> None:
    """Drop the tensor of a block that is not kept."""


def _through_norms(name: str, w: np.ndarray, gains: Callable[[int], np.ndarray]) -> np.ndarray:
    """Multiply the outputs of norms by ``gains(d)``, and divide the columns of their readers."""
    if _is(name, *NORMS):
        return w * gains(len(w))
    if _is(name, *READERS):
        unit = UNIT if name.startswith("merger") else 1
        return w / np.tile(gains(w.shape[1] // unit), unit)
    return w


def _restoring_gains(d: int, writes: int, depth: int) -> np.ndarray:
    """Return gains (d,) after ``writes`` sums into the stream: those of `stream`."""
    others = math.sqrt(1 + 0.62 * writes)  # deviation of a channel of the synthetic tower, measured
    level = TOP * writes / (2 * depth)
    deviation = math.hypot(others, level * math.sqrt(2 / d))
    gain = np.full(d, deviation / others)
    gain[_channels(d, 2)] = 30 / max(level / deviation, 1)
    return gain


def _writes_before(name: str, depth: int) -> int:
    block = _block(name)
    return 2 * depth if block is None else 2 * block + ("norm2" in name)


def _block(name: str) -> int | None:
    kind, number, *_ = name.split(".")
    return int(number) if kind == "blocks" else None


def _is(name: str, *parts: str) -> bool:
    return any(f".{part}." in f".{name}." for part in parts)


def _channels(d: int, count: int) -> np.ndarray:
    """Choose ``count`` of d channels, always the same."""
    return np.random.default_rng(7).choice(d, count, replace=False)


def _spikes(d: int, factors: np.ndarray) -> np.ndarray:
    gain = np.ones(d)
    gain[_channels(d, len(factors))] = factors
    return gain


def _scaled(w: np.ndarray, rows: np.ndarray, factor: float) -> np.ndarray:
    w = w.astype(np.float32)
    w[rows] *= np.float32(factor)
    return w


def main() -> None:
    """Write a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--outliers", choices=[name for name in OUTLIERS if name != "massive"], default="all")
    parser.add_argument("--blocks", type=int, help="of the tower; default all")
    arguments = parser.parse_args()
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} already exists; name a new directory")
    save(ModelSpec.open(arguments.model), arguments.outliers, arguments.blocks, arguments.directory)


if __name__ == "__main__":
    main()
