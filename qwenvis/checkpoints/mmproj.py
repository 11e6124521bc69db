"""llama.cpp's mmproj files: towers as its converter writes them, and how they become those of transformers.

The converter renames tensors, cuts the temporal axis of the patch embedding into two convolutions, some towers' qkv
into three linears, and writes metadata of its own. What the tensors tell is read from them, for the metadata is wrong
in places: ``feed_forward_length`` of a Qwen2-VL is the width of the language model (0 in old files), the epsilon of the
norms is the language model's, and ``use_gelu`` and ``use_silu`` depend on the converter's age.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis.checkpoints import gguf
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.gguf import Stored
from qwenvis.checkpoints.tensors import ARRAYS, Tensor, TensorPart
from qwenvis.errors import CheckpointError, ConfigError, listed, shown
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES
from qwenvis.models.family import Mmproj, Processors
from qwenvis.models.mmproj_names import MmprojNames

# Fields of preprocessor_config.json -> keys of the metadata.
LIMITS = {name: f"clip.vision.image_{name}" for name in ("min_pixels", "max_pixels")}
NORMALISATION = {name: f"clip.vision.{name}" for name in ("image_mean", "image_std")}


def open_mmproj(path: Path) -> Checkpoint:
    """The tower of an mmproj file; its header is read, no tensor.

    Raises CheckpointError for a file that is damaged, holds no tower, or stores it quantised to less than 8 bits, and
    ConfigError for one whose projector no family has, or whose metadata lacks what no tensor tells.
    """
    header = gguf.read_header(path)
    keys = Section(header.metadata, str(path))
    family, stated = _family(keys, header.tensors)
    stored = {name: entry for name, entry in header.tensors.items() if _is_visual(name)}
    stored = {name: entry for name, entry in stored.items() if stated.unread.get(name) != entry.shape}
    _refuse_other_types(path, stored)
    vision_config = Section(_vision_config(keys, stated, stored), str(path))
    images, videos = _preprocessors(keys, FAMILIES[family].processors, stated.published_limits)
    tensors = _tensors(path, stored, stated.names)
    config = {"model_type": family, "vision_config": dict(vision_config)}
    return Checkpoint(
        path,
        config,
        vision_config,
        family,
        images,
        prefix="",
        tensors=tensors,
        opened=gguf.opened,
        video_preprocessor=videos,
    )


def _family(keys: Section, names: Collection[str]) -> tuple[str, Mmproj]:
    """The family whose tower a file holds, and what it states of such files."""
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
    said = f"the projector type {shown(kind or 'None')} is no tower of this version, which has {known}"
    raise ConfigError(f"{keys.place}: {said}")


def _is_visual(name: str) -> bool:
    """An mmproj of an omni model holds its audio encoder too: ``a.*`` and ``mm.a.*``."""
    return name.startswith(("v.", "mm.")) and not name.startswith("mm.a.")


def _refuse_other_types(path: Path, stored: Mapping[str, Stored]) -> None:
    other = {name: entry.dtype for name, entry in stored.items() if entry.dtype not in ARRAYS}
    if other:
        got = f"tensors of the tower are stored as {', '.join(sorted(set(other.values())))}"
        raise CheckpointError(f"{path}: {got}; expected {', '.join(ARRAYS)}: {listed(list(other))}")


def _vision_config(keys: Section, stated: Mmproj, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """What no tensor tells, in the words of transformers' configs."""
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
    """The blocks without windows: every n-th, or as old files list them."""
    listed_key, pattern_key = "clip.vision.fullatt_block_indexes", "clip.vision.n_wa_pattern"
    if listed_key in keys:
        return list(keys.indexes(listed_key))
    every = _needed(keys, pattern_key, 0)
    return [block for block in blocks if not every or (block + 1) % every == 0]


def _grid_side(path: str, stored: Mapping[str, Stored]) -> int:
    """The side of the learned grid of positions; the file's image_size may be made of the limits of images."""
    for name in ("v.patch_embd.weight", "v.position_embd.weight"):
        if name not in stored or len(stored[name].shape) < 2:
            raise CheckpointError(f"{path} lacks {name}, or it is no matrix")
    return math.isqrt(stored["v.position_embd.weight"].shape[0])


def _needed(keys: Section, key: str, least: int = 1) -> int:
    if key not in keys:
        raise ConfigError(f"{keys.place} lacks {key} in its metadata, which no tensor tells")
    return keys.whole(key, 0, least)


def _preprocessors(keys: Section, stated: Processors, published_limits: bool) -> tuple[Section, Section]:
    """The configs of the image processor and of the video processor: the published ones, changed as the file says."""
    limits = dict(stated.limits if published_limits else {})
    limits |= {name: keys.whole(key, 0) for name, key in LIMITS.items() if key in keys}
    normalisation = {**stated.normalisation}
    normalisation |= {name: _decimal(keys[key]) for name, key in NORMALISATION.items() if key in keys}
    # Without limits, those of transformers' class would not be the published ones.
    images = {**limits, **normalisation, "image_processor_type": stated.image} if limits else {}
    videos = {**stated.video_limits, **normalisation, "video_processor_type": stated.video}
    return Section(images, keys.place), Section(videos if stated.video_limits else images, keys.place)


def _decimal(value: Any) -> Any:
    """The number that was rounded to the float32 in the file: 1e-05, not 9.999999747378752e-06."""
    if isinstance(value, list):
        return [_decimal(entry) for entry in value]
    return float(np.format_float_scientific(np.float32(value))) if isinstance(value, float) else value


def _numbers(stored: Mapping[str, Stored], stem: str) -> list[int]:
    """The numbers that stand for {} in the names that start so, in order."""
    pattern = re.compile(re.escape(stem).replace(r"\{\}", r"(\d{1,5})"))
    return sorted({int(match[1]) for match in map(pattern.match, stored) if match})


def _tensors(path: Path, stored: Mapping[str, Stored], names: MmprojNames) -> dict[str, Tensor]:
    """The tower's tensors, in the order of the file; what fits no name of the tower keeps its own."""
    tensors = {}
    for ours, theirs in _spelt_out(stored, _unswapped(stored, names)):
        for ending in ("weight", "bias"):
            rows = [f"{stem}.{ending}" for stem in theirs]
            if all(name in stored for name in rows):
                slices = [*rows, f"{rows[0]}.1"]  # of the patch embedding: one for each frame
                join = _slices if slices[-1] in stored else _rows
                tensors[f"{ours}.{ending}"] = join(path, {name: stored[name] for name in slices if name in stored})
    used = {part.name for tensor in tensors.values() for part in tensor.parts}
    tensors |= {name: _rows(path, {name: entry}) for name, entry in stored.items() if name not in used}
    order = {name: number for number, name in enumerate(stored)}
    return dict(sorted(tensors.items(), key=lambda item: order[item[1].parts[0].name]))


def _spelt_out(stored: Mapping[str, Stored], names: MmprojNames) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every name with its numbers in place of {}."""
    for ours, theirs in names.items():
        if "{}" not in theirs[0]:
            yield ours, theirs
            continue
        for rank, number in enumerate(_numbers(stored, theirs[0].partition("{}")[0] + "{}.")):
            yield ours.format(number, rank=rank), tuple(name.format(number) for name in theirs)


def _unswapped(stored: Mapping[str, Stored], names: MmprojNames) -> MmprojNames:
    """Old conversions call the first linear of the MLP "down" and the second "up"; as llama.cpp, look at the widths."""
    patch, down = stored.get("v.patch_embd.weight"), stored.get("v.blk.0.ffn_down.weight")
    if patch is None or down is None or len(down.shape) != 2 or len(patch.shape) < 2:
        return names
    width = patch.shape[0]
    if down.shape[1] != width or down.shape[0] == width:
        return names
    other = {"v.blk.{}.ffn_up": ("v.blk.{}.ffn_down",), "v.blk.{}.ffn_down": ("v.blk.{}.ffn_up",)}
    return {ours: other.get(theirs[0], theirs) for ours, theirs in names.items()}


def _rows(path: Path, stored: Mapping[str, Stored]) -> Tensor:
    """A tensor whose rows the stored ones hold, one below the other; or one that is stored whole."""
    _refuse_misfits(path, {name: entry.shape[1:] for name, entry in stored.items()})
    shapes = [entry.shape for entry in stored.values()]
    if len(shapes) == 1:
        return _of_parts(path, stored, shapes[0], [()])
    stops = list(accumulate(shape[0] for shape in shapes))
    indexes = [(slice(stop - shape[0], stop),) for stop, shape in zip(stops, shapes, strict=True)]
    return _of_parts(path, stored, (stops[-1], *shapes[0][1:]), indexes)


def _slices(path: Path, stored: Mapping[str, Stored]) -> Tensor:
    """A kernel (d, channels, frames, p, p) of which the stored ones hold a frame each."""
    _refuse_misfits(path, {name: entry.shape for name, entry in stored.items()})
    shape = next(iter(stored.values())).shape
    indexes = [(slice(None), slice(None), frame) for frame in range(len(stored))]
    return _of_parts(path, stored, (*shape[:2], len(stored), *shape[2:]), indexes)


def _of_parts(
    path: Path, stored: Mapping[str, Stored], shape: tuple[int, ...], indexes: Sequence[tuple[int | slice, ...]]
) -> Tensor:
    parts = [
        TensorPart(name, stored[name].dtype, stored[name].shape, index)
        for name, index in zip(stored, indexes, strict=True)
    ]
    dtypes = {part.dtype for part in parts}
    return Tensor(path, dtypes.pop() if len(dtypes) == 1 else "F32", shape, tuple(parts))


def _refuse_misfits(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        raise CheckpointError(f"{path}: {listed(list(shapes))} do not fit together")
