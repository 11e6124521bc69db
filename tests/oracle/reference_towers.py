"""The vision towers in NumPy float64: one function states a model whole, of the parts of reference.py.

A family that is another one with other names for its weights renames them. `config` is the checkpoint's vision_config,
completed. Like reference.py, this file imports nothing of the package, and transformers checks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from oracle import reference as r
from oracle.reference import below


@dataclass
class Features:
    """What a tower returns, all of it in natural order: the order of pixel_values and of the items' tokens."""

    tokens: np.ndarray  # (m, out_hidden_size)
    hidden_states: list[np.ndarray]  # depth + 1 times (n, d): after the patch embed, then after each block
    deepstack: list[np.ndarray] = field(default_factory=list)  # (m, out_hidden_size) each, in the order of the blocks

    @property
    def last_hidden_state(self):
        """(n, d), before the merger."""
        return self.hidden_states[-1]


def places(config, grid_thw, width):
    """The rope table of a tower of that width, and its cu_seqlens."""
    coords = r.coords(grid_thw, config["spatial_merge_size"])
    return r.rope_table(coords, width // config["num_heads"]), r.frame_cu_seqlens(grid_thw)


def qwen2_vl(config, w, pixel_values, grid_thw):
    """Qwen2VisionTransformerPretrainedModel."""
    x = r.patch_embed(pixel_values, w["patch_embed.proj.weight"])
    table, cu_seqlens = places(config, grid_thw, x.shape[1])
    states = [x]
    for i in range(config["depth"]):
        b = below(w, f"blocks.{i}")
        h = r.layer_norm(x, b["norm1.weight"], b["norm1.bias"])
        x = x + r.self_attention(h, below(b, "attn"), config, table, cu_seqlens)
        h = r.layer_norm(x, b["norm2.weight"], b["norm2.bias"])
        x = x + r.mlp(h, below(b, "mlp"), "fc1", r.quick_gelu, "fc2")
        states.append(x)
    m = below(w, "merger")
    joined = r.join(r.layer_norm(x, m["ln_q.weight"], m["ln_q.bias"]), config["spatial_merge_size"])
    return Features(r.mlp(joined, m, "mlp.0", r.gelu, "mlp.2"), states)


def qwen2_5_vl(config, w, pixel_values, grid_thw):
    """Qwen2_5_VisionTransformerPretrainedModel: the blocks work in window order, most of them within windows."""
    heads, merge_size = config["num_heads"], config["spatial_merge_size"]
    unit = merge_size**2
    side = config["window_size"] // merge_size // config["patch_size"]  # of a window, in merge units
    order, cu_window_seqlens = r.window_order(grid_thw, merge_size, side)
    inverse = np.argsort(order)
    cu_seqlens = r.frame_cu_seqlens(grid_thw)  # holds in window order too: a window lies within one frame
    x = r.reorder(r.patch_embed(pixel_values, w["patch_embed.proj.weight"]), order, unit)
    table = r.rope_table(r.reorder(r.coords(grid_thw, merge_size), order, unit), x.shape[1] // heads)
    states = [x]
    for i in range(config["depth"]):
        b = below(w, f"blocks.{i}")
        segments = cu_seqlens if i in config["fullatt_block_indexes"] else cu_window_seqlens
        h = r.rms_norm(x, b["norm1.weight"])
        x = x + r.self_attention(h, below(b, "attn"), config, table, segments)
        h = r.rms_norm(x, b["norm2.weight"])
        x = x + r.gated_mlp(h, below(b, "mlp"), r.silu_gate)
        states.append(x)
    m = below(w, "merger")
    tokens = r.mlp(r.join(r.rms_norm(x, m["ln_q.weight"]), merge_size), m, "mlp.0", r.gelu, "mlp.2")
    return Features(r.reorder(tokens, inverse, 1), [r.reorder(state, inverse, unit) for state in states])


def qwen2_5_omni(config, w, pixel_values, grid_thw):
    """Qwen2_5OmniVisionEncoder: q, k and v of Qwen2.5-VL are tensors of their own."""
    return qwen2_5_vl(config, fused(w, ("q", "k", "v")), pixel_values, grid_thw)


def qwen3_vl(config, w, pixel_values, grid_thw):
    """Qwen3VLVisionModel, and without deepstack Qwen3_5VisionModel."""
    merge_size = config["spatial_merge_size"]
    x = r.patch_embed(pixel_values, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    x = x + r.learned_positions(w["pos_embed.weight"], grid_thw, merge_size, r.corners, r.hat)
    table, cu_seqlens = places(config, grid_thw, x.shape[1])
    states, deepstack, indexes = [x], [], config.get("deepstack_visual_indexes", [])
    for i in range(config["depth"]):
        b = below(w, f"blocks.{i}")
        h = r.layer_norm(x, b["norm1.weight"], b["norm1.bias"])
        x = x + r.self_attention(h, below(b, "attn"), config, table, cu_seqlens)
        h = r.layer_norm(x, b["norm2.weight"], b["norm2.bias"])
        x = x + r.mlp(h, below(b, "mlp"), "linear_fc1", r.gelu_tanh, "linear_fc2")
        states.append(x)
        if i in indexes:
            m = below(w, f"deepstack_merger_list.{indexes.index(i)}")
            joined = r.layer_norm(r.join(x, merge_size), m["norm.weight"], m["norm.bias"])
            deepstack.append(r.mlp(joined, m, "linear_fc1", r.gelu, "linear_fc2"))
    m = below(w, "merger")
    joined = r.join(r.layer_norm(x, m["norm.weight"], m["norm.bias"]), merge_size)
    return Features(r.mlp(joined, m, "linear_fc1", r.gelu, "linear_fc2"), states, deepstack)


def qwen3_omni_moe(config, w, pixel_values, grid_thw):
    """Qwen3OmniMoeVisionEncoder: the mergers of Qwen3-VL have other names."""
    names = {"merger_list": "deepstack_merger_list", "ln_q": "norm", "mlp.0": "linear_fc1", "mlp.2": "linear_fc2"}
    return qwen3_vl(config, renamed(w, "merger", names), pixel_values, grid_thw)


def glm_merger(x, w, config, gate):
    """Of Glm4vVisionModel: the last norm, a convolution over each merge unit, Glm4vVisionPatchMerger."""
    side, d, m = config["spatial_merge_size"], x.shape[1], below(w, "merger")
    units = r.rms_norm(x, w["post_layernorm.weight"], config["rms_norm_eps"]).reshape(-1, side, side, d)
    kernel = w["downsample.weight"].transpose(0, 2, 3, 1)  # (out, row, col, d)
    h = r.linear(units.reshape(len(units), -1), kernel.reshape(len(kernel), -1), w["downsample.bias"])
    h = r.layer_norm(r.layer(h, m, "proj"), m["post_projection_norm.weight"], m["post_projection_norm.bias"], 1e-5)
    return r.gated_mlp(r.gelu(h), m, gate)


def glm4v(config, w, pixel_values, grid_thw):
    """Glm4vVisionModel."""
    eps, merge_size = config["rms_norm_eps"], config["spatial_merge_size"]
    x = r.patch_embed(pixel_values, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    x = r.rms_norm(x, w["post_conv_layernorm.weight"], eps)
    learned = w["embeddings.position_embedding.weight"]
    x = x + r.learned_positions(learned, grid_thw, merge_size, r.sampled_centres, r.keys)
    states = glm_blocks(x, w, config, grid_thw, r.silu_gate)
    return Features(glm_merger(states[-1], w, config, r.silu_gate), states)


def glm_ocr(config, w, pixel_values, grid_thw, gate=None):
    """GlmOcrVisionModel: no learned positions; q and k are normalised."""
    gate = gate or r.silu_gate
    x = r.patch_embed(pixel_values, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    states = glm_blocks(x, w, config, grid_thw, gate)
    return Features(glm_merger(states[-1], w, config, gate), states)


def glm5_next(config, w, pixel_values, grid_thw):
    """Glm5NextVisionModel: the gated MLPs of GLM-OCR are clamped."""
    gate = partial(r.clamped_gate, limit=config["swiglu_limit"])
    return glm_ocr(config, w, pixel_values, grid_thw, gate)


def glm_blocks(x, w, config, grid_thw, gate):
    """The blocks of the GLM towers: all hidden states."""
    eps, states = config["rms_norm_eps"], [x]
    table, cu_seqlens = places(config, grid_thw, x.shape[1])
    for i in range(config["depth"]):
        b = below(w, f"blocks.{i}")
        x = x + r.self_attention(r.rms_norm(x, b["norm1.weight"], eps), below(b, "attn"), config, table, cu_seqlens)
        x = x + r.gated_mlp(r.rms_norm(x, b["norm2.weight"], eps), below(b, "mlp"), gate)
        states.append(x)
    return states


def paddleocr_vl(config, w, pixel_values, grid_thw):
    """PaddleOCRVisionModel and PaddleOCRProjector: patches come, and hidden states leave, row by row."""
    merge_size, eps = config["spatial_merge_size"], config["layer_norm_eps"]
    config = {"num_heads": config["num_attention_heads"], "spatial_merge_size": 1}
    tower, m = below(w, "visual.vision_model"), below(w, "mlp_AR")
    e = below(tower, "embeddings")
    x = r.patch_embed(pixel_values, e["patch_embedding.weight"], e["patch_embedding.bias"])
    x = x + r.learned_positions(e["position_embedding.weight"], grid_thw, 1, r.centres, r.hat)
    table, cu_seqlens = places(config, grid_thw, x.shape[1])
    states = [x]
    for i in range(len({name.split(".")[2] for name in tower if name.startswith("encoder.layers.")})):
        b = fused(below(tower, f"encoder.layers.{i}"), ("q_proj", "k_proj", "v_proj"))
        attn = renamed(below(b, "self_attn"), "", {"out_proj": "proj"})
        h = r.layer_norm(x, b["layer_norm1.weight"], b["layer_norm1.bias"], eps)
        x = x + r.self_attention(h, attn, config, table, cu_seqlens)
        h = r.layer_norm(x, b["layer_norm2.weight"], b["layer_norm2.bias"], eps)
        x = x + r.mlp(h, below(b, "mlp"), "fc1", r.gelu_tanh, "fc2")
        states.append(x)
    h = r.layer_norm(x, tower["post_layernorm.weight"], tower["post_layernorm.bias"], eps)
    h = r.layer_norm(h, m["pre_norm.weight"], m["pre_norm.bias"], 1e-5)
    joined = r.join(h[by_units(grid_thw, merge_size)], merge_size)
    return Features(r.mlp(joined, m, "linear_1", r.gelu, "linear_2"), states)


def by_units(grid_thw, merge_size):
    """Rows of a sequence in raster order, in the order of merge units."""
    order, start = [], 0
    for t, height, width in grid_thw:
        for _ in range(t):
            order += [start + row * width + col for row, col in r.block_order(height, width, merge_size)]
            start += height * width
    return order


def fused(w, names):
    """The weights with "qkv" in the place of three tensors."""
    out = dict(w)
    for name in [name for name in w if name.split(".")[-2] == names[0]]:
        parts = [name.replace(f"{names[0]}.", f"{part}.") for part in names]
        out[name.replace(f"{names[0]}.", "qkv.")] = np.concatenate([out.pop(part) for part in parts])
    return out


def renamed(w, start, names):
    """The weights whose names begin so, under other names."""
    out = {}
    for name, value in w.items():
        for old, new in names.items() if name.startswith(start) else ():
            name = name.replace(f"{old}.", f"{new}.")
        out[name] = value
    return out
