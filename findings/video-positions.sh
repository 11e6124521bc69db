#!/usr/bin/env bash
# transformers, Qwen2-VL: the text after a video has positions that the video has used already.
#
# Guess: text goes on behind everything that was seen, at the largest position so far plus one, as the paper on Qwen2-VL
# describes it.
# Found: text after an image or a video goes on at its first position plus the larger of its rows and columns of tokens;
# the number of temporal steps does not count. A video of 9 steps of 2 x 2 tokens has temporal positions 1 to 9, and the
# words after it 3 and 4, which are also those of its third and fourth step. Whoever computes positions outside of
# transformers has to copy this, or gets other logits for all videos that are longer than they are wide.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import Qwen2VLConfig, Qwen2VLModel

rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
text |= {"num_key_value_heads": 2, "rope_parameters": rope}
tower = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
ids = {"vision_start_token_id": 1, "video_token_id": 2, "image_token_id": 3}
model = Qwen2VLModel(Qwen2VLConfig(text_config=text, vision_config=tower, **ids))
steps, rows, columns = 9, 2, 2  # of tokens
count = steps * rows * columns
input_ids = torch.tensor([[1] + [2] * count + [5, 6]])
kinds = torch.tensor([[0] + [2] * count + [0, 0]])
grid = torch.tensor([[steps, 2 * rows, 2 * columns]])
positions, _ = model.get_rope_index(input_ids, mm_token_type_ids=kinds, video_grid_thw=grid)
time = positions[0, 0].tolist()
print(f"transformers {transformers.__version__}")
print(f"temporal positions of the video: {time[1]} to {time[count]}")
print(f"positions of the two words after it: {positions[:, 0, count + 1:].tolist()}")
assert (time[1], time[count]) == (1, 9)
assert positions[:, 0, count + 1 :].tolist() == [[3, 4]] * 3
PYTHON
# Seen:
# transformers 5.23.0
# temporal positions of the video: 1 to 9
# positions of the two words after it: [[3, 4], [3, 4], [3, 4]]
