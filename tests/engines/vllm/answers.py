"""What a model in vLLM answers to prompts with images and videos, handed to it in each way."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from vllm import LLM, RequestOutput, SamplingParams

from engines.vllm.models import encoder, engine, reading, tiny_model
from oracle.tolerance import TOWER
from qwenvis import Embeddings
from qwenvis.adapters.vllm import offline, parts, request, write_cache

TOKENS = 16  # that are generated
FPS = 3.0  # of which no model's default is a multiple
FRAMES = 6
IMAGES, VIDEOS = np.array([[9, 10], [11, 8]]), np.array([[8, 9], [9, 8]])  # heights and widths in tokens

Prompt: TypeAlias = tuple[tuple[str, int], ...]

# In a prompt, an image or a video by its number, or text.
SCENARIOS: dict[str, Prompt] = {
    "two images": (("a ", -1), ("image", 0), (" and ", -1), ("image", 1), (" then?", -1)),
    "a video": (("watch: ", -1), ("video", 0), (" what?", -1)),
    "both": (("video", 0), (" against ", -1), ("image", 0), (" and ", -1), ("video", 1)),
    "twice": (("image", 1), (" is ", -1), ("image", 1), ("?", -1)),
}
PIXELS = ("image", "video")
WAYS = ("offline", "parts", "request")


class Answer(NamedTuple):
    """The ids of a prompt that vLLM has expanded, the tokens of a greedy search, and their log-probabilities."""

    prompt: list[int]
    tokens: list[int]
    scores: list[float]


class Items(NamedTuple):
    """The pixels of a prompt's images and videos, in the order of the prompt, and their tokens."""

    images: list[np.ndarray]
    videos: list[np.ndarray]
    out: Embeddings


def items(family: str, prompt: Prompt) -> Items:
    """Make noise in sizes that the family does not resize, and encode it."""
    found = encoder(family)
    unit = found.config.patch_size * found.config.spatial_merge_size
    images = [pixels(n, size) for kind, n in prompt if kind == "image" for size in [IMAGES[n] * unit]]
    videos = [pixels(n, (FRAMES, *(VIDEOS[n] * unit))) for kind, n in prompt if kind == "video"]
    return Items(images, videos, found.encode(images, videos=videos, video_fps=FPS if videos else None))


def pixels(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Return noise."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def text(family: str, prompt: Prompt) -> str:
    """Return a prompt as the chat template writes a message of the user."""
    content = [{"type": kind} if kind in PIXELS else {"type": "text", "text": kind} for kind, _ in prompt]
    messages = [{"role": "user", "content": content}]
    return tiny_model(family).processor.tokenizer.apply_chat_template(messages, tokenize=False)


def message(prompt: Prompt, content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a prompt as messages of the chat API, with these parts in the places of images and videos."""
    supply = {name: iter([each for each in content if each["type"] == f"{name}_embeds"]) for name in PIXELS}
    chosen = [next(supply[kind]) if kind in supply else {"type": "text", "text": kind} for kind, _ in prompt]
    return [{"role": "user", "content": chosen}]


def pixel_data(family: str, found: Items) -> dict[str, Any]:
    """Return the pixels for vLLM's own tower: the frames that were encoded, and their times."""
    data: dict[str, Any] = {"image": [*found.images]} if found.images else {}
    if found.videos:
        indices = found.out.frame_indices[len(found.images) :]
        times = [{"fps": FPS, "total_num_frames": FRAMES, "frames_indices": each.tolist()} for each in indices]
        frames = [video[each] for video, each in zip(found.videos, indices, strict=True)]
        facts = [{**each, "do_sample_frames": False, "duration": FRAMES / FPS} for each in times]
        plain = family == "qwen2_vl"  # whose parser takes no facts about a video
        data["video"] = frames if plain else list(zip(frames, facts, strict=True))
    return {"multi_modal_data": data}


def moved(out: Embeddings) -> dict[str, Any]:
    """Return what `offline` does, each token moved by as much as float32 towers may differ, and without keys."""
    data = offline(out)["multi_modal_data"]
    generator = torch.Generator().manual_seed(0)
    for name, fields in data.items():
        tokens = fields[f"{name}_embeds"]
        tokens += TOWER * tokens.abs().max() * (2 * torch.rand(tokens.shape, generator=generator) - 1)
    return {"multi_modal_data": data}


@functools.cache
def answers(family: str) -> dict[tuple[str, str], Answer]:
    """Return the answers of one engine to all prompts: to pixels, to moved tokens, and to tokens in each way."""
    prompts = {name: (prompt, items(family, prompt)) for name, prompt in SCENARIOS.items()}
    found = {}
    with tempfile.TemporaryDirectory() as place, engine(tiny_model(family).directory, **options(place)) as llm:
        for name, (prompt, given) in prompts.items():
            words = {"prompt": text(family, prompt)}
            found["pixels", name] = generated(llm, {**words, **pixel_data(family, given)})
            found["moved", name] = generated(llm, {**words, **moved(given.out)})
            found["offline", name] = generated(llm, {**words, **offline(given.out)})
            found["parts", name] = chatted(llm, message(prompt, parts(given.out)))
            write_cache(given.out, place)
            found["request", name] = chatted(llm, message(prompt, request(given.out)))
    return found


def options(place: str) -> dict[str, Any]:
    """Return the options of an engine that reads a directory, and keeps nothing of one request for the next."""
    return {"ec_transfer_config": reading(Path(place)), "enable_prefix_caching": False, "mm_processor_cache_gb": 0}


def generated(llm: LLM, prompt: dict[str, Any]) -> Answer:
    """Return the answer to a prompt."""
    return answer(llm.generate(prompt, greedy(), use_tqdm=False))


def chatted(llm: LLM, messages: list[dict[str, Any]]) -> Answer:
    """Return the answer to messages."""
    return answer(llm.chat(messages, greedy(), use_tqdm=False))


def greedy() -> SamplingParams:
    """Return the parameters of a greedy search."""
    return SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=1, ignore_eos=True)


def answer(outputs: Sequence[RequestOutput]) -> Answer:
    """Return what was generated."""
    (output,) = outputs
    (best,) = output.outputs
    scores = [each[token].logprob for each, token in zip(best.logprobs, best.token_ids, strict=True)]
    return Answer(list(output.prompt_token_ids), list(best.token_ids), scores)


def difference(one: Answer, other: Answer) -> float:
    """Return the largest difference of two answers' log-probabilities."""
    return max(abs(a - b) for a, b in zip(one.scores, other.scores, strict=True))
