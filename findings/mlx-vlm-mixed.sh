#!/usr/bin/env bash
# mlx-vlm, Qwen2.5-VL: a prompt with an image and a video is answered without the video.
#
# Guess: an image and a video in one prompt are both encoded, as in transformers: the model takes the pixels and the
# grids of both, and its positions count the tokens of both. A model that could take only one would raise an error.
# Found: the pixels of the video are looked at only where there are none of an image. With both, the image is encoded,
# and the language model reads the embedding of the placeholder itself at each token of the video. Another video gives
# the same embeddings, without a warning; alone in its prompt, it gives others.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx-vlm[cpu]==0.7.10" mlx==0.32.4 transformers==5.24.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import mlx.core as mx
from mlx_vlm.models.qwen2_5_vl import Model, ModelConfig, TextConfig, VisionConfig

IMAGE, VIDEO = 3, 4
text = TextConfig(
    model_type="qwen2_5_vl",
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    rms_norm_eps=1e-6,
    vocab_size=64,
    rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
)
tower = VisionConfig(
    depth=1, hidden_size=32, intermediate_size=32, out_hidden_size=32, num_heads=2, fullatt_block_indexes=[0]
)
ids = {"vision_start_token_id": 1, "vision_end_token_id": 2, "image_token_id": IMAGE, "video_token_id": VIDEO}
model = Model(ModelConfig(text, tower, "qwen2_5_vl", **ids))
image_part, video_part = [1, *[IMAGE] * 4, 2], [1, *[VIDEO] * 8, 2]
grids = {"image": mx.array([[1, 4, 4]]), "video": mx.array([[2, 4, 4]])}
image, *videos = (mx.random.normal((rows, 3 * 2 * 14 * 14)) for rows in (16, 32, 32))


def embeddings(tokens, video, **image_given):
    given = {"pixel_values_videos": video, "video_grid_thw": grids["video"], **image_given}
    return model.get_input_embeddings(mx.array([tokens]), **given).inputs_embeds[0]


def rows_that_differ(tokens, **image_given):
    first, second = (embeddings(tokens, video, **image_given) for video in videos)
    return int(mx.any(first != second, axis=-1).sum())


both = {"pixel_values": image, "image_grid_thw": grids["image"]}
alone = rows_that_differ(video_part)
mixed = rows_that_differ(image_part + video_part, **both)
rows = embeddings(image_part + video_part, videos[0], **both)
placeholder = model.language_model.model.embed_tokens(mx.array([VIDEO]))
unseen = int(mx.all(rows == placeholder, axis=-1).sum())
print(f"mlx-vlm {version('mlx-vlm')}, mlx {version('mlx')}")
print(f"another video, alone in the prompt: {alone} of 8 rows differ")
print(f"another video, after an image: {mixed} of 8 rows differ; {unseen} rows are the embedding of the placeholder")
assert (alone, mixed, unseen) == (8, 0, 8)
PYTHON
# Seen:
# mlx-vlm 0.7.10, mlx 0.32.4
# another video, alone in the prompt: 8 of 8 rows differ
# another video, after an image: 0 of 8 rows differ; 8 rows are the embedding of the placeholder
