#!/usr/bin/env bash
# llama.cpp (xllamacpp 2026.10.11549): the norms of Qwen2-VL and Qwen2.5-VL ignore the epsilon of the file.
#
# Guess: `qwen2vl.attention.layer_norm_rms_epsilon` is the epsilon of the RMS norms, as it is for qwen2 and qwen3vl.
# Found: src/models/qwen2vl.cpp does not read the key, and the norms add 0. Two files whose epsilons are 1e-6 and 0.1 give
# equal logits; with qwen2, they do not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import ctypes
import importlib.util
from pathlib import Path

import gguf
import numpy as np

WIDTH, WORDS = 32, 8


def write(path, architecture, epsilon):
    """One block of random weights."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(WORDS)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in square}
    shapes |= {f"blk.0.attn_{name}.bias": (WIDTH,) for name in "qkv"}
    shapes |= {name: (WIDTH,) for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight")}
    shapes |= {name: (WORDS, WIDTH) for name in ("token_embd.weight", "output.weight")}
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Words(ctypes.Structure):  # a struct of parameters, passed on as it comes
    _fields_ = [("words", ctypes.c_uint32 * 64)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("rest", ctypes.c_void_p * 5)]


(library,) = Path(importlib.util.find_spec("xllamacpp").origin).parent.glob("xllamacpp*.so")
llama = ctypes.CDLL(str(library))
for name in ("llama_model_default_params", "llama_context_default_params"):
    getattr(llama, name).restype = Words
for name in ("llama_model_load_from_file", "llama_init_from_model"):
    getattr(llama, name).restype = ctypes.c_void_p
llama.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
llama.llama_log_set(silent, None)


def logits(architecture, epsilon):
    write("model.gguf", architecture, epsilon)
    model = ctypes.c_void_p(llama.llama_model_load_from_file(b"model.gguf", llama.llama_model_default_params()))
    context = ctypes.c_void_p(llama.llama_init_from_model(model, llama.llama_context_default_params()))
    assert llama.llama_decode(context, Batch(1, (ctypes.c_int32 * 1)(5))) == 0
    return np.ctypeslib.as_array(llama.llama_get_logits(context), (WORDS,)).copy()


found = {}
for architecture in ("qwen2", "qwen2vl"):
    small, large = (logits(architecture, epsilon) for epsilon in (1e-6, 0.1))
    found[architecture] = not np.array_equal(small, large)
    print(architecture, "reads the epsilon:", found[architecture], np.abs(small - large).max())
assert found == {"qwen2": True, "qwen2vl": False}
PYTHON
# Seen:
# qwen2 reads the epsilon: True 0.05252321
# qwen2vl reads the epsilon: False 0.0
