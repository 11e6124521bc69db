"""mmproj files as llama.cpp writes them (its conversion/qwenvl.py and conversion/qwen3vl.py), by gguf's own writer.

The names are those of gguf's own map from transformers' names, so that the tables of the package are judged by it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from oracle import families
from qwenvis.models import FAMILIES

KINDS = {family: case.mmproj for family, case in families.FAMILIES.items() if case.mmproj}
NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 32)
MERGERS = {"merger.norm": "v.post_ln", "merger.linear_fc1": "mm.0", "merger.linear_fc2": "mm.2"}  # of Qwen3
DEEPSTACK = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


class Typed(NamedTuple):
    """A value of the metadata, of a type that its key has not in files of the converter."""

    value: Any
    kind: gguf.GGUFValueType
    entries: gguf.GGUFValueType | None = None


def converted(family, name, array, vision_config):
    """The tensors that the converter makes of one: (name, array)."""
    if name == "patch_embed.proj.weight":
        return [("v.patch_embd.weight", array[:, :, 0]), ("v.patch_embd.weight.1", array[:, :, 1])]
    stem, _, ending = name.rpartition(".")
    if ".attn.qkv." in name and len(FAMILIES[family].mmproj.names["blocks.{}.attn.qkv"]) == 3:
        parts = np.split(array, 3)
        return [(mapped(name.replace("qkv", letter)), part) for letter, part in zip("qkv", parts, strict=True)]
    if stem in MERGERS:
        return [(f"{MERGERS[stem]}.{ending}", array)]
    if match := re.fullmatch(r"deepstack_merger_list\.(\d+)\.(\w+)", stem):
        block = vision_config["deepstack_visual_indexes"][int(match[1])]
        return [(f"v.deepstack.{block}.{DEEPSTACK[match[2]]}.{ending}", array)]
    return [(mapped(name), array)]


def mapped(name):
    """The name that llama.cpp's map gives a tensor."""
    full = name.replace("visual.", "model.") if name.startswith(("visual.", "mlp_AR.")) else f"visual.{name}"
    found = NAMES.get_name(full, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def stored_type(name, array, kind):
    """The type that the converter gives a tensor of the file."""
    if array.ndim == 1 or ".position_embd." in name:
        return Type.F32
    if ".patch_embd.weight" in name or ".patch_merger.weight" in name:
        return Type.F16 if kind == Type.F16 else Type.F32
    return Type.F16 if array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] else kind


def rounded(family, tensors, vision_config, kind):
    """The same tower, with every tensor as its stored form stands for it."""
    result = {}
    for name, array in tensors.items():
        stored = converted(family, name, array, vision_config)
        parts = []
        for theirs, part in stored:
            part_kind = stored_type(theirs, part, kind)
            quantised = gguf.quantize(np.ascontiguousarray(part), part_kind)
            parts.append(gguf.dequantize(quantised, part_kind).reshape(part.shape))
        joined = np.stack(parts, axis=2) if stored[-1][0] == "v.patch_embd.weight.1" else np.concatenate(parts)
        result[name] = np.ascontiguousarray(joined, np.float32)
    return result


def metadata(family, vision_config, out_hidden_size):
    """What the converter writes, right or wrong: Qwen's width of the MLP and eps are those of the language model."""
    keys = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": KINDS[family],
        "clip.vision.projection_dim": out_hidden_size,
        "clip.vision.image_size": 560,
        "clip.vision.patch_size": vision_config.get("patch_size", 14),
        "clip.vision.embedding_length": vision_config.get("embed_dim", vision_config["hidden_size"]),
        "clip.vision.attention.head_count_kv": vision_config.get("num_key_value_heads"),
        "clip.vision.feed_forward_length": vision_config["hidden_size"],
        "clip.vision.block_count": vision_config.get("depth", vision_config.get("num_hidden_layers")),
        "clip.vision.attention.head_count": vision_config.get("num_heads", vision_config.get("num_attention_heads")),
        "clip.vision.attention.layer_norm_epsilon": vision_config.get("rms_norm_eps", 1e-5),
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711],
        "clip.use_gelu" if KINDS[family].startswith("qwen3") else "clip.use_silu": True,
    }
    if blocks := vision_config.get("fullatt_block_indexes"):
        keys["clip.vision.n_wa_pattern"] = blocks[0] + 1
    if KINDS[family].startswith("qwen3"):
        flags = [block in vision_config.get("deepstack_visual_indexes", []) for block in range(vision_config["depth"])]
        keys |= {"clip.vision.spatial_merge_size": 2, "clip.vision.is_deepstack_layers": flags}
    return keys


def write(path, entries, keys, architecture="clip"):
    """A file of (name, array, type) and of metadata; None leaves a key out."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("mmproj")
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in keys.items():
        if isinstance(value, Typed):
            writer.add_key_value(key, *value)
        elif value is not None:
            add.get(type(value), writer.add_array)(key, value)
    for name, array, kind in entries:
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def entries(family, tensors, vision_config, kind=Type.F32):
    """(name, array, type) of every tensor that the converter writes."""
    return [
        (theirs, part, stored_type(theirs, part, kind))
        for name, array in tensors.items()
        for theirs, part in converted(family, name, array, vision_config)
    ]


def write_tower(path, family, tensors, vision_config, *, kind=Type.F32, **changes):
    """The mmproj of a tower of float32 tensors, its metadata changed."""
    out = next(array.shape[0] for name, array in reversed(tensors.items()) if array.ndim == 2)
    keys = metadata(family, vision_config, out) | changes
    return write(path, entries(family, tensors, vision_config, kind), keys)


def write_smallest(path):
    """A file with the least that names a tower: one tensor."""
    keys = {"clip.projector_type": "qwen2vl_merger", "clip.vision.block_count": 1}
    tensors = [("v.patch_embd.weight", np.zeros((4, 3, 4, 2), np.float32), Type.F32)]
    return write(path, tensors, keys | {"clip.vision.attention.head_count": 1})
