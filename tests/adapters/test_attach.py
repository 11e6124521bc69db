"""`attach` in every family: the tokens, the logits and the words of the untouched model."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

from oracle.families import KINDS
from oracle.full_families import FULL_FAMILIES
from oracle.pixel_inputs import cases, pixel_inputs
from oracle.tolerance import ROUNDED, TOWER, relative_error
from oracle.transformers_models import full_model
from qwenvis.adapters.transformers import attach

WORDS = 32
MATRIX = [(family, name) for family in FULL_FAMILIES for name in cases(family)]


@functools.cache
def attached(family):
    """A copy of the tiny model of a family, attached."""
    return attach(copy.deepcopy(full_model(family).model))


@functools.cache
def given(family, name):
    return pixel_inputs(family, **cases(family)[name])


def logits(model, arguments):
    with torch.no_grad():
        return model(**arguments).logits.float().numpy()


def words(model, arguments, **how):
    return model.generate(**arguments, max_new_tokens=WORDS, do_sample=False, **how).tolist()


def features(model, family, name):
    """What get_image_features or get_video_features returns."""
    arguments = given(family, name)
    with torch.no_grad():
        if "video_grid_thw" in arguments:
            return model.get_video_features(arguments["pixel_values_videos"], arguments["video_grid_thw"])
        return model.get_image_features(arguments["pixel_values"], arguments["image_grid_thw"])


@pytest.mark.parametrize(("family", "name"), [each for each in MATRIX if each[1] in ("images", "video")])
def test_features(family, name):
    """One tensor for each item, of the same dtype, and the levels of deepstack."""
    want, got = (features(model, family, name) for model in (full_model(family).model, attached(family)))
    assert type(got) is type(want)
    for one, other in zip(want.pooler_output, got.pooler_output, strict=True):
        assert other.dtype == one.dtype
        assert relative_error(other, one) <= TOWER
    levels = getattr(want, "deepstack_features", None) or []
    assert len(getattr(got, "deepstack_features", None) or []) == len(levels)
    for ours, theirs in zip(getattr(got, "deepstack_features", None) or [], levels, strict=True):
        assert relative_error(torch.cat(list(ours)), torch.cat(list(theirs))) <= TOWER


def _moved(module, arguments, output):
    """Move what a tower returns by the error that a float32 tower may have."""
    generator = torch.Generator().manual_seed(0)
    for tensor in [output.last_hidden_state, output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]:
        if tensor is not None:
            tensor += TOWER * tensor.abs().max() * (2 * torch.rand(tensor.shape, generator=generator) - 1)


@pytest.mark.parametrize(("family", "name"), MATRIX)
def test_logits(family, name):
    """They differ by less than if the tokens had the error of a float32 tower; without images, not at all."""
    model, arguments = full_model(family).model, given(family, name)
    want, got = logits(model, arguments), logits(attached(family), arguments)
    hook = model.base_model.visual.register_forward_hook(_moved)
    moved = logits(model, arguments)
    hook.remove()
    assert np.abs(got - want).max() <= np.abs(moved - want).max()
    assert np.abs(moved - want).max() <= 0.1 * np.abs(want).max()  # else the bound says nothing


@pytest.mark.parametrize("family", KINDS)
def test_greedy_words(family):
    arguments = given(family, "batch")
    assert words(attached(family), arguments) == words(full_model(family).model, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), MATRIX)
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_words(family, name, how):
    arguments = given(family, name)
    assert words(attached(family), arguments, **how) == words(full_model(family).model, arguments, **how)


def test_beams():
    """Beam search repeats what the tower returned."""
    arguments = given("qwen3_vl", "both")
    want = words(full_model("qwen3_vl").model, arguments, num_beams=3)
    assert words(attached("qwen3_vl"), arguments, num_beams=3) == want


@pytest.mark.parametrize("family", KINDS)
def test_bfloat16(family):
    """The tokens are bfloat16, and as near to those of the float32 model as transformers' own."""
    exact = torch.cat(features(full_model(family).model, family, "images").pooler_output)
    model = copy.deepcopy(full_model(family).model).bfloat16()
    tokens = torch.cat(features(attach(model), family, "images").pooler_output)
    assert tokens.dtype == torch.bfloat16
    assert relative_error(tokens.float(), exact) <= ROUNDED
    assert np.isfinite(logits(model, given(family, "images"))).all()


def test_the_tower_is_that_of_the_encoder(monkeypatch):
    """The layers of transformers do not run."""
    model = attached("qwen2_vl")
    block = model.model.visual.blocks[0]
    monkeypatch.setattr(block, "forward", lambda *arguments, **options: pytest.fail("the tower of transformers ran"))
    logits(model, given("qwen2_vl", "image"))
