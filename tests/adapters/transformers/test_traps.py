"""The traps of handing tokens to transformers: what goes wrong in silence without `inputs`, and does not with it."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from adapters.transformers.pixel_path import SCENARIOS, encoded, encoder, images, logits, text, tolerance
from adapters.transformers.test_inputs import arguments
from oracle.transformers_models import full_model
from qwenvis import InputError
from qwenvis.adapters.transformers import inputs, outputs

SEEN = 100  # times the tolerance of logits: what is wrong with the inputs moves logits further


def distance(family, name, changed):
    """Return how far logits move, in tolerances, from those of the arguments of `inputs` to changed ones."""
    model, found = full_model(family).model, arguments(family, name)
    given = changed(dict(found))
    return float((logits(model, given) - logits(model, found)).abs().max()) / tolerance(model, found)


@pytest.mark.parametrize(
    ("family", "name", "argument"),
    [
        ("qwen2_5_vl", "images of different sizes", "image_grid_thw"),
        ("qwen2_5_vl", "images of different sizes", "mm_token_type_ids"),
        ("qwen2_5_vl", "a video", "second_per_grid_ts"),
        ("qwen2_vl", "a video", "video_grid_thw"),
    ],
)
def test_arguments_that_transformers_does_not_miss(family, name, argument):
    def without(given):
        return {key: value for key, value in given.items() if key != argument}

    assert distance(family, name, without) > SEEN


def test_embeddings_in_place_of_ids():
    """Neither positions nor deepstack reach the language model; `inputs` never makes ``inputs_embeds``."""

    def embedded(given):
        model = full_model("qwen3_vl").model
        ids, output = given.pop("input_ids"), given.pop("mm_encoder_outputs")["image"]
        embeds = model.get_input_embeddings()(ids)
        embeds[ids == model.config.image_token_id] = torch.cat(output.pooler_output)
        return {**given, "inputs_embeds": embeds}

    assert distance("qwen3_vl", "images of different sizes", embedded) > SEEN
    assert "inputs_embeds" not in arguments("qwen3_vl", "images of different sizes")


def test_swapped_images():
    """Images of one size cannot be told apart by counts: they go in the order of ``out``, which ``sources`` names."""
    full = full_model("qwen2_vl")
    out = encoder("qwen2_vl").encode([*images(1), images(1)[0][::-1].copy()])
    prompt = f"{full.image}{full.image}?"
    found, swapped = (inputs(prompt, each, full.processor, full.model) for each in (out, out[[1, 0]]))
    assert (out.sources, out[[1, 0]].sources) == (["image 0", "image 1"], ["image 1", "image 0"])
    moved = (logits(full.model, found) - logits(full.model, swapped)).abs().max()
    assert moved > SEEN * tolerance(full.model, found)
    rows = torch.cat(swapped["mm_encoder_outputs"]["image"].pooler_output)
    assert torch.equal(rows, torch.from_numpy(np.concatenate([out[1].embeddings, out[0].embeddings])))


def test_halved_widths():
    """The models of transformers count elements only: (2 n, W / 2) passes for (n, W)."""

    def halved(given):
        for output in given["mm_encoder_outputs"].values():
            output.pooler_output = [rows.reshape(-1, rows.shape[1] // 2) for rows in output.pooler_output]
        return given

    assert distance("qwen2_vl", "one image", halved) == 0
    full, out = full_model("qwen2_vl"), encoded("qwen2_vl", SCENARIOS["one image"])
    narrow = replace(out, embeddings=out.embeddings.reshape(2 * len(out.embeddings), -1))
    with pytest.raises(InputError, match="24 tokens do not fit the grid, which has 12"):
        outputs(narrow, full.model)
    with pytest.raises(InputError, match="48 wide; expected 96"):
        outputs(replace(narrow, grid_thw=out.grid_thw * [1, 2, 1]), full.model)


def test_deepstack_is_handed_over():
    def without(given):
        output = given["mm_encoder_outputs"]["image"]
        output.deepstack_features = [[0 * rows for rows in level] for level in output.deepstack_features]
        return given

    assert distance("qwen3_vl", "images of different sizes", without) > SEEN


def test_beam_search_changes_what_it_gets():
    """So `inputs` gives each search a new object; that of `outputs` serves one search."""
    full, scenario = full_model("qwen2_vl"), SCENARIOS["one image"]
    found = arguments("qwen2_vl", "one image")
    given = {**found, "mm_encoder_outputs": outputs(encoded("qwen2_vl", scenario), full.model)}
    search = {"max_new_tokens": 2, "num_beams": 3, "do_sample": False}
    want = full.model.generate(**given, **search)
    assert len(given["mm_encoder_outputs"]["image"].pooler_output) == 3
    assert torch.equal(full.model.generate(**found, **search), want)
    assert len(found["mm_encoder_outputs"]["image"].pooler_output) == 1


def test_every_look_up_gives_outputs_of_its_own():
    found = arguments("qwen2_vl", "one image")
    for each in (found, copy.deepcopy(found), pickle.loads(pickle.dumps(found)), found.to("cpu")):
        for look_up in (lambda each=each: each["mm_encoder_outputs"], lambda each=each: each.mm_encoder_outputs):
            look_up()["image"].pooler_output = []
            assert len(look_up()["image"].pooler_output) == 1


def test_prompts_are_padded_where_generate_does_not_continue():
    full, scenario = full_model("qwen2_vl"), SCENARIOS["two prompts"]
    processor = copy.copy(full.processor)
    processor.tokenizer = copy.deepcopy(full.processor.tokenizer)
    processor.tokenizer.padding_side = "right"
    found = inputs(text(full, scenario), encoded("qwen2_vl", scenario), processor, full.model)
    assert found["attention_mask"][:, -1].tolist() == [1, 1]
    assert found["attention_mask"][:, 0].tolist() == [1, 0]


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_prompts_that_are_read_in_chunks(family):
    """The tokens are cut where transformers cuts the prompt, here in the midst of images."""
    model, found = full_model(family).model, arguments(family, "images of different sizes")
    generate = partial(model.generate, max_new_tokens=8, do_sample=False)
    assert torch.equal(generate(**found, prefill_chunk_size=7), generate(**found))
