"""A server of vLLM answers to tokens in the chat API, and to those in its encoder cache, as an engine to pixels."""

import json
import urllib.request

import pytest

from engines.vllm.answers import SCENARIOS, TOKENS, Answer, answers, difference, items, message
from engines.vllm.models import FAMILIES, server, tiny_model
from qwenvis.adapters.vllm import parts, request, write_cache


def asked(address, messages):
    """Return the answer of the server, whose words are the ids of tokens."""
    asking = {
        "messages": messages,
        "temperature": 0,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "logprobs": True,
        "return_token_ids": True,
    }
    sent = urllib.request.Request(address, json.dumps(asking).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(sent, timeout=120) as answer:
        found = json.load(answer)
    (choice,) = found["choices"]
    scores = [each["logprob"] for each in choice["logprobs"]["content"]]
    return Answer(found["prompt_token_ids"], choice["token_ids"], scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_a_server(family, tmp_path):
    prompts = {name: (prompt, items(family, prompt)) for name, prompt in SCENARIOS.items()}
    expected = answers(family)
    with server(tiny_model(family).directory, tmp_path) as address:
        for name, (prompt, given) in prompts.items():
            write_cache(given.out, tmp_path)
            want, moved = expected["pixels", name], expected["moved", name]
            for content in (request(given.out), parts(given.out)):
                got = asked(address, message(prompt, content))
                assert (got.prompt, got.tokens) == (want.prompt, want.tokens), name
                assert difference(got, want) <= difference(moved, want)
