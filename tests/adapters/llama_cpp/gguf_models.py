"""The language models of the tiny full models as GGUF files in float32, as llama.cpp's converter names their parts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gguf

from oracle.transformers_models import full_model

ARCHITECTURES = {
    "qwen2_vl": gguf.MODEL_ARCH.QWEN2VL,
    "qwen2_5_vl": gguf.MODEL_ARCH.QWEN2VL,
    "qwen3_vl": gguf.MODEL_ARCH.QWEN3VL,
}


@functools.cache
def language_model(family: str) -> Path:
    """Write the language model of a family, once in a process, beside the full model; return the path of the file."""
    full = full_model(family)
    path = full.directory / "language-model.gguf"
    architecture = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    _write_sizes(writer, full.model.config)
    _write_tokens(writer, full.processor.tokenizer)
    names = gguf.get_tensor_name_map(architecture, full.model.config.text_config.num_hidden_layers)
    for name, tensor in full.model.state_dict().items():
        if not name.startswith("model.visual."):
            stem, suffix = name.replace("model.language_model.", "model.").rsplit(".", 1)
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    text = config.text_config
    writer.add_block_count(text.num_hidden_layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(text.hidden_size)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
    writer.add_rope_dimension_sections([*text.rope_parameters["mrope_section"], 0])
    levels = getattr(config.vision_config, "deepstack_visual_indexes", None)
    if levels:
        writer.add_num_deepstack_layers(len(levels))


def _write_tokens(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """Write the vocabulary: single bytes, special tokens, and one merge that never applies, as there must be one."""
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(["<|pad|> <|pad|>"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
