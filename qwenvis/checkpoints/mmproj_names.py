"""The kinds of mmproj that llama.cpp's converter writes: which family's tower each holds, and under which names.

A family is added here as its table of names and its line in `PROJECTORS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Names of the tower, without ".weight" and ".bias" -> names in the file; several are its rows, one below the other.
# {} is the number of a block, which both sides count from 0.
TensorNames = dict[str, tuple[str, ...]]

_QKV = ("v.blk.{}.attn_q", "v.blk.{}.attn_k", "v.blk.{}.attn_v")
_BLOCK: TensorNames = {
    "patch_embed.proj": ("v.patch_embd",),
    "blocks.{}.norm1": ("v.blk.{}.ln1",),
    "blocks.{}.norm2": ("v.blk.{}.ln2",),
    "blocks.{}.attn.proj": ("v.blk.{}.attn_out",),
}
_GATED: TensorNames = {
    "blocks.{}.mlp.gate_proj": ("v.blk.{}.ffn_gate",),
    "blocks.{}.mlp.up_proj": ("v.blk.{}.ffn_up",),
    "blocks.{}.mlp.down_proj": ("v.blk.{}.ffn_down",),
}
_MERGER: TensorNames = {"merger.ln_q": ("v.post_ln",), "merger.mlp.0": ("mm.0",), "merger.mlp.2": ("mm.2",)}

QWEN2_VL: TensorNames = {
    **_BLOCK,
    "blocks.{}.attn.qkv": _QKV,
    "blocks.{}.mlp.fc1": ("v.blk.{}.ffn_up",),
    "blocks.{}.mlp.fc2": ("v.blk.{}.ffn_down",),
    **_MERGER,
}
QWEN2_5_VL: TensorNames = {**_BLOCK, "blocks.{}.attn.qkv": _QKV, **_GATED, **_MERGER}
QWEN2_5_OMNI: TensorNames = {
    **_BLOCK,
    **{f"blocks.{{}}.attn.{name[-1]}": (name,) for name in _QKV},
    **_GATED,
    **_MERGER,
}
QWEN3_VL: TensorNames = {
    **_BLOCK,
    "pos_embed": ("v.position_embd",),
    "blocks.{}.attn.qkv": ("v.blk.{}.attn_qkv",),
    "blocks.{}.mlp.linear_fc1": ("v.blk.{}.ffn_up",),
    "blocks.{}.mlp.linear_fc2": ("v.blk.{}.ffn_down",),
    "merger.norm": ("v.post_ln",),
    "merger.linear_fc1": ("mm.0",),
    "merger.linear_fc2": ("mm.2",),
    # The file counts these by the block that they follow, the tower by their own order.
    "deepstack_merger_list.{rank}.norm": ("v.deepstack.{}.norm",),
    "deepstack_merger_list.{rank}.linear_fc1": ("v.deepstack.{}.fc1",),
    "deepstack_merger_list.{rank}.linear_fc2": ("v.deepstack.{}.fc2",),
}
GLM4V: TensorNames = {
    **_BLOCK,
    "post_conv_layernorm": ("v.norm_embd",),
    "embeddings.position_embedding": ("v.position_embd",),
    "blocks.{}.attn.qkv": ("v.blk.{}.attn_qkv",),
    **_GATED,
    "post_layernorm": ("v.post_ln",),
    "downsample": ("mm.patch_merger",),
    "merger.proj": ("mm.model.fc",),
    "merger.post_projection_norm": ("mm.post_norm",),
    "merger.gate_proj": ("mm.gate",),
    "merger.up_proj": ("mm.up",),
    "merger.down_proj": ("mm.down",),
}
EXAONE4_5: TensorNames = {**_BLOCK, "blocks.{}.attn.qkv": ("v.blk.{}.attn_qkv",), **_GATED, **_MERGER}
PADDLEOCR_VL: TensorNames = {
    "visual.vision_model.embeddings.patch_embedding": ("v.patch_embd",),
    "visual.vision_model.embeddings.position_embedding": ("v.position_embd",),
    **{
        f"visual.vision_model.encoder.layers.{{}}.{ours}": (f"v.blk.{{}}.{theirs}",)
        for ours, theirs in {
            "layer_norm1": "ln1",
            "layer_norm2": "ln2",
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.out_proj": "attn_out",
            "mlp.fc1": "ffn_up",
            "mlp.fc2": "ffn_down",
        }.items()
    },
    "visual.vision_model.post_layernorm": ("v.post_ln",),
    "mlp_AR.pre_norm": ("mm.input_norm",),
    "mlp_AR.linear_1": ("mm.1",),
    "mlp_AR.linear_2": ("mm.2",),
}
GLM_OCR: TensorNames = {
    **GLM4V,
    "blocks.{}.attn.q_norm": ("v.blk.{}.attn_q_norm",),
    "blocks.{}.attn.k_norm": ("v.blk.{}.attn_k_norm",),
}

_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@dataclass(frozen=True)
class Projector:
    """A kind of mmproj: its ``clip.projector_type``, and the family whose tower it holds.

    ``mark`` is what the names of some of its tensors start with, where several families share a type. ``images`` are
    what the published checkpoints' preprocessors say and the file may not, and ``videos`` what they say of videos apart
    from images. Do its configs tell which
    blocks attend to whole frames (``windows``), and the grid of its positions as the size of an image (``grid``)?
    ``dummies`` are tensors that an old converter adds and nobody reads, with the shapes that tell them.
    """

    kind: str
    family: str
    names: TensorNames
    images: Mapping[str, Any]
    mark: str = "v."
    videos: Mapping[str, Any] = field(default_factory=dict)
    windows: bool = False
    grid: bool = False
    # Fields of the config -> further keys of the metadata, which hold counts and epsilons.
    counts: Mapping[str, str] = field(default_factory=dict)
    epsilons: Mapping[str, str] = field(default_factory=dict)
    dummies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


_QWEN2_IMAGES = {"min_pixels": 3136, "max_pixels": 12845056, **_CLIP}
_QWEN3_IMAGES = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, **_HALF}
_GLM_LIMITS = {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}
_QWEN3_VIDEOS = {
    "size": {"shortest_edge": 4096, "longest_edge": 25165824},
    **_HALF,
    "video_processor_type": "Qwen3VLVideoProcessor",
}
_GLM4V_VIDEOS = {
    "size": {"shortest_edge": 12544, "longest_edge": 47040000},
    **_CLIP,
    "video_processor_type": "Glm4vVideoProcessor",
}
_GLM4V_IMAGES = {**_GLM_LIMITS, **_CLIP, "image_processor_type": "Glm4vImageProcessor"}
_GLM_OCR_IMAGES = {**_GLM_LIMITS, **_CLIP, "image_processor_type": "Glm46VImageProcessor"}
_PADDLE_IMAGES = {"image_processor_type": "PaddleOCRVLImageProcessor"}
_EXAONE_COUNTS = {
    "num_key_value_heads": "clip.vision.attention.head_count_kv",
    "window_size": "clip.vision.window_size",
}
_GLM_EPS = {"rms_norm_eps": "clip.vision.attention.layer_norm_epsilon"}  # here it is the tower's own

_SURGERY = {"v.position_embd.weight": (10, 10)}  # of the script that made files before the converter did

# The first whose kind and mark fit.
PROJECTORS = (
    Projector("qwen2vl_merger", "qwen2_vl", QWEN2_VL, _QWEN2_IMAGES, dummies=_SURGERY),
    Projector("qwen2.5vl_merger", "qwen2_5_vl", QWEN2_5_VL, _QWEN2_IMAGES, windows=True, dummies=_SURGERY),
    Projector("qwen2.5o", "qwen2_5_omni", QWEN2_5_OMNI, _QWEN2_IMAGES, windows=True),
    Projector("qwen3vl_merger", "qwen3_vl", QWEN3_VL, _QWEN3_IMAGES, mark="v.deepstack.", videos=_QWEN3_VIDEOS),
    Projector("qwen3vl_merger", "qwen3_5", QWEN3_VL, _QWEN3_IMAGES, videos=_QWEN3_VIDEOS),
    Projector("glm4v", "glm_ocr", GLM_OCR, _GLM_OCR_IMAGES, mark="v.blk.0.attn_q_norm.", epsilons=_GLM_EPS),
    Projector("glm4v", "glm4v", GLM4V, _GLM4V_IMAGES, videos=_GLM4V_VIDEOS, grid=True, epsilons=_GLM_EPS),
    Projector("exaone4_5", "exaone4_5", EXAONE4_5, {}, windows=True, counts=_EXAONE_COUNTS),
    Projector("paddleocr", "paddleocr_vl", PADDLEOCR_VL, _PADDLE_IMAGES, grid=True),
)
