"""Synthetic checkpoints: seeded random weights in the Hub's own layout, for demos, tests and benchmarks.

A preset has the config of a published model and a tower of random numbers: bfloat16, several shards, an index, and a
few language-model tensors that a loader of the tower must not read. Opening one writes nothing: its tensors are those
that the family's tower requests, and its files are written, once, into a cache directory, before the first tensor is
read. They are read by the same code as those of a real checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Self

import ml_dtypes
import numpy as np

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.checkpoints.configs import CONFIG, PREPROCESSOR, configs_of
from qwenvis.checkpoints.shards import INDEX, header_bytes, parse_header
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.concurrency.memo import cached_property
from qwenvis.concurrency.tasks import run_parallel
from qwenvis.errors import SourceError, quoted
from qwenvis.io.drafts import draft_of
from qwenvis.io.fields import Section
from qwenvis.io.files import given_path
from qwenvis.sources.caches import cache_root
from qwenvis.sources.presets import PRESETS, Preset, suggestion
from qwenvis.weights import Request

Shapes = dict[str, tuple[int, ...]]

RECIPE = 2  # part of the directory's name: raise it with any change of the bytes that are written
SHARD_BYTES = 350_000_000  # the largest shard, and most of the memory that writing takes
CHUNK = 1 << 16  # numbers drawn at a time: the float32 draft stays in the L2 cache
WRITERS = 2  # threads that draw; the bytes do not depend on it
OTHERS = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")  # of the language model
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_ELSEWHERE = "set QWENVIS_CACHE to another directory"


class Shard(NamedTuple):
    """A file that is to be written: its name, the shapes of its tensors in their order, and its header."""

    name: str
    shapes: Shapes
    header: bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return _nbytes(self.shapes)


class Listing(Mapping[str, Tensor]):
    """The tensors of a preset's tower by name, and the shards that they will lie in.

    The list is made at first use; without the ``requests`` of a tower, that builds the tower.
    """

    def __init__(self, directory: Path, preset: str, requests: Sequence[Request] | None = None) -> None:
        self._directory, self._preset, self._requests = directory, PRESETS[preset], requests

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files, in order."""
        requests = self._requests
        if requests is None:
            requests = models.build(self._preset.family, self._preset.vision_config, {})[1].requests
        return _shards(self._preset, {request.name: request.shape for request in requests})

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        headers = [parse_header(self._directory / s.name, s.header, len(s.header) + s.nbytes) for s in self.shards]
        stored = {name: tensor for header in headers for name, tensor in header.tensors.items()}
        prefix = self._preset.prefix
        return {name.removeprefix(prefix): Tensor.of(tensor) for name, tensor in stored.items() if name not in OTHERS}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True, kw_only=True)
class Synthetic(Checkpoint):
    """The checkpoint of a preset, whose files are written when the first tensor is read."""

    preset: str
    listing: Listing

    @property
    def dtypes(self) -> set[str]:
        """The type of every tensor."""
        return {"BF16"}

    @property
    def evidence(self) -> dict[str, tuple[int, ...]]:
        """No shapes: the shapes of the tensors follow from the config."""
        return {}

    def holding(self, requests: Sequence[Request]) -> Self:
        """Return the checkpoint with the tensors of these requests."""
        listing = Listing(self.path, self.preset, requests)
        return replace(self, tensors=listing, listing=listing)

    @property
    def pending(self) -> str:
        """The directory to write, unless it is there."""
        return "" if (self.path / CONFIG).is_file() else f"writes {self.path}"

    def prepare(self, progress: Progress | None = None) -> None:
        """Write the files, if they are not there.

        ``progress(bytes_done, bytes_total)`` is called after each tensor that is drawn. The bytes depend on the preset
        alone. Raises `SourceError` where they cannot be written.
        """
        if not self.pending:
            return
        root, shards = self.path.parent, self.listing.shards
        _refuse_a_full_disk(self.preset, root, sum(shard.nbytes for shard in shards))
        try:
            root.mkdir(parents=True, exist_ok=True)
            with draft_of(self.path) as draft:
                draft.mkdir()
                _write(draft, self.preset, shards, progress)
                _publish(draft, self.path)
        except OSError as error:
            raise SourceError(f"preset {self.preset} cannot be written into {root}: {error}; {_ELSEWHERE}") from error


def open_synthetic(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Synthetic:
    """Open the checkpoint of a preset; nothing is read or written.

    ``cache_dir`` replaces the cache directory. Raises `SourceError` for an unknown preset.
    """
    if name not in PRESETS:
        raise SourceError(f"there is no preset {quoted(name)}; {suggestion(name)}")
    preset = PRESETS[name]
    root = cache_root() if cache_dir is None else given_path(cache_dir, "cache_dir").absolute()
    directory = root / f"{name}-v{RECIPE}"
    images, listing = Section(preset.preprocessor, str(directory / PREPROCESSOR)), Listing(directory, name)
    configs = configs_of(directory, preset.config, images, images)
    return Synthetic(directory, prefix=preset.prefix, tensors=listing, listing=listing, preset=name, **configs)


def _shards(preset: Preset, tower: Shapes) -> tuple[Shard, ...]:
    """Share the tower among two shards or more; the first has a language model's tensor too, the last has no other."""
    named = {preset.prefix + name: shape for name, shape in tower.items()}
    embeddings, norm, head = OTHERS
    total, hidden = _nbytes(named), preset.hidden_size
    count = max(2, math.ceil(total / SHARD_BYTES))
    contents: list[Shapes] = [{} for _ in range(count)]
    contents[0][embeddings] = (64, hidden)
    before = accumulate((_nbytes({name: shape}) for name, shape in named.items()), initial=0)
    for (name, shape), begin in zip(named.items(), before, strict=False):
        contents[begin * count // total][name] = shape
    contents.append({norm: (hidden,), head: (64, hidden)})
    return tuple(
        _shard(f"model-{number:05d}-of-{len(contents):05d}.safetensors", shapes)
        for number, shapes in enumerate(contents, start=1)
    )


def _shard(name: str, shapes: Shapes) -> Shard:
    """Lay out a file like the safetensors package: tensors of one type by name, the header padded to 8 bytes."""
    ordered = dict(sorted(shapes.items()))
    entries = {name: ("BF16", shape, _nbytes({name: shape})) for name, shape in ordered.items()}
    return Shard(name, ordered, header_bytes(entries, {"format": "pt"}, 8))


def _nbytes(shapes: Shapes) -> int:
    return int(BFLOAT16.itemsize * sum(map(math.prod, shapes.values())))


def _refuse_a_full_disk(name: str, root: Path, size: int) -> None:
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        got = f"preset {name} takes {size / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free"
        raise SourceError(f"{got}; {_ELSEWHERE}")


def _write(draft: Path, preset: str, shards: Sequence[Shard], progress: Progress | None) -> None:
    """Write shards, index and configs; ``progress`` follows the tensors."""
    done, total = 0, sum(shard.nbytes for shard in shards)
    for shard in shards:
        for nbytes in _write_shard(draft, preset, shard):
            done += nbytes
            if progress is not None:
                progress(done, total)
    weight_map = {name: shard.name for shard in shards for name in shard.shapes}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    contents = {INDEX: index, PREPROCESSOR: PRESETS[preset].preprocessor, CONFIG: PRESETS[preset].config}
    for file, content in contents.items():
        (draft / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_shard(draft: Path, preset: str, shard: Shard) -> Iterator[int]:
    """Draw and write one shard; yield the bytes of each tensor that is drawn."""
    arrays = {name: np.empty(shape, BFLOAT16) for name, shape in shard.shapes.items()}
    # The largest first, so that the threads end together.
    names = sorted(arrays, key=lambda name: -arrays[name].size)
    draws = [partial(_draw, preset, name, arrays[name]) for name in names]
    for name, _ in zip(names, run_parallel(draws, WRITERS), strict=True):
        yield arrays[name].nbytes
    with (draft / shard.name).open("wb") as file:
        file.write(shard.header)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)


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
    """Give the finished draft its name; a process that comes second takes the directory that the first has written."""
    try:
        draft.replace(directory)
    except OSError:
        if not (directory / CONFIG).is_file():
            raise
