"""`adapters.transformers.inputs`: the logits and tokens of the path through pixels, in every family."""

import copy
from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

from adapters.transformers.pixel_path import SCENARIOS, encoded, logits, pixel_inputs, text, tolerance
from oracle.full_families import FULL_FAMILIES
from oracle.tolerance import relative_rms
from oracle.transformers_models import full_model
from qwenvis import InputError
from qwenvis.adapters.transformers import inputs

FULLY = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v"]
GLM = {"glm4v", "glm46v", "glm4v_moe", "glm_ocr", "glm5_next"}


def cases(default):
    """Every family and scenario that has a path through pixels, all but ``default`` marked as slow.

    PaddleOCR-VL has no videos; the GLM models before GLM-5 take no images beside videos (`test_glm.py`).
    """
    none = {("paddleocr_vl", name) for name, scenario in SCENARIOS.items() if scenario.videos}
    none |= {(family, "an image and a video") for family in GLM - {"glm5_next"}}
    return [
        pytest.param(family, name, marks=() if default(family, name) else pytest.mark.slow)
        for family in FULL_FAMILIES
        for name in SCENARIOS
        if (family, name) not in none
    ]


def arguments(family, name, model=None):
    full = full_model(family)
    return inputs(text(full, SCENARIOS[name]), encoded(family, SCENARIOS[name]), full.processor, model or full.model)


@pytest.mark.parametrize(
    ("family", "name"), cases(lambda family, name: family in FULLY or name == "images of different sizes")
)
def test_logits_and_greedy_tokens(family, name):
    model, found = full_model(family).model, arguments(family, name)
    pixels = pixel_inputs(family, SCENARIOS[name], found)
    assert torch.equal(found["input_ids"], pixels["input_ids"])
    got, want = logits(model, found), logits(model, pixels)
    assert (got - want).abs().max() <= tolerance(model, found)
    assert torch.equal(*(model.generate(**each, max_new_tokens=32, do_sample=False) for each in (found, pixels)))


def right_with_pixels(family, name):
    """Whether transformers searches beams correctly with pixels: with GLM models, for one image (`test_glm.py`)."""
    return family not in GLM or name in ("one image", "text only")


@pytest.mark.parametrize(
    ("family", "name"),
    [
        case
        for case in cases(lambda family, name: family in FULLY[:3] and name in ("an image and a video", "two prompts"))
        if right_with_pixels(*case.values)
    ],
)
def test_tokens_of_beam_search(family, name):
    model, found = full_model(family).model, arguments(family, name)
    search = partial(model.generate, max_new_tokens=32, do_sample=False, num_beams=3)
    want = search(**pixel_inputs(family, SCENARIOS[name], found))
    for _ in range(2):  # the second search gets tokens that the first has not changed
        assert torch.equal(search(**found), want)


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in FULLY else pytest.mark.slow) for family in FULL_FAMILIES]
)
def test_bfloat16_model_is_nearer_to_float32_than_with_pixels(family):
    name = "images of different sizes"
    full = full_model(family)
    narrow = copy.deepcopy(full.model).bfloat16()
    found = arguments(family, name, narrow)
    for output in found["mm_encoder_outputs"].values():
        assert all(tensor.dtype == torch.bfloat16 for tensor in output.pooler_output)
    pixels = pixel_inputs(family, SCENARIOS[name], found)
    want = logits(full.model, pixels)
    ours, theirs = (relative_rms(logits(narrow, each).float(), want) for each in (found, pixels))
    assert ours <= theirs  # the language model rounds in both; the tower only with pixels
    assert narrow.generate(**found, max_new_tokens=4, do_sample=False).shape[1] == found["input_ids"].shape[1] + 4


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("family", FULL_FAMILIES)
def test_tokenizer_in_place_of_the_processor(family, stored):
    """A stored tokenizer names its processor; else the model does, unless transformers has no processor for it."""
    full, name = full_model(family), "one image" if family == "paddleocr_vl" else "an image and a video"
    tokenizer = AutoTokenizer.from_pretrained(full.directory) if stored else full.processor.tokenizer
    assert ("processor_class" in tokenizer.init_kwargs) == stored
    give = partial(inputs, text(full, SCENARIOS[name]), encoded(family, SCENARIOS[name]))
    if family == "glm_ocr" and not stored:
        with pytest.raises(InputError, match="names no processor for the tokenizer of a GlmOcrFor"):
            give(tokenizer, full.model)
        return
    found, want = give(tokenizer, full.model), arguments(family, name)
    assert found.keys() == want.keys()
    assert all(torch.equal(found[key], want[key]) for key in found if key != "mm_encoder_outputs")
