"""Unsupported checkpoints are refused by name: quantised towers, unknown fields, unsupported relatives."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from made.checkpoints import CONFIG, PATCH, load_all, open_directory, raw_file, tower, write_json, write_single
from made.presets import checkpoint as preset_of
from oracle import families
from qwenvis import models
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models.strict_config import INERT
from qwenvis.models.unsupported import UNSUPPORTED
from qwenvis.spec import ModelSpec

FC1 = "blocks.0.mlp.fc1"
I4, F16, F32, U8 = (np.ones((2, 2), dtype) for dtype in (np.int32, np.float16, np.float32, np.uint8))
QUANTISED = {
    "AWQ": ({f"{FC1}.qweight": I4, f"{FC1}.qzeros": I4, f"{FC1}.scales": F16}, "I32"),
    "GPTQ": ({f"{FC1}.qweight": I4, f"{FC1}.qzeros": I4, f"{FC1}.scales": F16, f"{FC1}.g_idx": I4}, "I32"),
    "NVFP4": ({f"{FC1}.weight": U8, f"{FC1}.weight_scale": F32, f"{FC1}.weight_scale_2": F32}, "U8"),
    "bitsandbytes": ({f"{FC1}.weight": U8, f"{FC1}.weight.absmax": F32}, "U8"),
    "compressed-tensors": ({f"{FC1}.weight_packed": I4, f"{FC1}.weight_scale": F16}, "I32"),
    "MLX": ({f"{FC1}.weight": U8.astype(np.uint32), f"{FC1}.scales": F16, f"{FC1}.biases": F16}, "U32"),
    "HQQ": ({f"{FC1}.W_q": U8}, "U8"),
}


@pytest.mark.parametrize("library", QUANTISED)
@pytest.mark.parametrize("prefix", ["visual.", "vision_tower."])
def test_p08_quantised_towers_are_refused_in_words(tmp_path, library, prefix):
    tensors, word = QUANTISED[library]
    source = write_single(tmp_path, tower() | tensors, prefix)
    message = rf"stored as .*{word}.*; a quantised tower \({library}, by its tensor names\) cannot be used.*{FC1}"
    with pytest.raises(CheckpointError, match=message):
        open_directory(source)


@pytest.mark.parametrize(
    ("quantisation", "said"),
    [
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt, NVFP4"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "compressed-tensors, float-quantized"),
    ],
)
def test_p08_the_config_names_the_method(tmp_path, quantisation, said):
    config = CONFIG | {"quantization_config": quantisation}
    source = write_single(tmp_path, tower() | {f"{FC1}.qweight": I4}, config=config)
    with pytest.raises(CheckpointError, match=rf"a quantised tower \(quant_method: {said}\) cannot be used"):
        open_directory(source)


@pytest.mark.parametrize("word", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", None])
def test_p08_float8_is_refused_in_words(tmp_path, word, scale):
    write_single(tmp_path, tower())
    header = {f"visual.{PATCH}": {"dtype": word, "shape": [2], "data_offsets": [0, 2]}}
    if scale:
        header[f"visual.patch_embed.proj.{scale}"] = {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}
    raw_file(tmp_path / "model.safetensors", header, b"x" * (6 if scale else 2))
    with pytest.raises(CheckpointError, match=rf"stored as .*{word}; .* a quantised tower \(.*\) cannot be used"):
        open_directory(tmp_path)


@pytest.mark.parametrize("stem", ["patch_embed.proj", "vision_model.embeddings.patch_embedding"])
def test_p08_a_patch_embedding_that_is_packed(tmp_path, stem):
    tensors = {f"visual.{name}": array for name, array in tower().items() if name != PATCH}
    source = write_single(tmp_path, tensors | {f"visual.{stem}.qweight": I4}, prefix="")
    with pytest.raises(CheckpointError, match=r"a quantised tower \(AWQ, by its tensor names\) cannot be used"):
        open_directory(source)


@pytest.mark.parametrize(("dtype", "word"), [(np.int32, "I32"), (np.uint8, "U8")])
def test_p08_integers_without_a_name_for_it(tmp_path, dtype, word):
    source = write_single(tmp_path, tower() | {f"{FC1}.weight": np.ones((2, 2), dtype)})
    with pytest.raises(CheckpointError, match=rf"stored as {word}; .*a quantised tower \(quant_method: none named\)"):
        open_directory(source)


def test_p08_float64_is_not_called_quantised(tmp_path):
    source = write_single(tmp_path, tower() | {f"{FC1}.weight": np.ones((2, 2))})
    with pytest.raises(CheckpointError, match=rf"stored as F64; expected F32, F16, BF16: {FC1}\.weight$"):
        open_directory(source)


@pytest.mark.parametrize("library", QUANTISED)
def test_a_quantised_language_model_is_no_matter(tmp_path, library):
    """AWQ and GPTQ leave the tower alone, as their configs say."""
    language = {f"model.layers.0.{name}": array for name, array in QUANTISED[library][0].items()}
    arrays = {f"visual.{name}": array for name, array in tower().items()} | language
    config = CONFIG | {"quantization_config": {"quant_method": library, "modules_to_not_convert": ["visual"]}}
    assert load_all(open_directory(write_single(tmp_path, arrays, "", config))).keys() == tower().keys()


@pytest.fixture
def copied(tmp_path):
    """A checkpoint to spoil."""
    return Path(shutil.copytree(preset_of("qwen2_vl"), tmp_path / "copy"))


def edit(directory, **changes):
    config = json.loads((directory / "config.json").read_text())
    config["vision_config"] |= changes
    write_json(directory, "config.json", config)
    return directory


@pytest.mark.parametrize(
    "field",
    [
        {"window_size": 112},
        {"fullatt_block_indexes": [7, 15]},
        {"deepstack_visual_indexes": [5, 11]},
        {"use_head_wise_attn": True},
        {"qk_norm": "rms"},
        {"qkv_bias": False},
        {"layer_scale_init_value": 0.1},
        {"vision_feature_layer": 0},
    ],
    ids=str,
)
def test_unknown_fields_are_refused_by_name(copied, field):
    name, value = next(iter(field.items()))
    with pytest.raises(ConfigError, match=r"vision_config says .*this tower does not know") as caught:
        ModelSpec.open(edit(copied, **field))
    assert f"{name} = {value!r}" in str(caught.value)


@pytest.mark.parametrize(
    "field", [{"deepstack_visual_indexes": []}, {"window_size": None}, {"anything": {}}, {"_private": 3}, {"note": ""}]
)
def test_empty_fields_say_nothing(copied, field):
    assert ModelSpec.open(edit(copied, **field)).family == "qwen2_vl"


def test_fields_that_change_nothing(copied):
    """What transformers 4 wrote into the config of a tower, and dead keys of the published ones."""
    assert ModelSpec.open(edit(copied, **dict.fromkeys(INERT - {"model_type"}, 1))).config.depth == 4


def test_configs_of_transformers_say_nothing_unknown(copied):
    transformers = pytest.importorskip("transformers")
    for family in models.FAMILIES:
        config = transformers.AutoConfig.for_model(families.module_of(family))
        holder = getattr(config, "thinker_config", config)
        vision = json.loads(holder.vision_config.to_json_string(use_diff=False))
        models.build(family, vision, {})


def test_unknown_rope_is_refused_by_name(copied):
    rope = {"rope_type": "axial", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(ConfigError, match="rope with partial_rotary_factor; this tower supports axial rope only"):
        ModelSpec.open(edit(copied, rope_parameters=rope))


def test_names_of_unknown_fields_cannot_paint_the_terminal(copied):
    with pytest.raises(ConfigError) as caught:
        ModelSpec.open(edit(copied, **{"\x1b[31mred\n": "\x1b[0m"}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("model_type", UNSUPPORTED)
@pytest.mark.parametrize("ending", ["", "_vision", "_vision_model"])
def test_near_relatives_are_told_apart(model_type, ending):
    assert model_type not in models.FAMILIES
    with pytest.raises(ConfigError) as caught:
        models.detect(model_type, {"model_type": model_type + ending}, {})
    assert f"is not supported by this version ({UNSUPPORTED[model_type]}), which supports qwen2_vl" in str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "vision_type", "patch_embedding"),
    [
        ("kimi_vl", "moonvit", "vision_tower.patch_embed.proj.weight"),
        ("dots_ocr", "dots_vit", "vision_tower.patch_embed.patchifier.proj.weight"),
        ("videollama3_qwen2", "videollama3_vision_encoder", "model.vision_encoder.embeddings.patch_embedding.weight"),
        ("qwen", None, "transformer.visual.conv1.weight"),
        ("qwen2_audio", None, "audio_tower.conv1.weight"),
    ],
)
def test_near_relatives_as_they_are_found(tmp_path, model_type, vision_type, patch_embedding):
    """Told by either name, before anybody misses a tensor."""
    config = {"model_type": model_type} | ({"vision_config": {"model_type": vision_type}} if vision_type else {})
    source = write_single(tmp_path, {patch_embedding: np.ones((4, 3, 2, 2, 2), np.float32)}, "", config)
    with pytest.raises(
        ConfigError, match=rf"^model_type '{model_type}' is not supported by this version \(\w.*\), which"
    ):
        ModelSpec.open(source)


def test_strangers_are_merely_unknown():
    with pytest.raises(
        ConfigError, match="model_type 'llava' is not supported by this version, which supports qwen2_vl, "
    ):
        models.detect("llava", {}, {})


def test_bfloat16_is_no_quantisation(tmp_path):
    arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in tower().items()}
    assert {t.dtype for t in open_directory(write_single(tmp_path, arrays)).tensors.values()} == {"BF16"}
