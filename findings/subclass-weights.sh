#!/usr/bin/env bash
# transformers: `from_pretrained` of one's own subclass of a model class gives a language model of random weights.
#
# Guess: `class Mine(Qwen2VLForConditionalGeneration): pass` loads a checkpoint as its base class does, because nothing
# was overridden; and a checkpoint whose tensors do not fit the model is an error.
# Found: checkpoints of Qwen2-VL have other names of tensors than the modules, and transformers looks up the renaming by
# the name of the class and the module in which it was defined. Any other class counts as custom code and gets no
# renaming: the tower is loaded, the language model is initialised at random, and a table in the log, with the remark
# that some of it can be ignored, is all that says so. A subclass with the name and `__module__` of its base is loaded
# whole.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import tempfile

import torch
import transformers
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

transformers.logging.set_verbosity_error()
rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
text |= {"num_key_value_heads": 2, "rope_parameters": rope}
tower = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
saved = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=tower))


class Mine(Qwen2VLForConditionalGeneration):
    pass


named = type(
    "Qwen2VLForConditionalGeneration",
    (Qwen2VLForConditionalGeneration,),
    {"__module__": Qwen2VLForConditionalGeneration.__module__},
)


def equal_tensors(part, loaded):
    tensors = loaded.state_dict()
    pairs = [(tensor, tensors[name]) for name, tensor in saved.state_dict().items() if part in name]
    return f"{sum(torch.equal(*pair) for pair in pairs)} of {len(pairs)}"


found = []
with tempfile.TemporaryDirectory() as directory:
    saved.save_pretrained(directory)
    for kind in (Qwen2VLForConditionalGeneration, Mine, named):
        loaded = kind.from_pretrained(directory)
        found.append((equal_tensors("visual", loaded), equal_tensors("language_model.layers.0.mlp", loaded)))
        print(f"{kind.__module__}.{kind.__name__}: tensors as saved: tower {found[-1][0]}, MLP of the language model {found[-1][1]}")
print(f"transformers {transformers.__version__}")
assert found[0] == found[2]
assert found[1][0] == found[0][0]
assert (found[0][1], found[1][1]) == ("3 of 3", "0 of 3")
PYTHON
# Seen:
# transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VLForConditionalGeneration: tensors as saved: tower 19 of 19, MLP of the language model 3 of 3
# __main__.Mine: tensors as saved: tower 19 of 19, MLP of the language model 0 of 3
# transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VLForConditionalGeneration: tensors as saved: tower 19 of 19, MLP of the language model 3 of 3
# transformers 5.23.0
