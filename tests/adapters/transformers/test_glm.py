"""The GLM models, which write the frames of a video with the placeholder of images: right where pixels are not."""

from unittest import mock

import pytest
import torch

from adapters.transformers.pixel_path import SCENARIOS, logits, pixel_inputs, tolerance
from adapters.transformers.test_inputs import GLM, arguments
from oracle.transformers_models import full_model

OLDER = sorted(GLM - {"glm5_next"})  # which put the tokens of videos into the placeholders of images, too
FAMILIES = [pytest.param(family, marks=() if family == "glm4v" else pytest.mark.slow) for family in OLDER]


def split_by_type(types):
    """Return a `get_placeholder_mask` that tells images and videos apart, as GLM-5's does."""

    def masks(input_ids, inputs_embeds, image_features=None, video_features=None):
        return (types == 1).unsqueeze(-1), (types == 2).unsqueeze(-1)

    return masks


@pytest.mark.parametrize("family", FAMILIES)
def test_image_and_video_together(family):
    """With pixels, transformers refuses them; so its masks are corrected here, for pixels only."""
    name = "an image and a video"
    model, found = full_model(family).model, arguments(family, name)
    got, bound = logits(model, found), tolerance(model, found)
    masks = split_by_type(found["mm_token_type_ids"])
    with mock.patch.object(type(model.model), "get_placeholder_mask", side_effect=masks):
        want = logits(model, pixel_inputs(family, SCENARIOS[name], found))
    assert (got - want).abs().max() <= bound


def score(model, arguments, sequence):
    """Return the mean log probability of the tokens that follow a prompt, from one forward pass with pixels."""
    length = arguments["input_ids"].shape[1]
    ones = torch.ones(1, len(sequence) - length, dtype=torch.long)
    whole = {
        **arguments,
        "input_ids": sequence[None],
        "attention_mask": torch.cat([arguments["attention_mask"], ones], dim=1),
        "mm_token_type_ids": torch.cat([arguments["mm_token_type_ids"], 0 * ones], dim=1),
    }
    steps = logits(model, whole)[length - 1 : -1].log_softmax(dim=-1)
    return float(steps.gather(1, sequence[length:, None]).mean())


@pytest.mark.parametrize("name", ["images of different sizes", "a video"])
@pytest.mark.parametrize("family", FAMILIES)
def test_beam_search_scores_its_tokens_as_a_forward_pass_does(family, name):
    """With pixels, beam search mixes up the images of a prompt, and fails for videos."""
    model, found = full_model(family).model, arguments(family, name)
    best = model.generate(
        **found,
        max_new_tokens=8,
        do_sample=False,
        num_beams=3,
        output_scores=True,
        return_dict_in_generate=True,
    )
    want = score(model, pixel_inputs(family, SCENARIOS[name], found), best.sequences[0])
    assert abs(float(best.sequences_scores[0]) - want) <= 2 * tolerance(model, found)  # a logit and their logsumexp
