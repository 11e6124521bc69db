"""vLLM answers to tokens of qwenvis as to pixels: in prompts, in messages, and from the files of its encoder cache."""

import pytest

from engines.vllm.answers import SCENARIOS, WAYS, answers, difference
from engines.vllm.models import FAMILIES


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_to_pixels(family, scenario, way):
    """Log-probabilities may differ by as much as they do between tokens that float32 towers may compute."""
    found = answers(family)
    want, got = found["pixels", scenario], found[way, scenario]
    assert got.prompt == want.prompt
    assert got.tokens == want.tokens
    assert difference(got, want) <= difference(found["moved", scenario], want) < 1e-3
