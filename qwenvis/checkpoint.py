"""A directory in the Hub's layout: its configs, and the tensors of its tower by name.

Files are read by safetensors' own reader, by pread: a file that is cut short while it is read is an error, never a
SIGBUS. Only the shards that hold the tower are opened, only the tower's bytes are read, one tensor at a time.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from qwenvis.errors import CheckpointError, ConfigError, SourceError
from qwenvis.weights import Request

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Every tower has exactly one patch embedding -> its names behind the prefix. PaddleOCR-VL's have parts beside them.
TOWERS = {
    "patch_embed.proj.weight": "",
    "visual.vision_model.embeddings.patch_embedding.weight": r"visual\.vision_model\.(?!head\.|.*packing_)|mlp_AR\.",
}
# Importing ml_dtypes is also what teaches safetensors' numpy reader the word bfloat16.
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
MAX_JSON_BYTES = 100_000_000  # the limit that safetensors sets for its own JSON header
LISTED = 10  # names spelt out per kind in an error

# The whole of what an index may call a shard: nothing that a path, a shell or a terminal could read as more.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,200}\.safetensors")


@dataclass(frozen=True)
class Tensor:
    """Where one tensor of the tower lies and how it is stored; ``dtype`` is safetensors' word (``BF16``)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return int(math.prod(self.shape) * DTYPES[self.dtype].itemsize)


@dataclass(frozen=True)
class Checkpoint:
    """The configs and the tower of one checkpoint; tensor names are those below ``prefix``.

    ``model_type`` is that of the object which holds ``vision_config`` (empty where none is named). ``preprocessor``
    is the image processor's config, empty where the checkpoint has none. ``tensors`` are in the order of the files.
    """

    directory: Path
    config: dict[str, Any]
    vision_config: dict[str, Any]
    model_type: str
    preprocessor: dict[str, Any]
    prefix: str
    tensors: Mapping[str, Tensor]

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read the configs and the headers of the tower's shards, no tensor.

        Raises `SourceError` where there is no checkpoint, `ConfigError` for a config that cannot be used, and
        `CheckpointError` for weights that are missing, damaged, quantised or without a tower.
        """
        if not directory.is_dir():
            raise SourceError(f"{directory} is no directory, so it holds no checkpoint")
        config = _read_json(directory, CONFIG, ConfigError)
        if config is None:
            raise SourceError(f"{directory} holds no {CONFIG}, so it is no checkpoint in the Hub's layout")
        model_type, vision_config = _vision_part(config, directory / CONFIG)
        prefix, begin, shards = tower_shards(directory)
        tensors: dict[str, Tensor] = {}
        for shard in sorted(shards):
            tensors |= _read_header(directory, shard, begin, shards[shard])
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        _refuse_other_dtypes(directory, tensors, config)
        return cls(directory, config, vision_config, model_type, _preprocessor(directory), prefix, tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the tower."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def files(self) -> list[Path]:
        """The files that hold the tower, in order."""
        return list(dict.fromkeys(tensor.file for tensor in self.tensors.values()))

    def load(self, requests: Sequence[Request], progress: Callable[[int, int], object] | None = None) -> None:
        """Answer every request with its tensor: float32, float16 or bfloat16 as stored, contiguous, one at a time.

        ``progress(bytes_done, bytes_total)`` is called after each tensor. Raises one `CheckpointError` that lists
        all missing, left-over and wrong-shape tensors before any is read, and one for a file that fails later.
        """
        self._compare(requests)
        receivers = {request.name: request.receive for request in requests}
        done, total = 0, sum(tensor.nbytes for tensor in self.tensors.values())
        for file in self.files:
            with _opened(file) as handle:
                for name in [name for name, tensor in self.tensors.items() if tensor.file == file]:
                    receivers[name](self._read(handle, name))
                    done += self.tensors[name].nbytes
                    if progress is not None:
                        progress(done, total)

    def _compare(self, requests: Sequence[Request]) -> None:
        asked = Counter(request.name for request in requests)
        found = self.shapes
        problems = {
            "missing": [name for name in asked if name not in found],
            "left over": [name for name in found if name not in asked],
            "of the wrong shape": [
                f"{request.name} is {found[request.name]}, expected {request.shape}"
                for request in requests
                if found.get(request.name, request.shape) != request.shape
            ],
            "asked for more than once": [name for name, count in asked.items() if count > 1],
        }
        lines = [f"  {kind} ({len(names)}): {_listed(names)}" for kind, names in problems.items() if names]
        if lines:
            prefix = _shown(self.prefix)
            where = f'{self.directory}: the tensors under the prefix "{prefix}" are not those of this tower'
            raise CheckpointError("\n".join([where, *lines]))

    def _read(self, handle: Any, name: str) -> np.ndarray:
        tensor, shown = self.tensors[name], _shown(self.prefix + name)
        try:
            array: np.ndarray = handle.get_tensor(self.prefix + name)
        except (SafetensorError, OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{tensor.file}: {shown} cannot be read: {_shown(str(error))}") from error
        if array.shape != tensor.shape or array.dtype != DTYPES[tensor.dtype]:
            got = f"{array.dtype} {array.shape}, expected {DTYPES[tensor.dtype]} {tensor.shape}"
            raise CheckpointError(f"{tensor.file}: {shown} is {got}: the file was replaced while in use")
        return array


def tower_shards(directory: Path) -> tuple[str, re.Pattern[str], dict[str, list[str]]]:
    """The tower's prefix, how its full names begin, and these by file. An index tells all: no shard need be here."""
    weight_map = _weight_map(directory)
    prefix, begin = _find_prefix(weight_map, directory)
    shards: dict[str, list[str]] = {}
    for name in filter(begin.match, weight_map):
        shards.setdefault(weight_map[name], []).append(name)
    return prefix, begin, shards


def _weight_map(directory: Path) -> dict[str, str]:
    """Which file holds each tensor. The single file comes before an index, as in transformers."""
    if (single := _regular_file(directory, SINGLE)) is not None:
        with _opened(single) as handle:
            return dict.fromkeys(handle.keys(), SINGLE)
    index = _read_json(directory, INDEX, CheckpointError)
    if index is None:
        found = sorted(path.name for path in directory.iterdir() if path.suffix in {".safetensors", ".bin", ".gguf"})
        raise CheckpointError(f"{directory} holds neither {SINGLE} nor {INDEX}; found {_listed(found)}")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{directory / INDEX} has no "weight_map" from tensor names to file names')
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD_NAME.fullmatch(file):
            where = f"{directory / INDEX} says that {_shown(name)} is in {_shown(repr(file))}"
            raise CheckpointError(f"{where}; expected the plain name of a .safetensors file beside it")
    return weight_map


def _find_prefix(names: Collection[str], directory: Path) -> tuple[str, re.Pattern[str]]:
    """What stands before the names of `TOWERS`, and how the full names of the tower's tensors begin."""
    ends = {name: end for name in names for end in TOWERS if name == end or name.endswith("." + end)}
    if not ends:
        where = f"{directory} holds no tower: no name of a tensor ends in {' or '.join(TOWERS)}"
        raise CheckpointError(f"{where}; found {_listed(sorted(names))}")
    if len(ends) > 1:
        raise CheckpointError(f"{directory} holds {len(ends)} towers, expected one: {_listed(sorted(ends))}")
    ((name, end),) = ends.items()
    return (prefix := name.removesuffix(end)), re.compile(f"{re.escape(prefix)}(?:{TOWERS[end]})")


def _read_header(directory: Path, shard: str, begin: re.Pattern[str], indexed: list[str]) -> dict[str, Tensor]:
    """The tower's tensors in one shard, in the order of their bytes; they must be those that the index names."""
    path = _regular_file(directory, shard)
    if path is None:
        raise CheckpointError(f"{directory} lacks {shard}, which holds tensors of the tower: {_listed(indexed)}")
    tensors = {}
    with _opened(path) as handle:
        for name in handle.offset_keys():
            if begin.match(name):
                header = handle.get_slice(name)
                tensors[name] = Tensor(path, header.get_dtype(), tuple(header.get_shape()))
    if absent := [name for name in indexed if name not in tensors]:
        raise CheckpointError(f"{path} lacks tensors that {INDEX} says it holds: {_listed(absent)}")
    if unknown := sorted(tensors.keys() - set(indexed)):
        raise CheckpointError(f"{path} holds tensors of the tower that are not in {INDEX}: {_listed(unknown)}")
    return tensors


def _refuse_other_dtypes(directory: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    other = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in DTYPES}
    if not other:
        return
    quantisation = config.get("quantization_config")
    method = quantisation.get("quant_method", "") if isinstance(quantisation, dict) else ""
    got = f"tensors of the tower are stored as {', '.join(sorted(set(other.values())))}; expected {', '.join(DTYPES)}"
    verdict = f"a quantised tower cannot be used (quant_method: {_shown(str(method)) or 'none named'})"
    raise CheckpointError(f"{directory}: {got}; {verdict}: {_listed(list(other))}")


def _vision_part(config: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """The model_type that governs the tower, and the tower's own config."""
    holders = [config, config.get("thinker_config"), config.get("vlm_config")]
    holder = next((part for part in holders if isinstance(part, dict) and "vision_config" in part), None)
    # A tower saved alone has no vision_config: its root is the tower's config.
    vision_config = config if holder is None else holder["vision_config"]
    if not isinstance(vision_config, dict):
        raise ConfigError(f'{path}: "vision_config" is {_shown(repr(vision_config))}; expected an object')
    named = [part.get("model_type") for part in (holder or config, vision_config, config)]
    model_type = next((name for name in named if name is not None), "")
    if not isinstance(model_type, str):
        raise ConfigError(f'{path}: "model_type" is {_shown(repr(model_type))}; expected text')
    return model_type, vision_config


def _preprocessor(directory: Path) -> dict[str, Any]:
    """The image processor's config: its own file, else its part of the whole processor's, else empty."""
    if (own := _read_json(directory, PREPROCESSOR, ConfigError)) is not None:
        return own
    part = (_read_json(directory, PROCESSOR, ConfigError) or {}).get("image_processor", {})
    if not isinstance(part, dict):
        raise ConfigError(f'{directory / PROCESSOR}: "image_processor" is {_shown(repr(part))}; expected an object')
    return part


def _read_json(directory: Path, name: str, error: type[CheckpointError]) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no such file."""
    path = _regular_file(directory, name)
    if path is None:
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        raise error(f"{path} has {path.stat().st_size} bytes; at most {MAX_JSON_BYTES} are read")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"{path} cannot be read as JSON: {cause}") from cause
    if not isinstance(content, dict):
        raise error(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content


def _regular_file(directory: Path, name: str) -> Path | None:
    """The file of that name, None where there is none; a link that leads out of the checkpoint is refused."""
    path = directory / name
    if not path.is_file():
        return None
    home, real = directory.resolve(), path.resolve()
    roots = [home]
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        # A snapshot is links into its repo's blobs, which huggingface_hub 2 in turn links into the cache's own blobs.
        repo = home.parent.parent
        roots += [repo / "blobs", repo.parent / "blobs"]
    if not any(real.is_relative_to(root) for root in roots):
        raise CheckpointError(f"{path} is a link to {real}, outside the checkpoint; copy that file into {directory}")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        handle = safe_open(path, framework="numpy", backend="pread")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {_shown(str(error))}") from error
    with handle:
        yield handle


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(_shown(name) for name in names[:LISTED]) or "nothing") + rest


def _shown(text: str) -> str:
    """Text from a file, made safe to print and short enough to read."""
    text = text if len(text) <= 200 else text[:200] + "..."
    return text if text.isprintable() else ascii(text)
