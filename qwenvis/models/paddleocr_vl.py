"""PaddleOCR-VL: a SigLIP tower with rope and learned positions, patches in raster order, and a projector.

transformers: PaddleOCRVisionModel and PaddleOCRProjector. In a checkpoint, the projector is beside the tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwenvis import geometry
from qwenvis.models.config import LARGEST_MERGE, Config, Fields, Shapes
from qwenvis.models.family import Family, HubLayout, Mmproj, Processors, TensorNames
from qwenvis.models.framewise import Framewise
from qwenvis.nn.blocks import Attention, Block
from qwenvis.nn.layers import LayerNorm, Linear, Mlp, PatchEmbed, PositionTable, SplitLinear
from qwenvis.nn.mergers import PatchMerger
from qwenvis.nn.workspace import Size, Workspace
from qwenvis.weights import Weights

PROJECTOR_EPS = 1e-5  # not in the config
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
TOWER, PROJECTOR = "visual.vision_model", "mlp_AR"
PATCH_EMBEDDING = f"{TOWER}.embeddings.patch_embedding.weight"
POSITIONS = f"{TOWER}.embeddings.position_embedding.weight"
LAYERS = f"{TOWER}.encoder.layers."


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a PaddleOCRVisionConfig: only the projector gives the width of the tokens, and a patch has one frame."""
    fields = Fields(vision_config, shapes)
    fields.unused("temporal_patch_size")  # the makers' own class writes 2; a patch has one frame
    width, patch = fields.size("hidden_size", 1152, PATCH_EMBEDDING), fields.size("patch_size", 14, PATCH_EMBEDDING, 2)
    return Config(
        depth=fields.depth(27, LAYERS),
        hidden_size=width,
        intermediate_size=fields.size("intermediate_size", 4304, f"{LAYERS}0.mlp.fc1.weight"),
        num_heads=fields.num_heads(16, width),
        out_hidden_size=fields.size("out_hidden_size", 1024, f"{PROJECTOR}.linear_2.weight"),
        in_channels=fields.size("num_channels", 3, PATCH_EMBEDDING, 1),
        temporal_patch_size=1,
        patch_size=patch,
        spatial_merge_size=fields.integer("spatial_merge_size", 2, LARGEST_MERGE),
        hidden_act=fields.choice("hidden_act", "gelu_pytorch_tanh", ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        num_position_embeddings=fields.positions(384, patch, POSITIONS),
        layer_norm_eps=fields.positive("layer_norm_eps", 1e-6),
    )


class Projector(PatchMerger):
    """The tower's last norm, the projector's norm, join, two linears: transformers PaddleOCRProjector."""

    def __init__(self, weights: Weights, c: Config) -> None:
        d, place = c.hidden_size, weights.scope(PROJECTOR)
        self.post_norm = LayerNorm(weights.scope(TOWER).scope("post_layernorm"), d, c.layer_norm_eps)
        norm = LayerNorm(place.scope("pre_norm"), d, PROJECTOR_EPS)
        super().__init__(place, norm, d, c.merge_unit, c.out_hidden_size, ("linear_1", "linear_2"))

    def sizes(self, n: int) -> dict[str, Size]:
        """Return the sizes of the base, and ``merged_normed``: patches of a chunk of tokens after the first norm."""
        sizes = super().sizes(n)
        rows, columns, _ = sizes["merged"]
        return sizes | {"merged_normed": (rows * self.unit, columns // self.unit, "float32")}

    def join(self, x: np.ndarray, out: np.ndarray, ws: Workspace) -> np.ndarray:
        """Normalise twice, and join: x (m·u, d) -> (m, u·d)."""
        return self.norm(self.post_norm(x, ws.merged_normed[: len(x)]), out)


class Tower(Framewise):
    """The vision encoder and projector of PaddleOCR-VL.

    ``pixel_values`` are in raster order; the sequence is in the order of merge units, so that the join is free.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = c = config
        d, tower = c.hidden_size, weights.scope(TOWER)
        channels, _, height, width = c.kernel
        embeddings, stored = tower.scope("embeddings"), (channels, height, width)
        self.patch_embed = PatchEmbed(embeddings.scope("patch_embedding"), d, c.kernel, bias=True, stored=stored)
        self.positions = PositionTable(embeddings.scope("position_embedding"), c.num_position_embeddings, d)
        self.blocks = [
            Block(
                LayerNorm(w.scope("layer_norm1"), d, c.layer_norm_eps),
                _attention(w.scope("self_attn"), c),
                LayerNorm(w.scope("layer_norm2"), d, c.layer_norm_eps),
                Mlp(w.scope("mlp"), d, c.intermediate_size, c.hidden_act),
            )
            for w in map(tower.scope("encoder").scope("layers").scope, range(c.depth))
        ]
        self.mergers = [Projector(weights, c)]

    def order(self, grid_thw: np.ndarray) -> np.ndarray:
        """Return the rows of ``pixel_values`` (n,), which are in raster order, merge unit by merge unit."""
        return geometry.raster_order(grid_thw, self.config.spatial_merge_size)

    def embed(self, patches: np.ndarray, order: np.ndarray, grid_thw: np.ndarray, ws: Workspace) -> np.ndarray:
        """Embed the patches as the base does, and add their interpolated positions."""
        x = super().embed(patches, order, grid_thw, ws)  # (n, d)
        merge_size, side = self.config.spatial_merge_size, self.positions.side
        return self.positions(*geometry.interpolate_pos_embed(grid_thw, merge_size, side, geometry.bilinear), x)


def _attention(weights: Weights, c: Config) -> Attention:
    d = c.hidden_size
    qkv = SplitLinear(weights, ("q_proj", "k_proj", "v_proj"), d, d)
    return Attention(qkv, Linear(weights.scope("out_proj"), d, d), c.num_heads, c.num_heads)


SIZE = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "layer_norm_eps": 1e-06,
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "spatial_merge_size": 2,
}
TINY = {
    **SIZE,
    "hidden_size": 64,
    "image_size": 84,
    "intermediate_size": 100,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "out_hidden_size": 96,
}
MMPROJ_LAYER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({PATCH_EMBEDDING}),
    published={"paddleocr-vl": SIZE, "tiny-paddleocr-vl": TINY},
    # The tower holds unused parts: a pooling head, and positions of packed images.
    tensors=TensorNames(
        (r"visual\.vision_model(?!\.head\.|\..*packing_)", PROJECTOR), PATCH_EMBEDDING, shares_prefix=True
    ),
    hub=HubLayout("PaddleOCRVL", prefix=""),
    processors=Processors(
        "PaddleOCRVLImageProcessor",
        "",
        {"min_pixels": 147456, "max_pixels": 2359296},
        class_normalisation=False,
    ),
    mmproj=Mmproj(
        "paddleocr",
        {
            f"{TOWER}.embeddings.patch_embedding": ("v.patch_embd",),
            f"{TOWER}.embeddings.position_embedding": ("v.position_embd",),
            **{f"{LAYERS}{{}}.{ours}": (f"v.blk.{{}}.{theirs}",) for ours, theirs in MMPROJ_LAYER.items()},
            f"{TOWER}.post_layernorm": ("v.post_ln",),
            f"{PROJECTOR}.pre_norm": ("mm.input_norm",),
            f"{PROJECTOR}.linear_1": ("mm.1",),
            f"{PROJECTOR}.linear_2": ("mm.2",),
        },
        image_size=True,
        published_limits=False,
    ),
)
