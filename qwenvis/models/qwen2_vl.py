"""Qwen2-VL: LayerNorm, fc1 and fc2 with quick-GELU, full attention within each frame.

transformers: Qwen2VisionTransformerPretrainedModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenvis.models.config import PATCH_EMBED, Config, Fields, Shapes, patch_sizes
from qwenvis.models.family import Family, HubLayout, Mmproj, Processors, TensorNames
from qwenvis.models.framewise import Framewise
from qwenvis.models.mmproj_names import BLOCK, PATCH_MERGER, SPLIT_QKV, SURGERY
from qwenvis.nn.blocks import Attention, Block
from qwenvis.nn.layers import LayerNorm, Mlp, PatchEmbed
from qwenvis.nn.mergers import PatchMerger
from qwenvis.weights import Weights

EPS = 1e-6  # of all norms; not in the config
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_pytorch_tanh"}


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Qwen2VLVisionConfig: ``embed_dim`` is the tower's width, ``hidden_size`` the language model's."""
    fields = Fields(vision_config, shapes)
    width = fields.size("embed_dim", 1280, PATCH_EMBED)
    return Config(
        depth=fields.depth(32),
        hidden_size=width,
        intermediate_size=fields.scaled("mlp_ratio", 4, width, "blocks.0.mlp.fc1.weight"),
        num_heads=fields.num_heads(16, width),
        out_hidden_size=fields.size("hidden_size", 3584, "merger.mlp.2.weight"),
        hidden_act=fields.choice("hidden_act", "quick_gelu", ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        **patch_sizes(fields),
    )


class Tower(Framewise):
    """The vision encoder and merger of Qwen2-VL."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = c = config
        d = c.hidden_size
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel)
        self.blocks = [
            Block(
                LayerNorm(w.scope("norm1"), d, EPS),
                Attention.fused(w.scope("attn"), d, c.num_heads, c.num_heads),
                LayerNorm(w.scope("norm2"), d, EPS),
                Mlp(w.scope("mlp"), d, c.intermediate_size, c.hidden_act),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger")
        norm = LayerNorm(merger.scope("ln_q"), d, EPS)
        self.mergers = [PatchMerger(merger, norm, d, c.merge_unit, c.out_hidden_size)]


def language_model(intermediate: int, layers: int, heads: tuple[int, int], vocabulary: int) -> dict[str, int]:
    """Return the sizes of a language model by the names of its config; ``heads`` are those of queries and of keys."""
    return {
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
    }


SIZE = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16}
LANGUAGE_MODELS = {  # of Qwen2, by its hidden_size
    96: language_model(192, 2, (4, 2), 1024),
    1536: language_model(8960, 28, (12, 2), 151936),
    3584: language_model(18944, 28, (28, 4), 152064),
    8192: language_model(29568, 80, (64, 8), 152064),
}
PROCESSORS = Processors("Qwen2VLImageProcessor", "Qwen2VLVideoProcessor", {"min_pixels": 3136, "max_pixels": 12845056})
LEGACY = {"in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({"blocks.0.mlp.fc1.weight", "blocks.0.norm1.bias"}),
    published={
        "qwen2-vl-2b": {**SIZE, **LEGACY, "hidden_size": 1536},
        "qwen2-vl-7b": {**SIZE, **LEGACY, "hidden_size": 3584},
        "qwen2-vl-72b": {**SIZE, **LEGACY, "hidden_size": 8192},
        "tiny-qwen2-vl": {**SIZE, **LEGACY, "hidden_size": 96, "depth": 4, "embed_dim": 64, "num_heads": 4},
    },
    tensors=TensorNames(("blocks", "merger", "patch_embed")),
    hub=HubLayout("Qwen2VL", "visual.", language_models=LANGUAGE_MODELS),
    processors=PROCESSORS,
    mmproj=Mmproj(
        "qwen2vl_merger",
        {
            **BLOCK,
            "blocks.{}.attn.qkv": SPLIT_QKV,
            "blocks.{}.mlp.fc1": ("v.blk.{}.ffn_up",),
            "blocks.{}.mlp.fc2": ("v.blk.{}.ffn_down",),
            **PATCH_MERGER,
        },
        unread=SURGERY,
    ),
)
