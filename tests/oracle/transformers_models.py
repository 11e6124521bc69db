"""Tiny random full models of transformers, vision and language, with their processors and checkpoints on disk."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from oracle.families import FAMILIES
from oracle.full_families import AUDIO, FULL_FAMILIES, PLACEHOLDERS, FullCase
from oracle.transformers_processors import transformers_class
from oracle.transformers_towers import new_directory, randomize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tokenizers
    import transformers
    from transformers.video_processing_utils import BaseVideoProcessor

transformers.logging.disable_progress_bar()


class FullModel(NamedTuple):
    """A full float32 model in evaluation mode, its processor, and the directory in which both are saved.

    `qwenvis.Encoder.from_pretrained` loads the tower from the directory. ``image`` and ``video`` are what a chat
    template writes for an item.
    """

    model: Any
    processor: Any
    directory: Path
    image: str
    video: str


@functools.cache
def full_model(family: str, seed: int = 0) -> FullModel:
    """Build and save the tiny full model of a family, once in a process. Tests must not change it."""
    case = FULL_FAMILIES[family]
    kind = transformers_class(f"{family}.modeling_{family}.{case.model}")
    tokenizer = _tokenizer(case)
    config = kind.config_class(**_sizes(family, kind.config_class(), tokenizer))
    processor = _processor(case, tokenizer, config.vision_config)
    model = kind(config).eval()
    randomize(model, seed)
    model.generation_config = transformers.GenerationConfig(pad_token_id=tokenizer.pad_token_id)  # never ends early
    directory = new_directory()
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return FullModel(model, processor, directory, *_placeholders(case))


def _placeholders(case: FullCase) -> tuple[str, str]:
    """Return what stands for an image and for a video in a prompt, empty in a family without videos."""
    image, video = ("".join(PLACEHOLDERS[case.prompts].get(name, "")) for name in ("image", "video"))
    return image, video


def _sizes(family: str, default: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the arguments of the config: both parts in tiny sizes, and the ids of the special tokens."""
    case = FULL_FAMILIES[family]
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {
        "text_config": {**case.text, "vocab_size": len(tokenizer), **special},
        "vision_config": {**default.vision_config.to_dict(), **FAMILIES[family].tiny},
        "tie_word_embeddings": False,
    }
    if hasattr(default, "audio_config"):
        sizes["audio_config"] = AUDIO
    for name, words in PLACEHOLDERS[case.prompts].items():
        start, placeholder, end = tokenizer.convert_tokens_to_ids(words)
        sizes |= {f"{name}_token_id": placeholder, f"{name}_start_token_id": start, f"{name}_end_token_id": end}
    return sizes | {f"vision_{side}_token_id": sizes[f"image_{side}_token_id"] for side in ("start", "end")}


def _tokenizer(case: FullCase) -> Any:
    """Return a tokenizer of single bytes and of the special tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    named = {}
    for name, (start, placeholder, end) in PLACEHOLDERS[case.prompts].items():
        mark = "vision" if name == "image" else name  # as the tokenizers of the Omni models call them
        named |= {f"{name}_token": placeholder, f"{mark}_bos_token": start, f"{mark}_eos_token": end}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=32768,
        extra_special_tokens=named,
        chat_template=_chat_template(case),
    )


def _chat_template(case: FullCase) -> str:
    """Return a template in which each message is a line, with the placeholders of the family."""
    image, video = _placeholders(case)
    part = (
        f"{{% if part.type == 'image' %}}{image}{{% elif part.type == 'video' %}}{video}{{% else %}}{{{{ part.text }}}}"
    )
    parts = f"{{% for part in message.content %}}{part}{{% endif %}}{{% endfor %}}"
    return f"{{% for message in messages %}}{{{{ message.role }}}}: {parts}\n{{% endfor %}}assistant: "


def _processor(case: FullCase, tokenizer: Any, tower: Any) -> Any:
    """Return the family's processor. Its video processor only states sizes: a real one needs torchvision."""
    sizes = {"patch_size": tower.patch_size, "merge_size": tower.spatial_merge_size}
    sizes["temporal_patch_size"] = getattr(tower, "temporal_patch_size", 1)
    if not case.video_processor:
        sizes["size"] = {"shortest_edge": 56 * 56, "longest_edge": 1024 * 1024}  # PaddleOCR-VL enlarges to 384 x 384
    parts = {"image_processor": transformers_class(case.image_processor)(**sizes), "tokenizer": tokenizer}
    kind = transformers_class(case.processor)
    if "video_processor" in kind.get_attributes():
        parts["video_processor"] = type(case.video_processor, (BaseVideoProcessor,), {})(**sizes)
    if "feature_extractor" in kind.get_attributes():
        parts["feature_extractor"] = transformers.WhisperFeatureExtractor()
    with mock.patch.object(kind, "check_argument_for_proper_class"):  # it looks for torchvision
        return kind(**parts)
