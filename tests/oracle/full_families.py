"""The full models under test: their classes in transformers, the language model of each in a tiny size, their prompts.

`families.py` has their towers. A model class without a ``generate`` of its own is that of the part which has one.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class FullCase(NamedTuple):
    """A full model by the name of its class, its tiny language model, and the classes of its processors.

    Those of ``processor`` and ``image_processor`` are module.Class in transformers.models; ``video_processor`` is empty
    in a family without videos. ``prompts`` is the key in `PLACEHOLDERS`.
    """

    model: str
    text: dict[str, Any]
    processor: str
    image_processor: str = "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil"
    video_processor: str = "Qwen3VLVideoProcessor"
    prompts: str = "qwen"


# What a chat template writes for an item: a mark, the placeholder that the processor expands, and a mark.
PLACEHOLDERS = {
    "qwen": {
        "image": ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
        "video": ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>"),
        "audio": ("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
    },
    "cohere": {
        "image": ("<|VISION_START|>", "<|IMAGE_PAD|>", "<|VISION_END|>"),
        "video": ("<|VISION_START|>", "<|VIDEO_PAD|>", "<|VISION_END|>"),
    },
    "glm": {
        "image": ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
        "video": ("<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
    },
    "paddle": {"image": ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>")},
}

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 4, 4]}
TEXT = {
    "hidden_size": 96,  # the out_hidden_size of the tiny towers
    "intermediate_size": 100,
    "num_hidden_layers": 4,  # deepstack reaches the first two
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rope_parameters": ROPE,
    "tie_word_embeddings": False,  # tied ones repeat the last token for ever
}
EXPERTS = {**TEXT, "moe_intermediate_size": 40, "num_experts": 4, "num_experts_per_tok": 2}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
SHARED = {**EXPERTS, **LINEAR, "shared_expert_intermediate_size": 40}
INDEXED = {
    **SHARED,
    "hc_count": 2,
    "hc_lowrank": 16,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 24,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}
GLM_TEXT = {**TEXT, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 2, 2]}}
GLM_EXPERTS = {"moe_intermediate_size": 40, "n_routed_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    **TEXT,
    **GLM_EXPERTS,
    "num_key_value_heads": 4,
    "layer_types": ["linear_attention", "indexed_attention"] * 2,
    "mlp_layer_types": ["dense", "sparse"] * 2,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "v_head_dim": 24,
    "qk_nope_head_dim": 24,
    "index_topk": 64,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_kpool": 4,
    "linear_head_dim": 16,
    "linear_num_heads": 4,
    "hc_mult": 2,
}
AUDIO = {
    "d_model": 16,
    "output_dim": 96,
    "encoder_layers": 1,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "downsample_hidden_size": 8,
}

QWEN3 = "qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor"
QWEN2_VIDEO = "Qwen2VLVideoProcessor"
GLM4 = {
    "processor": "glm4v.processing_glm4v.Glm4vProcessor",
    "image_processor": "glm4v.image_processing_pil_glm4v.Glm4vImageProcessorPil",
    "video_processor": "Glm4vVideoProcessor",
    "prompts": "glm",
}
GLM46 = {
    "processor": "glm46v.processing_glm46v.Glm46VProcessor",
    "image_processor": "glm46v.image_processing_pil_glm46v.Glm46VImageProcessorPil",
    "video_processor": "Glm46VVideoProcessor",
    "prompts": "glm",
}

FULL_FAMILIES = {
    "qwen2_vl": FullCase(
        "Qwen2VLForConditionalGeneration",
        TEXT,
        "qwen2_vl.processing_qwen2_vl.Qwen2VLProcessor",
        video_processor=QWEN2_VIDEO,
    ),
    "qwen2_5_vl": FullCase(
        "Qwen2_5_VLForConditionalGeneration",
        TEXT,
        "qwen2_5_vl.processing_qwen2_5_vl.Qwen2_5_VLProcessor",
        video_processor=QWEN2_VIDEO,
    ),
    "qwen2_5_omni": FullCase(
        "Qwen2_5OmniThinkerForConditionalGeneration",
        TEXT,
        "qwen2_5_omni.processing_qwen2_5_omni.Qwen2_5OmniProcessor",
        video_processor=QWEN2_VIDEO,
    ),
    "exaone4_5": FullCase(
        "Exaone4_5_ForConditionalGeneration",
        {**TEXT, "model_type": "exaone4"},
        "exaone4_5.processing_exaone4_5.Exaone4_5_Processor",
        video_processor=QWEN2_VIDEO,
    ),
    "qwen3_vl": FullCase("Qwen3VLForConditionalGeneration", TEXT, QWEN3),
    "qwen3_vl_moe": FullCase("Qwen3VLMoeForConditionalGeneration", EXPERTS, QWEN3),
    "qwen3_omni_moe": FullCase(
        "Qwen3OmniMoeThinkerForConditionalGeneration",
        EXPERTS,
        "qwen3_omni_moe.processing_qwen3_omni_moe.Qwen3OmniMoeProcessor",
        video_processor=QWEN2_VIDEO,
    ),
    "qwen3_5": FullCase("Qwen3_5ForConditionalGeneration", {**TEXT, **LINEAR}, QWEN3),
    "qwen3_5_moe": FullCase("Qwen3_5MoeForConditionalGeneration", SHARED, QWEN3),
    "qwen4_exp": FullCase("Qwen4ExpForConditionalGeneration", INDEXED, QWEN3),
    "cohere_compass": FullCase(
        "CohereCompassForConditionalGeneration",
        {**TEXT, "rope_parameters": {"full_attention": ROPE}},
        "cohere_compass.processing_cohere_compass.CohereCompassProcessor",
        "cohere_compass.image_processing_pil_cohere_compass.CohereCompassImageProcessorPil",
        "CohereCompassVideoProcessor",
        "cohere",
    ),
    "glm4v": FullCase("Glm4vForConditionalGeneration", GLM_TEXT, **GLM4),
    "glm46v": FullCase("Glm46VForConditionalGeneration", {**GLM_TEXT, "model_type": "glm4v_text"}, **GLM46),
    "glm4v_moe": FullCase("Glm4vMoeForConditionalGeneration", {**GLM_TEXT, **GLM_EXPERTS}, **GLM4),
    "glm_ocr": FullCase("GlmOcrForConditionalGeneration", GLM_TEXT, **GLM46),
    "glm5_next": FullCase(
        "Glm5NextForConditionalGeneration",
        LATENT,
        "glm5_next.processing_glm5_next.Glm5NextProcessor",
        "glm5_next.image_processing_pil_glm5_next.Glm5NextImageProcessorPil",
        "Glm5NextVideoProcessor",
        "glm",
    ),
    "paddleocr_vl": FullCase(
        "PaddleOCRVLForConditionalGeneration",
        TEXT,
        "paddleocr_vl.processing_paddleocr_vl.PaddleOCRVLProcessor",
        "paddleocr_vl.image_processing_pil_paddleocr_vl.PaddleOCRVLImageProcessorPil",
        "",
        "paddle",
    ),
}
