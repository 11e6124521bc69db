"""Seeded random checkpoints in the Hub's own layout, for demos, tests and benchmarks.

A preset has the config of a published model and a tower of random numbers: bfloat16, several shards, an index, and a
few language-model tensors that a loader of the tower must not read. It is written once into a cache directory and
loaded by the same code as a real checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from qwenvis.checkpoints.checkpoint import CONFIG, PREPROCESSOR, Checkpoint
from qwenvis.checkpoints.files import draft_of, expanded, given_path
from qwenvis.checkpoints.shards import INDEX
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.concurrency.tasks import run_parallel
from qwenvis.errors import SourceError, quoted
from qwenvis.sources.presets import PRESETS, Preset, suggestion

WriteProgress = Callable[[int, int], object]
Shapes = dict[str, tuple[int, ...]]

RECIPE = 2  # part of the directory's name: raise it with any change of the bytes that are written
SHARD_BYTES = 350_000_000  # what one shard holds at most, and so most of the memory that writing takes
CHUNK = 1 << 16  # numbers drawn at a time: the float32 draft stays in the L2 cache
WRITERS = 2  # threads that draw; the bytes do not depend on it
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_ELSEWHERE = "QWENVIS_CACHE names another directory to keep it in"


def materialise(
    name: str, cache_dir: str | os.PathLike[str] | None = None, progress: WriteProgress | None = None
) -> Path:
    """The directory of the preset's checkpoint, written on first use.

    ``cache_dir`` stands in for the cache directory; ``progress(bytes_done, bytes_total)`` is called after each tensor
    that is drawn. The bytes depend on the preset alone. Raises `SourceError` for an unknown preset, and where the
    checkpoint cannot be written.
    """
    directory = _directory(name, cache_dir)
    if (directory / CONFIG).is_file():
        return directory
    root, shards = directory.parent, _shards(PRESETS[name])
    _refuse_a_full_disk(name, root, sum(map(_nbytes, shards)))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with draft_of(directory) as draft:
            _write(draft, name, shards, progress)
            _publish(draft, directory)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"preset {name} cannot be written into {root}: {error}; {_ELSEWHERE}") from error
    return directory


def described(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Checkpoint:
    """The checkpoint that `materialise` returns the directory of, told from the preset alone.

    Nothing is read or written, so its files may not be there. Raises `SourceError` for an unknown preset.
    """
    directory = _directory(name, cache_dir)
    preset, shards = PRESETS[name], _shards(PRESETS[name])
    tower = tower_shapes(preset)
    tensors = {
        name: Tensor(directory / _file(number, len(shards)), "BF16", shape)
        for number, shapes in enumerate(shards, start=1)
        for name, shape in tower.items()
        if preset.prefix + name in shapes
    }
    config, vision_config, model_type = preset.config, preset.vision_config, preset.holder["model_type"]
    images = preset.preprocessor
    about = directory, config, vision_config, model_type, images, preset.prefix, tensors
    return Checkpoint(*about, video_preprocessor=images)


def _directory(name: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    if name not in PRESETS:
        raise SourceError(f"there is no preset {quoted(name)}; {suggestion(name)}")
    root = cache_root() if cache_dir is None else given_path(cache_dir, "cache_dir").absolute()
    return root / f"{name}-v{RECIPE}"


def _file(number: int, count: int) -> str:
    """What the Hub calls a shard, counted from 1."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def cache_root() -> Path:
    """Where synthetic checkpoints are kept: ``QWENVIS_CACHE``, else ``XDG_CACHE_HOME/qwenvis``, else ``~/.cache``."""
    own, shared = os.environ.get("QWENVIS_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return expanded(own or f"{shared or '~/.cache'}/qwenvis").absolute()


def tower_shapes(preset: Preset) -> Shapes:
    """Name and shape of every tensor of the tower, as the family that reads them asks for them."""
    from qwenvis import models

    _, weights = models.build(preset.family, preset.vision_config, {})
    return {request.name: request.shape for request in weights.requests}


def _shards(preset: Preset) -> list[Shapes]:
    """The tensors of each shard: the tower in two or more, the language model in the first and alone in the last."""
    tower = {preset.prefix + name: shape for name, shape in tower_shapes(preset).items()}
    total, before = _nbytes(tower), 0
    count = max(2, math.ceil(total / SHARD_BYTES))
    hidden = preset.hidden_size
    shards: list[Shapes] = [{} for _ in range(count)]
    shards[0]["model.embed_tokens.weight"] = (64, hidden)
    for name, shape in tower.items():
        shards[before * count // total][name] = shape
        before += _nbytes({name: shape})
    return [*shards, {"model.norm.weight": (hidden,), "lm_head.weight": (64, hidden)}]


def _nbytes(shapes: Shapes) -> int:
    return int(BFLOAT16.itemsize * sum(map(math.prod, shapes.values())))


def _refuse_a_full_disk(name: str, root: Path, size: int) -> None:
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        got = f"preset {name} takes {size / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free"
        raise SourceError(f"{got}; {_ELSEWHERE}")


def _write(draft: Path, preset: str, shards: list[Shapes], progress: WriteProgress | None) -> None:
    """Write shards, index and configs; ``progress`` is told of every tensor."""
    done, total = 0, sum(map(_nbytes, shards))
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        file = _file(number, len(shards))
        weight_map |= dict.fromkeys(shapes, file)
        for nbytes in _write_shard(draft / file, preset, shapes):
            done += nbytes
            if progress is not None:
                progress(done, total)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    contents = {INDEX: index, PREPROCESSOR: PRESETS[preset].preprocessor, CONFIG: PRESETS[preset].config}
    for file, content in contents.items():
        (draft / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_shard(path: Path, preset: str, shapes: Shapes) -> Iterator[int]:
    """Draw and write one shard; yields the bytes of each tensor that is drawn."""
    arrays = {name: np.empty(shape, BFLOAT16) for name, shape in shapes.items()}
    # The largest first, so that the threads end together.
    names = sorted(arrays, key=lambda name: -arrays[name].size)
    draws = [partial(_draw, preset, name, arrays[name]) for name in names]
    for name, _ in zip(names, run_parallel(draws, WRITERS), strict=True):
        yield arrays[name].nbytes
    path.touch()
    mode = path.stat().st_mode  # as the umask asks; safetensors makes its files private
    save_file(arrays, path, metadata={"format": "pt"})
    path.chmod(mode)


def _draw(preset: str, name: str, out: np.ndarray) -> None:
    """Fill one tensor from a seed of its own: a matrix with N(0, 1 / fan_in), a norm near 1, a bias near 0."""
    seed = hashlib.sha256(f"{preset}/{name}".encode()).digest()
    generator = np.random.Generator(np.random.SFC64(int.from_bytes(seed, "little")))
    if out.ndim > 1:
        mean, std = 0.0, math.prod(out.shape[1:]) ** -0.5
    else:
        mean, std = (0.0, 0.1) if name.endswith("bias") else (1.0, 0.2)
    flat, draft = out.reshape(-1), np.empty(min(CHUNK, out.size), np.float32)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        drawn = generator.standard_normal(out=draft[: part.size], dtype=np.float32)
        drawn *= np.float32(std)
        drawn += np.float32(mean)
        part[:] = drawn


def _publish(draft: Path, directory: Path) -> None:
    """Give the finished draft its name; whoever comes second takes what the first has written."""
    try:
        draft.replace(directory)
    except OSError:
        if not (directory / CONFIG).is_file():
            raise
