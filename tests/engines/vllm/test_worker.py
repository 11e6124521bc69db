"""A server of vLLM answers to images that an encode worker has encoded as to their pixels.

The part of the proxy is played by the test: it asks the worker for the items of a message, and puts in their places
what the worker reports (disagg_epd_proxy.py of vLLM's examples, with rewriting, its default).
"""

import base64
import hashlib

import pytest

from engines.vllm.answers import SCENARIOS, answers, difference, items, message
from engines.vllm.models import FAMILIES, server, tiny_model
from engines.vllm.test_online import asked
from made.images import png
from processes.served import served

IMAGES = [name for name, prompt in SCENARIOS.items() if not any(kind == "video" for kind, _ in prompt)]


def encoded(worker, images):
    """Return the parts that the proxy sends to the engine."""
    urls = ["data:image/png;base64," + base64.b64encode(png(image)).decode() for image in images]
    names = [hashlib.sha256(url.encode()).hexdigest() for url in urls]
    content = [
        {"type": "image_url", "image_url": {"url": url}, "uuid": name} for url, name in zip(urls, names, strict=True)
    ]
    reply = worker.ask_json({"messages": [{"role": "user", "content": content}]}, "/v1/chat/completions")
    assert reply.status == 200, reply.body
    found = {}
    for name, reported in reply.json["ec_transfer_params"].items():
        part = {"type": "image_embeds", "image_embeds": reported["metadata"], "uuid": name}
        found |= dict.fromkeys(reported["item_indices"], part)
    return [found[number] for number in range(len(images))]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_through_a_worker(family, tmp_path):
    expected, place = answers(family), tiny_model(family).directory
    with served("--threads", 1, "--vllm-cache", tmp_path, model=place) as worker, server(place, tmp_path) as address:
        for name in IMAGES:
            prompt = SCENARIOS[name]
            content = encoded(worker, items(family, prompt).images)
            want, moved = expected["pixels", name], expected["moved", name]
            got = asked(address, message(prompt, content))
            assert (got.prompt, got.tokens) == (want.prompt, want.tokens), name
            assert difference(got, want) <= difference(moved, want)
