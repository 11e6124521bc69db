"""Prompts as llama.cpp takes them, piece by piece: ids of text, and the tokens of one picture or video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from adapters.transformers.pixel_path import Scenario, encoded, encoder, text
from oracle.full_families import FULL_FAMILIES, PLACEHOLDERS
from oracle.transformers_models import full_model
from qwenvis import Embeddings
from qwenvis.adapters.llama_cpp import NUMBERINGS, Batch, batch, steps
from qwenvis.adapters.modalities import items_of
from qwenvis.adapters.transformers import inputs


def arguments(family: str, scenario: Scenario) -> Any:
    """Return the arguments of transformers' model for the first prompt of a scenario."""
    full = full_model(family)
    return inputs(text(full, scenario), encoded(family, scenario), full.processor, full.model)


def pieces(family: str, scenario: Scenario) -> Iterator[np.ndarray | Embeddings]:
    """Yield the pieces of a prompt in order: ids of text as int32, and an item where its placeholders stand."""
    given, out = arguments(family, scenario), encoded(family, scenario)
    queues = {kind: iter(_items(family, out, numbers)) for kind, numbers in items_of(out).items()}
    for kind, run in itertools.groupby(_kinds(family, given), lambda pair: pair[0]):
        yield np.array([number for _, number in run], np.int32) if kind == "text" else next(queues[kind])
    assert not any(list(queue) for queue in queues.values())


def _kinds(family: str, given: Any) -> list[tuple[str, int]]:
    """Return each id of a prompt, after the kind of its place. Frames in GLM models have the placeholder of images."""
    ids = given["input_ids"][0].tolist()
    if "mm_token_type_ids" in given:
        names = [("text", "image", "video")[kind] for kind in given["mm_token_type_ids"][0].tolist()]
    else:
        tokenizer, words = full_model(family).processor.tokenizer, PLACEHOLDERS[FULL_FAMILIES[family].prompts]
        placeholders = {tokenizer.convert_tokens_to_ids(each[1]): kind for kind, each in words.items()}
        names = [placeholders.get(number, "text") for number in ids]
    return list(zip(names, ids, strict=True))


def _items(family: str, out: Embeddings, numbers: list[int]) -> Embeddings:
    """Return some items, each temporal step on its own in the families that write the times as text."""
    return steps(out[numbers]) if NUMBERINGS[family].time == "text" else out[numbers]


def batch_of(family: str, item: Embeddings, start: int) -> Batch:
    """Return the batch of an item, with the rate of the model and the width of its language model."""
    config = full_model(family).model.config
    rate = getattr(config, "position_id_per_seconds", getattr(config.vision_config, "tokens_per_second", None))
    width = encoder(family).config.out_hidden_size * (1 + len(item.deepstack))
    return batch(item, start, width=width, tokens_per_second=rate)
