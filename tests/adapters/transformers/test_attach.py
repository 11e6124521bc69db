"""`adapters.transformers.attach` in every family: features, logits and words of the untouched model."""

import copy
import functools

import pytest
import torch

from adapters.transformers.pixel_path import SCENARIOS, encoded, logits, pixel_inputs, text, tolerance
from oracle.families import KINDS
from oracle.full_families import FULL_FAMILIES
from oracle.tolerance import ROUNDED, TOWER, relative_error
from oracle.transformers_models import full_model
from qwenvis.adapters.transformers import attach, inputs

MIXED = "an image and a video"
APART = ("glm4v", "glm46v", "glm4v_moe", "glm_ocr")  # the models take pixels of images and videos in different calls


def scenarios(family):
    """The scenarios whose pixels a family takes."""
    films = bool(FULL_FAMILIES[family].video_processor)
    return [name for name, each in SCENARIOS.items() if (films or not each.videos) and (family, name) not in NONE]


NONE = {(family, MIXED) for family in APART}
MATRIX = [(family, name) for family in FULL_FAMILIES for name in scenarios(family)]
ITEMS = [(family, name) for family, name in MATRIX if name in ("images of different sizes", "a video")]


@functools.cache
def attached(family):
    """A copy of the tiny model of a family, attached."""
    return attach(copy.deepcopy(full_model(family).model))


@functools.cache
def tokens(family, name):
    """The arguments of the model with tokens, from which those with pixels and their tolerance are made."""
    full, scenario = full_model(family), SCENARIOS[name]
    return inputs(text(full, scenario), encoded(family, scenario), full.processor, full.model)


@functools.cache
def pixels(family, name):
    return pixel_inputs(family, SCENARIOS[name], tokens(family, name))


def words(model, arguments, **how):
    return model.generate(**arguments, max_new_tokens=32, do_sample=False, **how).tolist()


def features(model, family, name):
    """What get_image_features or get_video_features returns."""
    given = pixels(family, name)
    with torch.no_grad():
        if "pixel_values" in given:
            return model.get_image_features(given["pixel_values"], given["image_grid_thw"])
        return model.get_video_features(given["pixel_values_videos"], given["video_grid_thw"])


@pytest.mark.parametrize(("family", "name"), ITEMS)
def test_features(family, name):
    """The class, the tensors and the levels are those of transformers; values are within float32 error."""
    want, got = (features(model, family, name) for model in (full_model(family).model, attached(family)))
    assert type(got) is type(want)
    levels, expected = ([each.pooler_output, *(each.get("deepstack_features") or [])] for each in (got, want))
    for ours, theirs in zip(levels, expected, strict=True):
        assert [each.shape for each in ours] == [each.shape for each in theirs]
        assert ours[0].dtype == torch.float32
        assert relative_error(torch.cat(list(ours)), torch.cat(list(theirs))) <= TOWER


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(*each, marks=() if each[0] in KINDS or each[1] == MIXED else pytest.mark.slow) for each in MATRIX],
)
def test_logits(family, name):
    model = full_model(family).model
    got, want = (logits(each, pixels(family, name)) for each in (attached(family), model))
    assert (got - want).abs().max() <= tolerance(model, tokens(family, name))


@pytest.mark.parametrize("family", KINDS)
def test_greedy_words(family):
    given = pixels(family, "two prompts")
    assert words(attached(family), given) == words(full_model(family).model, given)


def test_words_of_beam_search():
    given = pixels("qwen3_vl", MIXED)
    assert words(attached("qwen3_vl"), given, num_beams=3) == words(full_model("qwen3_vl").model, given, num_beams=3)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), MATRIX)
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_words(family, name, how):
    if how and family.startswith("glm") and SCENARIOS[name].videos:
        pytest.skip("the beam search of the GLM models takes no pixels of videos")
    given = pixels(family, name)
    assert words(attached(family), given, **how) == words(full_model(family).model, given, **how)


@pytest.mark.parametrize("family", KINDS)
def test_bfloat16(family):
    """Features are bfloat16, and those of a model that became bfloat16 after attach are the same bits."""
    name = "images of different sizes"
    exact = torch.cat(features(full_model(family).model, family, name).pooler_output)
    before = attach(copy.deepcopy(full_model(family).model).bfloat16())
    after = attach(copy.deepcopy(full_model(family).model)).bfloat16()
    got, same = (torch.cat(features(model, family, name).pooler_output) for model in (before, after))
    assert got.dtype == torch.bfloat16
    assert relative_error(got.float(), exact) <= ROUNDED
    assert torch.equal(got, same)
    assert logits(before, pixels(family, name)).isfinite().all()


def test_the_tower_of_transformers_does_not_run(monkeypatch):
    model = attached("qwen2_vl")
    block = type(model.model.visual.blocks[0])
    monkeypatch.setattr(block, "forward", lambda *_, **__: pytest.fail("it ran"))
    logits(model, pixels("qwen2_vl", "one image"))
