#!/usr/bin/env bash
# transformers: a preprocessor config whose `resample` is the word "bicubic" resizes by the bilinear filter.
#
# Guess: the word is either refused, or read as what it says; the torchvision classes and the video processors read it
# as bicubic, and `resample: 3` of published configs is Pillow's number for the same filter.
# Found: the Pillow classes keep the word without a complaint (`processor.resample == "bicubic"`), and their resize falls
# back to bilinear for every value that is no number: other pixels, no warning. One config therefore gives one filter
# where torchvision is installed and another one where it is not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 pillow==13.0.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import numpy as np
import transformers
from PIL import Image, __version__
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))


def patches(resample):
    return np.asarray(Qwen2VLImageProcessorPil(resample=resample)(image, return_tensors="np")["pixel_values"])


word, bicubic, bilinear = patches("bicubic"), patches(3), patches(2)
print(f"transformers {transformers.__version__}, Pillow {__version__}")
print(f'resample="bicubic" equals resample=3 (bicubic): {np.array_equal(word, bicubic)}')
print(f'resample="bicubic" equals resample=2 (bilinear): {np.array_equal(word, bilinear)}')
print(f"largest difference between the two filters here: {np.abs(bicubic - bilinear).max():.2f}")
assert np.array_equal(word, bilinear)
assert not np.array_equal(word, bicubic)
PYTHON
# Seen:
# transformers 5.23.0, Pillow 13.0.0
# resample="bicubic" equals resample=3 (bicubic): False
# resample="bicubic" equals resample=2 (bilinear): True
