"""The path through pixels, with which the hand-over of tokens is compared: prompts, arguments, logits."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import qwenvis
from oracle.tolerance import TOWER
from oracle.transformers_models import FullModel, full_model

FPS = 3.0  # of which no model's default is a multiple


class Scenario(NamedTuple):
    """Prompts, in which {image} and {video} stand for what a chat template writes, and the number of items in them."""

    prompts: tuple[str, ...]
    images: int = 0
    videos: int = 0


SCENARIOS = {
    "one image": Scenario(("look: {image} what?",), images=1),
    "images of different sizes": Scenario(("{image}, {image} and {image}",), images=3),
    "a video": Scenario(("watch: {video} what?",), videos=1),
    "an image and a video": Scenario(("{video} against {image}",), images=1, videos=1),
    "text only": Scenario(("hello",)),
    "two prompts": Scenario(("{image} and {image}", "a longer prompt with {image}!"), images=3),
}
# 6, 12 and 4 tokens or more at 28 pixels to a token, in no order of size.
SIZES = [(84, 112), (168, 84), (84, 84)]


def images(count: int) -> list[np.ndarray]:
    """Return images of noise in different sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES[:count]]


def videos(count: int) -> list[np.ndarray]:
    """Return videos of noise, 6 frames each."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (6, 112, 140, 3), np.uint8) for _ in range(count)]


@functools.cache
def encoder(family: str) -> qwenvis.Encoder:
    """Load the tower of the family's full model."""
    return qwenvis.Encoder.from_pretrained(full_model(family).directory, threads=1)


def text(full: FullModel, scenario: Scenario) -> list[str]:
    """Return the prompts in the words of a family."""
    return [prompt.format(image=full.image, video=full.video) for prompt in scenario.prompts]


@functools.cache
def encoded(family: str, scenario: Scenario) -> qwenvis.Embeddings | None:
    """Return the tokens of a scenario's items."""
    if not scenario.images + scenario.videos:
        return None
    rate = {"video_fps": FPS} if scenario.videos else {}
    return encoder(family).encode(images(scenario.images), videos=videos(scenario.videos), **rate)


def pixel_inputs(family: str, scenario: Scenario, found: Any) -> dict[str, Any]:
    """Return the arguments of the model with pixels.

    For images they are the processor's. A video processor would need torchvision: for videos, ids and grids are those
    of ``found``, which `test_processors.py` compares with the real ones.
    """
    full = full_model(family)
    if not scenario.videos:
        pictures = [Image.fromarray(image) for image in images(scenario.images)] or None
        padding = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # GLM's processors turn tensors into arrays
            return dict(full.processor(images=pictures, text=text(full, scenario), **padding))
    pixels = {name: value for name, value in found.items() if name != "mm_encoder_outputs"}
    if scenario.images:
        patches = encoder(family).preprocess(images(scenario.images)).pixel_values
        pixels["pixel_values"] = torch.from_numpy(patches)
    patches = encoder(family).preprocess(videos=videos(scenario.videos), video_fps=FPS).pixel_values
    return {**pixels, "pixel_values_videos": torch.from_numpy(patches)}


def logits(model: Any, arguments: Any) -> torch.Tensor:
    """Return the logits of all tokens that are not padding, (tokens, vocabulary)."""
    with torch.no_grad():
        found = model(**arguments).logits
    return found[arguments["attention_mask"].bool()]


def tolerance(model: Any, arguments: Any) -> float:
    """Return how far logits move when every token and deepstack feature moves by as much as float32 towers may differ.

    `tolerance.TOWER` bounds the difference of the tokens, relative to the largest; the language model multiplies it by
    a factor that depends on the weights, and is measured. At equal tokens, as without images, logits must be equal.
    """
    if "mm_encoder_outputs" not in arguments:
        return 0.0
    generator = torch.Generator().manual_seed(0)

    def moved(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        largest = max(tensor.abs().max() for tensor in tensors)
        return [each + TOWER * largest * (2 * torch.rand(each.shape, generator=generator) - 1) for each in tensors]

    other = dict(arguments)
    for output in other["mm_encoder_outputs"].values():
        output.pooler_output = moved(output.pooler_output)
        output.deepstack_features = [moved(level) for level in output.deepstack_features or []] or None
    return float((logits(model, other) - logits(model, arguments)).abs().max())
