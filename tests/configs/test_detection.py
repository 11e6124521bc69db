"""The family of a tower: named by its config, told by its tensors, and refused where the two disagree."""

import json

import pytest

from oracle import transformers_towers
from qwenvis import Encoder, models
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models import FAMILIES


@pytest.mark.parametrize(
    ("model_type", "vision_type", "family"),
    [
        ("qwen2_vl", None, "qwen2_vl"),
        ("qwen2_vl", "qwen2_vl", "qwen2_vl"),
        ("qwen2_vl_vision", "qwen2_vl_vision", "qwen2_vl"),
        ("colqwen2", "qwen2_vl", "qwen2_vl"),
        ("qwen2_5_vl", None, "qwen2_5_vl"),
        ("qwen2_5_vl_vision", None, "qwen2_5_vl"),
        ("qwen2_5_omni_thinker", "qwen2_5_omni_vision_encoder", "qwen2_5_omni"),
        ("qwen3_omni_moe_thinker", None, "qwen3_omni_moe"),
        ("qwen3_vl_moe", "qwen3_vl", "qwen3_vl_moe"),
        ("qwen3_5", "qwen3_5_vision", "qwen3_5"),
        ("glm46v", "glm4v_vision", "glm46v"),
        ("glm5_next", "glm_ocr_vision", "glm5_next"),
        ("colqwen3", "qwen3_vl_vision", "qwen3_vl"),
        ("cosmos3_omni", "qwen3_vl", "qwen3_vl"),
        ("qwen2_vl", "qwen3_vl", "qwen2_vl"),
    ],
)
def test_family_that_the_config_names(model_type, vision_type, family):
    assert models.detect(model_type, {"model_type": vision_type}, {}) == family


def test_tensors_decide_between_two_families_that_a_config_names():
    shapes = dict.fromkeys(FAMILIES["qwen3_vl"].signature_tensors, (1,))
    assert models.detect("qwen2_vl", {"model_type": "qwen3_vl"}, shapes) == "qwen3_vl"
    assert models.detect("qwen3_vl", {"model_type": "qwen2_vl"}, shapes) == "qwen3_vl"


@pytest.mark.parametrize("model_type", ["", "llava", "qwen9_vl", "qwen2_5_omni_audio_encoder", "qwen2"])
def test_unknown_model_type(model_type):
    with pytest.raises(ConfigError, match=rf"model_type '{model_type or 'missing'}'.*qwen2_vl, qwen2_5_vl"):
        models.detect(model_type, {}, {})


@pytest.mark.parametrize("family", list(FAMILIES))
def test_tensors_of_another_family(tmp_path, family):
    kin = [name for name in FAMILIES if FAMILIES[name].signature_tensors == FAMILIES[family].signature_tensors]
    other = "glm_ocr" if "qwen2_vl" in kin else "qwen2_vl"
    transformers_towers.save(tmp_path, family, transformers_towers.make(family)[0])
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": other}
    config["vision_config"]["model_type"] = other
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config says {other}, .* tensors are those of {kin[0]}$"):
        Encoder.from_pretrained(tmp_path)
