"""Unsupported models whose towers resemble supported towers: the model_type of each, and the difference."""

from __future__ import annotations

ANOTHER = "its vision tower is different"
ERNIE = "its patches have no temporal axis, and a spatio-temporal resampler takes the place of the merger"
SIGLIP = "its tower is a SigLIP with its own projector"

# model_type -> the difference. Models of another lineage (LLaVA, InternVL ...) are merely unknown.
UNSUPPORTED = {
    "cosmos3_edge": ANOTHER,
    "dots3_note": "blocks of its tower are mixtures of experts",
    "dots_ocr": ANOTHER,
    "ernie4_5_moe_vl": ERNIE,
    "ernie4_5_vl_moe": ERNIE,
    "glm_image": ANOTHER,
    "hunyuan_vl": ANOTHER,
    "hyperclovax_vision_v2": ANOTHER,
    "inkling2": ANOTHER,
    "kimi_k25": "in its tower patches attend across frames",
    "kimi_vl": "its tower is MoonViT",
    "lfm3_vl": "its tower has convolutions between the layers of attention",
    "minicpmv4_6": ANOTHER,
    "minicpmv4_7": ANOTHER,
    "minimax_m3_vl": "the rope of its tower has a third axis, and patches attend across frames",
    "muse": ANOTHER,
    "qwen": "the first Qwen-VL has a CLIP tower and a resampler",
    "qwen2_audio": "it is an audio model without a vision tower",
    "qwen3_asr": "it is an audio model without a vision tower",
    "step3p7": ANOTHER,
    "video_llama_3": SIGLIP,
    "videollama3": SIGLIP,
}


def difference(model_type: str) -> str:
    """Return the difference of an unsupported model, by its model_type or that of its tower; "" for other models."""
    found = [name for name in UNSUPPORTED if model_type == name or model_type.startswith(f"{name}_")]
    return UNSUPPORTED[max(found, key=len)] if found else ""
