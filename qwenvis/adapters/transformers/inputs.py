"""The arguments of a transformers model: a prompt, and the tokens of its images and videos."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature

from qwenvis.adapters.modalities import items_of
from qwenvis.adapters.transformers.outputs import TowerOutput, tower_output
from qwenvis.adapters.transformers.prompt import Prompt
from qwenvis.adapters.transformers.receiver import Receiver
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError

OUTPUTS = "mm_encoder_outputs"
SECONDS = {"second_per_grid_ts", "video_second_per_grid"}  # the names that models have for one argument


class Inputs(BatchFeature):
    """The arguments of ``generate`` and ``forward``, by name.

    Beam search changes the ``mm_encoder_outputs`` that it gets. Therefore every look-up, and so every
    ``generate(**inputs)``, gets a new one.
    """

    def __getitem__(self, item: str) -> Any:
        """Return an argument."""
        value = super().__getitem__(item)
        return {name: copy.copy(output) for name, output in value.items()} if item == OUTPUTS else value

    def __getattr__(self, item: str) -> Any:
        """Return an argument, as an attribute."""
        value = super().__getattr__(item)  # raises AttributeError
        return self[item] if item == OUTPUTS else value


def inputs(text: str | Sequence[str], out: Embeddings | None, processor: object, model: object) -> Inputs:
    """Return everything that ``model.generate(**inputs)`` needs for a prompt with encoded images and videos.

    - ``text``: a prompt, or a list of prompts, which are padded on the left; as ``apply_chat_template(messages,
      tokenize=False)`` returns them, with one placeholder for each item.
    - ``out``: the result of `Encoder.encode`: its images fill the placeholders of images in order, from the first
      prompt to the last, and its videos those of videos. A still among the videos is an image. None for text only.
    - ``processor``: the model's processor, whose image and video processors are not called; or its tokenizer, from
      which the processor is made, without torchvision.
    - ``model``: a model of transformers with a ``generate``, with or without its tower's weights; of an Omni model, its
      ``thinker``.

    The result has tensors on the device of the model: ``input_ids`` and ``attention_mask`` (prompts, length) int64;
    ``mm_token_type_ids`` of this shape, if the model reads them; ``image_grid_thw`` and ``video_grid_thw`` (items, 3)
    int64; the seconds from one temporal step of a video to the next (videos,) float32, if the model reads them; and
    ``mm_encoder_outputs`` in the model's dtype. With the same dtype on a CPU, it shares the memory of ``out``.

    Raises InputError unless placeholders and items are equally many; unless the family, the merge size, the levels of
    deepstack and the width of the tokens are those of the model; unless all values are finite, in the model's dtype
    too; and for another kind of processor or model. Raises ConfigError for a model of a family that is not supported.
    """
    receiver = Receiver.of(model)
    if out is None or not len(out):
        return _arguments(Prompt(text, {}, processor, receiver), receiver)
    receiver.check(out)
    numbers = items_of(out)
    items = {name: out[chosen] for name, chosen in numbers.items()}
    prompt = Prompt(text, items, processor, receiver)
    found = _arguments(prompt, receiver)
    if "video" in items:
        seconds = torch.tensor(items["video"].second_per_grid_ts.tolist(), device=receiver.model.device)
        found.update(dict.fromkeys(SECONDS & receiver.parameters, seconds))
    together = "video" in items and receiver.takes_frames_as_images(found["input_ids"])
    placed = _placed(prompt.order, numbers, {"image": "image", "video": "image" if together else "video"})
    _check_ids(found["input_ids"], placed, out, receiver)
    found[OUTPUTS] = {name: _tower_output(out, prompts, receiver) for name, prompts in placed.items()}
    return found


def outputs(out: Embeddings, model: object) -> dict[str, TowerOutput]:
    """Return ``mm_encoder_outputs`` for callers who make ``input_ids`` and grids themselves.

    The result has "image" and "video", as far as ``out`` has items of either, with one tensor for each item, in the
    model's dtype and on its device. Beam search changes the result: call ``outputs`` for each ``generate``. `inputs`
    does all of this, and what comes before.

    Raises InputError and ConfigError as `inputs`.
    """
    receiver = Receiver.of(model)
    receiver.check(out)
    return {
        name: tower_output(out[numbers], out.counts[numbers].tolist(), receiver)
        for name, numbers in items_of(out).items()
    }


def _arguments(prompt: Prompt, receiver: Receiver) -> Inputs:
    """Return what the processor writes and the model reads, on the device of the model."""
    expanded = prompt.expand(token_types="mm_token_type_ids" in receiver.parameters)
    read = {name: value for name, value in expanded.items() if name in receiver.parameters}
    found = Inputs(read, tensor_type="pt")
    found.to(receiver.model.device)
    return found


def _placed(
    order: Sequence[Sequence[str]], numbers: Mapping[str, Sequence[int]], key: Mapping[str, str]
) -> dict[str, list[list[int]]]:
    """Return the items of each prompt in the order of their placeholders, under the key that the model takes them."""
    supply = {name: iter(each) for name, each in numbers.items()}
    prompts = [[(key[name], next(supply[name])) for name in names] for names in order]
    keys = dict.fromkeys(key[name] for name in numbers)
    return {taken: [[item for name, item in prompt if name == taken] for prompt in prompts] for taken in keys}


def _tower_output(out: Embeddings, prompts: Sequence[Sequence[int]], receiver: Receiver) -> TowerOutput:
    """Return the tokens of these items, in one tensor for each prompt that has any.

    Every beam search of transformers repeats such tensors in the right order; that of the GLM models puts the tensors
    of single items of one prompt in a wrong one.
    """
    lengths = [int(out.counts[items].sum()) for items in prompts if items]
    return tower_output(out[[item for items in prompts for item in items]], lengths, receiver)


def _check_ids(
    ids: torch.Tensor, placed: Mapping[str, Sequence[Sequence[int]]], out: Embeddings, receiver: Receiver
) -> None:
    """Raise InputError unless each prompt has as many ids of placeholders, as the model counts them, as tokens."""
    config = receiver.model.config
    placeholders = [getattr(config, f"{name}_token_id", None) for name in ("image", "video")]
    found = sum((ids == number).sum(dim=1) for number in placeholders if number is not None).tolist()
    expected = [
        sum(int(out.counts[item]) for items in parts for item in items) for parts in zip(*placed.values(), strict=True)
    ]
    if found != expected:
        raise InputError(
            f"the processor wrote {found} placeholders into the prompts, which have {expected} tokens: "
            "is this the processor of another model?"
        )
