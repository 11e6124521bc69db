"""The video processors of transformers, by the names that configs have for them."""

NAMES = {
    "Qwen2VLVideoProcessor": "qwen2_vl.video_processing_qwen2_vl.Qwen2VLVideoProcessor",
    "Qwen3VLVideoProcessor": "qwen3_vl.video_processing_qwen3_vl.Qwen3VLVideoProcessor",
    "CohereCompassVideoProcessor": "cohere_compass.video_processing_cohere_compass.CohereCompassVideoProcessor",
    "Glm4vVideoProcessor": "glm4v.video_processing_glm4v.Glm4vVideoProcessor",
    "Glm46VVideoProcessor": "glm46v.video_processing_glm46v.Glm46VVideoProcessor",
    "Glm5NextVideoProcessor": "glm5_next.video_processing_glm5_next.Glm5NextVideoProcessor",
}
# Sizes of the towers that these are made for.
TOWERS = {
    name: {"patch_size": 16 if name.startswith(("Qwen3", "Cohere")) else 14, "merge_size": 2, "temporal_patch_size": 2}
    for name in NAMES
}
