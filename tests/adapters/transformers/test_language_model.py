"""`adapters.transformers.load_language_model`: the language model of the checkpoint, and nothing of its tower."""

import copy
import logging
import pickle
import threading

import pytest
import torch
import transformers
from transformers.initialization import no_init_weights

from adapters.transformers.pixel_path import SCENARIOS, encoded, encoder, logits, pixel_inputs, text, tolerance
from oracle.full_families import FULL_FAMILIES
from oracle.transformers_models import full_model
from oracle.transformers_processors import transformers_class
from processes.programs import output
from qwenvis import InputError
from qwenvis.adapters.transformers import attach, inputs, load_language_model

SEVERAL = SCENARIOS["images of different sizes"]
TOWER = ("visual.", "projector.")


def tokens(family, model):
    full = full_model(family)
    return inputs(text(full, SEVERAL), encoded(family, SEVERAL), full.processor, model)


@pytest.fixture
def loaded():
    return load_language_model(full_model("qwen2_vl").directory)


@pytest.mark.parametrize("family", FULL_FAMILIES)
def test_every_family(family, caplog, monkeypatch):
    """All weights except those of the tower, without a warning; tokens give the same logits, pixels need an encoder."""
    full = full_model(family)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        model = load_language_model(full.directory)
    assert not [record.getMessage() for record in caplog.records if "visual" in record.getMessage()]
    stay = {name: tensor for name, tensor in full.model.state_dict().items() if not any(part in name for part in TOWER)}
    assert model.state_dict().keys() == stay.keys()
    assert all(torch.equal(tensor, stay[name]) for name, tensor in model.state_dict().items())
    assert isinstance(model, type(full.model))
    given = tokens(family, model)
    assert (logits(model, given) - logits(full.model, given)).abs().max() <= tolerance(full.model, given)
    pixels = pixel_inputs(family, SEVERAL, None)
    with pytest.raises(InputError, match=r"loaded without the weights of its tower: attach\(model, encoder\)"):
        logits(model, pixels)
    difference = logits(attach(model, encoder(family)), pixels) - logits(full.model, pixels)
    assert difference.abs().max() <= tolerance(full.model, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_5"])
def test_dtypes(family, stored, dtype, tmp_path, monkeypatch):
    """In shards, in pieces that end within a row: the bits of transformers."""
    monkeypatch.setattr("qwenvis.adapters.transformers.conversion.PIECE", 1000)
    copy.deepcopy(full_model(family).model).to(stored).save_pretrained(tmp_path, max_shard_size="200kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = load_language_model(tmp_path, dtype=dtype)
    want = type(full_model(family).model).from_pretrained(tmp_path, dtype=dtype).state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == want[name].dtype, name
        assert torch.equal(tensor, want[name]), name
    assert model.model.visual.dtype == dtype
    assert model.to(torch.float64).model.visual.dtype == torch.float64


def test_copies(loaded):
    given = tokens("qwen2_vl", loaded)
    for other in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(logits(other, given), logits(loaded, given))


def test_saving_is_refused(loaded, tmp_path):
    with pytest.raises(InputError, match="the model was loaded without its tower, which a saved model would lack"):
        loaded.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="the model was loaded without its tower"):
        attach(loaded, encoder("qwen2_vl")).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_encoders(loaded):
    with pytest.raises(InputError, match="loaded without the weights of its tower"):
        attach(loaded)
    with pytest.raises(InputError, match="the encoder is not that of the model's tower"):
        attach(loaded, encoder("qwen2_5_vl"))


def test_options():
    """A class of the caller's choice, and a Hub id that is not in the cache."""
    base = transformers_class("qwen2_vl.modeling_qwen2_vl.Qwen2VLModel")
    model = load_language_model(full_model("qwen2_vl").directory, model_class=base, dtype="bfloat16")
    assert isinstance(model, base)
    assert not hasattr(model, "lm_head")
    assert model.dtype == torch.bfloat16
    with pytest.raises(OSError, match="cached files"):
        load_language_model("ORG/NAME", local_files_only=True)


def test_a_model_of_text(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
    config = transformers.Qwen2Config(
        **sizes, num_attention_heads=2, num_key_value_heads=1, bos_token_id=1, eos_token_id=1
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="Qwen2ForCausalLM has no module named 'visual'"):
        load_language_model(tmp_path)


def test_whole_models_load_at_the_same_time():
    """Nothing of transformers is exchanged: a whole model that another thread loads meanwhile has its tower."""
    full, found = full_model("qwen2_vl"), []
    kind = type(full.model)
    threads = [threading.Thread(target=lambda: found.append(kind.from_pretrained(full.directory))) for _ in range(3)]
    for thread in threads:
        thread.start()
        load_language_model(full.directory)
    for thread in threads:
        thread.join()
    assert [len(model.state_dict()) for model in found] == [len(full.model.state_dict())] * 3


MEMORY = """
import re, sys
import torch, transformers
transformers.logging.disable_progress_bar()
from qwenvis.adapters.transformers import load_language_model

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

small, large, dtype = sys.argv[1:]
load_language_model(small, dtype=dtype)  # imports, and threads
before = peak()
model = load_language_model(large, dtype=dtype)
print(peak() - before, sum(each.numel() * each.element_size() for each in model.parameters()))
"""


def grown(tmp_path, layers, dtype):
    """Peak RSS of the load of a bfloat16 model whose tower has half of the bytes, and the bytes of its parameters."""
    full, places = full_model("qwen2_vl"), [tmp_path / "small", tmp_path / "large"]
    for place, depth in zip(places, (1, layers), strict=True):
        config = full.model.config.to_dict()
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": depth, "layer_types": None}
        config["text_config"] |= sizes
        config["vision_config"] |= {"embed_dim": 1024, "hidden_size": 1024, "depth": depth}
        config = type(full.model.config)(**config)
        with no_init_weights():
            model = type(full.model)._from_config(config, dtype=torch.bfloat16)
        for parameter in model.parameters():
            parameter.data.fill_(0.5)
        model.save_pretrained(place, max_shard_size="300MB")
    return map(int, output(MEMORY, *places, dtype, timeout=250).split())


@pytest.mark.parametrize(
    ("layers", "dtype"),
    [
        (8, "float32"),
        *(pytest.param(40, dtype, marks=pytest.mark.slow) for dtype in ("bfloat16", "float32", "float16")),
    ],
)
def test_memory(layers, dtype, tmp_path):
    """The tower is never in memory, and no tensor is there twice; a small model has 10 MB more for its threads."""
    growth, stay = grown(tmp_path, layers, dtype)
    assert growth <= 1.05 * stay + (0 if layers > 8 else 10e6)
