"""Names of llama.cpp's mmproj files, in the tables that families share; the rest stands with each family."""

from __future__ import annotations

from collections.abc import Mapping

# Names of the tower, without ".weight" and ".bias" -> names in the file; several names are the rows of one tensor, one
# below the other. {} is the number of a block, which both sides count from 0.
MmprojNames = Mapping[str, tuple[str, ...]]

# Parts of tables that families share.
SPLIT_QKV = ("v.blk.{}.attn_q", "v.blk.{}.attn_k", "v.blk.{}.attn_v")
FUSED_QKV = ("v.blk.{}.attn_qkv",)
BLOCK: MmprojNames = {
    "patch_embed.proj": ("v.patch_embd",),
    "blocks.{}.norm1": ("v.blk.{}.ln1",),
    "blocks.{}.norm2": ("v.blk.{}.ln2",),
    "blocks.{}.attn.proj": ("v.blk.{}.attn_out",),
}
GATED_MLP: MmprojNames = {
    "blocks.{}.mlp.gate_proj": ("v.blk.{}.ffn_gate",),
    "blocks.{}.mlp.up_proj": ("v.blk.{}.ffn_up",),
    "blocks.{}.mlp.down_proj": ("v.blk.{}.ffn_down",),
}
PATCH_MERGER: MmprojNames = {"merger.ln_q": ("v.post_ln",), "merger.mlp.0": ("mm.0",), "merger.mlp.2": ("mm.2",)}

# Written by the script that made the files of Qwen2-VL and Qwen2.5-VL before the converter did.
SURGERY = {"v.position_embd.weight": (10, 10)}
