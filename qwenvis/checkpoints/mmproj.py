"""llama.cpp's mmproj files: towers as its converter writes them, converted back to transformers' names and axes.

The converter renames tensors, cuts the temporal axis of the patch embedding into two convolutions, some towers' qkv
into three linears, and writes metadata of its own. Sizes are read from the shapes of the tensors, because the metadata
is wrong in places: ``feed_forward_length`` of a Qwen2-VL is the width of the language model (0 in old files), the
epsilon of the norms is the language model's, and ``use_gelu`` and ``use_silu`` depend on the converter's version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.stored import TYPES, Header, StoredTensor
from qwenvis.checkpoints.tensors import Tensor, TensorPart
from qwenvis.errors import CheckpointError, ConfigError, listed, shown
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES
from qwenvis.models.family import Mmproj, Processors
from qwenvis.models.mmproj_names import MmprojNames

# Fields of preprocessor_config.json -> keys of the metadata.
LIMITS = {name: f"clip.vision.image_{name}" for name in ("min_pixels", "max_pixels")}
NORMALISATION = {name: f"clip.vision.{name}" for name in ("image_mean", "image_std")}


def open_mmproj(header: Header) -> Checkpoint:
    """Find the tower of an mmproj file in its header; no tensor is read.

    Raises CheckpointError for a file that holds no tower, or stores it quantised to less than 8 bits, and ConfigError
    for a file whose projector no family has, or whose metadata lacks what no tensor tells.
    """
    path = header.file.path
    keys = Section(header.metadata, str(path))
    family, stated = _family(keys, header.tensors)
    stored = {name: entry for name, entry in header.tensors.items() if _is_visual(name)}
    stored = {name: entry for name, entry in stored.items() if stated.unread.get(name) != entry.shape}
    _refuse_other_types(keys.place, stored)
    vision_config = Section(_vision_config(keys, stated, stored), str(path))
    images, videos = _preprocessors(keys, FAMILIES[family].processors, stated.published_limits)
    return Checkpoint(
        path,
        config={"model_type": family, "vision_config": dict(vision_config)},
        vision_config=vision_config,
        model_type=family,
        preprocessor=images,
        video_preprocessor=videos,
        prefix="",
        tensors=_tensors(stored, stated.names),
    )


def _family(keys: Section, names: Collection[str]) -> tuple[str, Mmproj]:
    """Find the family whose tower a file holds; return its name, and its statement about mmproj files."""
    architecture = keys.word("general.architecture")
    if architecture != "clip":
        what = f"is the model of the architecture {shown(architecture)}" if architecture else "names no architecture"
        raise CheckpointError(f"{keys.place} {what}; expected an mmproj, which holds the vision tower: name that file")
    kind = keys.word("clip.vision.projector_type") or keys.word("clip.projector_type")
    if not keys.flag("clip.has_vision_encoder", True):
        raise CheckpointError(f"{keys.place} holds no vision tower: clip.has_vision_encoder is false")
    every = {family: stated.mmproj for family, stated in FAMILIES.items() if stated.mmproj is not None}
    fitting = [
        (family, mmproj)
        for family, mmproj in every.items()
        if kind == mmproj.projector_type and any(name.startswith(mmproj.signature) for name in names)
    ]
    if fitting:
        return max(fitting, key=lambda found: len(found[1].signature))
    known = ", ".join(dict.fromkeys(mmproj.projector_type for mmproj in every.values()))
    said = f"the projector type {shown(kind or 'None')} is not supported by this version, which supports {known}"
    raise ConfigError(f"{keys.place}: {said}")


def _is_visual(name: str) -> bool:
    """Whether a tensor belongs to the vision tower, not to an omni model's audio encoder (``a.*`` and ``mm.a.*``)."""
    return name.startswith(("v.", "mm.")) and not name.startswith("mm.a.")


def _refuse_other_types(path: str, stored: Mapping[str, StoredTensor]) -> None:
    other = {name: entry.dtype for name, entry in stored.items() if entry.dtype not in TYPES}
    if other:
        got = f"tensors of the tower are stored as {', '.join(sorted(set(other.values())))}"
        raise CheckpointError(f"{path}: {got}; expected {', '.join(TYPES)}: {listed(list(other))}")


def _vision_config(keys: Section, stated: Mmproj, stored: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Read the values that do not follow from the tensors, under the names of transformers' configs."""
    config: dict[str, Any] = {
        "depth": _needed(keys, "clip.vision.block_count"),
        "num_heads": _needed(keys, "clip.vision.attention.head_count"),
        **{name: keys.whole(key, 0) for name, key in stated.counts.items() if key in keys},
        **{name: _decimal(keys.number(key, 0, 0, 1)) for name, key in stated.epsilons.items() if key in keys},
    }
    if "clip.vision.spatial_merge_size" in keys:
        config["spatial_merge_size"] = keys.whole("clip.vision.spatial_merge_size", 0)
    if stated.windows:
        config["fullatt_block_indexes"] = _full_attention(keys, _numbers(stored, "v.blk.{}."))
    if stated.image_size:
        config["image_size"] = _grid_side(keys.place, stored) * stored["v.patch_embd.weight"].shape[-1]
    if deepstack := _numbers(stored, "v.deepstack.{}."):
        config["deepstack_visual_indexes"] = deepstack
    return config


def _full_attention(keys: Section, blocks: list[int]) -> list[int]:
    """Find the blocks without windows: every n-th block, or the blocks that an old file lists."""
    listed_key, pattern_key = "clip.vision.fullatt_block_indexes", "clip.vision.n_wa_pattern"
    if listed_key in keys:
        return list(keys.indexes(listed_key))
    every = _needed(keys, pattern_key, 0)
    return [block for block in blocks if not every or (block + 1) % every == 0]


def _grid_side(path: str, stored: Mapping[str, StoredTensor]) -> int:
    """Find the side of the learned grid of positions, for the file's image_size may come from the limits of images."""
    for name in ("v.patch_embd.weight", "v.position_embd.weight"):
        if name not in stored or len(stored[name].shape) < 2:
            raise CheckpointError(f"{path} lacks {name}, or the tensor is not a matrix")
    return math.isqrt(stored["v.position_embd.weight"].shape[0])


def _needed(keys: Section, key: str, least: int = 1) -> int:
    if key not in keys:
        raise ConfigError(f"{keys.place} lacks {key} in its metadata, and no tensor determines the value")
    return keys.whole(key, 0, least)


def _preprocessors(keys: Section, stated: Processors, published_limits: bool) -> tuple[Section, Section]:
    """Make the configs of both processors: the published values, except those that the file states."""
    limits = dict(stated.limits if published_limits else {})
    limits |= {name: keys.whole(key, 0) for name, key in LIMITS.items() if key in keys}
    normalisation = {**stated.normalisation}
    normalisation |= {name: _decimal(keys[key]) for name, key in NORMALISATION.items() if key in keys}
    # Without limits, those of transformers' class would not be the published ones.
    images = {**limits, **normalisation, "image_processor_type": stated.image} if limits else {}
    videos = {**stated.video_limits, **normalisation, "video_processor_type": stated.video}
    return Section(images, keys.place), Section(videos if stated.video_limits else images, keys.place)


def _decimal(value: Any) -> Any:
    """Recover the number that was rounded to the float32 in the file: 1e-05, not 9.999999747378752e-06."""
    if isinstance(value, list):
        return [_decimal(entry) for entry in value]
    return float(np.format_float_scientific(np.float32(value))) if isinstance(value, float) else value


def _numbers(stored: Mapping[str, StoredTensor], stem: str) -> list[int]:
    """List the numbers in place of {} in the names that begin with ``stem``, in order."""
    pattern = re.compile(re.escape(stem).replace(r"\{\}", r"(\d{1,5})"))
    return sorted({int(match[1]) for match in map(pattern.match, stored) if match})


def _tensors(stored: Mapping[str, StoredTensor], names: MmprojNames) -> dict[str, Tensor]:
    """List the tower's tensors in the order of the file; a tensor with no name of the tower keeps its own."""
    tensors = {}
    for ours, theirs in _spelt_out(stored, _unswapped(stored, names)):
        for ending in ("weight", "bias"):
            rows = [f"{stem}.{ending}" for stem in theirs]
            if all(name in stored for name in rows):
                slices = [*rows, f"{rows[0]}.1"]  # of the patch embedding: one for each frame
                join = _slices if slices[-1] in stored else _rows
                tensors[f"{ours}.{ending}"] = join([stored[name] for name in slices if name in stored])
    used = {part.stored.name for tensor in tensors.values() for part in tensor.parts}
    tensors |= {name: Tensor.of(entry) for name, entry in stored.items() if name not in used}
    order = {name: number for number, name in enumerate(stored)}
    return dict(sorted(tensors.items(), key=lambda item: order[item[1].parts[0].stored.name]))


def _spelt_out(stored: Mapping[str, StoredTensor], names: MmprojNames) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every pair of names with numbers in place of {}."""
    for ours, theirs in names.items():
        if "{}" not in theirs[0]:
            yield ours, theirs
            continue
        for rank, number in enumerate(_numbers(stored, theirs[0].partition("{}")[0] + "{}.")):
            yield ours.format(number, rank=rank), tuple(name.format(number) for name in theirs)


def _unswapped(stored: Mapping[str, StoredTensor], names: MmprojNames) -> MmprojNames:
    """Correct old files, which call the first linear of the MLP "down" and the second "up", by the widths.

    llama.cpp decides in the same way.
    """
    patch, down = stored.get("v.patch_embd.weight"), stored.get("v.blk.0.ffn_down.weight")
    if patch is None or down is None or len(down.shape) != 2 or len(patch.shape) < 2:
        return names
    width = patch.shape[0]
    if down.shape[1] != width or down.shape[0] == width:
        return names
    other = {"v.blk.{}.ffn_up": ("v.blk.{}.ffn_down",), "v.blk.{}.ffn_down": ("v.blk.{}.ffn_up",)}
    return {ours: other.get(theirs[0], theirs) for ours, theirs in names.items()}


def _rows(stored: Sequence[StoredTensor]) -> Tensor:
    """Join tensors along their rows; a single tensor is complete already."""
    if len(stored) == 1:
        return Tensor.of(stored[0])
    _refuse_misfits(stored, {entry.shape[1:] for entry in stored})
    stops = list(accumulate(entry.shape[0] for entry in stored))
    indexes = [(slice(stop - entry.shape[0], stop),) for stop, entry in zip(stops, stored, strict=True)]
    return _joined(stored, (stops[-1], *stored[0].shape[1:]), indexes)


def _slices(stored: Sequence[StoredTensor]) -> Tensor:
    """Join the frames of a kernel (d, channels, frames, p, p), each stored as a tensor of four axes."""
    _refuse_misfits(stored, {entry.shape for entry in stored})
    shape = stored[0].shape
    indexes = [(slice(None), slice(None), frame) for frame in range(len(stored))]
    return _joined(stored, (*shape[:2], len(stored), *shape[2:]), indexes)


def _joined(
    stored: Sequence[StoredTensor], shape: tuple[int, ...], indexes: Sequence[tuple[int | slice, ...]]
) -> Tensor:
    parts = tuple(TensorPart(entry, index) for entry, index in zip(stored, indexes, strict=True))
    dtypes = {entry.dtype for entry in stored}
    return Tensor(dtypes.pop() if len(dtypes) == 1 else "F32", shape, parts)


def _refuse_misfits(stored: Sequence[StoredTensor], shapes: set[tuple[int, ...]]) -> None:
    if len(shapes) > 1:
        names = listed([entry.name for entry in stored])
        raise CheckpointError(f"{stored[0].file.path}: {names} do not fit together")
