"""Repos for a Hub of the tests: a tower beside a language model, in shards that are made as they are sent."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from qwenvis import models
from qwenvis.checkpoints.shards import INDEX, header_bytes
from qwenvis.sources.presets import PRESETS, Preset

BLOCK = 1 << 20
SMALL = {"depth": 3, "embed_dim": 320, "hidden_size": 320, "num_heads": 4}


@dataclass(frozen=True)
class Drawn:
    """The bytes of a file: a header, and behind it bfloat16 noise that repeats after a block, made as it is read."""

    header: bytes
    nbytes: int

    def __len__(self) -> int:
        return len(self.header) + self.nbytes

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self))
        head = self.header[start:stop]
        begin, end = max(start - len(self.header), 0), max(stop - len(self.header), 0)
        if begin >= end:
            return head
        first = begin // BLOCK
        blocks = _noise() * (-(-end // BLOCK) - first)
        return head + blocks[begin - first * BLOCK : end - first * BLOCK]


@functools.cache
def _noise() -> bytes:
    values = np.random.default_rng(0).standard_normal(BLOCK // 2, np.float32) * np.float32(0.02)
    return values.astype(ml_dtypes.bfloat16).tobytes()


def shard(shapes: dict[str, tuple[int, ...]]) -> Drawn:
    """A file of bfloat16 tensors of these shapes, by name."""
    sizes = {name: ("BF16", shape, 2 * math.prod(shape)) for name, shape in sorted(shapes.items())}
    return Drawn(header_bytes(sizes, {"format": "pt"}, 8), sum(size for _, _, size in sizes.values()))


def tower_shapes(preset: Preset, config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    _, weights = models.build(preset.family, config, {})
    return {f"visual.{request.name}": request.shape for request in weights.requests}


def repo(changes: dict[str, object] = SMALL, language: int = 1 << 22) -> tuple[dict[str, object], int]:
    """The files of Qwen2-VL-2B with a tower changed so, its language model of so many numbers; and the tower's bytes.

    As published, the first of two shards has the tower, behind a part of the language model; here it has a tensor of
    the language model between the tower's too.
    """
    preset = PRESETS["qwen2-vl-2b"]
    config = json.loads(json.dumps(preset.config))
    config["vision_config"] |= changes
    tower = tower_shapes(preset, config["vision_config"])
    first = {"model.embed_tokens.weight": (language // 64, 64), "visuals.between": (40,), **tower}
    second = {"model.norm.weight": (64,), "lm_head.weight": (language // 64, 64)}
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {name: file for file, shapes in zip(names, (first, second), strict=True) for name in shapes}
    texts = {
        "config.json": config,
        "preprocessor_config.json": preset.preprocessor,
        INDEX: {"metadata": {"total_size": 1}, "weight_map": weight_map},
    }
    files = {name: json.dumps(content).encode() for name, content in texts.items()}
    files |= {file: shard(shapes) for file, shapes in zip(names, (first, second), strict=True)}
    return files, 2 * sum(map(math.prod, tower.values()))


def write(directory: Path, files: dict[str, object]) -> Path:
    """The same files in a directory."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content[:])
    return directory
