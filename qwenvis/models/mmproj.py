"""A family's tower in an mmproj file, as llama.cpp's converter writes it: names of tensors and of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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


class Mmproj(NamedTuple):
    """The mmproj files of a family.

    ``projector_type`` is llama.cpp's ``clip.projector_type``. Where several families share one, the names of some
    tensors start with the ``signature`` of the right family; the longest signature that fits decides.

    ``counts`` and ``epsilons`` are fields of the ``vision_config`` and the keys of the metadata that hold them.
    ``windows``: the metadata says which blocks attend to whole frames. ``image_size``: the ``vision_config`` states the
    grid of learned positions as the size of an image. ``unread`` are tensors that an old converter adds and nobody
    reads, with the shapes that tell them. The published limits of images hold for files that state none, unless they
    are unknown (``published_limits``).
    """

    projector_type: str
    names: MmprojNames
    signature: str = "v."
    counts: Mapping[str, str] = {}
    epsilons: Mapping[str, str] = {}
    windows: bool = False
    image_size: bool = False
    unread: Mapping[str, tuple[int, ...]] = {}
    published_limits: bool = True


# Written by the script that made the files of Qwen2-VL and Qwen2.5-VL before the converter did.
SURGERY = {"v.position_embd.weight": (10, 10)}
