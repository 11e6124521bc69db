#!/usr/bin/env bash
# transformers, GLM-4V: several sequences for one prompt with two images are made of the wrong images.
#
# Guess: with `top_k=1`, sampling is greedy, so each of `num_return_sequences=2` equals the greedy answer, whatever the
# prompt holds. It does so for Qwen2-VL.
# Found: `generate` repeats the encoded images of a prompt for each sequence, and the GLM models repeat each image on its
# own. From the images A, B of one prompt come A, A, B, B where A, B, A, B is meant: the first sequence sees A twice and
# the second sees B twice, without a warning. Beam search repeats them in the same way. With one image a prompt, or two
# equal ones, nothing is wrong, so the usual tests do not see it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration

SEEDS = 5
rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
text |= {"num_key_value_heads": 2, "rope_parameters": rope, "pad_token_id": 0, "eos_token_id": None}
glm = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 32}
glm |= {"image_size": 56, "patch_size": 14}
ids = {"image_token_id": 3, "video_token_id": 4}
glm_ids = {"image_start_token_id": 1, "image_end_token_id": 2, "video_start_token_id": 5, "video_end_token_id": 6}
qwen = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
qwen_ids = {"vision_start_token_id": 1, "vision_end_token_id": 2}
CASES = {
    Glm4vForConditionalGeneration: Glm4vConfig(text_config=text, vision_config=glm, **ids, **glm_ids),
    Qwen2VLForConditionalGeneration: Qwen2VLConfig(text_config=text, vision_config=qwen, **ids, **qwen_ids),
}
input_ids = torch.tensor([[10, 1, 3, 3, 3, 3, 2, 11, 1, 3, 3, 3, 3, 2, 12, 13]])


def agree(model, pixels):
    given = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixels}
    given |= {"mm_token_type_ids": (input_ids == 3).int(), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2)}
    options = {"max_new_tokens": 8, "pad_token_id": 0}
    greedy = model.generate(**given, do_sample=False, **options)
    sampled = model.generate(**given, do_sample=True, top_k=1, num_return_sequences=2, **options)
    return torch.equal(sampled, greedy.expand(2, -1))


print(f"transformers {transformers.__version__}")
found = {}
for kind, config in CASES.items():
    model = kind(config).eval()
    counts = {"equal": 0, "different": 0}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            scale = 1.5 * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 1.5
            parameter.data = scale * torch.randn(parameter.shape)
        first, second = torch.randn(2, 16, 3 * 2 * 14 * 14)
        counts["equal"] += agree(model, torch.cat([first, first]))
        counts["different"] += agree(model, torch.cat([first, second]))
    found[kind.__name__[:4]] = counts
    print(f"{kind.__name__}: two sequences equal the greedy one, of {SEEDS} models: {counts}")
assert found["Qwen"] == {"equal": SEEDS, "different": SEEDS}
assert found["Glm4"]["equal"] == SEEDS
assert found["Glm4"]["different"] < SEEDS
PYTHON
# Seen:
# transformers 5.23.0
# Glm4vForConditionalGeneration: two sequences equal the greedy one, of 5 models: {'equal': 5, 'different': 0}
# Qwen2VLForConditionalGeneration: two sequences equal the greedy one, of 5 models: {'equal': 5, 'different': 5}
