#!/usr/bin/env bash
# transformers, Qwen2.5-Omni and Qwen3-Omni: the time of a video does not come from its metadata.
#
# Guess: the seconds of a temporal step follow from the frame rate in `video_metadata`, as for Qwen2.5-VL, where 8 frames
# at 8 a second give steps of 0.25 seconds; a processor that cannot tell the frame rate would say so.
# Found: the Omni processors do not look at the metadata. Steps last 1 second for Qwen2.5-Omni and 2 for Qwen3-Omni,
# whatever the file says, unless the call names an `fps`, and that one then holds for all videos of the call. The
# positions of the language model, and the places of the sound between the frames, are computed from that number.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import numpy as np
import tokenizers
import torch

operations = torch.library.Library("torchvision", "FRAGMENT")
try:
    import torchvision
except RuntimeError:  # the wheel was built for CUDA, and torch was not: no resize calls what is missing
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name in ("nms", "qnms"):
        operations.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import transformers
from transformers import Qwen2_5_VLProcessor, Qwen2_5OmniProcessor, Qwen3OmniMoeProcessor

transformers.logging.set_verbosity_error()
marks = {f"{kind}_{side}_token": f"<{kind}-{side}>" for kind in ("vision", "audio") for side in ("bos", "eos")}
marks |= {f"{kind}_token": f"<{kind}>" for kind in ("image", "video", "audio")}
words = tokenizers.models.WordLevel({word: index for index, word in enumerate(["<pad>", *marks.values()])}, "<pad>")
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(words), pad_token="<pad>", extra_special_tokens=marks
)
PROMPT = "<vision-bos><video><vision-eos>"
RATES = (1.0, 8.0)
video = np.random.default_rng(0).integers(0, 256, (8, 3, 112, 112), np.uint8)
parts = {"tokenizer": tokenizer, "image_processor": transformers.Qwen2VLImageProcessor()}
parts["video_processor"] = transformers.Qwen2VLVideoProcessor()
sound = {"feature_extractor": transformers.WhisperFeatureExtractor()}
PROCESSORS = {
    "second_per_grid_ts": [Qwen2_5_VLProcessor(**parts)],
    "video_second_per_grid": [Qwen2_5OmniProcessor(**parts, **sound), Qwen3OmniMoeProcessor(**parts, **sound)],
}


def metadata(rate):
    return {"total_num_frames": 8, "fps": rate, "duration": 8 / rate, "frames_indices": list(range(8))}


print(f"transformers {transformers.__version__}, videos of {RATES} frames a second")
found = {}
for name, processors in PROCESSORS.items():
    for processor in processors:
        given = {"video_metadata": [metadata(rate) for rate in RATES], "do_sample_frames": False}
        output = processor(text=[PROMPT] * 2, videos=[video, video], return_tensors="pt", **given)
        kind = type(processor).__name__
        found[kind] = output[name].tolist()
        print(f"{kind}: seconds of a step {found[kind]}")
assert found == {
    "Qwen2_5_VLProcessor": [2.0, 0.25],
    "Qwen2_5OmniProcessor": [1.0, 1.0],
    "Qwen3OmniMoeProcessor": [2.0, 2.0],
}
PYTHON
# Seen:
# transformers 5.23.0, videos of (1.0, 8.0) frames a second
# Qwen2_5_VLProcessor: seconds of a step [2.0, 0.25]
# Qwen2_5OmniProcessor: seconds of a step [1.0, 1.0]
# Qwen3OmniMoeProcessor: seconds of a step [2.0, 2.0]
