#!/usr/bin/env bash
# transformers, Qwen2.5-Omni and Qwen3-Omni: the processors ignore the limits of their own video processor.
#
# Guess: `size` of a video processor, saved with the checkpoint, bounds the videos of the processor that holds it: a call
# of the whole gives the same grid as a call of the part, as for Qwen2.5-VL, unless the call itself names another size.
# Found: the classes of the Omni processors hold a `size` for videos of their own, which goes before the one of the
# checkpoint in every call. A saved limit of 50,176 pixels a video is loaded and shown by `processor.video_processor`,
# and the processor enlarges a video that fits it to nine times as many tokens and more, without a warning. Only a
# `size` in each call helps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
import tempfile

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
LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 4 * 112 * 112}
video = np.random.default_rng(0).integers(0, 256, (8, 3, 112, 112), np.uint8)
given = {"do_sample_frames": False, "return_tensors": "pt"}


def loaded(kind, directory):
    parts = {"tokenizer": tokenizer, "image_processor": transformers.Qwen2VLImageProcessor()}
    parts["video_processor"] = transformers.Qwen2VLVideoProcessor(size=LIMITS)
    if kind is not Qwen2_5_VLProcessor:
        parts["feature_extractor"] = transformers.WhisperFeatureExtractor()
    kind(**parts).save_pretrained(directory)
    return kind.from_pretrained(directory)


print(f"transformers {transformers.__version__}")
found = {}
for kind in (Qwen2_5_VLProcessor, Qwen2_5OmniProcessor, Qwen3OmniMoeProcessor):
    with tempfile.TemporaryDirectory() as directory:
        processor = loaded(kind, directory)
    size = processor.video_processor.size
    assert {name: size[name] for name in LIMITS} == LIMITS
    outputs = {
        "its video processor": processor.video_processor(video, **given),
        "the processor": processor(text=[PROMPT], videos=[video], **given),
        "the processor, with size": processor(text=[PROMPT], videos=[video], size=LIMITS, **given),
    }
    found[kind] = [output["video_grid_thw"][0].tolist() for output in outputs.values()]
    print(f"{kind.__name__}, grids:", dict(zip(outputs, found[kind], strict=True)))
fits = [4, 8, 8]
assert found[Qwen2_5_VLProcessor] == [fits, fits, fits]
assert found[Qwen2_5OmniProcessor] == [fits, [4, 24, 24], fits]
assert found[Qwen3OmniMoeProcessor] == [fits, [4, 26, 26], fits]
PYTHON
# Seen:
# transformers 5.23.0
# Qwen2_5_VLProcessor, grids: {'its video processor': [4, 8, 8], 'the processor': [4, 8, 8], 'the processor, with size': [4, 8, 8]}
# Qwen2_5OmniProcessor, grids: {'its video processor': [4, 8, 8], 'the processor': [4, 24, 24], 'the processor, with size': [4, 8, 8]}
# Qwen3OmniMoeProcessor, grids: {'its video processor': [4, 8, 8], 'the processor': [4, 26, 26], 'the processor, with size': [4, 8, 8]}
