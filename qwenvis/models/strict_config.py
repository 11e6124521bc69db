"""A ``vision_config`` that records which fields are read: an unread field may change the mathematics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenvis.errors import ConfigError, listed, quoted
from qwenvis.io.fields import Section

# Fields without effect on a forward pass, in four groups: those that transformers 5 writes into every config, those of
# training, those of other parts of the model or of older code, and those that transformers 4 wrote into every config.
_INERT = """
architectures auto_map chunk_size_feed_forward dtype id2label is_encoder_decoder label2id model_type name_or_path
output_attentions output_hidden_states problem_type return_dict torch_dtype transformers_version use_cache

attention_dropout dropout drop_path_rate gradient_checkpointing hidden_dropout_prob init_std initializer_factor
initializer_range

attn_implementation image_token_id in_chans processor_class quantization quantization_config spatial_patch_size
tokenizer_class tokens_per_second video_token_id vision_end_token_id vision_start_token_id

add_cross_attention bad_words_ids begin_suppress_tokens bos_token_id cross_attention_hidden_size decoder_start_token_id
diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
finetuning_task forced_bos_token_id forced_eos_token_id is_decoder length_penalty max_length min_length
no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores pad_token_id prefix pruned_heads
remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens task_specific_params
temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings top_k top_p torchscript typical_p use_bfloat16
"""
INERT = frozenset(_INERT.split())


class StrictConfig(Section):
    """The fields of a ``vision_config``, and the names of those that were read."""

    def __init__(self, vision_config: Mapping[str, Any]) -> None:
        super().__init__(vision_config, "vision_config")
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field, and record that it was read."""
        self._read.add(name)
        return super().__getitem__(name)

    def refuse_unread(self) -> None:
        """Raise ConfigError, by name, for fields that were not read; empty fields and private fields have no effect."""
        known = self._read | INERT
        unknown = [name for name in self._values if name not in known and not name.startswith("_")]
        said = [f"{name} = {quoted(value)}" for name in unknown if (value := self._values[name]) not in ("", [], {})]
        if said:
            raise ConfigError(
                f"{self.place} says {listed(said)}; this tower does not know the effect, so the checkpoint is refused"
            )
