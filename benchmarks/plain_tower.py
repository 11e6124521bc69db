"""A tower that converters can read: transformers' modules, without the loops over segments.

The forward of transformers reads lengths from ``grid_thw`` and splits by them, which neither tracing nor torch.export
can follow. For a single grid these values are constants: rope tables, window order and its inverse. The segments of a
block, which must have equal lengths, are the batch of one attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from transformers import vision_utils
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen2_vl import modeling_qwen2_vl

from qwenvis.checkpoints.checkpoint import Checkpoint

# q, k, v (segments, length, heads, head_dim) to their context (segments, length, d)
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

CLASSES = {
    "qwen2_vl": modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel,
    "qwen2_5_vl": modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel,
}


def load(checkpoint: Checkpoint, family: str, dtype: torch.dtype) -> nn.Module:
    """Load a checkpoint in transformers' class, with torch's scaled_dot_product_attention."""
    tower_class = CLASSES[family]
    config = tower_class.config_class(**checkpoint.vision_config)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        tower = tower_class(config)
    tower.rotary_pos_emb = type(tower.rotary_pos_emb)(config)  # its frequencies are not weights
    checkpoint.prepare()
    state = {}
    for file in checkpoint.files:
        with safe_open(file, "pt") as handle:
            for name in [name for name, tensor in checkpoint.tensors.items() if tensor.file.path == file]:
                state[name] = handle.get_tensor(checkpoint.prefix + name).to(dtype)
    tower.load_state_dict(state, assign=True)
    return tower.eval().requires_grad_(False)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Compute attention with torch's operation, which OpenVINO converts to one fused operation."""
    context = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return context.transpose(1, 2).flatten(2)


def multi_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Compute attention with ONNX Runtime's fused operation, for exports only."""
    heads = q.shape[2]
    q, k, v = (t.flatten(2) for t in (q, k, v))
    sizes = {"dtype": q.dtype, "shape": q.shape, "version": 1}
    return torch.onnx.ops.symbolic("com.microsoft::MultiHeadAttention", (q, k, v), {"num_heads": heads}, **sizes)


class PlainTower(nn.Module):
    """The tower for one ``grid_thw``: pixel_values (n, C·T·p²) to tokens (n / 4, out_hidden_size).

    Raises ValueError where the segments of a block differ in length.
    """

    def __init__(self, tower: nn.Module, grid_thw: torch.Tensor, attention: Attention = sdpa) -> None:
        super().__init__()
        self.attention = attention
        merge_size = tower.spatial_merge_size
        self.blocks, self.merger, self.merge_unit = tower.blocks, tower.merger, merge_size**2
        self.patch_embed = tower.patch_embed.proj.weight.flatten(1)  # a conv whose stride is its kernel
        cos, sin = tower.rotary_pos_emb(torch.empty(0), vision_utils.get_vision_position_ids(grid_thw, merge_size))
        full, _ = vision_utils.get_vision_attention_seqlens(grid_thw, tower.config)
        self.lengths, self.windowed = [_length(full)] * len(self.blocks), hasattr(tower.config, "window_size")
        if self.windowed:
            config = tower.config
            sizes = merge_size, config.window_size, config.patch_size
            order, windows = vision_utils.get_vision_window_index(grid_thw, *sizes)
            patches = (order[:, None] * self.merge_unit + torch.arange(self.merge_unit)).flatten()
            cos, sin = cos[patches], sin[patches]
            full_blocks = config.fullatt_block_indexes
            self.lengths = [_length(full if i in full_blocks else windows) for i in range(len(self.blocks))]
            self.register_buffer("patches", patches)
            self.register_buffer("inverse", torch.argsort(order))
        self.register_buffer("cos", cos[:, None])  # (n, 1, head_dim)
        self.register_buffer("sin", sin[:, None])

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the forward of transformers' class, with its order of operations."""
        x = F.linear(pixel_values.to(self.patch_embed.dtype), self.patch_embed)  # (n, d)
        if self.windowed:
            x = x[self.patches]
        for block, length in zip(self.blocks, self.lengths, strict=True):
            x = x + self._attention(block.attn, _norm(block.norm1, x), length)
            x = x + block.mlp(_norm(block.norm2, x))
        x = _norm(self.merger.ln_q, x).reshape(len(x) // self.merge_unit, -1)
        x = self.merger.mlp(x)  # (n / 4, out)
        return x[self.inverse] if self.windowed else x

    def _attention(self, attention: nn.Module, x: torch.Tensor, length: int) -> torch.Tensor:
        n, heads = len(x), attention.num_heads
        q, k, v = attention.qkv(x).reshape(n, 3, heads, -1).unbind(1)  # (n, heads, head_dim)
        q, k = ((t * self.cos + _rotate_half(t) * self.sin).to(t.dtype) for t in (q, k))  # rope in float32
        context = self.attention(*(t.reshape(n // length, length, heads, -1) for t in (q, k, v)))
        return attention.proj(context.reshape(n, -1))


def _length(cu_seqlens: torch.Tensor) -> int:
    lengths = set(cu_seqlens.diff().tolist())
    if len(lengths) != 1:
        raise ValueError(f"segments of {sorted(lengths)} patches cannot be one batch")
    return lengths.pop()


def _norm(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return LayerNorm unchanged, and RMSNorm as the single operation that converters support."""
    if isinstance(norm, nn.LayerNorm):
        return norm(x)
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)
